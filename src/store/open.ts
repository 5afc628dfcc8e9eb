// Opens the store that a configuration names; what a store does not need is not loaded.
import type { Kv } from './kv.ts';
import type { EtcdTarget, StoreTarget } from './target.ts';

/** Opens etcd over gRPC. Only the asset has it: etcd3 takes longer to load than a whole ADD. */
export type OpenGrpc = (target: EtcdTarget) => Kv;

/**
 * Opens the store. With `openGrpc`, etcd is spoken to over gRPC, else over its JSON gateway, where GatewayOffError
 * says that only gRPC will do.
 */
export async function openStore(target: StoreTarget, openGrpc?: OpenGrpc): Promise<Kv> {
  if (target.kind === 'embedded') {
    const { openEmbedded } = await import('./embedded/embedded.ts');
    return openEmbedded(target.dataDir);
  }
  if (openGrpc !== undefined) return openGrpc(target);
  const { openGateway, GatewayOffError, hintedTransport } = await import('./etcd/gateway.ts');
  if (hintedTransport(target) === 'grpc') throw new GatewayOffError('the gateway was off when it was last asked');
  return openGateway(target);
}
