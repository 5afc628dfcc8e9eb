// One list of behaviours for every store: the embedded one, and each etcd found here over both of its transports.
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { deadlineIn } from '../../src/base/clock.ts';
import { openEmbedded } from '../../src/store/embedded/embedded.ts';
import { openGateway } from '../../src/store/etcd/gateway.ts';
import { openGrpc } from '../../src/store/etcd/grpc.ts';
import type { CommitResult, Kv, Page } from '../../src/store/kv.ts';
import type { EtcdTarget } from '../../src/store/target.ts';
import { type EtcdCluster, engines, startEtcd } from '../helpers/etcd.ts';

interface Subject {
  readonly name: string;
  start(): Promise<void>;
  /** Another client of the same store. */
  open(): Promise<Kv>;
  end(): Promise<void>;
}

function embedded(): Subject {
  let folder = '';
  return {
    name: 'embedded',
    start: async () => {
      folder = mkdtempSync(join(tmpdir(), 'kube-ipam-store-'));
    },
    open: () => openEmbedded(folder),
    end: async () => rmSync(folder, { recursive: true, force: true }),
  };
}

function etcd(
  engine: ReturnType<typeof engines>[number],
  transport: string,
  open: (target: EtcdTarget) => Kv,
): Subject {
  let cluster: EtcdCluster | undefined;
  return {
    name: `etcd ${engine.version}, ${transport}`,
    start: async () => {
      cluster = await startEtcd(engine);
    },
    open: async () => open(cluster!.target()),
    end: async () => cluster?.[Symbol.asyncDispose](),
  };
}

const subjects: readonly Subject[] = [
  embedded(),
  ...engines().flatMap(engine => [etcd(engine, 'JSON gateway', openGateway), etcd(engine, 'gRPC', openGrpc)]),
];

const soon = () => deadlineIn(30_000);

function winner(result: CommitResult): number {
  if (!result.won) throw new Error(`lost, where it should have won: ${JSON.stringify(result)}`);
  return result.revision;
}

test('an etcd is here to be tested', () => {
  expect(engines().map(engine => engine.version)).not.toEqual([]);
});

