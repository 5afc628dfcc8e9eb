// Turns: never two at once, and what must stop before what is new.
import { expect, it } from 'vitest';
import { Turns, urgency } from './turns.ts';

it('takes one piece of work at a time, the most urgent first, in the order asked', async () => {
  const turns = new Turns();
  const log: string[] = [];
  let running = 0;
  const work = (name: string) => async () => {
    expect(++running).toBe(1);
    await new Promise(resolve => setTimeout(resolve, 2));
    log.push(name);
    running--;
    return name;
  };
  const results = [
    turns.take(urgency.begin, work('first')),
    turns.take(urgency.begin, work('grant')),
    turns.take(urgency.goOn, work('renew')),
    turns.take(urgency.stop, work('drop a')),
    turns.take(urgency.stop, work('drop b')),
  ];
  expect(await Promise.all(results)).toEqual(['first', 'grant', 'renew', 'drop a', 'drop b']);
  expect(log).toEqual(['first', 'drop a', 'drop b', 'renew', 'grant']);
});

it('goes on after work that failed', async () => {
  const turns = new Turns();
  const failed = turns.take(urgency.stop, async () => {
    throw new Error('no');
  });
  const done = turns.take(urgency.stop, async () => 'yes');
  await expect(failed).rejects.toThrow('no');
  expect(await done).toBe('yes');
});

it('begins nothing after its last work, which waits for what runs', async () => {
  const turns = new Turns();
  const log: string[] = [];
  const work = (name: string) => async () => {
    await new Promise(resolve => setTimeout(resolve, 2));
    log.push(name);
  };
  void turns.take(urgency.begin, work('runs'));
  void turns.take(urgency.stop, work('waits'));
  await turns.last(work('last'));
  void turns.take(urgency.stop, work('late'));
  await new Promise(resolve => setTimeout(resolve, 20));
  expect(log).toEqual(['runs', 'last']);
});
