// Brings the allocator together with the store and the API.
import { deadlineIn } from '../base/clock.ts';
import { code, FailureError } from '../base/errors.ts';
import type { Part } from '../base/part.ts';
import { openClient } from '../kube/client.ts';
import { EventRecorder } from '../kube/events.ts';
import { openGrpc } from '../store/etcd/grpc.ts';
import { Keys } from '../store/keys.ts';
import { Allocator, type AllocatorOptions } from './allocator.ts';
import type { Config } from './config.ts';
import { closeAll, openClaims, type Tools } from './open.ts';

/** Milliseconds for one commit to the store. */
const storeTime = 10_000;

/**
 * A part that holds connections of its own: they end when it has stopped. Undefined when it was told to stop before the
 * store answered. Throws code 7 where the owner records stand in another etcd than the claims: no commit could see both.
 */
export async function openAllocator(
  config: Config,
  options: Pick<AllocatorOptions, 'namespace' | 'times'>,
  tools: Pick<Tools, 'log' | 'metrics' | 'stop'>,
): Promise<Part | undefined> {
  if (config.store !== undefined) {
    throw new FailureError(
      code.config,
      'pools need owner records and claims in one etcd: name that of the network by --etcd-endpoint',
    );
  }
  const client = await openClient(config.kubernetes);
  const kv = openGrpc(config.etcd);
  const claims = await openClaims(kv, config, tools);
  if (claims === undefined) {
    await closeAll(kv, client);
    return undefined;
  }
  const events = new EventRecorder(client, { component: 'kube-ipam-public-ip', host: config.node });
  const allocator = new Allocator({
    ...options,
    client,
    kv,
    keys: new Keys(config.space),
    cluster: config.cluster,
    claims: {
      unclaimed: address => claims.unclaimed(address),
      forget: address => claims.forget(address, deadlineIn(storeTime)),
    },
    identity: config.node,
    tell: (...event) => events.record(...event),
    metrics: tools.metrics,
    log: tools.log,
  });
  return {
    name: allocator.name,
    start: () => allocator.start(),
    state: () => allocator.state(),
    stop: async () => {
      await allocator.stop();
      await closeAll(events, claims, kv, client);
    },
  };
}
