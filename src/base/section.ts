// Reads one object of a configuration key by key and collects every problem instead of stopping at the first.

/** What is wrong with a configuration: key, value and rule, one line each. */
export class Problems {
  readonly lines: string[] = [];

  add(path: string, value: unknown, rule: string): void {
    const shown = secretKey.test(path) ? '(not shown)' : show(value);
    this.lines.push(value === undefined ? `${path}: ${rule}` : `${path} ${shown}: ${rule}`);
  }
}

/** Keys under which a person may have written a secret, where only the name of its file belongs. */
const secretKey = /passw|secret|token/i;

/** A value as JSON for a message: cut short, without what may be a secret (user information of URLs, passwords). */
export function show(value: unknown): string {
  const open = (key: string, part: unknown) => (secretKey.test(key) ? '(not shown)' : part);
  let text: string;
  try {
    text = JSON.stringify(value, open) ?? String(value);
  } catch {
    return '(nested too deeply to be shown)';
  }
  // Whatever stands before an "@" may be a password, which may itself hold "/", "," and "@".
  const safe = text.replace(/"(?:[^"\\]|\\.)*@/g, '"***@');
  return safe.length > 120 ? `${safe.slice(0, 117)}...` : safe;
}

/** An object of the configuration; null means absent, as with Go's decoder. */
export class Section {
  readonly path: string;
  readonly problems: Problems;
  readonly #object: Readonly<Record<string, unknown>>;

  constructor(object: Readonly<Record<string, unknown>>, path: string, problems: Problems) {
    this.#object = object;
    this.path = path;
    this.problems = problems;
  }

  get(key: string): unknown {
    return this.has(key) ? this.#object[key] : undefined;
  }

  has(key: string): boolean {
    return Object.hasOwn(this.#object, key) && this.#object[key] !== null && this.#object[key] !== undefined;
  }

  /** All keys, in the order written; those that count as absent too. */
  keys(): string[] {
    return Object.keys(this.#object);
  }

  /** Notes each key that is none of these. For objects where a misspelt key would silently change the meaning. */
  knowsOnly(known: readonly string[]): void {
    for (const key of this.keys()) {
      if (!known.includes(key)) this.wrong(key, `is unknown here: the keys are ${known.join(', ')}`);
    }
  }

  pathOf(key: string): string {
    return this.path === '' ? key : `${this.path}.${key}`;
  }

  /** Notes that the key's value breaks a rule. */
  wrong(key: string, rule: string): undefined {
    this.problems.add(this.pathOf(key), this.get(key), rule);
    return undefined;
  }

  text(key: string): string | undefined {
    const value = this.get(key);
    if (value === undefined || typeof value === 'string') return value;
    return this.wrong(key, 'must be a string');
  }

  /** As `parsed`, of a key that must not be absent. */
  required<T>(key: string, read: (value: unknown) => T | undefined, rule: string): T | undefined {
    return this.has(key) ? this.parsed(key, read, rule) : this.wrong(key, `is missing: ${rule}`);
  }

  /** A string that is not empty; "" counts as absent. */
  filledText(key: string): string | undefined {
    return this.text(key) || undefined;
  }

  /** What `read` makes of the value; undefined from `read` is a problem that `rule` describes. */
  parsed<T>(key: string, read: (value: unknown) => T | undefined, rule: string): T | undefined {
    const value = this.get(key);
    return value === undefined ? undefined : (read(value) ?? this.wrong(key, rule));
  }

  list(key: string): readonly unknown[] {
    const value = this.get(key);
    if (value === undefined) return [];
    return Array.isArray(value) ? value : (this.wrong(key, 'must be a list') ?? []);
  }

  section(key: string): Section | undefined {
    const value = this.get(key);
    return value === undefined ? undefined : sectionOf(value, this.pathOf(key), this.problems);
  }

  /** The same object, with its problems noted elsewhere. */
  reporting(problems: Problems): Section {
    return new Section(this.#object, this.path, problems);
  }

  /** The objects of a list, each with its place in the path. */
  sectionList(key: string): Section[] {
    return this.list(key).flatMap((item, i) => sectionOf(item, `${this.pathOf(key)}[${i}]`, this.problems) ?? []);
  }

  /** The objects of a list of lists, each with its place in the path; an inner list must not be empty. */
  sectionLists(key: string): Section[][] {
    return this.list(key).flatMap((inner, i) => {
      const path = `${this.pathOf(key)}[${i}]`;
      if (Array.isArray(inner) && inner.length > 0) {
        return [inner.flatMap((item, j) => sectionOf(item, `${path}[${j}]`, this.problems) ?? [])];
      }
      this.problems.add(path, inner, 'must be a list of at least one range');
      return [];
    });
  }
}

/** The value as a section, or a problem when it is no object. */
export function sectionOf(value: unknown, path: string, problems: Problems): Section | undefined {
  if (isObject(value)) return new Section(value, path, problems);
  problems.add(path, value, 'must be an object');
  return undefined;
}

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
