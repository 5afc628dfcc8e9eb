// The kinds of objects that we ask an API server for: where it keeps them, and what people call a request for one.
import { code, FailureError } from '../base/errors.ts';

/** A kind of objects, by its place in the API. */
export interface Resource {
  /** `v1` or `group/version`, as objects have it. */
  readonly apiVersion: string;
  readonly kind: string;
  /** The name in paths and in RBAC rules. */
  readonly plural: string;
}

export const pods: Resource = { apiVersion: 'v1', kind: 'Pod', plural: 'pods' };
export const nodes: Resource = { apiVersion: 'v1', kind: 'Node', plural: 'nodes' };
export const namespaces: Resource = { apiVersion: 'v1', kind: 'Namespace', plural: 'namespaces' };
export const services: Resource = { apiVersion: 'v1', kind: 'Service', plural: 'services' };
export const endpointSlices: Resource = {
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  plural: 'endpointslices',
};
export const serviceAccounts: Resource = { apiVersion: 'v1', kind: 'ServiceAccount', plural: 'serviceaccounts' };
export const events: Resource = { apiVersion: 'v1', kind: 'Event', plural: 'events' };
export const statefulSets: Resource = { apiVersion: 'apps/v1', kind: 'StatefulSet', plural: 'statefulsets' };
export const leases: Resource = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', plural: 'leases' };

export interface Place {
  /** Absent: a kind without namespaces, or the objects of all of them. */
  readonly namespace?: string | undefined;
  /** Absent: all objects. */
  readonly name?: string | undefined;
  readonly subresource?: string | undefined;
}

/** The path of an object or of a collection. Throws code 7 for a name that no object can have. */
export function pathOf(resource: Resource, { namespace, name, subresource }: Place = {}): string {
  const base = resource.apiVersion.includes('/') ? `/apis/${resource.apiVersion}` : `/api/${resource.apiVersion}`;
  const within = namespace === undefined ? '' : `/namespaces/${segment('namespace', namespace)}`;
  const object = name === undefined ? '' : `/${segment(resource.kind, name)}`;
  return `${base}${within}/${resource.plural}${object}${subresource === undefined ? '' : `/${subresource}`}`;
}

/** Names come from outside: one of them must never lead to another object than the one it names. */
function segment(what: string, name: string): string {
  if (name.isWellFormed() && name !== '' && name !== '.' && name !== '..' && !/[/%]/.test(name))
    return encodeURIComponent(name);
  throw new FailureError(
    code.config,
    `${what} name ${JSON.stringify(name.slice(0, 80))} is none that Kubernetes allows`,
  );
}

/** A request by its RBAC verb, what it was for, and the right that it takes. */
export interface Asked {
  /** `get pods/web-0 in namespace default` */
  readonly words: string;
  /** `"get" on "pods" in namespace default` */
  readonly right: string;
  /** Of the object; undefined for a collection. */
  readonly name: string | undefined;
}

/** @param path as `pathOf` makes it. */
export function asked(verb: string, path: string): Asked {
  const match =
    /^\/(?:api|apis\/([^/]+))\/[^/]+(?:\/namespaces\/([^/]+)(?=\/))?\/([^/]+)(?:\/([^/]+))?(?:\/([^/]+))?$/.exec(path);
  if (match === null) return { words: `${verb} ${path}`, right: `"${verb}" on "${path}"`, name: undefined };
  const [, group, namespace, plural, name, subresource] = match.map(part => part && decodeURIComponent(part));
  const resource = `${plural}${group === undefined ? '' : `.${group}`}`;
  const sub = subresource === undefined ? '' : `/${subresource}`;
  const where = namespace === undefined ? '' : ` in namespace ${namespace}`;
  const object = name === undefined ? '' : `/${name}`;
  return {
    words: `${verb} ${resource}${object}${sub}${where}`,
    right: `"${verb}" on "${resource}${sub}"${where}`,
    name,
  };
}
