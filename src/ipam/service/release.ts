// DEL, and every other giving back: frees exactly what an attachment holds, never what has a new owner.
import { backoff, pause } from '../../base/clock.ts';
import type { Ip } from '../../net/ip.ts';
import { type AttachmentId, formatKey, parseKey } from '../../store/keys.ts';
import {
  type Answer,
  afterPrefix,
  type Condition,
  type Entry,
  groupAnswers,
  OutOfSpaceError,
  UnknownFateError,
  UnreachableError,
  type Write,
} from '../../store/kv.ts';
import { isPlainAttachment, namesAttachment, type OwnerRecord, parseAttachment, parseOwner } from '../model.ts';
import type { Surroundings } from '../ports.ts';
import { renderHold } from '../records.ts';
import { ipOfKey, refuseNewerFormat } from './look.ts';
import { asRead, fence } from './writes.ts';

export interface ReleaseOptions {
  /** Seconds for which nobody but the former owner may take the addresses. */
  readonly cooldown: number;
}

/** A record that names the attachment in question. */
export interface Owned {
  readonly entry: Entry;
  readonly owner: OwnerRecord;
}

/** What one attachment holds. */
interface Held {
  readonly attachment: Entry | undefined;
  readonly owned: readonly Owned[];
}

/**
 * Gives back what the attachment holds; the addresses freed. Nothing held: fine, as often as asked. A store that is
 * away is asked again until the deadline, because some runtimes never repeat a DEL.
 * Errors: 11 (the store stayed away: nothing is lost, DEL again), 101, 104, 105.
 */
export async function release(around: Surroundings, id: AttachmentId, options: ReleaseOptions): Promise<Ip[]> {
  for (let failures = 0; ; ) {
    try {
      return await releaseOnce(around, id, options);
    } catch (error) {
      // Repeating is safe whatever became of the last try: every delete is bound to the revision that was read.
      const again = error instanceof UnknownFateError || error instanceof UnreachableError;
      if (!again || around.deadline.passed) throw error;
      await pause(backoff(++failures, 50, 1000), around.deadline);
      if (around.deadline.passed) throw error;
    }
  }
}

async function releaseOnce(around: Surroundings, id: AttachmentId, options: ReleaseOptions): Promise<Ip[]> {
  const { kv, keys, deadline, doubts } = around;
  const doubted = doubts.has(id);
  for (let tries = 1; ; tries++) {
    const { answers } = await kv.read([{ key: keys.attachment(id) }, { key: formatKey }], deadline);
    const [attachment, format] = answers.map(({ entries }) => entries[0]);
    refuseNewerFormat(format);
    if (attachment === undefined && !doubted) return [];
    const addresses = parseAttachment(attachment?.value ?? '{}');
    const isPlain = attachment !== undefined && isPlainAttachment(attachment.value);
    const owned =
      isPlain && tries === 1 && options.cooldown === 0
        ? presumed(around, attachment, addresses)
        : await readOwned(around, id, addresses);
    const outcome = await commitRelease(around, id, { attachment, owned }, { ...options, doubted });
    if (outcome !== 'lost') {
      if (doubted && outcome === 'done') doubts.clear(id);
      return owned.flatMap(({ entry }) => ipOfKey(entry.key) ?? []);
    }
    if (deadline.passed) throw new UnreachableError('others changed the same records until the time was over');
  }
}

/**
 * The records as the attachment's own commit must have written them: ADD writes all of them in one commit, so one read
 * is saved. Where they moved since, the commit loses, and they are read.
 */
function presumed(around: Surroundings, attachment: Entry, addresses: readonly Ip[]): Owned[] {
  return addresses.map(ip => ({ entry: { ...attachment, key: around.keys.address(ip) }, owner: parseOwner('{}') }));
}

async function readOwned(around: Surroundings, id: AttachmentId, addresses: readonly Ip[]): Promise<Owned[]> {
  if (addresses.length === 0) return [];
  const queries = addresses.map(ip => ({ key: around.keys.address(ip) }));
  const { answers } = await around.kv.read(queries, around.deadline);
  return ownedBy(id, answers);
}

function ownedBy(id: AttachmentId, answers: readonly Answer[]): Owned[] {
  const records = answers.flatMap(({ entries }) => entries.map(entry => ({ entry, owner: parseOwner(entry.value) })));
  return records.filter(({ owner }) => namesAttachment(owner, id));
}

