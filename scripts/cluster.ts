// npm run cluster: a Kubernetes of two nodes with kube-ipam on this machine, to play with until Ctrl-C.
import { dirname, join } from 'node:path';
import { buildImages, whyNoImages } from '../test/helpers/images.ts';
import { type Playground, startPlayground, whyNoPlayground } from '../test/helpers/kubernetes/playground.ts';
import { kubernetesProgram } from '../test/helpers/kubernetes/tools.ts';
import type { Arch } from './bundle/identity.ts';

const started = performance.now();
const ended = Promise.withResolvers<string>();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => ended.resolve(signal));
// Who listens no longer has not said that the cluster shall end in disorder.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});

process.exitCode = await play();

async function play(): Promise<number> {
  const obstacle = await whyNoPlayground();
  if (obstacle !== undefined) {
    process.stderr.write(`cluster: cannot be started: ${obstacle}\n`);
    return 3;
  }
  try {
    const image = buildImage();
    await using playground = await startPlayground({ nodes: ['node-a', 'node-b'], ...(image && { image }), tell });
    tell('ready\n');
    process.stdout.write(guide(playground));
    await ended.promise;
    tell('taking it down');
  } catch (error) {
    // Ctrl-C reaches every process of the cluster: what is starting then fails.
    if ((await Promise.race([ended.promise, undefined])) === undefined) throw error;
  }
  tell('gone');
  return 0;
}

/** The image for the DaemonSet; undefined where none can be built, and kube-ipam goes without its agent. */
function buildImage(): string | undefined {
  const reason = whyNoImages();
  tell(reason === undefined ? 'building the image of kube-ipam, if need be' : `no agent: ${reason}`);
  return reason === undefined ? buildImages(process.arch as Arch).archive('kube-ipam') : undefined;
}

function tell(step: string): void {
  process.stdout.write(`${((performance.now() - started) / 1000).toFixed(1).padStart(6)} s  ${step}\n`);
}

function guide({ plane }: Playground): string {
  const tree = join(import.meta.dirname, `../dist/linux-${process.arch}`);
  const folders = [tree, dirname(kubernetesProgram('kubectl')!)];
  const lines = [
    `export KUBECONFIG=${plane.adminKubeconfig}`,
    `export PATH=${folders.join(':')}:$PATH`,
    'kubectl get nodes -o wide',
    'kubectl create deployment web --image=localhost/pause:1 --replicas=4',
    'kubectl get pods -o wide',
    'kubectl run fixed --image=localhost/pause:1 --annotations=kube-ipam.ip=10.188.0.216',
    'kubectl exec fixed -- /busybox ip address show dev eth0',
    'kubectl exec deploy/web -- /busybox ping -c 1 10.188.0.216',
    'kubectl logs -n kube-system daemonset/kube-ipam',
    `kube-ipam ls --etcd-url ${plane.etcd.endpoints.join(',')}`,
  ];
  return `In another terminal:\n\n${lines.map(line => `  ${line}\n`).join('')}\nCtrl-C takes it all down.\n`;
}
