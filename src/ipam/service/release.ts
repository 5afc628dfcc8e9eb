// DEL, and every other giving back: frees exactly what an attachment holds, never what has a new owner.
import { backoff, pause } from '../../base/clock.ts';
import type { Ip } from '../../net/ip.ts';
import { type AttachmentId, formatKey, parseKey } from '../../store/keys.ts';
import {
  type Answer,
  afterPrefix,
  type Commit,
  type Condition,
  type Entry,
  groupAnswers,
  OutOfSpaceError,
  UnknownFateError,
  UnreachableError,
  type Write,
} from '../../store/kv.ts';
import { type Subject, whyUntouchable } from '../gc.ts';
import { isPlainAttachment, namesAttachment, type OwnerRecord, parseAttachment, parseOwner } from '../model.ts';
import type { Surroundings } from '../ports.ts';
import { afterRelease } from '../records.ts';
import { ipOfKey, refuseNewerFormat } from './look.ts';
import { endedWithBoot } from './namespace.ts';
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
export interface Held {
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
      return owned.flatMap(({ entry, owner }) => (owner.kind === 'sticky' ? [] : (ipOfKey(entry.key) ?? [])));
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

/** What gives an attachment back as it was read: its key and its records go, or become what comes after it. */
export function releaseWrites(around: Surroundings, id: AttachmentId, held: Held, options: ReleaseOptions) {
  const { keys } = around;
  const conditions: Condition[] = [asRead(keys.attachment(id), held.attachment)];
  const writes: Write[] = held.attachment ? [{ delete: keys.attachment(id) }] : [];
  for (const { entry, owner } of held.owned) {
    conditions.push(asRead(entry.key, entry));
    const after = afterRelease(owner, id, options.cooldown, around.now());
    writes.push(after === undefined ? { delete: entry.key } : { put: entry.key, ...after });
  }
  return { conditions, writes };
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
  const { kv, keys, deadline } = around;
  const commit = releaseWrites(around, id, held, options);
  if (options.doubted) commit.writes.push(fence(keys.fence(id), around.now()));
  if (commit.writes.length === 0) return 'done';
  try {
    return (await kv.commit(commit, deadline)).won ? 'done' : 'lost';
  } catch (error) {
    if (!(error instanceof OutOfSpaceError) || !commit.writes.some(write => 'put' in write)) throw error;
    around.log.warn('released without hold or fence: the store is out of space');
    return (await kv.commit(bare(commit, held), deadline)).won ? 'bare' : 'lost';
  }
}

/**
 * The same without puts, which etcd refuses when it is out of space: giving back must work then. A workload's address
 * stays as it is; its next holder, or gc, sees that this one is gone.
 */
function bare({ conditions, writes }: { conditions: Condition[]; writes: Write[] }, held: Held): Commit {
  const stays = new Set(held.owned.flatMap(({ entry, owner }) => (owner.kind === 'sticky' ? [entry.key] : [])));
  const records = new Set(held.owned.map(({ entry }) => entry.key));
  return {
    conditions,
    writes: writes.flatMap((write): Write[] => {
      if ('delete' in write) return [write];
      return records.has(write.put) && !stays.has(write.put) ? [{ delete: write.put }] : [];
    }),
  };
}

/** An attachment and the records of its addresses that name it. */
export interface HeldAttachment extends Held {
  readonly id: AttachmentId;
  readonly attachment: Entry;
}

/** One attachment with the records that name it, whoever else its addresses may belong to. */
export async function readHeld(around: Surroundings, id: AttachmentId): Promise<Held> {
  const { kv, keys, deadline } = around;
  const attachment = (await kv.read([{ key: keys.attachment(id) }], deadline)).answers[0]!.entries[0];
  return { attachment, owned: await readOwned(around, id, parseAttachment(attachment?.value ?? '{}')) };
}

/** All attachments of a node, or of a network on it, with their records. Throws code 101 as DEL does. */
export async function readAttachments(around: Surroundings, prefix: string): Promise<HeldAttachment[]> {
  const { kv, deadline } = around;
  const found = (await kv.read([{ from: prefix, to: afterPrefix(prefix) }, { key: formatKey }], deadline)).answers;
  refuseNewerFormat(found[1]!.entries[0]);
  return withRecords(around, found[0]!.entries);
}

/** Attachments as they were read, with the records that name them now. */
export async function withRecords(around: Surroundings, entries: readonly Entry[]): Promise<HeldAttachment[]> {
  const { kv, keys, deadline } = around;
  const attachments = entries.flatMap(attachment => {
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

/** As the rules of gc see it. An ADD writes all at once: an attachment that is newer than a record was given back to it. */
export function subjectOf({ id, attachment, owned }: HeldAttachment): Subject {
  const created = Math.min(attachment.created, ...owned.map(({ entry }) => entry.revision));
  return { id, created, owners: owned.map(({ owner }) => owner) };
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
  // A namespace that is there refutes the boot IDs, and from here it would not be seen.
  if (around.whyBlind?.() !== undefined) return [];
  const all = await readAttachments(around, around.keys.attachments(node));
  return all.filter(held => {
    const subject = subjectOf(held);
    return whyUntouchable(subject, cluster) === undefined && endedWithBoot(subject, around.machine);
  });
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
