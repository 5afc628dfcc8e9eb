// Takes the documentation apart: its files, code blocks, links and headings, so that tests can hold each against the program.
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { project } from './project.ts';

export interface CodeBlock {
  readonly language: string;
  readonly text: string;
  readonly line: number;
}

export interface Document {
  /** Path from the project's folder. */
  readonly path: string;
  readonly text: string;
  readonly blocks: readonly CodeBlock[];
  /** Text between single backticks, outside code blocks. */
  readonly codeSpans: readonly string[];
  /** Targets of links, outside code blocks. */
  readonly links: readonly string[];
  /** Anchors of the headings, as GitHub makes them. */
  readonly anchors: ReadonlySet<string>;
}

const topLevel = ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md'];

/** Every page that people read. */
export function documents(): readonly Document[] {
  const found = ['docs', 'cni-conf'].flatMap(folder =>
    readdirSync(join(project, folder), { recursive: true, encoding: 'utf8' })
      .filter(name => name.endsWith('.md'))
      .map(name => join(folder, name)),
  );
  return [...topLevel, ...found.sort()].map(path => read(join(project, path)));
}

export function read(file: string): Document {
  const text = readFileSync(file, 'utf8');
  const { blocks, prose } = split(text);
  return {
    path: relative(project, file),
    text,
    blocks,
    codeSpans: [...prose.matchAll(/`([^`\n]+)`/g)].map(match => match[1]!),
    links: [...prose.replace(/`[^`\n]*`/g, '').matchAll(/\]\(([^)\s]+)\)/g)].map(match => match[1]!),
    anchors: anchorsOf(prose),
  };
}

function split(text: string): { blocks: readonly CodeBlock[]; prose: string } {
  const blocks: CodeBlock[] = [];
  const prose: string[] = [];
  let open: { fence: string; language: string; line: number; lines: string[] } | undefined;
  for (const [i, line] of text.split('\n').entries()) {
    const fence = /^\s*(```+)\s*(\S*)/.exec(line);
    if (open === undefined) {
      if (fence === null) prose.push(line);
      else open = { fence: fence[1]!, language: fence[2]!, line: i + 1, lines: [] };
    } else if (fence?.[1] === open.fence && fence[2] === '') {
      blocks.push({ language: open.language, line: open.line, text: open.lines.join('\n') });
      open = undefined;
    } else open.lines.push(line);
  }
  if (open !== undefined) throw new Error(`line ${open.line}: a code block without an end`);
  return { blocks, prose: prose.join('\n') };
}

function anchorsOf(prose: string): ReadonlySet<string> {
  const seen = new Map<string, number>();
  const anchors = [...prose.matchAll(/^#{1,6} +(.+?) *$/gm)].map(([, heading]) => {
    const plain = heading!
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, '')
      .replace(/\s/g, '-');
    const times = seen.get(plain) ?? 0;
    seen.set(plain, times + 1);
    return times === 0 ? plain : `${plain}-${times}`;
  });
  return new Set(anchors);
}

/** The lines of a block that are commands, without prompt, continuation lines joined. */
export function commandLines(block: CodeBlock): readonly string[] {
  if (!['sh', 'bash', 'shell', 'console'].includes(block.language)) return [];
  const lines = block.text.replace(/\\\n\s*/g, ' ').split('\n');
  const commands = block.language === 'console' ? lines.filter(line => /^[$#] /.test(line)) : lines;
  return commands.map(line => line.replace(/^[$#] /, '').trim()).filter(line => line !== '' && !line.startsWith('#'));
}