interface CommitOptions extends ReleaseOptions {
  readonly doubted: boolean;
}

/** `lost`: something changed since it was read, and nothing was done. `bare`: released, but without hold and fence. */
async function commitRelease(
  around: Surroundings,
  id: AttachmentId,
  held: Held,
  options: CommitOptions,
): Promise<'done' | 'bare' | 'lost'> {
  try {
    return (await tryRelease(around, id, held, options)) ? 'done' : 'lost';
  } catch (error) {
    // etcd out of space still takes deletes: giving back must work then, with neither hold nor fence.
    const puts = options.cooldown > 0 || options.doubted;
    if (!(error instanceof OutOfSpaceError) || !puts) throw error;
    around.log.warn('released without hold or fence: the store is out of space');
    const bare = await tryRelease(around, id, held, { ...options, cooldown: 0, doubted: false });
    return bare ? 'bare' : 'lost';
  }
}

async function tryRelease(
  around: Surroundings,
  id: AttachmentId,
  held: Held,
  options: CommitOptions,
): Promise<boolean> {
  const { keys, kv, deadline } = around;
  const conditions: Condition[] = [asRead(keys.attachment(id), held.attachment)];
  const writes: Write[] = held.attachment ? [{ delete: keys.attachment(id) }] : [];
  for (const { entry, owner } of held.owned) {
    conditions.push(asRead(entry.key, entry));
    const { cooldown } = options;
    if (cooldown === 0) writes.push({ delete: entry.key });
    else writes.push({ put: entry.key, value: renderHold(owner, cooldown, around.now()), ttl: cooldown });
  }
  if (options.doubted) writes.push(fence(keys.fence(id), around.now()));
  return writes.length === 0 || (await kv.commit({ conditions, writes }, deadline)).won;
}

/** An attachment and the records of its addresses that name it. */
export interface HeldAttachment extends Held {
  readonly id: AttachmentId;
  readonly attachment: Entry;
}

/** All attachments of a node, or of a network on it, with their records. Throws code 101 as DEL does. */
export async function readAttachments(around: Surroundings, prefix: string): Promise<HeldAttachment[]> {
  const { kv, keys, deadline } = around;
  const found = (await kv.read([{ from: prefix, to: afterPrefix(prefix) }, { key: formatKey }], deadline)).answers;
  refuseNewerFormat(found[1]!.entries[0]);
  const attachments = found[0]!.entries.flatMap(attachment => {
    const parsed = parseKey(attachment.key);
    return parsed?.type === 'attachment' ? [{ id: parsed.id, attachment }] : [];
  });
  const queries = attachments.map(({ attachment }) =>
    parseAttachment(attachment.value).map(ip => ({ key: keys.address(ip) })),
  );
  const { answers } = await kv.read(queries.flat(), deadline);
  const sizes = queries.map(({ length }) => length);
  return groupAnswers(answers, sizes).map((own, i) => ({
    ...attachments[i]!,
    owned: ownedBy(attachments[i]!.id, own),
  }));
}

/** Frees an attachment as it was read; false when it changed since and was left alone. */
export async function releaseRead(
  around: Surroundings,
  held: HeldAttachment,
  options: ReleaseOptions = { cooldown: 0 },
): Promise<boolean> {
  return (await commitRelease(around, held.id, held, { ...options, doubted: false })) !== 'lost';
}

/**
 * What this node and machine wrote in an earlier boot, because no network namespace outlives one. Records of another
 * cluster on the same etcd are not ours to judge.
 */
export async function readEarlierBoots(around: Surroundings, node: string, cluster: string): Promise<HeldAttachment[]> {
  const { machine, boot } = around.machine;
  if (machine === '' || boot === '') return [];
  const all = await readAttachments(around, around.keys.attachments(node));
  const isEarlier = ({ owner }: Owned) =>
    owner.machine === machine && owner.cluster === cluster && ![boot, ''].includes(owner.boot);
  return all.filter(({ owned }) => owned.length > 0 && owned.every(isEarlier));
}

/** Frees what earlier boots left. The number of addresses freed. */
export async function freeEarlierBoots(around: Surroundings, node: string, cluster: string): Promise<number> {
  let freed = 0;
  for (const held of await readEarlierBoots(around, node, cluster)) {
    if (await releaseRead(around, held)) {
      freed += held.owned.length;
      around.log.info('freed after reboot', { containerID: held.id.containerID, ifname: held.id.ifname });
    }
  }
  return freed;
}
