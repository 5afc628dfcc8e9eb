// Reading an object key by key: every problem is collected, null is absent, and no secret is shown.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Problems, Section, sectionOf, show } from './section.ts';

function sectionFor(object: Record<string, unknown>) {
  const problems = new Problems();
  return { section: new Section(object, 'ipam', problems), problems };
}

describe('Section', () => {
  it('null and undefined are absent, for every reader', () => {
    const { section, problems } = sectionFor({ a: null, b: undefined });
    for (const key of ['a', 'b', 'c']) {
      expect(section.has(key)).toBe(false);
      expect(section.get(key)).toBeUndefined();
      expect(section.text(key)).toBeUndefined();
      expect(section.list(key)).toEqual([]);
      expect(section.section(key)).toBeUndefined();
      expect(section.parsed(key, () => undefined, 'never asked')).toBeUndefined();
    }
    expect(problems.lines).toEqual([]);
  });

  it('unknown keys are told where only known ones may be', () => {
    const { section, problems } = sectionFor({ a: 1, b: null, c: { d: 1 }, e: 'x' });
    expect(section.keys()).toEqual(['a', 'b', 'c', 'e']);
    section.knowsOnly(['a', 'c']);
    expect(section.required('a', value => value, 'must be')).toBe(1);
    expect(section.required('b', value => value, 'must be')).toBeUndefined();
    expect(problems.lines).toEqual([
      'ipam.b: is unknown here: the keys are a, c',
      'ipam.e "x": is unknown here: the keys are a, c',
      'ipam.b: is missing: must be',
    ]);
  });

  it('what an object inherits is not configured', () => {
    const { section } = sectionFor(JSON.parse('{"__proto__": {"subnet": "10.0.0.0/8"}}'));
    expect(section.has('subnet')).toBe(false);
    expect(section.has('constructor')).toBe(false);
    expect(section.has('toString')).toBe(false);
  });

  it('every problem has a line with key, value and rule', () => {
    const { section, problems } = sectionFor({ a: 5, list: {}, object: [], lists: [[{}], 'x', []] });
    section.text('a');
    section.list('list');
    section.section('object');
    section.sectionLists('lists');
    section.wrong('absent', 'is missing');
    expect(problems.lines).toEqual([
      'ipam.a 5: must be a string',
      'ipam.list {}: must be a list',
      'ipam.object []: must be an object',
      'ipam.lists[1] "x": must be a list of at least one range',
      'ipam.lists[2] []: must be a list of at least one range',
      'ipam.absent: is missing',
    ]);
  });

  it('an item of a list knows its place', () => {
    const { section, problems } = sectionFor({ routes: [{}, 7], ranges: [[{}, null]] });
    expect(section.sectionList('routes').map(({ path }) => path)).toEqual(['ipam.routes[0]']);
    expect(section.sectionLists('ranges').map(set => set.map(({ path }) => path))).toEqual([['ipam.ranges[0][0]']]);
    expect(problems.lines).toHaveLength(2);
    expect(sectionOf('x', 'ipam', problems)).toBeUndefined();
  });
});

describe('show', () => {
  it.each([
    'http://root:pw-4711@10.0.0.1:2379',
    'root:pw-4711@10.0.0.1:2379',
    'https://root:pw-4711/with@signs,and@commas@10.0.0.1:2379,https://10.0.0.2:2379',
    'http://a:2379,http://root:pw-4711@b:2379',
    '"quoted"root:pw-4711@host',
  ])('hides the user information of %s', url => {
    for (const value of [url, [url], { etcdURL: url }]) expect(show(value)).not.toMatch(/4711|with|commas/);
  });

  it('hides what stands under a key for passwords, in a problem too', () => {
    expect(show([{ etcdPassword: 'pw-4711', user: 'root' }])).toBe('[{"etcdPassword":"(not shown)","user":"root"}]');
    const { section, problems } = sectionFor({ etcdPasswordFile: 'pw-4711' });
    section.wrong('etcdPasswordFile', 'must be an absolute path');
    expect(problems.lines).toEqual(['ipam.etcdPasswordFile (not shown): must be an absolute path']);
  });

  it('never throws and never becomes long', () => {
    const deep = JSON.parse('['.repeat(100_000) + ']'.repeat(100_000));
    expect(show(deep).length).toBeLessThan(200);
    fc.assert(
      fc.property(fc.anything(), value => {
        expect(show(value).length).toBeLessThanOrEqual(120);
      }),
    );
  });
});
