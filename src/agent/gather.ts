// Sends what many commands ask of one etcd at the same moment in few transactions: a node starts thirty pods at once.
import type { Deadline } from '../base/clock.ts';
import {
  type Answer,
  type Commit,
  type CommitResult,
  type Condition,
  type Kv,
  type Query,
  type Snapshot,
  UnknownFateError,
  UnreachableError,
  type Write,
} from '../store/kv.ts';
import { type Check, type CheckedKv, CheckingKv, passCheck } from './checked-kv.ts';

/** ADDs in one transaction, and conditions, writes or queries: etcd takes 128 unless it is told otherwise. */
const mostCommits = 30;
const mostOperations = 120;

/** Transactions of a kind that are under way at once: a member that does not answer must not hold up all that follow. */
const mostInFlight = 2;

/** A read with more queries is a search of its own, and goes alone. */
const mostQueries = 40;

interface Waiting<Result> {
  readonly deadline: Deadline;
  resolve(result: Result): void;
  reject(error: unknown): void;
}

interface WaitingRead extends Waiting<Snapshot> {
  readonly queries: readonly Query[];
}

interface WaitingCommit extends Waiting<CommitResult> {
  readonly commit: Commit;
  readonly check: Check | undefined;
}

export class GatheringKv extends CheckingKv implements CheckedKv {
  readonly #reads: Queue<WaitingRead>;
  readonly #commits: Queue<WaitingCommit>;

  constructor(inner: Kv) {
    super(inner);
    this.#reads = new Queue(takeReads, batch => this.#readTogether(batch));
    this.#commits = new Queue(takeCommits, batch => this.#commitTogether(batch));
  }

