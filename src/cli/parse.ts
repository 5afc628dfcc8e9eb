// Takes the arguments of one command apart with yargs, and tells what is wrong with them.
import yargs, { type Argv, type Options } from 'yargs';
import { type Args, type Command, type Flag, type Flags, UsageError } from './command.ts';
import { didYouMean } from './suggest.ts';

/** Flags that every command takes. */
export const globalFlags: Flags = {
  timeout: {
    type: 'string',
    value: 'TIME',
    describe: 'how long the store may stay silent, as 5 or 1m30s (as configured, else 10s)',
  },
  'no-color': { type: 'boolean', describe: 'no colour, as with NO_COLOR=1' },
};

export type Parsed = { readonly args: Args } | { readonly help: string };

/** What a command line is called, and what its commands have in common. */
export interface Program {
  /** As people type it. */
  readonly name: string;
  /** Flags of every command. */
  readonly flags: Flags;
}

export const kubeIpam: Program = { name: 'kube-ipam', flags: globalFlags };

/** Throws a UsageError that says what to write instead. */
export async function parseArgs(
  command: Command,
  argv: readonly string[],
  columns: number,
  program: Program = kubeIpam,
): Promise<Parsed> {
  const flags = { ...command.flags, ...program.flags };
  const names = Object.entries(flags).flatMap(([name, { short }]) => (short ? [name, short] : [name]));
  const parser = describe(command, flags, columns, program.name);
  if (asksForHelp(argv)) return { help: (await run(parser, [command.verb, '--help'])).output };
  const { args, problem } = await run(parser, argv);
  const unknown = Object.keys(args).find(
    name => !['_', '$0', 'help', 'h', ...names, ...positionalNames(command)].includes(name),
  );
  const advice = `see "${program.name} ${command.verb} --help"`;
  if (unknown !== undefined) {
    const dashes = unknown.length === 1 ? '-' : '--';
    throw new UsageError(
      `${command.verb} knows no flag ${dashes}${unknown}${didYouMean(unknown, names, '--')}; ${advice}`,
    );
  }
  checkPositionals(command, args, advice);
  checkFlags(flags, args, advice);
  if (problem !== undefined) throw new UsageError(`${problem.replace(/\s*\n\s*/g, ' ')}; ${advice}`);
  const rest = Array.isArray(args._) ? args._.slice(1) : [];
  if (rest.length > 0) {
    throw new UsageError(`${command.verb} does not know what to do with ${JSON.stringify(rest[0])}; ${advice}`);
  }
  return { args };
}

function checkPositionals(command: Command, args: Args, advice: string): void {
  for (const { name, describe, required, choices } of command.positionals) {
    const value = args[name];
    if (value === undefined && required)
      throw new UsageError(`${command.verb} needs <${name}>, ${describe}; ${advice}`);
    if (value === undefined || choices === undefined || choices.includes(String(value))) continue;
    const known = choices.join(', ');
    throw new UsageError(`${name} "${value}" is not known${didYouMean(String(value), choices)}; known are ${known}`);
  }
}

function checkFlags(flags: Flags, args: Args, advice: string): void {
  for (const [name, { many, choices }] of Object.entries(flags)) {
    const value = args[name];
    if (!many && Array.isArray(value)) {
      throw new UsageError(`--${name} is given ${value.length} times: give it once; ${advice}`);
    }
    if (typeof value !== 'string' || choices === undefined || choices.includes(value)) continue;
    throw new UsageError(
      `--${name} ${JSON.stringify(value)} is not known${didYouMean(value, choices)}; known are ${choices.join(', ')}`,
    );
  }
}

function positionalNames(command: Command): string[] {
  return command.positionals.map(({ name }) => name);
}

/** What follows "--" is never a flag. */
function asksForHelp(argv: readonly string[]): boolean {
  const end = argv.indexOf('--');
  return argv.slice(0, end < 0 ? undefined : end).some(arg => ['--help', '-help', '-h'].includes(arg));
}

/** `ls`, `show <what>`, `conf [plugin]` */
export function usageOf(command: Command): string {
  const words = command.positionals.map(({ name, required }) => (required ? `<${name}>` : `[${name}]`));
  return [command.verb, ...words].join(' ');
}

function describe(command: Command, flags: Flags, columns: number, programName: string): Argv {
  const intro = command.details === undefined ? command.summary : `${command.summary}\n\n${command.details}`;
  const parser = yargs()
    .scriptName(programName)
    .detectLocale(false)
    .exitProcess(false)
    .version(false)
    .help('help')
    .alias('help', 'h')
    .wrap(Math.max(60, Math.min(columns, 110)))
    .parserConfiguration({
      'camel-case-expansion': false,
      'dot-notation': false,
      'boolean-negation': false,
      'parse-numbers': false,
      'parse-positional-numbers': false,
    })
    .command(usageOf(command), intro, builder => {
      for (const { name, describe, choices } of command.positionals) {
        builder.positional(name, {
          type: 'string',
          describe: choices ? `${describe}: ${choices.join(', ')}` : describe,
        });
      }
      for (const [name, flag] of Object.entries(flags)) builder.option(name, optionOf(flag));
      for (const [line, meaning] of command.examples) builder.example(line, meaning);
      return builder;
    });
  return parser;
}

function optionOf({ type, describe, choices, many, short, value }: Flag): Options {
  return {
    type,
    describe: value === undefined ? describe : `${value}: ${describe}`,
    ...(choices && { choices }),
    ...(many && { array: true, nargs: 1 }),
    ...(short && { alias: short }),
    ...(type === 'string' && { requiresArg: true }),
  };
}

interface Run {
  readonly args: Args;
  readonly problem: string | undefined;
  readonly output: string;
}

/** With a callback yargs neither prints nor ends the process. */
function run(parser: Argv, argv: readonly string[]): Promise<Run> {
  return new Promise(resolve => {
    const told = (error: Error | undefined | null, args: Args, output: string) =>
      resolve({ args, problem: error?.message, output });
    try {
      parser.parse([...argv], {}, told);
    } catch (error) {
      told(error instanceof Error ? error : new Error(String(error)), {}, '');
    }
  });
}
