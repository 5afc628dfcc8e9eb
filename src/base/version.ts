// What this program was built from; the bundler puts the values in.

declare const KUBE_IPAM_VERSION: string;
declare const KUBE_IPAM_COMMIT: string;
declare const KUBE_IPAM_NODE: string;

/** Semantic version of the package, `source` when the program runs from its sources. */
export const version: string = typeof KUBE_IPAM_VERSION === 'string' ? KUBE_IPAM_VERSION : 'source';

/** First 12 hex digits of the commit, with `-dirty` behind it when the tree differed; `unknown` outside git. */
export const commit: string = typeof KUBE_IPAM_COMMIT === 'string' ? KUBE_IPAM_COMMIT : 'unknown';

/** Version of the Node inside the executable, `unbundled` when the program runs from its sources. */
export const nodeVersion: string = typeof KUBE_IPAM_NODE === 'string' ? KUBE_IPAM_NODE : 'unbundled';
