// Many processes at once, on both stores: distinct addresses, a quick word when there are none left, one set for one pod.
import { rmSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { onEachStore } from '../helpers/each-store.ts';
import { confOf, type Json } from '../helpers/plugin.ts';
import { type Ended, run } from '../helpers/plugin-process.ts';

const numbered = (count: number) => Array.from({ length: count }, (_, n) => `pod-${n}`);

onEachStore(here => {
  const conf = (ipam: Json, more: Json = {}) => confOf(here.site, { timeout: 60, ...ipam }, more);
  const addAll = (count: number, of: Json, prefix = '') =>
    Promise.all(numbered(count).map(id => run('ADD', { conf: of, containerID: prefix + id })));
  const expectDistinct = (answers: readonly Ended[]) => {
    expect(answers.flatMap(({ error }) => error?.msg ?? [])).toEqual([]);
    expect(answers.map(({ stderr }) => stderr).join('')).toBe('');
    const addresses = answers.flatMap(answer => answer.addresses);
    expect(new Set(addresses).size).toBe(answers.length);
  };
  const owners = async () => (await here.site.remains()).filter(key => key.includes('/addresses/'));

  it('100 ADDs at once on a /24: 100 addresses, in the first laps of the ring', async () => {
    const of = conf({ subnet: '10.1.0.0/24' });
    expectDistinct(await addAll(100, of));
    expect(await owners()).toHaveLength(100);
    const gone = await Promise.all(numbered(100).map(id => run('DEL', { conf: of, containerID: id })));
    expect(gone.flatMap(({ error }) => error?.msg ?? [])).toEqual([]);
    expect(await here.site.remains()).toEqual([]);
  });

  it('100 ADDs at once on exactly 100 free addresses; one more is told so at once', async () => {
    const of = conf({ subnet: '10.1.0.0/24', rangeStart: '10.1.0.100', rangeEnd: '10.1.0.199' });
    expectDistinct(await addAll(100, of));
    const more = await run('ADD', { conf: of, containerID: 'one-more' });
    expect(more.error?.code).toBe(100);
    expect(more.error?.msg).toMatch(/10\.1\.0\.100-10\.1\.0\.199\): all 100 addresses are taken: 100 by pods/);
    // "Told within a second", with three times its value as slack.
    expect(more.ms).toBeLessThan(3000);
    expect(await owners()).toHaveLength(100);
  });

  it('60 for 30 addresses: 30 get one, 30 hear why not, and nothing is left over', async () => {
    const of = conf({ subnet: '10.1.0.0/24', rangeStart: '10.1.0.101', rangeEnd: '10.1.0.130' });
    const answers = await addAll(60, of);
    expectDistinct(answers.filter(({ exitCode }) => exitCode === 0));
    expect(answers.filter(({ exitCode }) => exitCode === 0)).toHaveLength(30);
    expect(new Set(answers.flatMap(({ error }) => error?.code ?? []))).toEqual(new Set([100]));
    expect(await here.site.remains()).toHaveLength(60);
  });

  it('two sets and two networks at once', async () => {
    const ranges = [[{ subnet: '10.1.0.0/26' }], [{ subnet: 'fd00::/64' }]];
    const [one, two] = [conf({ ranges }), conf({ ranges }, { name: 'other' })];
    const answers = (await Promise.all([addAll(20, one), addAll(20, two)])).flat();
    expect(answers.flatMap(({ error }) => error?.msg ?? [])).toEqual([]);
    expect(new Set(answers.flatMap(({ addresses }) => addresses)).size).toBe(80);
  });

  it('I3 the same pod ADDed ten times at once: one set of addresses', async () => {
    const of = conf({ ranges: [[{ subnet: '10.1.0.0/24' }], [{ subnet: 'fd00::/64' }]] });
    const answers = await Promise.all(numbered(10).map(() => run('ADD', { conf: of })));
    expect(answers.flatMap(({ error }) => error?.msg ?? [])).toEqual([]);
    expect(new Set(answers.map(({ stdout }) => stdout)).size).toBe(1);
    expect(await here.site.remains()).toHaveLength(3);
    await run('DEL', { conf: of });
    expect(await here.site.remains()).toEqual([]);
  });

  it('one requested address, wanted by ten: one gets it, nine hear who has it', async () => {
    const of = conf({ subnet: '10.1.0.0/24' });
    const args = 'IP=10.1.0.50';
    const answers = await Promise.all(numbered(10).map(id => run('ADD', { conf: of, containerID: id, args })));
    expect(answers.filter(({ exitCode }) => exitCode === 0)).toHaveLength(1);
    for (const { error } of answers)
      if (error) expect(error).toMatchObject({ code: 11, msg: /is held by container pod-\d/ });
    expect(await here.site.remains()).toHaveLength(2);
  });

  it('ADD and DEL racing for one pod: whatever wins, addresses and attachment agree', async () => {
    const of = conf({ subnet: '10.1.0.0/24' });
    for (let round = 0; round < 6; round++) {
      const racing = (['ADD', 'DEL', 'ADD', 'DEL', 'ADD'] as const).map(command => run(command, { conf: of }));
      const answers = await Promise.all(racing);
      expect(answers.map(({ error }) => error?.msg)).toEqual(answers.map(() => undefined));
      expect([0, 2]).toContain((await here.site.remains()).length);
    }
    await run('DEL', { conf: of });
    expect(await here.site.remains()).toEqual([]);
  });

  describe('on a store that does not exist yet', () => {
    it('50 processes at once', async () => {
      if (here.kind === 'embedded') {
        await here.site.kv[Symbol.asyncDispose]();
        rmSync(here.site.folder, { recursive: true });
      }
      const of = conf({ subnet: '10.1.0.0/24' });
      expectDistinct(await addAll(50, of));
    });
  });
});
