// Writes tar archives: the same entries give the same bytes, whoever builds, wherever and whenever.

export type Entry =
  | { readonly kind: 'file'; readonly bytes: Buffer; readonly mode: number }
  | { readonly kind: 'link'; readonly target: string }
  | { readonly kind: 'folder'; readonly mode: number };

/** Paths without a leading slash. */
export type Tree = ReadonlyMap<string, Entry>;

/** 2000-01-01T00:00:00Z, as in the release archive. */
export const date = new Date(946_684_800_000);

const block = 512;
const typeFlags = { file: '0', link: '2', folder: '5' } as const;

/** An archive in ustar format (POSIX.1-1988), sorted by path, all of it owned by root. */
export function tar(tree: Tree): Buffer {
  const parts = [...tree]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([path, entry]) => [header(path, entry), ...(entry.kind === 'file' ? padded(entry.bytes) : [])]);
  return Buffer.concat([...parts, Buffer.alloc(2 * block)]);
}

function padded(bytes: Buffer): Buffer[] {
  return [bytes, Buffer.alloc((block - (bytes.length % block)) % block)];
}

function header(path: string, entry: Entry): Buffer {
  const field = Buffer.alloc(block);
  const text = (value: string, at: number, length: number) => {
    if (Buffer.byteLength(value) > length) throw new Error(`${path}: "${value}" is too long for a tar header`);
    field.write(value, at);
  };
  const octal = (value: number, at: number, length: number) =>
    text(value.toString(8).padStart(length - 1, '0'), at, length - 1);
  const [prefix, name] = split(entry.kind === 'folder' ? `${path}/` : path);
  text(name, 0, 100);
  octal(entry.kind === 'link' ? 0o777 : entry.mode, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(entry.kind === 'file' ? entry.bytes.length : 0, 124, 12);
  octal(date.getTime() / 1000, 136, 12);
  text(typeFlags[entry.kind], 156, 1);
  if (entry.kind === 'link') text(entry.target, 157, 100);
  text('ustar\x0000', 257, 8);
  text(prefix, 345, 155);
  // The checksum counts its own field as blanks.
  field.fill(' ', 148, 156);
  const sum = field.reduce((total, byte) => total + byte, 0);
  text(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 8);
  return field;
}

/** A name of more than 100 bytes is cut at a slash into a prefix and the rest. */
function split(path: string): readonly [prefix: string, name: string] {
  if (Buffer.byteLength(path) <= 100) return ['', path];
  const cut = path.indexOf('/', path.length - 101);
  return cut > 0 && cut < path.length - 1 ? [path.slice(0, cut), path.slice(cut + 1)] : ['', path];
}
