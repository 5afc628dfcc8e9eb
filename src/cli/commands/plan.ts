// `kube-ipam plan`: prints what a feature is about to do.
import type { Command } from '../command.ts';
import { command as publicIp } from '../public-ip/plan.ts';

export const command: Command = {
  ...publicIp,
  summary: 'print what a feature is about to do; nothing is done',
  positionals: [{ name: 'feature', describe: 'whose plan', required: true, choices: ['public-ip'] }],
  examples: [['kube-ipam plan public-ip', 'which node is to carry which public address']],
};
