// The keeper as a process from the sources: the command that the executable has, without the rest of it.
import { writeSync } from 'node:fs';
import { command } from '../../../src/cli/public-ip/keeper.ts';

const io = {
  env: {},
  calledAs: 'kube-ipam',
  executable: process.execPath,
  readStdin: () => Buffer.alloc(0),
  writeStdout: (text: string) => void writeSync(1, text),
  writeStderr: (text: string) => void writeSync(2, text),
  isTerminal: false,
  columns: 80,
  monotonicNow: () => Number(process.hrtime.bigint()) / 1e6,
  stopSignal: () => {
    process.on('SIGTERM', () => {});
    return new AbortController().signal;
  },
};

process.exit(await command.run({}, io));
