// The text that Prometheus reads: escaped labels, cumulated buckets, gauges that are asked for at that moment.
import { expect, it } from 'vitest';
import { Metrics } from './metrics.ts';

it('counts by labels, whose values may be anything', () => {
  const metrics = new Metrics();
  const counter = metrics.counter('a_total', 'What it counts.');
  counter.add({ code: '0' });
  counter.add({ code: '0' }, 2);
  counter.add({ code: 'a"b\\c\nd' });
  expect(metrics.page()).toBe(
    '# HELP a_total What it counts.\n# TYPE a_total counter\na_total{code="0"} 3\na_total{code="a\\"b\\\\c\\nd"} 1\n',
  );
});

it('a histogram cumulates', () => {
  const metrics = new Metrics();
  const histogram = metrics.histogram('d_seconds', 'How long.');
  for (const seconds of [0.001, 0.002, 0.3, 99]) histogram.observe(seconds, { command: 'ADD' });
  const page = metrics.page();
  for (const [limit, count] of [
    ['0.002', 2],
    ['0.25', 2],
    ['0.5', 3],
    ['10', 3],
    ['+Inf', 4],
  ]) {
    expect(page).toContain(`d_seconds_bucket{command="ADD",le="${limit}"} ${count}\n`);
  }
  expect(page).toContain('d_seconds_count{command="ADD"} 4\n');
  expect(page).toMatch(/d_seconds_sum\{command="ADD"\} 99\.303/);
});

it('a gauge is asked for when the page is read, and left out where there is nothing to tell', () => {
  const metrics = new Metrics();
  let value: number | undefined = 1;
  metrics.gauge('g', 'Now.', () => value);
  expect(metrics.page()).toContain('\ng 1\n');
  value = undefined;
  expect(metrics.page()).toBe('# HELP g Now.\n# TYPE g gauge\n');
});