describe.each(subjects)('$name', subject => {
  let kv: Kv;
  beforeAll(async () => {
    await subject.start();
    kv = await subject.open();
  }, 90_000);
  afterAll(async () => {
    await kv?.[Symbol.asyncDispose]();
    await subject.end();
  }, 60_000);

  const folder = () => `/suite/${randomBytes(6).toString('hex')}/`;
  const put = async (key: string, value: string) =>
    winner(await kv.commit({ conditions: [], writes: [{ put: key, value }] }, soon()));
  const value = async (key: string) => (await kv.read([{ key }], soon())).answers[0]!.entries[0]?.value;

  test('a key that was never written is absent', async () => {
    const { answers, revision } = await kv.read([{ key: `${folder()}nothing` }], soon());
    expect(answers).toEqual([{ entries: [], count: 0 }]);
    expect(revision).toBeGreaterThanOrEqual(0);
  });

  test('a read without queries gives the revision', async () => {
    const revision = await put(`${folder()}k`, 'v');
    const read = await kv.read([], soon());
    expect(read.answers).toEqual([]);
    expect(read.revision).toBeGreaterThanOrEqual(revision);
  });

  test('put and read back: key, value, revision, created', async () => {
    const key = `${folder()}k`;
    const first = await put(key, 'one');
    const second = await put(key, 'two');
    const { answers, revision } = await kv.read([{ key }], soon());
    expect(answers).toEqual([{ entries: [{ key, value: 'two', revision: second, created: first }], count: 1 }]);
    expect(second).toBeGreaterThan(first);
    expect(revision).toBeGreaterThanOrEqual(second);
  });

  test('`absent` wins once', async () => {
    const key = `${folder()}k`;
    const commit = { conditions: [{ absent: key }], writes: [{ put: key, value: 'mine' }] };
    const won = winner(await kv.commit(commit, soon()));
    const lost = await kv.commit({ ...commit, otherwise: [{ key }] }, soon());
    expect(lost).toMatchObject({
      won: false,
      answers: [{ entries: [{ key, value: 'mine', revision: won }], count: 1 }],
    });
  });

  test('`unchanged` wins at the revision read and loses after any other write', async () => {
    const key = `${folder()}k`;
    const first = await put(key, 'a');
    const swap = (revision: number) =>
      kv.commit({ conditions: [{ unchanged: key, revision }], writes: [{ put: key, value: 'b' }] }, soon());
    const second = winner(await swap(first));
    expect((await swap(first)).won).toBe(false);
    expect((await swap(second)).won).toBe(true);
  });

  test('`unchanged` loses against a deleted key, and against one deleted and made again', async () => {
    const key = `${folder()}k`;
    const first = await put(key, 'a');
    winner(await kv.commit({ conditions: [], writes: [{ delete: key }] }, soon()));
    const swap = { conditions: [{ unchanged: key, revision: first }], writes: [{ put: key, value: 'b' }] };
    expect((await kv.commit(swap, soon())).won).toBe(false);
    const again = await put(key, 'a');
    expect(again).toBeGreaterThan(first + 1);
    expect((await kv.commit(swap, soon())).won).toBe(false);
    expect((await kv.read([{ key }], soon())).answers[0]!.entries[0]).toMatchObject({
      created: again,
      revision: again,
    });
  });

  test('all or nothing: one condition that fails writes nothing', async () => {
    const at = folder();
    await put(`${at}taken`, 'x');
    const result = await kv.commit(
      {
        conditions: [{ absent: `${at}a` }, { absent: `${at}taken` }],
        writes: [{ put: `${at}a`, value: '1' }, { put: `${at}b`, value: '2' }, { delete: `${at}taken` }],
        otherwise: [{ from: at, to: `${at}~` }],
      },
      soon(),
    );
    expect(result).toMatchObject({ won: false, answers: [{ count: 1 }] });
    expect(await value(`${at}a`)).toBeUndefined();
    expect(await value(`${at}taken`)).toBe('x');
  });

  test('what is read when a commit loses comes in the order asked, at one revision', async () => {
    const at = folder();
    const revision = await put(`${at}k`, 'v');
    const result = await kv.commit(
      {
        conditions: [{ absent: `${at}k` }],
        writes: [{ put: `${at}k`, value: 'w' }],
        otherwise: [
          { key: `${at}none` },
          { key: `${at}k` },
          { from: at, to: `${at}~`, count: true },
          { from: at, to: `${at}~`, keysOnly: true },
        ],
      },
      soon(),
    );
    if (result.won) throw new Error('won');
    const entry = { key: `${at}k`, value: 'v', revision, created: revision };
    expect(result.answers).toEqual([
      { entries: [], count: 0 },
      { entries: [entry], count: 1 },
      { entries: [], count: 1 },
      { entries: [{ ...entry, value: '' }], count: 1 },
    ]);
    expect(result.revision).toBeGreaterThanOrEqual(revision);
  });

  test('a commit that loses without `otherwise` reads nothing', async () => {
    const key = `${folder()}k`;
    await put(key, 'v');
    const lost = await kv.commit({ conditions: [{ absent: key }], writes: [{ put: key, value: 'w' }] }, soon());
    expect(lost).toMatchObject({ won: false, answers: [] });
  });

  test('a commit of writes alone, with a delete of an absent key, wins', async () => {
    const at = folder();
    const result = await kv.commit(
      { conditions: [], writes: [{ delete: `${at}none` }, { put: `${at}k`, value: '' }] },
      soon(),
    );
    expect(result.won).toBe(true);
    expect(await value(`${at}k`)).toBe('');
  });

  test('all keys of one commit have its revision', async () => {
    const at = folder();
    const writes = ['a', 'b', 'c'].map(name => ({ put: at + name, value: name }));
    const revision = winner(await kv.commit({ conditions: [], writes }, soon()));
    const { entries } = (await kv.read([{ from: at, to: `${at}~` }], soon())).answers[0]!;
    expect(entries.map(entry => entry.revision)).toEqual([revision, revision, revision]);
  });

  test('a range takes in its first key, leaves out its end, and sorts by bytes', async () => {
    const at = folder();
    // In UTF-16 the last two would stand the other way round.
    const names = [
      '',
      '!',
      '-',
      '.',
      '/',
      '0',
      '10',
      '9',
      'A',
      'Z',
      '_',
      'a',
      'a!',
      'aa',
      'z',
      'é',
      '\uff5e',
      '\u{1f600}',
    ];
    const shuffled = [...names].sort(
      (a, b) =>
        ((a.length * 7 + (a.codePointAt(0) ?? 0) * 31) % 17) - ((b.length * 7 + (b.codePointAt(0) ?? 0) * 31) % 17),
    );
    const writes = shuffled.map(name => ({ put: at + name, value: name }));
    winner(await kv.commit({ conditions: [], writes }, soon()));
    const all = { from: at, to: `${at}\u{10ffff}` };
    const some = { from: `${at}0`, to: `${at}a` };
    const { answers } = await kv.read([all, some], soon());
    const sorted = [...names].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    expect(answers[0]!.entries.map(entry => entry.value)).toEqual(sorted);
    expect(answers[1]!.entries.map(entry => entry.value)).toEqual(['0', '10', '9', 'A', 'Z', '_']);
    expect(answers.map(answer => answer.count)).toEqual([names.length, 6]);
  });

  test('keys only, and counts', async () => {
    const at = folder();
    winner(await kv.commit({ conditions: [], writes: [1, 2, 3].map(n => ({ put: `${at}${n}`, value: 'v' })) }, soon()));
    const range = { from: at, to: `${at}~` };
    const { answers } = await kv.read(
      [
        { ...range, keysOnly: true },
        { ...range, count: true },
      ],
      soon(),
    );
    expect(answers[0]!.entries.map(({ key, value }) => [key, value])).toEqual([1, 2, 3].map(n => [`${at}${n}`, '']));
    expect(answers[1]).toEqual({ entries: [], count: 3 });
  });

  test('values are kept to the letter: unicode, quotes, controls, and a megabyte', async () => {
    const at = folder();
    const texts = [
      '',
      '{"a":"ü 漢字 \u{1f600}"}',
      'line\nfeed\ttab\u0000nul\u007f',
      '"quoted\\"',
      'x'.repeat(1_000_000),
    ];
    for (const [place, text] of texts.entries()) await put(`${at}${place}-ключ`, text);
    const read = await kv.read([{ from: at, to: `${at}~` }], soon());
    expect(read.answers[0]!.entries.map(entry => entry.value)).toEqual(texts);
  });

  test.concurrent('a put with ttl goes by itself; a plain put over another of the same commit stays', async () => {
    const at = folder();
    const leased = ['goes', 'stays'].map(name => ({ put: at + name, value: 'short', ttl: 1 }));
    winner(await kv.commit({ conditions: [], writes: leased }, soon()));
    await put(`${at}stays`, 'long');
    expect(await value(`${at}goes`)).toBe('short');
    const start = performance.now();
    while ((await value(`${at}goes`)) !== undefined) {
      if (performance.now() - start > 20_000) throw new Error('the key outlives its ttl');
      await sleep(100);
    }
    await sleep(500);
    expect(await value(`${at}stays`)).toBe('long');
    winner(
      await kv.commit({ conditions: [{ absent: `${at}goes` }], writes: [{ put: `${at}goes`, value: 'next' }] }, soon()),
    );
  });

  test.concurrent('a long ttl holds the key', async () => {
    const key = `${folder()}k`;
    winner(await kv.commit({ conditions: [{ absent: key }], writes: [{ put: key, value: 'v', ttl: 3600 }] }, soon()));
    await sleep(300);
    expect(await value(key)).toBe('v');
  });

  test('revisions grow across keys and clients', async () => {
    await using other = await subject.open();
    const at = folder();
    const revisions: number[] = [];
    for (let n = 0; n < 6; n++) {
      const commit = { conditions: [], writes: [{ put: `${at}${n % 3}`, value: String(n) }] };
      revisions.push(winner(await (n % 2 ? other : kv).commit(commit, soon())));
    }
    expect(revisions).toEqual([...new Set(revisions)].sort((a, b) => a - b));
  });

  test('of ten that want one key at once, exactly one gets it', async () => {
    const clients = await Promise.all([1, 2, 3].map(() => subject.open()));
    const key = `${folder()}k`;
    const results = await Promise.all(
      Array.from({ length: 10 }, (_, n) =>
        clients[n % 3]!.commit(
          { conditions: [{ absent: key }], writes: [{ put: key, value: String(n) }], otherwise: [{ key }] },
          soon(),
        ),
      ),
    );
    for (const client of clients) await client[Symbol.asyncDispose]();
    const winners = results.flatMap((result, n) => (result.won ? [String(n)] : []));
    expect(winners).toHaveLength(1);
    expect(await value(key)).toBe(winners[0]);
    for (const result of results) if (!result.won) expect(result.answers[0]!.entries[0]?.value).toBe(winners[0]);
  });

  test('a hundred increments at once lose none', async () => {
    const key = `${folder()}k`;
    let known = { value: '0', revision: await put(key, '0') };
    const increment = async () => {
      for (;;) {
        const commit = {
          conditions: [{ unchanged: key, revision: known.revision }],
          writes: [{ put: key, value: String(Number(known.value) + 1) }],
          otherwise: [{ key }],
        };
        const result = await kv.commit(commit, soon());
        if (result.won) return;
        known = result.answers[0]!.entries[0]!;
      }
    };
    await Promise.all(Array.from({ length: 100 }, increment));
    expect(await value(key)).toBe('100');
  }, 60_000);

  test('128 conditions, writes and queries fit one commit', async () => {
    const at = folder();
    const keys = Array.from({ length: 128 }, (_, n) => `${at}${String(n).padStart(3, '0')}`);
    const commit = {
      conditions: keys.map(key => ({ absent: key })),
      writes: keys.map(key => ({ put: key, value: 'v' })),
      otherwise: keys.map(key => ({ key })),
    };
    winner(await kv.commit(commit, soon()));
    const lost = await kv.commit(commit, soon());
    if (lost.won) throw new Error('won twice');
    expect(lost.answers.map(answer => answer.entries[0]?.key)).toEqual(keys);
  });

  test('500 queries are answered at one revision, whoever writes meanwhile', async () => {
    await using writer = await subject.open();
    const at = folder();
    const keys = Array.from({ length: 10 }, (_, n) => `${at}${n}`);
    const round = (n: number) => ({ conditions: [], writes: keys.map(key => ({ put: key, value: String(n) })) });
    winner(await writer.commit(round(0), soon()));
    let writing = true;
    let rounds = 0;
    const busy = (async () => {
      while (writing) {
        winner(await writer.commit(round(++rounds), soon()));
        await sleep(0);
      }
    })();
    try {
      for (let n = 0; n < 5; n++) {
        const { answers } = await kv.read(
          Array.from({ length: 500 }, (_, place) => ({ key: keys[place % 10]! })),
          soon(),
        );
        expect(answers).toHaveLength(500);
        expect(new Set(answers.map(answer => answer.entries[0]?.value)).size).toBe(1);
        expect(answers.map(answer => answer.entries[0]?.key)).toEqual(answers.map((_, place) => keys[place % 10]));
        await sleep(5);
      }
    } finally {
      writing = false;
      await busy;
    }
    expect(rounds).toBeGreaterThan(1);
  }, 60_000);

  test('a scan of 2500 keys shows one revision, though keys come, change and go behind it', async () => {
    await using writer = await subject.open();
    const at = folder();
    const keys = Array.from({ length: 2500 }, (_, n) => `${at}${String(n).padStart(5, '0')}`);
    for (let n = 0; n < keys.length; n += 100) {
      const writes = keys.slice(n, n + 100).map(key => ({ put: key, value: 'first' }));
      winner(await writer.commit({ conditions: [], writes }, soon()));
    }
    const pages: Page[] = [];
    for await (const page of kv.scan(at, `${at}~`, soon())) {
      pages.push(page);
      const writes = [
        { delete: keys.at(-pages.length)! },
        { put: keys.at(-9)!, value: 'second' },
        { put: `${keys[0]}x`, value: 'new' },
      ];
      winner(await writer.commit({ conditions: [], writes: [...writes, { put: `${at}99999`, value: 'new' }] }, soon()));
    }
    expect(pages.length).toBeGreaterThan(1);
    expect(new Set(pages.map(page => page.revision)).size).toBe(1);
    expect(pages.flatMap(page => page.entries.map(entry => entry.key))).toEqual(keys);
    expect(new Set(pages.flatMap(page => page.entries.map(entry => entry.value)))).toEqual(new Set(['first']));
  }, 60_000);

  test('a scan of nothing has no entries; one left early leaves the store usable', async () => {
    const at = folder();
    for await (const page of kv.scan(at, `${at}~`, soon())) expect(page.entries).toEqual([]);
    await put(`${at}k`, 'v');
    for await (const page of kv.scan(at, `${at}~`, soon())) {
      expect(page.entries).toHaveLength(1);
      break;
    }
    expect(await value(`${at}k`)).toBe('v');
  });

  test('a second client sees at once what the first has written', async () => {
    await using other = await subject.open();
    const key = `${folder()}k`;
    await put(key, 'fresh');
    expect((await other.read([{ key }], soon())).answers[0]!.entries[0]?.value).toBe('fresh');
  });
});
