// What the commands that look at public addresses have in common: the flags, and one look at the API and at etcd.
import { deadlineIn } from '../../base/clock.ts';
import { type Survey, survey } from '../../publicip/survey.ts';
import type { Args, Flags } from '../command.ts';
import type { CliIo } from '../program.ts';
import { timeoutOf } from '../store-access.ts';
import { accessFlags, judgementFlags, readConfig } from './flags.ts';

/** Milliseconds for the whole look. */
const usualTimeout = 10_000;

/** What is allowed must be said here as to those who carry the addresses: they keep it to themselves. */
export const lookFlags: Flags = { ...accessFlags, ...judgementFlags };

export function look(args: Args, io: CliIo): Promise<Survey> {
  return survey(readConfig(args, io), deadlineIn(timeoutOf(args) ?? usualTimeout));
}
