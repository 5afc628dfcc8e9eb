// Prints the figures as they come and writes them to docs/performance.md.
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { project } from '../scripts/bundle/javascript.ts';

export interface Figure {
  readonly what: string;
  readonly goal: string;
  readonly measured: string;
  readonly met?: boolean;
}

export class Report {
  readonly #figures: Figure[] = [];
  readonly #notes: string[] = [];

  add(figure: Figure): void {
    this.#figures.push(figure);
    const verdict = figure.met === undefined ? '' : figure.met ? '  (met)' : '  (missed)';
    process.stdout.write(`${figure.what}: ${figure.measured}, goal ${figure.goal}${verdict}\n`);
  }

  note(text: string): void {
    this.#notes.push(text);
    process.stdout.write(`  ${text}\n`);
  }

  write(engine: string): void {
    const rows = this.#figures.map(({ what, goal, measured, met }) => {
      return `| ${what} | ${goal} | ${measured} | ${met === undefined ? 'reported' : met ? 'yes' : '**no**'} |`;
    });
    const cpu = cpus();
    const commit = execFileSync('git', ['rev-parse', '--short=12', 'HEAD'], { cwd: project, encoding: 'utf8' }).trim();
    const lines = [
      '# Performance',
      '',
      'Written by `npm run bench`; do not edit by hand. Every figure is a ratio of two things measured in turn in the same',
      'run, because absolute times say more about the machine than about the program. The floor is an empty single',
      'executable made from the same Node: what any program of this kind costs. Etcd runs on loopback with its writes synced.',
      '',
      `Measured ${new Date().toISOString().slice(0, 10)} at commit ${commit}, Node ${process.versions.node}, ${engine}, ${cpu.length} × ${cpu[0]?.model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GiB.`,
      '',
      '| figure | goal | measured | met |',
      '|---|---|---|---|',
      ...rows,
      '',
      ...this.#notes.map(note => `- ${note}`),
      '',
    ];
    writeFileSync(join(project, 'docs/performance.md'), lines.join('\n'));
  }
}
