// `kube-ipam public-ip why`: all that is known of one public address, or of those of one Service.
import { formatIp, parseIp } from '../../net/ip.ts';
import type { ServiceRef } from '../../publicip/model.ts';
import { type Standing, standingsOf } from '../../publicip/standing.ts';
import { type Command, exit, required } from '../command.ts';
import { formatOf, isForPeople, outputFlags, type Paint, painter, plain, printValue } from '../output.ts';
import { look, lookFlags } from './look.ts';

export const command: Command = {
  verb: 'why',
  summary: 'why an address is where it is, or is nowhere',
  details:
    'Says who carries the address, for which Services, who is next in line, and of every other node why it may not carry ' +
    'it. Exit code 1 when it is not carried, or nobody wants it.',
  positionals: [{ name: 'what', describe: 'a public address, or a Service as name or namespace/name', required: true }],
  flags: { ...outputFlags, ...lookFlags },
  examples: [
    ['kube-ipam public-ip why 192.168.1.41', 'one address'],
    ['kube-ipam public-ip why shop/web', 'all addresses of a Service'],
  ],
  async run(args, io) {
    const what = required(args, 'what');
    const ip = parseIp(what);
    const address = ip === undefined ? what : formatIp(ip);
    const found = standingsOf(await look(args, io)).filter(
      one => one.address === address || one.services.some(service => isCalled(service, what)),
    );
    const format = formatOf(args);
    if (!isForPeople(format)) printValue(io, format, { what, addresses: found });
    else if (found.length > 0) io.writeStdout(found.map(one => describe(one, painter(args, io))).join('\n'));
    else io.writeStderr(plain(`${what}: no Service wants it, and no node has claimed it`).concat('\n'));
    return found.length > 0 && found.every(isCarried) ? exit.fine : exit.trouble;
  },
};

function isCalled({ namespace, name }: ServiceRef, what: string): boolean {
  return what === name || what === `${namespace}/${name}`;
}

function isCarried({ state }: Standing): boolean {
  return state === 'held' || state === 'moving';
}

const meanings: Readonly<Record<Standing['state'], string>> = {
  held: 'a node carries it',
  moving: 'a node carries it, and is to hand it over',
  leaving: 'its node may not carry it any more',
  waiting: 'nobody carries it yet',
  stuck: 'no node may carry it',
  taken: 'it belongs to somebody else',
  unwanted: 'it is claimed, and no Service wants it',
  refused: 'it was asked for, and is not given',
};

function describe(standing: Standing, paint: Paint): string {
  const { address, state, owner, services, ports, since, remarks, line, others } = standing;
  const lines: readonly (readonly [string, string | undefined])[] = [
    ['state', `${state}: ${meanings[state]}`],
    ['node', owner?.node],
    ['agent', owner?.id],
    ...services.map(({ namespace, name, created }, i): [string, string] => [
      i === 0 && state !== 'refused' ? 'holder' : 'Service',
      `${namespace}/${name}${created === '' ? '' : `, of ${created}`}`,
    ]),
    ...ports.map(({ port, protocol, comment }): [string, string] => ['port', `${port}/${protocol} of ${comment}`]),
    ['since', since],
    ...remarks.map((remark): [string, string] => ['remark', remark]),
    ...line.map(({ node }, i): [string, string] => [i === 0 ? 'in line' : '', node]),
    ...others.map(({ node, why }): [string, string] => ['not', `${node}: ${why}`]),
  ];
  const shown = lines.flatMap(([label, value]) =>
    value === undefined || value === '' ? [] : [`  ${label.padEnd(9)} ${plain(value)}\n`],
  );
  return `${paint('bold', plain(address))}\n${shown.join('')}`;
}
