// kill -9 at any instant of ADD or DEL, 500 times under load on each store: no address ever has two owners, and DEL of
// everything leaves nothing (I1, I2, I4, I7).
import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { parseAttachment, parseOwner } from '../../src/ipam/model.ts';
import { formatIp } from '../../src/net/ip.ts';
import { parseKey } from '../../src/store/keys.ts';
import { onEachStore } from '../helpers/each-store.ts';
import { confOf, type Site } from '../helpers/plugin.ts';
import { run, start } from '../helpers/plugin-process.ts';

const kills = 500;
const atOnce = 20;

/** Throws unless every owner has an attachment that names it, and every attachment its records: killed or not. */
async function expectAgreement(site: Site): Promise<number> {
  const owners = new Map<string, string>();
  const claims: [string, string][] = [];
  for (const { key, value } of await site.entries()) {
    const parsed = parseKey(key);
    if (parsed?.type === 'address') owners.set(formatIp(parsed.ip), parseOwner(value).containerID);
    if (parsed?.type === 'attachment') {
      for (const ip of parseAttachment(value)) claims.push([formatIp(ip), parsed.id.containerID]);
    }
  }
  expect(new Map(claims)).toEqual(owners);
  expect(claims).toHaveLength(owners.size);
  return owners.size;
}

onEachStore(here => {
  it('500 commands killed at random instants', async () => {
    const conf = confOf(here.site, { ranges: [[{ subnet: '10.1.0.0/22' }], [{ subnet: 'fd00::/64' }]], timeout: 60 });
    const ids = Array.from({ length: 60 }, (_, n) => `pod-${n}`);
    const answered = new Map<string, readonly string[]>();
    let killed = 0;
    let survived = 0;
    // How long a command takes when as many run at once: the instants are spread over all of it, and a little beyond.
    const trial = await Promise.all(ids.slice(0, atOnce).map(containerID => run('ADD', { conf, containerID })));
    for (const [n, { addresses }] of trial.entries()) answered.set(ids[n]!, addresses);
    const longest = Math.max(...trial.map(({ ms }) => ms)) * 1.1;
    while (killed < kills) {
      const chosen = [...ids].sort(() => Math.random() - 0.5).slice(0, atOnce);
      await Promise.all(
        chosen.map(async containerID => {
          const command = Math.random() < 0.6 ? 'ADD' : 'DEL';
          const held = answered.get(containerID);
          answered.delete(containerID);
          const { child, ended } = start(command, { conf, containerID });
          const timer = sleep(Math.random() * longest).then(() => child.kill('SIGKILL'));
          const answer = await ended;
          await timer;
          if (answer.signal === 'SIGKILL') {
            killed++;
            return;
          }
          survived++;
          expect(answer.error?.msg).toBeUndefined();
          if (command === 'DEL') return;
          // I3: what was promised once is what is promised again.
          if (held !== undefined) expect(answer.addresses).toEqual(held);
          answered.set(containerID, answer.addresses);
        }),
      );
      await expectAgreement(here.site);
      // I2: an answer is durable.
      const known = new Map((await here.site.entries()).map(({ key, value }) => [key, value]));
      for (const [id, addresses] of answered) {
        const key = here.site.keys.attachment({
          node: here.site.node,
          network: 'net',
          containerID: id,
          ifname: 'eth0',
        });
        expect(parseAttachment(known.get(key) ?? '').map(formatIp)).toEqual(addresses);
      }
    }
    expect(survived, 'the delays reach the end of commands too').toBeGreaterThan(0);
    // What was killed while it asked etcd may be applied a moment later: a runtime's DEL comes after that.
    await sleep(500);
    await expectAgreement(here.site);
    for (let n = 0; n < ids.length; n += atOnce) {
      const gone = await Promise.all(ids.slice(n, n + atOnce).map(containerID => run('DEL', { conf, containerID })));
      expect(gone.flatMap(({ error }) => error?.msg ?? [])).toEqual([]);
    }
    expect(await here.site.remains()).toEqual([]);
    if (here.kind === 'embedded') {
      expect(readdirSync(here.site.folder).filter(name => !/^store\.db(-wal|-shm)?$/.test(name))).toEqual([]);
    }
  }, 300_000);
});