  override read(queries: readonly Query[], deadline: Deadline): Promise<Snapshot> {
    if (!isSmall(queries)) return super.read(queries, deadline);
    const late = () => new UnreachableError('the time was over before the store had answered');
    return settled(deadline, late, waiting => this.#reads.add({ ...waiting, queries }));
  }

  override commit(commit: Commit, deadline: Deadline, check?: Check): Promise<CommitResult> {
    // With what tells apart those that lose together it would be more than a transaction holds.
    if (questionsOf(commit).length > mostOperations) return super.commit(commit, deadline, check);
    const late = () =>
      new UnknownFateError('the time was over before the store had answered: it may have been written');
    return settled(deadline, late, waiting => this.#commits.add({ ...waiting, commit, check }));
  }

  async #readTogether(batch: readonly WaitingRead[]): Promise<void> {
    const questions = new Questions();
    for (const { queries } of batch) questions.add(queries);
    try {
      const { revision, answers } = await this.inner.read(questions.all, latest(batch));
      for (const one of batch) one.resolve({ revision, answers: questions.pick(one.queries, answers) });
    } catch (error) {
      await rejectAll(error, batch, one => this.#readTogether([one]));
    }
  }

  /** What loses together is told apart by what was read in the same breath; those that could win are tried once more. */
  async #commitTogether(batch: readonly WaitingCommit[]): Promise<void> {
    const wanted = await stillWanted(batch);
    if (wanted.length === 0) return;
    const merged = new MergedCommit(wanted.map(({ commit }) => commit));
    try {
      const result = await this.inner.commit(merged, latest(wanted));
      if (result.won) {
        for (const one of wanted) one.resolve(result);
        return;
      }
      const losers = wanted.filter(one => !merged.couldWin(one.commit, result));
      for (const one of losers) one.resolve(merged.lost(one.commit, result));
      await this.#commitTogether(wanted.filter(one => !losers.includes(one)));
    } catch (error) {
      await rejectAll(error, wanted, one => this.#commitTogether([one]));
    }
  }
}

/** A store that is away is away for all; one that says no may have said it to a single one of them. */
async function rejectAll<Item extends Waiting<never>>(
  error: unknown,
  batch: readonly Item[],
  alone: (one: Item) => Promise<void>,
): Promise<void> {
  const isForAll = error instanceof UnreachableError || error instanceof UnknownFateError;
  if (!isForAll && batch.length > 1) await Promise.all(batch.map(alone));
  else for (const one of batch) one.reject(error);
}

/** Queries of several commands, each different one once: those of one network ask for the same cursor and window. */
class Questions {
  readonly #places = new Map<string, number>();
  readonly #all: Query[] = [];

  add(queries: readonly Query[]): void {
    for (const query of queries) {
      const text = JSON.stringify(query);
      if (this.#places.has(text)) continue;
      this.#places.set(text, this.#all.length);
      this.#all.push(query);
    }
  }

  get all(): readonly Query[] {
    return this.#all;
  }

  /** The answers to some of them. */
  pick(queries: readonly Query[], answers: readonly Answer[]): Answer[] {
    return queries.map(query => answers[this.#places.get(JSON.stringify(query))!]!);
  }
}

/** Several commits as if they had come one after the other. */
class MergedCommit implements Commit {
  readonly conditions: readonly Condition[];
  readonly writes: readonly Write[];
  readonly #questions = new Questions();

  constructor(commits: readonly Commit[]) {
    const [conditions, writes] = [commits.flatMap(one => one.conditions), commits.flatMap(one => one.writes)];
    // Not by their keys: a commit that asks two different things of one key must lose, as it does alone.
    this.conditions = [...new Map(conditions.map(one => [JSON.stringify(one), one])).values()];
    this.writes = [...new Map(writes.map(one => [writtenKey(one), one])).values()];
    for (const commit of commits) this.#questions.add(questionsOf(commit));
  }

  get otherwise(): readonly Query[] {
    return this.#questions.all;
  }

  /** Whether it was others in the batch that lost. */
  couldWin({ conditions }: Commit, { answers }: Snapshot): boolean {
    const found = this.#questions.pick(
      conditions.map(condition => ({ key: boundKey(condition) })),
      answers,
    );
    return conditions.every((condition, i) => {
      const entry = found[i]!.entries[0];
      return 'absent' in condition ? entry === undefined : entry?.revision === condition.revision;
    });
  }

  lost({ otherwise = [] }: Commit, { revision, answers }: Snapshot): CommitResult {
    return { won: false, revision, answers: this.#questions.pick(otherwise, answers) };
  }
}

function questionsOf({ conditions, otherwise = [] }: Commit): Query[] {
  return [...conditions.map(condition => ({ key: boundKey(condition) })), ...otherwise];
}

function boundKey(condition: Condition): string {
  return 'absent' in condition ? condition.absent : condition.unchanged;
}

function writtenKey(write: Write): string {
  return 'put' in write ? write.put : write.delete;
}

/** Collects what comes within one turn of the event loop, or while enough is under way, and sends it in batches. */
class Queue<Item> {
  readonly #take: (waiting: Item[]) => readonly Item[];
  readonly #send: (batch: readonly Item[]) => Promise<void>;
  readonly #waiting: Item[] = [];
  #inFlight = 0;
  #isPlanned = false;

  /** @param take removes the next batch from the list, at least one item; @param send never throws. */
  constructor(take: (waiting: Item[]) => readonly Item[], send: (batch: readonly Item[]) => Promise<void>) {
    this.#take = take;
    this.#send = send;
  }

  add(item: Item): void {
    this.#waiting.push(item);
    if (this.#isPlanned) return;
    this.#isPlanned = true;
    setImmediate(() => {
      this.#isPlanned = false;
      this.#flush();
    });
  }

  #flush(): void {
    while (this.#waiting.length > 0 && this.#inFlight < mostInFlight) {
      this.#inFlight++;
      void this.#send(this.#take(this.#waiting)).finally(() => {
        this.#inFlight--;
        this.#flush();
      });
    }
  }
}

/** What `add` makes of it, or the error when the deadline comes first: others in the batch may have more time. */
function settled<Result>(
  deadline: Deadline,
  late: () => Error,
  add: (waiting: Waiting<Result>) => void,
): Promise<Result> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(late()), deadline.left());
    add({
      deadline,
      resolve: result => {
        clearTimeout(timer);
        resolve(result);
      },
      reject: error => {
        clearTimeout(timer);
        reject(error);
      },
    });
  });
}

