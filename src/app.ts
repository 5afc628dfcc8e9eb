// The part of the program that a pod's ADD and DEL rarely need: the command line, and the plugin with etcd3 at hand.
import type { CliIo } from './cli/program.ts';
import type { PluginIo } from './cni/plugin.ts';
import type { OpenGrpc } from './store/open.ts';

/** The plugin face once more; here etcd can also be reached by gRPC, and YAML be read. */
export async function runPlugin(io: PluginIo): Promise<number | 'asset'> {
  const [{ runPlugin }, { parseYaml }] = await Promise.all([import('./cni/plugin.ts'), import('./kube/yaml.ts')]);
  return runPlugin({ ...io, parts: { loadGrpc, parseYaml } });
}

export async function loadGrpc(): Promise<OpenGrpc> {
  return (await import('./store/etcd/grpc.ts')).openGrpc;
}

/** The command line: `argv` is what follows the program's name. Returns the exit code. */
export async function runCli(argv: readonly string[], io: CliIo): Promise<number> {
  const { runCli } = await import('./cli/program.ts');
  return runCli(argv, io);
}
