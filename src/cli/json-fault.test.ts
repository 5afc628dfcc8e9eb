// The place where JSON breaks, against Node's own judgement of whether it does.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { findFault } from './json-fault.ts';

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

describe('findFault', () => {
  it('finds none in JSON, whatever its layout', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.nat(4), (value, indent) => {
        expect(findFault(JSON.stringify(value, null, indent))).toBeUndefined();
      }),
    );
  });

  it('agrees with JSON.parse on every text that differs from JSON by a few characters', () => {
    const piece = fc.constantFrom(
      ...'{}[],:"\\ \n\t\r0-1e+.\'#/atu\u0001'.split(''),
      'true',
      'null',
      '\ufeff',
      '\\u12',
    );
    fc.assert(
      fc.property(fc.jsonValue(), fc.array(fc.tuple(fc.nat(), fc.nat(3), piece), { maxLength: 4 }), (value, edits) => {
        let text = JSON.stringify(value);
        for (const [at, gone, put] of edits) {
          const place = at % (text.length + 1);
          text = text.slice(0, place) + put + text.slice(place + gone);
        }
        expect(findFault(text) === undefined, JSON.stringify(text)).toBe(isJson(text));
      }),
      { numRuns: 3000 },
    );
  });

  it.each([
    ['{"a": 1\n "b": 2}', 1, 8, 'a comma is missing after this value'],
    ['{"a": 1,\n}', 1, 8, 'a comma too many before "}"'],
    ['[1, 2', 1, 6, 'the text ends, but "[" of line 1 is not closed'],
    ['{"a" 1}', 1, 5, 'a colon is missing after this name'],
    ['{a: 1}', 1, 2, 'a name in double quotes must stand here'],
    ["{'a': 1}", 1, 2, 'names stand in double quotes'],
    ['{"a": "x\n"}', 1, 7, 'the quote that begins here is not closed on its line'],
    ['{\n  // why\n  "a": 1}', 2, 3, 'JSON has no comments'],
    ['{"a": 01}', 1, 7, 'a value must stand here'],
    ['{} x', 1, 4, 'something follows after the end of the configuration'],
    ['', 1, 1, 'the text ends where a configuration must stand'],
    ['\ufeff{}', 1, 1, 'a byte order mark stands here: save the file as UTF-8 without one'],
  ])('%j: line %i, column %i: %s', (text, line, column, what) => {
    expect(findFault(text)).toMatchObject({ line, column, what });
  });

  it('ends for nesting that is too deep, as JSON.parse is not asked to', () => {
    expect(findFault('['.repeat(100_000))).toMatchObject({ what: 'the nesting is too deep' });
  });
});
