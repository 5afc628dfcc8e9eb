// What the program is when it is called by one of its names: which commands it has, and what belongs to all of them.
import { mainHelp } from './help.ts';
import { kubeIpam, type Program } from './parse.ts';
import { commands, type Entry } from './table.ts';

export interface Face extends Program {
  readonly commands: readonly Entry[];
  /** The first page of help. */
  help(): string;
  /** What is meant where no command is named, or only flags are given. */
  readonly usual?: string;
  /** Commands that are no person's business: help does not list them. */
  readonly hidden?: readonly Entry[];
}

const faces: ReadonlyMap<string, () => Promise<Face>> = new Map([
  ['kubectl-ipam', async () => (await import('./kubectl/face.ts')).kubectlIpam],
  ['kiwi', async () => (await import('./public-ip/face.ts')).kiwi],
]);

/** @param calledAs name of the executable, or of a link to it */
export async function faceOf(calledAs: string): Promise<Face> {
  const load = faces.get(calledAs);
  return load === undefined ? { ...kubeIpam, commands, help: mainHelp } : load();
}
