// Runs kubectl, with the kubeconfig and context that the user named: how a cluster is reached is kubectl's business.
import { deadlineIn } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import { attach, execute } from '../../host/exec.ts';
import { UnreachableError } from '../../store/kv.ts';
import { type Args, type Flags, text } from '../command.ts';
import type { CliIo } from '../program.ts';

/** As kubectl has them. */
export const connectionFlags: Flags = {
  kubeconfig: { type: 'string', value: 'FILE', describe: 'kubeconfig (as kubectl finds it)' },
  context: { type: 'string', value: 'NAME', describe: 'context of the kubeconfig (its current one)' },
};

/** Milliseconds for one question to the API server. */
const timeout = 20_000;

export class Kubectl {
  readonly #flags: readonly string[];
  readonly #env: Readonly<Record<string, string>>;

  constructor(args: Args, { env }: CliIo) {
    this.#flags = Object.keys(connectionFlags).flatMap(name => {
      const value = text(args, name);
      return value === undefined ? [] : [`--${name}=${value}`];
    });
    // All of it: credential plugins, proxies and kubectl itself are steered by variables of their own.
    this.#env = Object.fromEntries(
      Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
    );
  }

  /** The namespace of the context. */
  async namespace(): Promise<string> {
    try {
      return (await this.ask(['config', 'view', '--minify', '--output=jsonpath={..namespace}'])).trim() || 'default';
    } catch (error) {
      const cure = 'name a kubeconfig with --kubeconfig, and a context with --context, as for kubectl itself';
      throw new UnreachableError(`${messageOf(error)}: no cluster is chosen; ${cure}`, { cause: error });
    }
  }

  /** What it prints. Throws UnreachableError with its complaint. */
  async ask(argv: readonly string[]): Promise<string> {
    const request = `--request-timeout=${timeout / 1000}s`;
    const all = [...argv, request, ...this.#flags];
    const { code, stdout, stderr, failure } = await execute('kubectl', all, this.#env, '', deadlineIn(2 * timeout));
    if (code === 0) return stdout;
    const why = failure === 'ENOENT' ? 'it is not in PATH' : stderr.trim() || failure || `exit code ${code}`;
    throw new UnreachableError(`kubectl ${argv[0]}: ${why}`);
  }

  /** Runs it on our own standard input and output, to its end; gives its exit code. */
  async attach(argv: readonly string[]): Promise<number> {
    // What follows "--" is not kubectl's own.
    const [verb = '', ...rest] = argv;
    const { code, failure } = await attach('kubectl', [verb, ...this.#flags, ...rest], this.#env);
    if (code !== undefined) return code;
    throw new UnreachableError(`kubectl ${verb}: ${failure}`);
  }
}
