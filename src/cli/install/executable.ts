// Puts the executable and its library folder into the runtime's plugin folder, while older copies of it may be running.
import { closeSync, lstatSync, openSync, readdirSync, readSync, rmdirSync, rmSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { type Deadline, deadlineIn } from '../../base/clock.ts';
import { code, FailureError, messageOf } from '../../base/errors.ts';
import { makeFolder } from '../../base/folder.ts';
import { isObject } from '../../base/section.ts';
import { version } from '../../base/version.ts';
import { AtomicFile, syncFolder } from '../../host/atomic-file.ts';
import { execute } from '../../host/exec.ts';

export const executableName = 'kube-ipam';
/** Folder of the executable's libraries, beside it; the bundler gives it this name. */
export const libraryFolder = 'kube-ipam.lib';

/** The files of a built tree that an installation needs. */
export interface Source {
  readonly executable: string;
  /** Paths of the libraries. */
  readonly libraries: readonly string[];
}

/** This program's own files. Throws where it was not built into an executable. */
export function sourceOf(executable: string): Source {
  if (version === 'source') {
    throw new FailureError(
      code.unsupported,
      'this kube-ipam runs from its sources and can install nothing: build the executable with "npm run build", then run that one',
    );
  }
  const folder = join(dirname(executable), libraryFolder);
  return { executable, libraries: filesOf(folder) };
}

function filesOf(folder: string): string[] {
  const isFolder = statSync(folder, { throwIfNoEntry: false })?.isDirectory() === true;
  return isFolder ? readdirSync(folder).map(name => join(folder, name)) : [];
}

/** Whether the source is the installed copy itself. */
export function isInstalled(source: Source, binDir: string): boolean {
  const [own, there] = [source.executable, join(binDir, executableName)].map(path =>
    statSync(path, { throwIfNoEntry: false }),
  );
  return own !== undefined && there !== undefined && own.dev === there.dev && own.ino === there.ino;
}

/** Whether executable and libraries lie there already, byte for byte, and may be run. */
export function isUpToDate(source: Source, binDir: string): boolean {
  const libraries = source.libraries.map(path => [path, join(binDir, libraryFolder, basename(path)), 0o644] as const);
  const pairs = [...libraries, [source.executable, join(binDir, executableName), 0o755] as const];
  return pairs.every(([from, to, mode]) => {
    const there = statSync(to, { throwIfNoEntry: false });
    if (there?.isFile() !== true || (there.mode & 0o777) !== mode) return false;
    return there.size === statSync(from).size && haveSameBytes(from, to);
  });
}

function haveSameBytes(one: string, other: string): boolean {
  using near = new Chunks(one);
  using far = new Chunks(other);
  for (let chunk = near.next(); chunk.length > 0; chunk = near.next()) if (!chunk.equals(far.next())) return false;
  return far.next().length === 0;
}

/** Copies both; the new executable must have answered before it takes the old one's place. */
export async function installExecutable(source: Source, binDir: string): Promise<void> {
  makeFolder(binDir, 0o755);
  if (source.libraries.length > 0) makeFolder(join(binDir, libraryFolder), 0o755);
  for (const library of source.libraries) {
    using file = new AtomicFile(join(binDir, libraryFolder, basename(library)), 0o644);
    copyInto(file, library);
    file.finish();
  }
  using file = new AtomicFile(join(binDir, executableName), 0o755);
  copyInto(file, source.executable);
  await probe(file.seal());
  file.finish();
}

function copyInto(file: AtomicFile, path: string): void {
  using chunks = new Chunks(path);
  for (let chunk = chunks.next(); chunk.length > 0; chunk = chunks.next()) file.write(chunk);
}

/** Reads a file of more than a hundred megabytes piece by piece. */
class Chunks implements Disposable {
  readonly #fd: number;
  readonly #buffer = Buffer.allocUnsafe(4 * 2 ** 20);

  constructor(path: string) {
    this.#fd = openSync(path, 'r');
  }

  /** Valid until the next call; empty at the end. All but the last are full, so that two files can be compared. */
  next(): Buffer {
    let length = 0;
    for (let more = -1; more !== 0 && length < this.#buffer.length; length += more) {
      more = readSync(this.#fd, this.#buffer, length, this.#buffer.length - length, null);
    }
    return this.#buffer.subarray(0, length);
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}

/** Asks an executable for its CNI versions, as a runtime does. Throws unless it answers as it must. */
export async function probe(path: string, deadline: Deadline = deadlineIn(20_000)): Promise<void> {
  const ended = await execute(path, [], { CNI_COMMAND: 'VERSION' }, '{"cniVersion":"1.0.0"}', deadline);
  if (ended.code === 0 && answersVersions(ended.stdout)) return;
  const said = ended.failure ?? messageOf(ended.stderr.slice(0, 300) || `exit code ${ended.code}`);
  throw new FailureError(
    code.io,
    `${path} does not run here: ${said}. Is the file system mounted noexec, or the executable built for another machine?`,
  );
}

function answersVersions(stdout: string): boolean {
  try {
    const answer: unknown = JSON.parse(stdout);
    return isObject(answer) && Array.isArray(answer.supportedVersions) && answer.supportedVersions.includes('1.0.0');
  } catch {
    return false;
  }
}

/** The executable and the folder of its libraries, those of them that are there. */
export function installedParts(binDir: string): string[] {
  return [executableName, libraryFolder]
    .map(name => join(binDir, name))
    .filter(path => lstatSync(path, { throwIfNoEntry: false }) !== undefined);
}

/** Removes both; what was removed. */
export function removeExecutable(binDir: string): string[] {
  const parts = installedParts(binDir);
  rmSync(join(binDir, executableName), { force: true });
  const folder = join(binDir, libraryFolder);
  for (const library of filesOf(folder)) rmSync(library, { force: true });
  if (parts.includes(folder)) rmdirSync(folder);
  if (parts.length > 0) syncFolder(binDir);
  return parts;
}
