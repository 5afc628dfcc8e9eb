// What a monitoring system reads of public addresses on this node.
import type { Counter, Metrics } from '../base/metrics.ts';

export interface Readings {
  /** Addresses for which this node answers. */
  owned(): number;
  /** Addresses that Services want, on all nodes. */
  wanted(): number;
  /** Of those, addresses that no node may own. */
  unplaced(): number;
  /** Since the last acknowledged renewal of the lease was sent; undefined: there is none. */
  secondsSinceRenewal(): number | undefined;
}

export class PublicIpMetrics {
  readonly claimsWon: Counter;
  readonly claimsLost: Counter;
  readonly fenceClosed: Counter;
  readonly released: Counter;
  readonly failures: Counter;

  constructor(metrics: Metrics, readings: Readings) {
    const name = (what: string) => `kube_ipam_public_ip_${what}`;
    metrics.gauge(name('owned'), 'Public addresses for which this node answers.', () => readings.owned());
    metrics.gauge(name('wanted'), 'Public addresses that Services of the cluster want.', () => readings.wanted());
    metrics.gauge(name('unplaced'), 'Wanted public addresses that no node may own now.', () => readings.unplaced());
    metrics.gauge(
      name('seconds_since_renewal'),
      'Since the last renewal of the lease that etcd acknowledged was sent.',
      () => readings.secondsSinceRenewal(),
    );
    this.claimsWon = metrics.counter(name('claims_won_total'), 'Addresses that this node claimed.');
    this.claimsLost = metrics.counter(
      name('claim_lost_total'),
      'Claims of this node that were gone or overwritten without its doing.',
    );
    this.fenceClosed = metrics.counter(
      name('fence_closed_total'),
      'Addresses for which this node stopped answering because no renewal was acknowledged in time.',
    );
    this.released = metrics.counter(name('released_total'), 'Addresses that this node gave up in order.');
    this.failures = metrics.counter(name('failures_total'), 'What could not be done about an address, by step.');
  }
}
