// `kube-ipam reserve`: keeps addresses from being given out.
import { describeOwner } from '../../ipam/describe.ts';
import { renderReservation } from '../../ipam/records.ts';
import { type HeldAddress, reserve } from '../../ipam/service/reserve.ts';
import { recordedNetworks } from '../../ipam/service/usage.ts';
import { formatIp } from '../../net/ip.ts';
import { spanSize } from '../../net/span.ts';
import { type Command, exit, required, text, UsageError } from '../command.ts';
import { counted, formatOf, isForPeople, outputFlags, plain, printValue, progressOf } from '../output.ts';
import { notesOn } from '../reserve-notes.ts';
import { spanArgument } from '../span-argument.ts';
import { chooseStore, openChosen, storeFlags } from '../store-access.ts';

export const command: Command = {
  verb: 'reserve',
  summary: 'keep addresses from being given out',
  details:
    'Takes up to 4096 addresses, as long as nobody holds them; more belong into the key "exclude" of the configuration. ' +
    'Addresses that somebody holds are reported and left alone: the exit code is 1 then. ' +
    'A gateway, and addresses in no recorded range, are reserved all the same, with a note. May be repeated.',
  positionals: [{ name: 'addresses', describe: 'an address, first-last, or a CIDR', required: true }],
  flags: {
    reason: { type: 'string', value: 'TEXT', describe: 'why; shown to whoever asks for one of them' },
    ...outputFlags,
    ...storeFlags,
  },
  examples: [
    ['kube-ipam reserve 10.1.0.20-10.1.0.29 --reason "printers"', 'ten addresses'],
    ['kube-ipam reserve 10.1.0.64/28 --reason "load balancer" --network pods', 'in the space of network pods'],
  ],
  async run(args, io) {
    const span = spanArgument(required(args, 'addresses'));
    const reason = text(args, 'reason');
    if (reason === undefined) throw new UsageError('reserve needs --reason TEXT, for whoever asks later');
    if (reason.length > 120) throw new UsageError(`--reason has ${reason.length} characters: at most 120`);
    await using store = await openChosen(chooseStore(args), { absent: 'make' });
    const { around, access, node } = store;
    const progress = progressOf(io, 'addresses');
    const value = renderReservation(access, node, reason, around.now());
    const { networks } = await recordedNetworks(around);
    const result = await reserve(around, span, value, done => progress.step(done, Number(spanSize(span))));
    progress.end();
    const { reserved, before, held } = result;
    const format = formatOf(args);
    if (!isForPeople(format)) {
      printValue(io, format, { reserved: reserved.map(formatIp), before: before.map(holder), held: held.map(holder) });
    } else {
      io.writeStdout(`${counted(reserved.length, 'address', 'addresses')} reserved in space ${access.space}\n`);
      if (before.length > 0) io.writeStdout(`${before.length} reserved before: ${before.map(withOwner).join(', ')}\n`);
      for (const one of held) io.writeStdout(`${withOwner(one)}: not reserved\n`);
    }
    for (const note of notesOn(span, networks, access.space)) io.writeStderr(`note: ${plain(note)}\n`);
    return held.length > 0 ? exit.trouble : exit.fine;
  },
};

function holder({ ip, owner }: HeldAddress): object {
  return { address: formatIp(ip), owner: describeOwner(owner) };
}

function withOwner({ ip, owner }: HeldAddress): string {
  if (owner.kind === 'reserved') return plain(`${formatIp(ip)} (${owner.reason ?? 'no reason'})`);
  return plain(`${formatIp(ip)} is held by ${describeOwner(owner)}`);
}
