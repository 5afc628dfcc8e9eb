// Rounds of announcements: in their order, at their times, and not a word after the address is gone.
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { Announcer } from './announcer.ts';

let said: { address: string; at: number; signal: AbortSignal }[] = [];
let running = 0;
let most = 0;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
  said = [];
  running = 0;
  most = 0;
});
afterEach(() => vi.useRealTimers());

function announcer(interval = 0, takes = 10): Announcer {
  const announce = async (address: string, signal: AbortSignal) => {
    said.push({ address, at: performance.now(), signal });
    most = Math.max(most, ++running);
    await new Promise(resolve => setTimeout(resolve, takes));
    running--;
  };
  return new Announcer({ announce, interval });
}

const times = (address: string, begun: number) =>
  said.filter(one => one.address === address).map(({ at }) => Math.round(at - begun));

it('says it at once, and four times more over five seconds', async () => {
  const begun = performance.now();
  using all = announcer();
  all.begin(['a']);
  await vi.advanceTimersByTimeAsync(20_000);
  expect(times('a', begun)).toEqual([0, 1100, 2200, 3300, 5000]);
});

it('says it for every address once before it says it for any a second time, 64 at the same time', async () => {
  using all = announcer(0, 1500);
  const addresses = Array.from({ length: 100 }, (_, i) => `a${i}`);
  all.begin(addresses);
  await vi.advanceTimersByTimeAsync(30_000);
  expect(new Set(said.slice(0, 100).map(({ address }) => address)).size).toBe(100);
  expect(most).toBe(64);
  expect(said).toHaveLength(500);
});

it('ends at once when the address is let go, and what is being said too', async () => {
  using all = announcer(0, 500);
  all.begin(['a', 'b']);
  await vi.advanceTimersByTimeAsync(1200);
  all.end(['a']);
  expect(said.filter(({ address }) => address === 'a').every(({ signal }) => signal.aborted)).toBe(true);
  await vi.advanceTimersByTimeAsync(20_000);
  expect(said.filter(({ address }) => address === 'a')).toHaveLength(2);
  expect(said.filter(({ address }) => address === 'b')).toHaveLength(5);
});

it('says it again from time to time, if asked to', async () => {
  using all = announcer(60_000);
  all.begin(['a']);
  await vi.advanceTimersByTimeAsync(5000 + 4 * 75_000);
  const count = said.length;
  expect(count).toBeGreaterThanOrEqual(5 + 4);
  expect(count).toBeLessThanOrEqual(5 + 7);
});

it('begins anew when the address comes back', async () => {
  using all = announcer();
  all.begin(['a']);
  await vi.advanceTimersByTimeAsync(100);
  all.begin(['a']);
  await vi.advanceTimersByTimeAsync(20_000);
  expect(said).toHaveLength(6);
});
