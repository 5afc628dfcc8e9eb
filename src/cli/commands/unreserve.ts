// `kube-ipam unreserve`: ends reservations.
import { describeOwner } from '../../ipam/describe.ts';
import { unreserve } from '../../ipam/service/reserve.ts';
import { formatIp } from '../../net/ip.ts';
import { spanSize } from '../../net/span.ts';
import { type Command, exit, required } from '../command.ts';
import { counted, formatOf, isForPeople, outputFlags, plain, printValue, progressOf } from '../output.ts';
import { spanArgument } from '../span-argument.ts';
import { chooseStore, openChosen, storeFlags } from '../store-access.ts';

export const command: Command = {
  verb: 'unreserve',
  summary: 'end a reservation',
  details: 'Addresses in it that somebody holds without a reservation are left alone. May be repeated.',
  positionals: [{ name: 'addresses', describe: 'an address, first-last, or a CIDR', required: true }],
  flags: { ...outputFlags, ...storeFlags },
  examples: [['kube-ipam unreserve 10.1.0.20-10.1.0.29', 'the addresses may be given out again']],
  async run(args, io) {
    const span = spanArgument(required(args, 'addresses'));
    await using store = await openChosen(chooseStore(args));
    const progress = progressOf(io, 'addresses');
    const { freed, held } = await unreserve(store.around, span, done => progress.step(done, Number(spanSize(span))));
    progress.end();
    const format = formatOf(args);
    if (!isForPeople(format)) {
      const others = held.map(({ ip, owner }) => ({ address: formatIp(ip), owner: describeOwner(owner) }));
      printValue(io, format, { freed: freed.map(formatIp), held: others });
      return exit.fine;
    }
    io.writeStdout(`${counted(freed.length, 'address', 'addresses')} no longer reserved\n`);
    for (const { ip, owner } of held) {
      io.writeStdout(plain(`${formatIp(ip)} is held by ${describeOwner(owner)}: left alone`).concat('\n'));
    }
    return exit.fine;
  },
};