function latest(batch: readonly Waiting<never>[]): Deadline {
  return batch.map(({ deadline }) => deadline).reduce((a, b) => (a.left() >= b.left() ? a : b));
}

/** Whose answer is small: values of a whole prefix may be long, and an answer has a limit. */
function isSmall(queries: readonly Query[]): boolean {
  return queries.length <= mostQueries && queries.every(query => 'key' in query || 'count' in query || query.keysOnly);
}

function takeReads(waiting: WaitingRead[]): WaitingRead[] {
  let count = 0;
  const next = waiting.findIndex(({ queries }) => {
    count += queries.length;
    return count > mostOperations;
  });
  return waiting.splice(0, next < 0 ? waiting.length : next);
}

/** The first that waits, and all behind it that go with it; the others keep their order. */
function takeCommits(waiting: WaitingCommit[]): WaitingCommit[] {
  const batch = new Batch();
  const taken = waiting.filter(({ commit }) => batch.add(commit));
  const rest = waiting.filter(one => !taken.includes(one));
  waiting.splice(0, waiting.length, ...rest);
  return taken;
}

/** What may stand in one transaction: nothing that would make another lose, and not too much. */
class Batch {
  #commits = 0;
  #writes = 0;
  #puts = false;
  /** A lease is granted for each commit that wants one: such a one goes alone. */
  #isLeased = false;
  readonly #uses = new Map<string, string>();
  readonly #questions = new Set<string>();

  /** False when it must wait for another batch. */
  add(commit: Commit): boolean {
    const uses = usesOf(commit);
    const questions = questionsOf(commit).map(query => JSON.stringify(query));
    const puts = commit.writes.some(write => 'put' in write);
    if (this.#commits > 0 && !this.#fits(commit, puts, uses, questions)) return false;
    this.#commits++;
    this.#writes += commit.writes.length;
    this.#puts = puts;
    this.#isLeased = isLeased(commit);
    for (const [key, use] of uses) this.#uses.set(key, use);
    for (const question of questions) this.#questions.add(question);
    return true;
  }

  #fits(commit: Commit, puts: boolean, uses: ReadonlyMap<string, string>, questions: readonly string[]): boolean {
    const isClash = ([key, use]: readonly [string, string]) =>
      this.#uses.has(key) && (use === own || this.#uses.get(key) !== use);
    const added = questions.filter(question => !this.#questions.has(question)).length;
    return (
      !this.#isLeased &&
      !isLeased(commit) &&
      this.#commits < mostCommits &&
      // Conditions are among the questions.
      this.#questions.size + added <= mostOperations &&
      this.#writes + commit.writes.length <= mostOperations &&
      // A store that is full still takes deletes, but not beside puts.
      puts === this.#puts &&
      ![...uses].some(isClash)
    );
  }
}

/** How a commit uses a key that no other commit may use beside it. */
const own = 'own';

/**
 * How a commit uses each of its keys. Two may use one alike: put it whatever it holds (the last one counts), or make it
 * with the same value where it is absent, as the first ADDs of a network make its record.
 */
function usesOf({ conditions, writes }: Commit): ReadonlyMap<string, string> {
  const uses = new Map(conditions.map(condition => [boundKey(condition), own]));
  const absent = new Set(conditions.flatMap(one => ('absent' in one ? [one.absent] : [])));
  for (const write of writes) {
    const key = writtenKey(write);
    if ('delete' in write) uses.set(key, own);
    else if (absent.has(key)) uses.set(key, `make ${write.value}`);
    else if (!uses.has(key)) uses.set(key, 'put');
  }
  return uses;
}

function isLeased({ writes }: Commit): boolean {
  return writes.some(write => 'put' in write && write.ttl !== undefined);
}

/** Tells those off whose check says no, directly before the others are written. */
async function stillWanted(batch: readonly WaitingCommit[]): Promise<WaitingCommit[]> {
  const verdicts = await Promise.allSettled(batch.map(({ check, deadline }) => passCheck(deadline, check)));
  return batch.filter((one, i) => {
    const verdict = verdicts[i]!;
    if (verdict.status === 'rejected') one.reject(verdict.reason);
    return verdict.status === 'fulfilled';
  });
}
