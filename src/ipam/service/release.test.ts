// What gives addresses back, asked on a real embedded store: nothing that has another owner goes, whatever stands beside it.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { deadlineIn, renewableDeadline } from '../../base/clock.ts';
import { Log } from '../../base/log.ts';
import { parseIp } from '../../net/ip.ts';
import { openEmbedded } from '../../store/embedded/embedded.ts';
import { type AttachmentId, formatKey, Keys } from '../../store/keys.ts';
import { afterPrefix, type Kv, type Write } from '../../store/kv.ts';
import { type AccessConfig, readAccessConfig } from '../config.ts';
import { FileDoubts } from '../doubts.ts';
import { collect } from './collect.ts';
import type { PatientSurroundings } from './patience.ts';
import { release } from './release.ts';
import { importRecords } from './transfer.ts';

const keys = new Keys('default');
let folder: string;
let kv: Kv;
let around: PatientSurroundings;
let config: AccessConfig;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'kube-ipam-release-'));
  kv = await openEmbedded(folder);
  const log = new Log({ file: join(folder, 'log'), level: 'info', maxSize: 1_000_000 });
  const doubts = new FileDoubts(folder, log);
  const machine = { machine: 'm', boot: 'b' };
  around = { kv, keys, deadline: renewableDeadline(20_000), machine, doubts, log, now: Date.now };
  config = readAccessConfig({ name: 'net', ipam: { dataDir: folder, cooldown: 600 } });
});

afterEach(async () => {
  await kv[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

const idOf = (containerID: string): AttachmentId => ({ node: 'local', network: 'net', containerID, ifname: 'eth0' });
const address = (text: string) => keys.address(parseIp(text)!);
const ownedBy = (containerID: string, kind = 'dynamic') => ({ ...idOf(containerID), kind, machine: 'm', boot: 'b' });
const attachmentOf = (containerID: string) => keys.attachment(idOf(containerID));

async function put(...records: readonly (readonly [key: string, value: unknown])[]): Promise<void> {
  const writes = records.map(([key, value]): Write => ({ put: key, value: JSON.stringify(value) }));
  await kv.commit({ conditions: [], writes }, deadlineIn(20_000));
}

async function stored(): Promise<ReadonlyMap<string, unknown>> {
  const query = { from: keys.prefix, to: afterPrefix(keys.prefix) };
  const { entries } = (await kv.read([query], deadlineIn(20_000))).answers[0]!;
  return new Map(entries.map(({ key, value }) => [key, JSON.parse(value)]));
}

describe('DEL', () => {
  it('leaves a record alone whose kind a later version wrote in the same commit', async () => {
    await put(
      [attachmentOf('a'), { addresses: ['10.1.0.2', '10.1.0.3'], workloads: ['web-0'] }],
      [address('10.1.0.2'), ownedBy('a', 'from-the-future')],
      [address('10.1.0.3'), ownedBy('a')],
    );
    expect(await release(around, idOf('a'), { cooldown: 0 })).toEqual([parseIp('10.1.0.3')]);
    expect([...(await stored()).keys()]).toEqual([address('10.1.0.2')]);
  });

  it('writes nothing into a store that only newer programs may write', async () => {
    await put([attachmentOf('a'), { addresses: ['10.1.0.2'] }], [address('10.1.0.2'), ownedBy('a')]);
    for (const format of [{ format: 2, minReader: 2 }, 'unreadable']) {
      await put([formatKey, format]);
      const before = await stored();
      await expect(release(around, idOf('a'), { cooldown: 0 })).rejects.toMatchObject({ code: 101 });
      await expect(collect(around, config, 'local', [])).rejects.toMatchObject({ code: 101 });
      expect(await stored()).toEqual(before);
    }
    await put([formatKey, { format: 2, minReader: 1 }]);
    expect(await release(around, idOf('a'), { cooldown: 0 })).toHaveLength(1);
    expect(await stored()).toEqual(new Map());
  });
});

it('GC leaves the hold that a cooldown asks for, as DEL does', async () => {
  await put([attachmentOf('a'), { addresses: ['10.1.0.2'] }], [address('10.1.0.2'), ownedBy('a')]);
  expect(await collect(around, config, 'local', [])).toBe(1);
  const left = await stored();
  expect([...left.keys()]).toEqual([address('10.1.0.2')]);
  expect(left.get(address('10.1.0.2'))).toMatchObject({ kind: 'held', containerID: 'a', until: expect.any(String) });
});

describe('import', () => {
  const carried = (...records: readonly (readonly [key: string, value: unknown])[]) =>
    records.map(([key, value], i) => ({ key, value: JSON.stringify(value), line: i + 2 }));

  it('leaves out an attachment that lists the address of another, as its DEL would take it from that one', async () => {
    const file = carried(
      [attachmentOf('a'), { addresses: ['10.1.0.2', '10.1.0.3'] }],
      [attachmentOf('b'), { addresses: ['10.1.0.3'] }],
      [address('10.1.0.2'), ownedBy('a')],
      [address('10.1.0.3'), ownedBy('b')],
    );
    const { written, conflicts } = await importRecords(around, file, { dryRun: false }, () => {});
    expect(written).toBe(2);
    expect(conflicts).toEqual([
      {
        key: attachmentOf('a'),
        text: expect.stringMatching(/container a eth0 \(line 2\) lists 10\.1\.0\.3, .*line 5/),
      },
    ]);
    expect([...(await stored()).keys()]).toEqual([address('10.1.0.3'), attachmentOf('b')]);
    expect(await release(around, idOf('a'), { cooldown: 0 })).toEqual([]);
    expect(await stored()).toHaveProperty('size', 2);
    expect(await release(around, idOf('b'), { cooldown: 0 })).toHaveLength(1);
  });

  it('completes no attachment that is given back meanwhile', async () => {
    const file = carried([attachmentOf('a'), { addresses: ['10.1.0.2'] }], [address('10.1.0.2'), ownedBy('a')]);
    await put([attachmentOf('a'), { addresses: ['10.1.0.2'] }]);
    let interrupted = false;
    const slow: Kv = {
      read: (queries, deadline) => kv.read(queries, deadline),
      scan: (from, to, deadline) => kv.scan(from, to, deadline),
      async commit(commit, deadline) {
        const isImport = commit.writes.some(write => 'put' in write && write.put === address('10.1.0.2'));
        if (isImport && !interrupted) {
          interrupted = true;
          await release(around, idOf('a'), { cooldown: 0 });
        }
        return kv.commit(commit, deadline);
      },
      async [Symbol.asyncDispose]() {},
    };
    const { written } = await importRecords({ ...around, kv: slow }, file, { dryRun: false }, () => {});
    expect(interrupted).toBe(true);
    expect(written).toBe(2);
    expect([...(await stored()).keys()]).toEqual([address('10.1.0.2'), attachmentOf('a')]);
  });

  it('leaves out an attachment that lists a reservation', async () => {
    const file = carried(
      [attachmentOf('a'), { addresses: ['10.1.0.2'] }],
      [address('10.1.0.2'), { kind: 'reserved', reason: 'printer' }],
    );
    const { conflicts } = await importRecords(around, file, { dryRun: false }, () => {});
    expect(conflicts).toHaveLength(1);
    expect([...(await stored()).keys()]).toEqual([address('10.1.0.2')]);
  });
});
