// Counters, histograms and gauges in Prometheus' text format: the few kinds that are needed, and nothing kept beyond them.

export type Labels = Readonly<Record<string, string>>;

/** Seconds: an ADD takes some milliseconds, and 10 s when its store is away. */
const buckets = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

interface Family {
  readonly help: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  /** Lines without the family's name in front. */
  lines(): readonly string[];
}

export class Counter {
  readonly #values = new Map<string, number>();

  add(labels: Labels = {}, by = 1): void {
    const key = labelText(labels);
    this.#values.set(key, (this.#values.get(key) ?? 0) + by);
  }

  lines(): string[] {
    return [...this.#values].map(([labels, value]) => `${labels} ${value}`);
  }
}

export class Histogram {
  readonly #series = new Map<string, { labels: Labels; counts: number[]; sum: number }>();

  observe(seconds: number, labels: Labels = {}): void {
    const key = labelText(labels);
    const series = this.#series.get(key) ?? { labels, counts: new Array(buckets.length + 1).fill(0), sum: 0 };
    this.#series.set(key, series);
    const at = buckets.findIndex(limit => seconds <= limit);
    series.counts[at < 0 ? buckets.length : at]!++;
    series.sum += seconds;
  }

  lines(): string[] {
    return [...this.#series.values()].flatMap(({ labels, counts, sum }) => {
      let total = 0;
      const cumulated = counts.map((count, i) => {
        total += count;
        return `_bucket${labelText({ ...labels, le: i < buckets.length ? String(buckets[i]) : '+Inf' })} ${total}`;
      });
      return [...cumulated, `_sum${labelText(labels)} ${sum}`, `_count${labelText(labels)} ${total}`];
    });
  }
}

export class Metrics {
  readonly #families = new Map<string, Family>();

  counter(name: string, help: string): Counter {
    const counter = new Counter();
    this.#families.set(name, { help, type: 'counter', lines: () => counter.lines() });
    return counter;
  }

  histogram(name: string, help: string): Histogram {
    const histogram = new Histogram();
    this.#families.set(name, { help, type: 'histogram', lines: () => histogram.lines() });
    return histogram;
  }

  /** A number that is asked for when somebody reads the page; undefined where there is none to tell. */
  gauge(name: string, help: string, read: () => number | undefined, labels: Labels = {}): void {
    const lines = () => {
      const value = read();
      return value === undefined ? [] : [`${labelText(labels)} ${value}`];
    };
    this.#families.set(name, { help, type: 'gauge', lines });
  }

  page(): string {
    const families = [...this.#families].map(([name, { help, type, lines }]) => {
      const own = lines().map(line => `${name}${line}\n`);
      return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${own.join('')}`;
    });
    return families.join('');
  }
}

function labelText(labels: Labels): string {
  const escaped = (text: string) => text.replace(/[\\"\n]/g, found => (found === '\n' ? '\\n' : `\\${found}`));
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value)}"`);
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}
