// What a network configuration means where it says nothing, as far as the smallest part of the program must know it too.

/** The state folder of a node; of the embedded store too. */
export const defaultDataDir = '/var/lib/cni/kube-ipam';

/** Budget of a whole command, in milliseconds. */
export const defaultTimeout = 10_000;

export const defaultAgentSocket = '/run/kube-ipam/agent.sock';
