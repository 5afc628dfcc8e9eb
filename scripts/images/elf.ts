// What programs and libraries are built for and which libraries they ask for, as their ELF headers say.
import { run } from '../bundle/run.ts';

const magic = Buffer.from('\x7fELF\x02\x01', 'latin1');

/** Of 64 bits, little-endian: all that is built here. */
export function isElf(bytes: Buffer): boolean {
  return bytes.subarray(0, magic.length).equals(magic);
}

/** The machines' numbers (ELF specification, e_machine). */
const machines = new Map([
  [62, 'x64'],
  [183, 'arm64'],
]);

/** The architecture in Node's words; undefined for a machine that nothing is built for. */
export function machineOf(bytes: Buffer): string | undefined {
  return machines.get(bytes.readUInt16LE(18));
}

/** What these ELF files cannot start without: names of libraries, and the path of the dynamic loader that finds them. */
export function neededBy(files: readonly string[]): ReadonlySet<string> {
  if (files.length === 0) return new Set();
  const told = run('readelf', ['--wide', '--dynamic', '--program-headers', ...files], {
    env: { ...process.env, LC_ALL: 'C' },
    hint: 'install binutils',
  });
  const libraries = [...told.matchAll(/\(NEEDED\)\s+Shared library: \[(.+)\]/g)].map(([, name = '']) => name);
  const loaders = [...told.matchAll(/Requesting program interpreter: \/(.+)\]/g)].map(([, path = '']) => path);
  return new Set([...libraries, ...loaders]);
}
