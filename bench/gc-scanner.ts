// Scans as the elected agent does, one scan after the other, and prints a line of JSON after each; bench/gc.ts ends it.
import { ClientGcApi } from '../src/agent/gc-api.ts';
import { renewableDeadline } from '../src/base/clock.ts';
import { Log } from '../src/base/log.ts';
import { readAccessConfig } from '../src/ipam/config.ts';
import { defaultGrace, defaultNodeGrace } from '../src/ipam/gc.ts';
import { surroundingsOf } from '../src/ipam/open.ts';
import { Sweeper } from '../src/ipam/service/sweeper.ts';
import { openClient } from '../src/kube/client.ts';
import { openGrpc } from '../src/store/etcd/grpc.ts';

let text = '';
for await (const piece of process.stdin) text += piece;
const { conf, kubeconfig } = JSON.parse(text);
const access = readAccessConfig(conf);
if (access.store.kind !== 'etcd') throw new Error('the scan of an etcd is timed');
// The bench lets this process stand still.
const deadline = renewableDeadline(3_600_000);
const around = { ...surroundingsOf(access, openGrpc(access.store), deadline, new Log(access.log)), deadline };
const api = new ClientGcApi(await openClient({ kubeconfig, env: {} }));
const options = {
  cluster: 'default',
  mayClaim: true,
  cooldownOf: () => 0,
  grace: defaultGrace,
  nodeGrace: defaultNodeGrace,
  embedded: false,
  dryRun: false,
};
const sweeper = new Sweeper();
for (;;) {
  const begun = performance.now();
  let findings = 0;
  const scope = { node: 'node-0', kubeNode: 'node-0', reach: 'cluster' as const };
  for await (const _ of sweeper.scan({ around, api, options }, scope)) findings++;
  // The pods that are timed have no object in the API: they are all that may seem dead.
  const line = { ms: performance.now() - begun, mib: process.memoryUsage.rss() / 2 ** 20, findings };
  process.stdout.write(`${JSON.stringify(line)}\n`);
}
