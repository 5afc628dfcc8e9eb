// Label selectors: what Kubernetes accepts, what it refuses, and which labels match.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Problems, Section } from './section.ts';
import {
  describeSelector,
  type Labels,
  matches,
  operators,
  parseSelector,
  type Requirement,
  readSelector,
  unmet,
} from './selector.ts';

function read(written: Record<string, unknown>) {
  const problems = new Problems();
  return { selector: readSelector(new Section(written, 'pods', problems)), problems: problems.lines };
}

const expression = (key: string, operator: string, values?: unknown) => ({
  matchExpressions: [{ key, operator, ...(values !== undefined && { values }) }],
});

describe('a selector is read', () => {
  it('from labels and expressions, all of which must be met', () => {
    const { selector, problems } = read({
      matchLabels: { app: 'db', 'example.org/tier': '' },
      matchExpressions: [
        { key: 'zone', operator: 'In', values: ['a', 'b'] },
        { key: 'zone', operator: 'NotIn', values: ['c'] },
        { key: 'kept', operator: 'Exists' },
        { key: 'old', operator: 'DoesNotExist', values: [] },
      ],
    });
    expect(problems).toEqual([]);
    expect(describeSelector(selector)).toBe('app=db,example.org/tier=,zone in (a,b),zone!=c,kept,!old');
    expect(matches(selector, { app: 'db', 'example.org/tier': '', zone: 'b', kept: '' })).toBe(true);
    expect(describeSelector(unmet(selector, { app: 'db', zone: 'c', old: '1' }))).toBe(
      'example.org/tier=,zone in (a,b),zone!=c,kept,!old',
    );
  });

  it.each([{}, { matchLabels: {} }, { matchExpressions: [] }, { matchLabels: null, matchExpressions: null }])(
    '%j matches everything',
    written => {
      const { selector, problems } = read(written);
      expect(problems).toEqual([]);
      expect(matches(selector, {})).toBe(true);
      expect(matches(selector, { app: 'db' })).toBe(true);
    },
  );

  it.each([
    [{ matchlabels: { a: 'b' } }, 'pods.matchlabels'],
    [{ app: 'db' }, 'pods.app'],
    [{ matchLabels: [] }, 'pods.matchLabels'],
    [{ matchLabels: { a: 5 } }, 'pods.matchLabels.a 5'],
    [{ matchLabels: { a: null } }, 'pods.matchLabels.a: is missing: must be a label value'],
    [{ matchLabels: { a: 'x y' } }, 'pods.matchLabels.a "x y"'],
    [{ matchLabels: { a: '-x' } }, 'pods.matchLabels.a'],
    [{ matchLabels: { a: 'x'.repeat(64) } }, 'pods.matchLabels.a'],
    [{ matchLabels: { a: 'x\n' } }, 'pods.matchLabels.a'],
    [{ matchLabels: { '': 'x' } }, 'label key'],
    [{ matchLabels: { 'a/b/c': 'x' } }, 'label key'],
    [{ matchLabels: { 'Example.org/b': 'x' } }, 'label key'],
    [{ matchLabels: { '/b': 'x' } }, 'label key'],
    [{ matchLabels: { [`${'a'.repeat(254)}/b`]: 'x' } }, 'label key'],
    [{ matchLabels: { ['a'.repeat(64)]: 'x' } }, 'label key'],
    [{ matchExpressions: {} }, 'pods.matchExpressions'],
    [{ matchExpressions: ['x'] }, 'pods.matchExpressions[0] "x": must be an object'],
    [{ matchExpressions: [{}] }, 'pods.matchExpressions[0].key: is missing'],
    [{ matchExpressions: [{ key: 'a' }] }, 'pods.matchExpressions[0].operator: is missing'],
    [{ matchExpressions: [{ key: 'a', operator: 'Exists', value: 'x' }] }, 'pods.matchExpressions[0].value'],
    [expression('a', 'in', ['x']), 'pods.matchExpressions[0].operator "in": must be one of In'],
    [expression('a b', 'Exists'), 'pods.matchExpressions[0].key'],
    [expression('a', 'In'), 'operator In needs at least one'],
    [expression('a', 'NotIn', []), 'operator NotIn needs at least one'],
    [expression('a', 'Exists', ['x']), 'operator Exists takes none'],
    [expression('a', 'DoesNotExist', ['x']), 'operator DoesNotExist takes none'],
    [expression('a', 'In', ['x y']), 'pods.matchExpressions[0].values'],
    [expression('a', 'In', [5]), 'pods.matchExpressions[0].values'],
    [expression('a', 'In', 'x'), 'pods.matchExpressions[0].values "x": must be a list'],
  ])('%j is refused', (written, part) => {
    expect(read(written).problems.join('; ')).toContain(part);
  });

  it.each(['a', 'A1', 'a.b-c_d', 'x'.repeat(63), 'example.org/a', `${'a'.repeat(63)}.org/${'b'.repeat(63)}`])(
    'key %s is as good as any',
    key => expect(read({ matchLabels: { [key]: 'x' } }).problems).toEqual([]),
  );
});

