// What the etcd of a test's cluster records of addresses, beside what the pods themselves say.
import { deadlineIn } from '../../../src/base/clock.ts';
import { openGateway } from '../../../src/store/etcd/gateway.ts';
import { Keys } from '../../../src/store/keys.ts';
import { afterPrefix } from '../../../src/store/kv.ts';
import { type Holdings, holdings } from '../agreement.ts';
import type { ControlPlane } from './control-plane.ts';

/** All records of the default address space, at one revision; throws where they disagree. */
export async function recordsOf(plane: ControlPlane): Promise<Holdings> {
  const { prefix } = new Keys('default');
  await using kv = openGateway(plane.etcd.target());
  const entries = async () => {
    const { answers } = await kv.read([{ from: prefix, to: afterPrefix(prefix) }], deadlineIn(20_000));
    return [...answers[0]!.entries];
  };
  return holdings({ entries });
}

/** The pods that hold addresses, `address namespace/name` each, and of those that nobody holds `address kind`. */
export async function heldIn(plane: ControlPlane): Promise<readonly string[]> {
  const { owners } = await recordsOf(plane);
  return [...owners].flatMap(([ip, { kind, holders }]) =>
    holders.length === 0 ? [`${ip} ${kind}`] : holders.map(({ pod }) => `${ip} ${pod?.namespace}/${pod?.name}`),
  );
}
