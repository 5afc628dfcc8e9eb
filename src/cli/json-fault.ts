// Finds the place where a text stops being JSON (RFC 8259), as a person would point at it.

export interface Place {
  /** From 1. */
  readonly line: number;
  readonly column: number;
}

export interface JsonFault extends Place {
  readonly what: string;
  /** The line itself. */
  readonly text: string;
}

/** The first fault of the text; undefined when it is JSON. */
export function findFault(text: string): JsonFault | undefined {
  const reader = new Reader(text);
  try {
    reader.document();
    return undefined;
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    return { ...placeOf(text, error.at), what: error.what, text: lineAt(text, error.at) };
  }
}

class Fault extends Error {
  readonly at: number;
  readonly what: string;

  constructor(at: number, what: string) {
    super(what);
    this.at = at;
    this.what = what;
  }
}

function placeOf(text: string, at: number): Place {
  const before = text.slice(0, at).split('\n');
  return { line: before.length, column: before.at(-1)!.length + 1 };
}

function lineAt(text: string, at: number): string {
  const start = text.lastIndexOf('\n', at - 1) + 1;
  const end = text.indexOf('\n', at);
  return text.slice(start, end < 0 ? undefined : end).replace(/\r$/, '');
}

const deepest = 500;

class Reader {
  readonly #text: string;
  #at = 0;
  /** Where the last value or bracket ended: a missing comma belongs there, not where the next value begins. */
  #end = 0;
  #depth = 0;

  constructor(text: string) {
    this.#text = text;
  }

  document(): void {
    this.#value('a configuration');
    this.#blank();
    if (this.#at < this.#text.length) throw new Fault(this.#at, 'something follows after the end of the configuration');
  }

  #value(what: string): void {
    this.#blank();
    const next = this.#text[this.#at];
    if (next === '{') this.#list('}', () => this.#member());
    else if (next === '[') this.#list(']', () => this.#value('a value'));
    else if (next === '"') this.#string();
    else this.#word(what);
    this.#end = this.#at;
  }

  #list(close: string, item: () => void): void {
    const opened = this.#at;
    if (++this.#depth > deepest) throw new Fault(opened, 'the nesting is too deep');
    this.#at++;
    this.#blank();
    if (this.#text[this.#at] === close) this.#at++;
    else {
      for (;;) {
        item();
        this.#blank();
        const next = this.#text[this.#at];
        if (next === close) break;
        if (next !== ',') throw this.#unfinished(opened, close);
        const comma = this.#at++;
        this.#blank();
        if (this.#text[this.#at] === close) throw new Fault(comma, `a comma too many before "${close}"`);
      }
      this.#at++;
    }
    this.#depth--;
  }

  /** A list that goes on without a comma, or that never ends. */
  #unfinished(opened: number, close: string): Fault {
    const next = this.#text[this.#at];
    if (next === undefined) {
      const { line } = placeOf(this.#text, opened);
      return new Fault(this.#at, `the text ends, but "${this.#text[opened]}" of line ${line} is not closed`);
    }
    if (/["'[{\w-]/.test(next)) return new Fault(this.#end, 'a comma is missing after this value');
    return new Fault(this.#at, `"," or "${close}" must stand here, not "${next}"`);
  }

  #member(): void {
    this.#blank();
    const next = this.#text[this.#at];
    if (next === "'") throw new Fault(this.#at, 'names stand in double quotes');
    if (next !== '"')
      throw new Fault(this.#at, next === undefined ? 'the text ends here' : 'a name in double quotes must stand here');
    this.#string();
    this.#end = this.#at;
    this.#blank();
    if (this.#text[this.#at] !== ':') throw new Fault(this.#end, 'a colon is missing after this name');
    this.#at++;
    this.#value('a value');
  }

  #string(): void {
    const opened = this.#at++;
    for (; ; this.#at++) {
      const next = this.#text[this.#at];
      if (next === undefined || next === '\n')
        throw new Fault(opened, 'the quote that begins here is not closed on its line');
      if (next === '"') break;
      if (next < ' ') throw new Fault(this.#at, 'a control character stands in a string');
      if (next !== '\\') continue;
      if (!/^(["\\/bfnrt]|u[0-9a-fA-F]{4})/.test(this.#text.slice(this.#at + 1, this.#at + 6))) {
        throw new Fault(this.#at, 'a backslash that JSON does not know');
      }
      this.#at++;
    }
    this.#at++;
  }

  #word(what: string): void {
    const match = /^(true|false|null|-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?)(?![\w.+-])/.exec(
      this.#text.slice(this.#at, this.#at + 400),
    );
    if (match !== null) {
      this.#at += match[0].length;
      return;
    }
    const next = this.#text[this.#at];
    if (next === undefined) throw new Fault(this.#at, `the text ends where ${what} must stand`);
    if (next === "'") throw new Fault(this.#at, 'strings stand in double quotes');
    throw new Fault(this.#at, `${what} must stand here`);
  }

  #blank(): void {
    while (' \t\r\n'.includes(this.#text[this.#at] ?? 'x')) this.#at++;
    const next = this.#text[this.#at];
    if (next === '#' || (next === '/' && '/*'.includes(this.#text[this.#at + 1] ?? 'x'))) {
      throw new Fault(this.#at, 'JSON has no comments');
    }
    if (next === '\ufeff')
      throw new Fault(this.#at, 'a byte order mark stands here: save the file as UTF-8 without one');
  }
}
