// Which ranges serve a pod, by selectors and by the pod's own choice, and what is said of those that do not.
import { describe, expect, it } from 'vitest';
import { FailureError } from '../base/errors.ts';
import { formatCidr } from '../net/cidr.ts';
import { readNetworkConfig } from './config.ts';
import { everyRange, narrow, type PodLabels } from './serving.ts';
import { readWishes } from './wishes.ts';

const config = readNetworkConfig(
  {
    name: 'net',
    ipam: {
      kubeConfig: '/k',
      ranges: [
        [
          { name: 'blue', subnet: '10.1.0.0/24', pods: { matchLabels: { app: 'db' } } },
          { name: 'red', subnet: '10.2.0.0/24', namespaces: { matchLabels: { team: 'a' } }, nodes: {} },
          { subnet: '10.3.0.0/24', nodes: { matchExpressions: [{ key: 'zone', operator: 'In', values: ['x', 'y'] }] } },
        ],
        [{ name: 'six', subnet: 'fd00::/64' }],
      ],
    },
  },
  '1.0.0',
);

const nobody: PodLabels = { pod: {}, namespace: {}, node: {} };
const wishes = (texts: Record<string, string>, ifname = 'eth0') =>
  readWishes({ metadata: { annotations: texts } }, ifname);
const chosen = (range: string, more: Record<string, string> = {}) => wishes({ 'kube-ipam.range': range, ...more });
const served = (labels: PodLabels | undefined, wish = wishes({})) =>
  narrow(config, wish, labels).sets.map(set => set.map(({ subnet }) => formatCidr(subnet)).join(' '));

function refusal(labels: PodLabels | undefined, wish = wishes({})): FailureError {
  try {
    narrow(config, wish, labels);
  } catch (error) {
    if (error instanceof FailureError) return error;
    throw error;
  }
  throw new Error('accepted');
}

describe('selectors', () => {
  it('leave of each set the ranges whose selectors all match', () => {
    expect(served({ ...nobody, pod: { app: 'db' } })).toEqual(['10.1.0.0/24', 'fd00::/64']);
    expect(served({ ...nobody, namespace: { team: 'a' } })).toEqual(['10.2.0.0/24', 'fd00::/64']);
    expect(served({ pod: { app: 'db' }, namespace: { team: 'a' }, node: { zone: 'y' } })).toEqual([
      '10.1.0.0/24 10.2.0.0/24 10.3.0.0/24',
      'fd00::/64',
    ]);
  });

  it('say of each range of an empty set why it is not there: code 103', () => {
    expect(refusal({ ...nobody, node: { zone: 'z' } })).toMatchObject({
      code: 103,
      message:
        'network net: no range accepts this pod: ' +
        "range blue (10.1.0.0/24): the pod's labels do not match app=db; " +
        "range red (10.2.0.0/24): the namespace's labels do not match team=a; " +
        "range 10.3.0.0/24: the node's labels do not match zone in (x,y)",
    });
  });

  it('match nothing that is no pod of Kubernetes, not even when they are empty', () => {
    const { code, message } = refusal(undefined);
    expect(code).toBe(103);
    expect(message.match(/it is for pods of Kubernetes, and this container is none/g)).toHaveLength(3);
    const plain = readNetworkConfig({ name: 'n', ipam: { subnet: '10.1.0.0/24' } }, '1.0.0');
    expect(narrow(plain, undefined, undefined)).toEqual(everyRange(plain));
  });

  it('do not match labels that nobody could read', () => {
    expect(refusal({ pod: {} }).message).toContain(
      'range red (10.2.0.0/24): the labels of its namespace are not known',
    );
  });

  it('a message names a bounded number of ranges', () => {
    const ranges = Array.from({ length: 40 }, (_, n) => ({
      subnet: `10.${n}.0.0/24`,
      pods: { matchLabels: { a: 'b' } },
    }));
    const many = readNetworkConfig({ name: 'n', ipam: { kubeConfig: '/k', ranges: [ranges] } }, '1.0.0');
    expect(() => narrow(many, undefined, nobody)).toThrow(/10\.15\.0\.0.*\(and 24 more ranges\)$/);
  });
});

describe('kube-ipam.range', () => {
  const all: PodLabels = { pod: { app: 'db' }, namespace: { team: 'a' }, node: { zone: 'x' } };

  it('narrows the sets that have a range of that name, and no other', () => {
    expect(served(all, chosen('red'))).toEqual(['10.2.0.0/24', 'fd00::/64']);
    expect(served(all, chosen('red, blue'))).toEqual(['10.1.0.0/24 10.2.0.0/24', 'fd00::/64']);
    expect(served(all, chosen('six'))).toEqual(['10.1.0.0/24 10.2.0.0/24 10.3.0.0/24', 'fd00::/64']);
    expect(served(all, chosen('eth0=red,net1=blue'))).toEqual(['10.2.0.0/24', 'fd00::/64']);
  });

  it('opens no range that does not accept the pod', () => {
    const { code, message } = refusal({ ...all, pod: {} }, chosen('blue'));
    expect(code).toBe(103);
    expect(message).toContain("range blue (10.1.0.0/24): the pod's labels do not match app=db");
    expect(message).toContain('range red (10.2.0.0/24): annotation kube-ipam.range names another');
  });

  it('a name that no range has is refused, with those that there are: code 7', () => {
    const told = {
      code: 7,
      message: 'annotation kube-ipam.range: network net has no range "green": it has blue, red, six',
    };
    expect(refusal(all, chosen('green'))).toMatchObject(told);
    expect(refusal(all, chosen('eth0=green'))).toMatchObject(told);
    const plain = readNetworkConfig({ name: 'n', ipam: { subnet: '10.1.0.0/24' } }, '1.0.0');
    expect(() => narrow(plain, chosen('x'), nobody)).toThrow('its ranges have no names');
  });

  it('a name for any interface may be one of the pod’s other networks', () => {
    const networks = { 'k8s.v1.cni.cncf.io/networks': 'other' };
    expect(served(all, chosen('green', networks))).toEqual(served(all));
    expect(served(all, chosen('green,red', networks))).toEqual(['10.2.0.0/24', 'fd00::/64']);
    expect(refusal(all, chosen('eth0=green', networks)).code).toBe(7);
  });
});

it('what is left out is told with its reason, for whoever names an address of it', () => {
  const { refused } = narrow(config, wishes({}), { ...nobody, pod: { app: 'db' } });
  expect(refused.map(({ range, why }) => [formatCidr(range.subnet), why])).toEqual([
    ['10.2.0.0/24', "the namespace's labels do not match team=a"],
    ['10.3.0.0/24', "the node's labels do not match zone in (x,y)"],
  ]);
});
