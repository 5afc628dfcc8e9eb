// What a node does next about each address: every state of claim, gate, plan and time.
import { describe, expect, it } from 'vitest';
import type { Plan } from './plan.ts';
import { type Situation, stepsOf } from './steps.ts';

const a = '192.0.2.1';

function planOf(lines: Readonly<Record<string, readonly string[]>>, moves: Plan['moves'] = []): Plan {
  return { lines: new Map(Object.entries(lines)), moves, nobody: new Map() };
}

function situation(changes: Partial<Situation> = {}): Situation {
  return {
    me: 'me',
    lease: '7',
    wanted: new Set([a]),
    owners: new Map(),
    handedTo: new Map(),
    moves: new Map(),
    plan: planOf({ [a]: ['me', 'other', 'third'] }),
    held: new Set(),
    busy: new Set(),
    freeFrom: new Map(),
    restUntil: new Map(),
    mayMove: false,
    now: 1000,
    ...changes,
  };
}

const nothing = { drop: [], release: [], claim: [], next: undefined };
const mine = new Map([[a, { id: 'me', lease: '7' }]]);
const line = (...ids: string[]) => planOf({ [a]: ids });

describe('an address without owner', () => {
  it('is claimed at once by the first in line, later by the others, never by who is not in it', () => {
    expect(stepsOf(situation())).toEqual({ ...nothing, claim: [a] });
    expect(stepsOf(situation({ plan: line('other', 'me') }))).toEqual({ ...nothing, claim: [a] });
    const freeFrom = new Map([[a, 1000]]);
    expect(stepsOf(situation({ plan: line('other', 'me'), freeFrom }))).toEqual({ ...nothing, next: 200 });
    expect(stepsOf(situation({ plan: line('other', 'third', 'me'), freeFrom }))).toEqual({ ...nothing, next: 400 });
    expect(stepsOf(situation({ plan: line('other', 'me'), freeFrom, now: 1200 }))).toEqual({ ...nothing, claim: [a] });
    expect(stepsOf(situation({ plan: line('other'), freeFrom }))).toEqual(nothing);
    expect(stepsOf(situation({ plan: planOf({}) }))).toEqual(nothing);
  });

  it('waits while its former owner may still answer, while it is handed to another, and after a failure here', () => {
    expect(stepsOf(situation({ freeFrom: new Map([[a, 6000]]) }))).toEqual({ ...nothing, next: 5000 });
    const freeFrom = new Map([[a, 1000]]);
    expect(stepsOf(situation({ freeFrom, handedTo: new Map([[a, 'other']]) }))).toEqual({ ...nothing, next: 1000 });
    const toMe = { freeFrom, handedTo: new Map([[a, 'me']]), plan: line('other', 'me') };
    expect(stepsOf(situation(toMe))).toEqual({ ...nothing, claim: [a] });
    expect(stepsOf(situation({ restUntil: new Map([[a, 3000]]) }))).toEqual({ ...nothing, next: 2000 });
  });

  it('is left alone while something is under way, without a lease, and when nobody wants it', () => {
    expect(stepsOf(situation({ busy: new Set([a]) }))).toEqual(nothing);
    expect(stepsOf(situation({ lease: undefined }))).toEqual(nothing);
    expect(stepsOf(situation({ wanted: new Set() }))).toEqual(nothing);
  });
});

describe('an address of ours', () => {
  it('is answered for: nothing to do', () => {
    expect(stepsOf(situation({ owners: mine, held: new Set([a]) }))).toEqual(nothing);
  });

  it('is claimed afresh where it is not answered for, a renewal having come too late', () => {
    expect(stepsOf(situation({ owners: mine }))).toEqual({ ...nothing, claim: [a] });
  });

  it('is given up when nobody wants it, or this node may not have it any more: then to the next in line', () => {
    const held = new Set([a]);
    expect(stepsOf(situation({ owners: mine, held, wanted: new Set() }))).toEqual({
      ...nothing,
      release: [{ address: a }],
    });
    expect(stepsOf(situation({ owners: mine, held, plan: line('other', 'third') }))).toEqual({
      ...nothing,
      release: [{ address: a, to: 'other' }],
    });
    expect(stepsOf(situation({ owners: mine, held, plan: planOf({}) }))).toEqual({
      ...nothing,
      release: [{ address: a }],
    });
  });

  it('moves when somebody asks for it, to whom that is, if that node may have it', () => {
    const steps = (wish: string, ...ids: string[]) =>
      stepsOf(situation({ owners: mine, held: new Set([a]), plan: line(...ids), moves: new Map([[a, wish]]) })).release;
    expect(steps('', 'me', 'other', 'third')).toEqual([{ address: a, to: 'other' }]);
    expect(steps('', 'other', 'me')).toEqual([{ address: a, to: 'other' }]);
    expect(steps('third', 'me', 'other', 'third')).toEqual([{ address: a, to: 'third' }]);
    expect(steps('stranger', 'me', 'other')).toEqual([]);
    expect(steps('me', 'me', 'other')).toEqual([]);
    expect(steps('', 'me')).toEqual([]);
  });

  it('moves for balance only when it may, and only as the first of all moves', () => {
    const held = new Set([a]);
    const lines = { [a]: ['other', 'me'] };
    const move = { address: a, from: 'me', to: 'other' };
    const another = { address: '192.0.2.2', from: 'third', to: 'other' };
    const steps = (moves: Plan['moves'], mayMove: boolean) =>
      stepsOf(situation({ owners: mine, held, plan: planOf(lines, moves), mayMove })).release;
    expect(steps([move], false)).toEqual([]);
    expect(steps([move], true)).toEqual([{ address: a, to: 'other' }]);
    expect(steps([another, move], true)).toEqual([]);
    expect(steps([], true)).toEqual([]);
  });
});

describe('what this node answers for without a claim on its lease', () => {
  it.each([
    ['nobody has claimed', new Map()],
    ['another has claimed', new Map([[a, { id: 'other', lease: '9' }]])],
    ['an earlier process of this id has claimed', new Map([[a, { id: 'me', lease: '6' }]])],
  ])('goes: %s', (_, owners) => {
    expect(stepsOf(situation({ owners, held: new Set([a]) })).drop).toEqual([a]);
  });

  it('goes also when the lease is lost', () => {
    expect(stepsOf(situation({ owners: mine, held: new Set([a]), lease: undefined })).drop).toEqual([a]);
  });
});
