// Examines an etcd cluster: every endpoint, its space, its alarms, its leader, and whether it forgets its history.
import type { Deadline } from '../../base/clock.ts';
import { parseOwner } from '../../ipam/model.ts';
import type { PatientSurroundings } from '../../ipam/service/patience.ts';
import { scanAll } from '../../ipam/service/patience.ts';
import { type EndpointHealth, endpointStatus, readableHistory } from '../../store/etcd/doctor.ts';
import { afterPrefix, type Entry } from '../../store/kv.ts';
import type { EtcdTarget } from '../../store/target.ts';
import { type Diagnosis, diagnosis } from './diagnosis.ts';

const hour = 3_600_000;
const mebibyte = 2 ** 20;

/** Cure of etcd's own fault "database space exceeded". */
const spaceCure =
  'compact its history, "etcdctl defrag" every member, then "etcdctl alarm disarm"; to keep it from coming back, raise --quota-backend-bytes or switch on --auto-compaction-retention';

export async function examineEndpoints(target: EtcdTarget, deadline: Deadline): Promise<Diagnosis[]> {
  const states = await endpointStatus(target, deadline);
  const reached = states.filter(state => state.reachable);
  const lost = states.flatMap(state => {
    if (state.reachable) return [];
    const level = reached.length === 0 ? 'unreachable' : 'wrong';
    const advice = 'is etcd running there, and do port, certificates and firewall fit?';
    return [diagnosis('etcd', state.endpoint, level, `cannot be reached: ${state.reason}`, { advice })];
  });
  const found = reached.flatMap(({ endpoint, health }) => examineHealth(endpoint, health));
  const leaders = new Set(reached.flatMap(({ health }) => health.leader ?? []));
  if (leaders.size > 1 && !leaders.has('0')) {
    const text = `the endpoints name different leaders (${[...leaders].join(', ')}): they belong to different clusters, or an election is under way`;
    found.push(
      diagnosis('etcd', target.endpoints.join(', '), 'wrong', text, {
        advice: 'run this again; if it stays, correct etcdURL',
      }),
    );
  }
  return [...lost, ...found];
}

function examineHealth(endpoint: string, health: EndpointHealth): Diagnosis[] {
  const { version, latency, dbSize, dbSizeInUse, quota, alarms = [], leader, gateway } = health;
  const size =
    dbSize === undefined ? '' : `, ${megabytes(dbSize)}${quota === undefined ? '' : ` of ${megabytes(quota)}`}`;
  const role = leader === undefined ? '' : leader === health.memberId ? ', leader' : ', follower';
  const figures = {
    latency: Math.round(latency * 10) / 10,
    revision: health.revision,
    gateway,
    ...(version !== undefined && { version }),
    ...(dbSize !== undefined && { dbSize }),
    ...(dbSizeInUse !== undefined && { dbSizeInUse }),
    ...(quota !== undefined && { quota }),
    ...(leader !== undefined && { leader }),
    alarms,
  };
  const text = `etcd ${version ?? '(version hidden from this user)'}, ${latency.toFixed(1)} ms${size}${role}`;
  const all = [diagnosis('etcd', endpoint, 'fine', text, { figures })];
  const add = (level: 'advice' | 'warning' | 'wrong', what: string, advice: string) =>
    all.push(diagnosis('etcd', endpoint, level, what, { advice }));
  for (const alarm of alarms) {
    if (alarm.includes('NOSPACE'))
      add('wrong', `out of space (${alarm}): it takes no writes, so no address is given out`, spaceCure);
    else add('wrong', `reports ${alarm}`, 'see the log of this etcd member');
  }
  if (leader === '0')
    add(
      'wrong',
      'has no leader: it can neither read nor write',
      'see that more than half of the members run and reach each other',
    );
  const full = dbSize === undefined || quota === undefined ? 0 : dbSize / quota;
  if (full > 0.8 && !alarms.some(alarm => alarm.includes('NOSPACE'))) {
    add('warning', `its database fills ${Math.round(100 * full)} % of its quota`, spaceCure);
  }
  if (gateway === 'off') {
    add(
      'advice',
      'its JSON gateway is off or refuses this client: each ADD takes the slower way over gRPC',
      'docs/guide.md says when and why, under "A user with few rights"',
    );
  }
  return all;
}

function megabytes(bytes: number): string {
  return `${(bytes / mebibyte).toFixed(bytes < 100 * mebibyte ? 1 : 0)} MiB`;
}

/**
 * etcd keeps no time with a revision. A record that was written once, more than an hour ago, at a revision that can
 * still be read, proves that nothing was compacted since.
 */
export async function examineHistory(around: PatientSurroundings, target: EtcdTarget): Promise<Diagnosis[]> {
  const history = await readableHistory(target, around.deadline);
  if (history === undefined) return [];
  const { revision, oldest } = history;
  const figures = { revision, oldest };
  const subject = target.endpoints.join(', ');
  const past = await oldestReadable(around, oldest);
  if (past === undefined || around.now() - past < hour) {
    return [diagnosis('etcd', subject, 'fine', `history from revision ${oldest} to ${revision}`, { figures })];
  }
  const hours = Math.floor((around.now() - past) / hour);
  const text = `its history goes back ${hours} h or more (revision ${oldest} of ${revision}): no auto-compaction, so the database only grows`;
  const advice = 'start etcd with --auto-compaction-mode=periodic --auto-compaction-retention=30m';
  return [diagnosis('etcd', subject, 'advice', text, { advice, figures: { ...figures, hours } })];
}

/** When the earliest known write happened whose revision can still be read; the first records are enough to ask. */
async function oldestReadable(around: PatientSurroundings, oldest: number): Promise<number | undefined> {
  const times: number[] = [];
  for (const prefix of [around.keys.networks(), around.keys.addresses()]) {
    for await (const entries of scanAll(around, prefix, afterPrefix(prefix))) {
      for (const entry of entries) {
        const time = writtenOnceAt(entry);
        if (entry.revision >= oldest && time !== undefined) times.push(time);
      }
      break;
    }
  }
  return times.length === 0 ? undefined : Math.min(...times);
}

/** A record that was written again keeps the time of its first writing. */
function writtenOnceAt({ value, created, revision }: Entry): number | undefined {
  const time = created === revision ? Date.parse(parseOwner(value).since) : Number.NaN;
  return Number.isNaN(time) ? undefined : time;
}
