// Prints results: tables for people, JSON and YAML for programs; colour and progress only where a person looks.
import { isatty } from 'node:tty';
import { type Args, type Flags, given, text } from './command.ts';
import { jsonOf } from './json.ts';
import type { CliIo } from './program.ts';
import { yamlItem, yamlOf } from './yaml.ts';

export const formats = ['table', 'wide', 'json', 'yaml'] as const;
export type Format = (typeof formats)[number];

export const outputFlags: Flags = {
  output: { type: 'string', short: 'o', choices: formats, describe: 'how to print the result (table)' },
};

export function formatOf(args: Args): Format {
  const wanted = text(args, 'output');
  return formats.find(format => format === wanted) ?? 'table';
}

export function isForPeople(format: Format): boolean {
  return format === 'table' || format === 'wide';
}

/** Prints one value for a program. */
export function printValue(io: CliIo, format: Format, value: object): void {
  io.writeStdout(format === 'yaml' ? yamlOf(value) : `${jsonOf(value, 2)}\n`);
}

const codes = { bold: 1, red: 31, green: 32, yellow: 33, dim: 2 } as const;
export type Paint = (colour: keyof typeof codes, text: string) => string;

/** Colours text on a terminal, unless the user or NO_COLOR says otherwise. */
export function painter(args: Args, io: CliIo): Paint {
  const wanted = io.isTerminal && !given(args, 'no-color') && !io.env.NO_COLOR && io.env.TERM !== 'dumb';
  return (colour, plain) => (wanted && plain !== '' ? `\u001b[${codes[colour]}m${plain}\u001b[0m` : plain);
}

/** Text without characters that would steer a terminal: names in a store or a file are not ours. */
export function plain(value: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must go.
  return value.replace(/[\u0000-\u001f\u007f-\u009f]/g, '?');
}

export interface Column<Row> {
  readonly title: string;
  readonly cell: (row: Row) => string;
  /** Numbers stand at the right. */
  readonly right?: boolean;
}

/** A table that is printed page by page: later pages may widen the columns, never narrow them. */
export class Table<Row> {
  readonly #io: CliIo;
  readonly #columns: readonly Column<Row>[];
  readonly #paint: Paint;
  readonly #widths: number[];
  #started = false;

  constructor(io: CliIo, columns: readonly Column<Row>[], paint: Paint) {
    this.#io = io;
    this.#columns = columns;
    this.#paint = paint;
    this.#widths = columns.map(({ title }) => title.length);
  }

  rows(rows: readonly Row[]): void {
    if (rows.length === 0) return;
    const cells = rows.map(row => this.#columns.map(column => plain(column.cell(row)) || '-'));
    for (const line of cells) {
      for (const [i, cell] of line.entries()) this.#widths[i] = Math.max(this.#widths[i]!, cell.length);
    }
    const lines = cells.map(line => this.#line(line));
    if (!this.#started) lines.unshift(this.#paint('bold', this.#line(this.#columns.map(({ title }) => title))));
    this.#started = true;
    this.#io.writeStdout(`${lines.join('\n')}\n`);
  }

  #line(cells: readonly string[]): string {
    const padded = cells.map((cell, i) => {
      const width = this.#widths[i]!;
      return this.#columns[i]!.right ? cell.padStart(width) : cell.padEnd(width);
    });
    return padded.join('  ').trimEnd();
  }
}

/** A list for programs, printed page by page. */
export class List {
  readonly #io: CliIo;
  readonly #yaml: boolean;
  #count = 0;

  constructor(io: CliIo, format: Format) {
    this.#io = io;
    this.#yaml = format === 'yaml';
  }

  items(items: readonly object[]): void {
    let out = '';
    for (const item of items) {
      if (this.#yaml) out += yamlItem(item);
      else out += `${this.#count === 0 ? '[' : ','}\n  ${jsonOf(item)}`;
      this.#count++;
    }
    if (out !== '') this.#io.writeStdout(out);
  }

  end(): void {
    if (this.#count === 0) this.#io.writeStdout('[]\n');
    else if (!this.#yaml) this.#io.writeStdout('\n]\n');
  }
}

/** Tells how far long work has come, on stderr and only to a person; nothing for work that is done within a second. */
export function progressOf(io: CliIo, what: string): { step(done: number, of?: number): void; end(): void } {
  const started = performance.now();
  let shown = 0;
  const quiet = !isatty(2);
  return {
    step(done, of) {
      const now = performance.now();
      if (quiet || now - started < 1000 || now - shown < 200) return;
      shown = now;
      io.writeStderr(`\r${what}: ${done}${of === undefined ? '' : ` of ${of}`}\u001b[K`);
    },
    end() {
      if (shown > 0) io.writeStderr('\r\u001b[K');
    },
  };
}

/** `1 address`, `2 addresses`. */
export function counted(count: number | bigint, one: string, many = `${one}s`): string {
  return `${count} ${Number(count) === 1 ? one : many}`;
}
