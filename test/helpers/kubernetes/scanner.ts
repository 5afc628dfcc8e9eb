// A scanner of gc on a store of a test, with the real API behind it: as an agent has one, and as `kube-ipam gc` does.
import { join } from 'node:path';
import { ClientGcApi } from '../../../src/agent/gc-api.ts';
import { renewableDeadline } from '../../../src/base/clock.ts';
import { Log } from '../../../src/base/log.ts';
import { readMachine } from '../../../src/base/node.ts';
import { FileDoubts } from '../../../src/ipam/doubts.ts';
import { defaultNodeGrace } from '../../../src/ipam/gc.ts';
import type { GcApi } from '../../../src/ipam/ports.ts';
import type { PatientSurroundings } from '../../../src/ipam/service/patience.ts';
import type { Finding, Outcome, SweepOptions } from '../../../src/ipam/service/sweep.ts';
import { type Scope, Sweeper } from '../../../src/ipam/service/sweeper.ts';
import { type Client, openClient } from '../../../src/kube/client.ts';
import { formatIp } from '../../../src/net/ip.ts';
import type { Site } from '../plugin.ts';

export interface ScannerOptions extends Partial<SweepOptions>, Partial<Scope> {
  readonly around?: Partial<PatientSurroundings>;
  /** Stands between the scanner and the API. */
  readonly between?: (api: GcApi) => GcApi;
}

/** `outcome address address`, sorted; the addresses of one finding in the order of its records. */
export type Said = readonly string[];

export class Scanner implements AsyncDisposable {
  readonly #site: Site;
  readonly #client: Client;
  readonly #sweeper = new Sweeper();
  readonly #options: ScannerOptions;
  /** What the last scan said. */
  findings: readonly Finding[] = [];

  private constructor(site: Site, client: Client, options: ScannerOptions) {
    this.#site = site;
    this.#client = client;
    this.#options = options;
  }

  static async open(site: Site, kubeconfig: string, options: ScannerOptions = {}): Promise<Scanner> {
    return new Scanner(site, await openClient({ kubeconfig, env: {} }), options);
  }

  /** One scan; `options` are for this one. */
  async scan(options: ScannerOptions = {}): Promise<Said> {
    const { around, between = (api: GcApi) => api, node, kubeNode, reach, ...more } = { ...this.#options, ...options };
    const embedded = this.#site.kind === 'embedded';
    const sweep = {
      around: { ...surroundings(this.#site), ...around },
      api: between(new ClientGcApi(this.#client)),
      options: {
        cluster: 'default',
        mayClaim: true,
        cooldownOf: () => 0,
        grace: 0,
        nodeGrace: defaultNodeGrace,
        embedded,
        dryRun: false,
        ...more,
      },
    };
    const scope = {
      node: node ?? this.#site.node,
      kubeNode: kubeNode ?? node ?? 'node-a',
      reach: reach ?? ('node' as const),
    };
    const findings: Finding[] = [];
    for await (const finding of this.#sweeper.scan(sweep, scope)) findings.push(finding);
    this.findings = findings;
    return findings.map(({ outcome, addresses }) => [outcome, ...addresses.map(formatIp)].join(' ')).sort();
  }

  /** Two scans, and what the second one said; the first must only have suspected. */
  async twice(options: ScannerOptions = {}): Promise<Said> {
    const first = await this.scan(options);
    const hasty = first.filter(text => !text.startsWith('suspect') && !text.startsWith('mended'));
    if (hasty.length > 0) throw new Error(`the first scan did more than suspect: ${hasty.join(', ')}`);
    return this.scan(options);
  }

  whyOf(outcome: Outcome): string[] {
    return this.findings.filter(finding => finding.outcome === outcome).map(({ why }) => why);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#client[Symbol.asyncDispose]();
  }
}

export function surroundings(site: Site): PatientSurroundings {
  const log = new Log({ file: join(site.folder, '../gc-log'), level: 'info', maxSize: 1e6 });
  return {
    kv: site.kv,
    keys: site.keys,
    deadline: renewableDeadline(20_000),
    machine: readMachine(),
    doubts: new FileDoubts(site.folder, log),
    log,
    now: Date.now,
  };
}