describe('for any labels', () => {
  const key = fc.constantFrom('a', 'b', 'example.org/c', 'constructor', 'toString');
  const value = fc.constantFrom('', 'x', 'y', 'z');
  const labels = fc.dictionary(key, value);
  const values = fc.uniqueArray(value, { minLength: 1 });
  const one = (requirement: Requirement, on: Labels) => matches([requirement], on);

  it('In and NotIn, Exists and DoesNotExist are opposites; a label that is absent is none of the values', () => {
    fc.assert(
      fc.property(labels, key, values, (on, name, some) => {
        const meets = (operator: Requirement['operator'], list: readonly string[] = []) =>
          one({ key: name, operator, values: list }, on);
        const isThere = Object.keys(on).includes(name);
        expect(meets('Exists')).toBe(isThere);
        expect(meets('DoesNotExist')).toBe(!isThere);
        expect(meets('In', some)).toBe(isThere && some.some(text => text === on[name]));
        expect(meets('NotIn', some)).toBe(!meets('In', some));
      }),
    );
  });

  it('every requirement counts, in any order', () => {
    const requirement = fc.record({ key, operator: fc.constantFrom(...operators), values });
    fc.assert(
      fc.property(labels, fc.array(requirement), (on, selector) => {
        const all = selector.every(part => one(part, on));
        expect(matches(selector, on)).toBe(all);
        expect(matches(selector.toReversed(), on)).toBe(all);
        expect(unmet(selector, on)).toEqual(selector.filter(part => !one(part, on)));
      }),
    );
  });

  it('matchLabels of some of an object’s own labels match it, and no object that lacks one', () => {
    fc.assert(
      fc.property(labels, key, (on, name) => {
        const { selector } = read({ matchLabels: on });
        expect(matches(selector, on)).toBe(true);
        const { [name]: _, ...rest } = on;
        expect(matches(selector, rest)).toBe(!Object.hasOwn(on, name));
      }),
    );
  });
});

describe('parseSelector', () => {
  it('reads back what describeSelector writes', () => {
    const key = fc.constantFrom('a', 'example.org/zone', 'in', 'notin');
    const values = fc.uniqueArray(fc.constantFrom('', 'x', 'y-1', 'in'), { minLength: 1 });
    const requirement = fc.oneof(
      fc.record({ key, operator: fc.constantFrom('In' as const, 'NotIn' as const), values }),
      fc.record({
        key,
        operator: fc.constantFrom('Exists' as const, 'DoesNotExist' as const),
        values: fc.constant([]),
      }),
    );
    fc.assert(
      fc.property(fc.array(requirement), selector => {
        expect(parseSelector(describeSelector(selector))).toEqual(selector);
      }),
    );
  });

  it.each([
    ['', []],
    ['edge==yes', [{ key: 'edge', operator: 'In', values: ['yes'] }]],
    [
      ' edge = yes , !old ',
      [
        { key: 'edge', operator: 'In', values: ['yes'] },
        { key: 'old', operator: 'DoesNotExist', values: [] },
      ],
    ],
    ['zone != a', [{ key: 'zone', operator: 'NotIn', values: ['a'] }]],
    ['zone notin ( a , b )', [{ key: 'zone', operator: 'NotIn', values: ['a', 'b'] }]],
  ])('reads %j', (text, selector) => expect(parseSelector(text)).toEqual(selector));

  it.each([',', 'a,', '=x', '!a=x', '!a in (x)', 'a in x', 'a in (x', 'a (x)', 'a=b=c', 'a=b c', 'a b', '-a', 'a=-'])(
    'refuses %j',
    text => expect(parseSelector(text)).toBeUndefined(),
  );
});
