// Runs tests of the plugin against a real API server, once on each store: pods come from the API, sandboxes from the test.
import { afterAll, beforeAll, beforeEach, describe, test } from 'vitest';
import { type Holdings, holdings } from '../agreement.ts';
import { onEachStore } from '../each-store.ts';
import type { EtcdCluster } from '../etcd.ts';
import { type Answer, type Call, type Command, call, confOf, type Json, type Site, type StoreKind } from '../plugin.ts';
import { argsOf, Cluster, type PodRef } from './cluster.ts';
import { type ControlPlane, type ControlPlaneOptions, startControlPlane, whyNoControlPlane } from './control-plane.ts';

/** How a sandbox differs from the first one of its pod on `node-a`. */
export interface Sandbox {
  /** Keys of `ipam`. */
  readonly ipam?: Json;
  /** Keys beside `ipam`. */
  readonly more?: Json;
  readonly containerID?: string;
  readonly ifname?: string;
  /** Of the store; the embedded one knows one node only. */
  readonly node?: string;
  /** CNI_ARGS behind those that name the pod. */
  readonly args?: string;
}

export interface OnCluster {
  readonly plane: ControlPlane;
  readonly cluster: Cluster;
  readonly kind: StoreKind;
  readonly site: Site;
  /** That keeps the addresses, where one does. */
  readonly etcd: EtcdCluster | undefined;
  /** What the runtime sends for the pod's sandbox. */
  callOf(pod: PodRef, sandbox?: Sandbox): Call;
  add(pod: PodRef, sandbox?: Sandbox): Promise<Answer>;
  del(pod: PodRef, sandbox?: Sandbox): Promise<Answer>;
  check(pod: PodRef, sandbox?: Sandbox): Promise<Answer>;
  /** Who holds what now; throws where records disagree. */
  holdings(): Promise<Holdings>;
}

/** `ipam`: keys of every configuration, beside those that lead to store and API. */
export function onCluster(ipam: Json, tests: (here: OnCluster) => void, options: ControlPlaneOptions = {}): void {
  const obstacle = whyNoControlPlane(options);
  if (obstacle !== undefined) test('on a control plane', ({ skip }) => skip(obstacle));
  describe.skipIf(obstacle !== undefined)('on a control plane', () => {
    let plane: ControlPlane | undefined;
    let cluster: Cluster | undefined;
    beforeAll(async () => {
      plane = await startControlPlane(options);
      cluster = new Cluster(plane);
    });
    afterAll(() => plane?.[Symbol.asyncDispose]());
    onEachStore(here => {
      let site: Site;
      beforeEach(() => {
        site = here.site;
      });
      const callOf = (pod: PodRef, { containerID, ifname, node, args = '', ...rest }: Sandbox = {}): Call => ({
        conf: confOf(
          site,
          { kubeConfig: plane!.adminKubeconfig, ...ipam, ...(node && { nodeName: node }), ...rest.ipam },
          { cniVersion: '1.1.0', ...rest.more },
        ),
        containerID: containerID ?? `sandbox-${pod.uid}`,
        ...(ifname && { ifname }),
        args: `${argsOf(pod)}${args}`,
      });
      const run = (command: Command) => (pod: PodRef, sandbox?: Sandbox) => call(command, callOf(pod, sandbox));
      tests({
        get plane() {
          return plane!;
        },
        get cluster() {
          return cluster!;
        },
        kind: here.kind,
        get site() {
          return site;
        },
        get etcd() {
          return here.ground.cluster;
        },
        callOf,
        add: run('ADD'),
        del: run('DEL'),
        check: run('CHECK'),
        holdings: () => holdings(site),
      });
    });
  });
}
