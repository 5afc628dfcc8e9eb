// Just enough of etcd's JSON gateway, in memory, for the code that talks to it to be run once while the executable is built.
import { createServer, type Server } from 'node:http';

interface Stored {
  readonly value: string;
  readonly created: number;
  readonly revision: number;
}

interface Operation {
  readonly request_range?: { readonly key: string; readonly range_end?: string };
  readonly request_put?: { readonly key: string; readonly value: string };
  readonly request_delete_range?: { readonly key: string };
}

interface Transaction {
  readonly compare?: readonly {
    readonly key: string;
    readonly create_revision?: string;
    readonly mod_revision?: string;
  }[];
  readonly success?: readonly Operation[];
  readonly failure?: readonly Operation[];
}

function plain(key: string): string {
  return Buffer.from(key, 'base64').toString();
}

/** Listens on a free loopback port; nothing is kept beyond the process. */
export async function serveWarmEtcd(): Promise<Server> {
  const stored = new Map<string, Stored>();
  let revision = 1;

  function perform(operation: Operation): unknown {
    const { request_range: range, request_put: put, request_delete_range: removal } = operation;
    if (put) {
      stored.set(plain(put.key), {
        value: put.value,
        revision,
        created: stored.get(plain(put.key))?.created ?? revision,
      });
      return { response_put: {} };
    }
    if (removal) return { response_delete_range: { deleted: stored.delete(plain(removal.key)) ? '1' : '0' } };
    const from = plain(range!.key);
    const found = [...stored].filter(([key]) =>
      range!.range_end ? key >= from && key < plain(range!.range_end) : key === from,
    );
    if (found.length === 0) return { response_range: {} };
    const kvs = found.map(([key, { value, created, revision: modified }]) => ({
      key: Buffer.from(key).toString('base64'),
      value,
      create_revision: String(created),
      mod_revision: String(modified),
    }));
    return { response_range: { kvs, count: String(found.length) } };
  }

  function transact({ compare = [], success = [], failure = [] }: Transaction): unknown {
    const won = compare.every(({ key, create_revision, mod_revision }) =>
      mod_revision === undefined
        ? String(stored.get(plain(key))?.created ?? 0) === create_revision
        : String(stored.get(plain(key))?.revision ?? 0) === mod_revision,
    );
    const operations = won ? success : failure;
    if (operations.some(operation => operation.request_range === undefined)) revision += 1;
    const responses = operations.map(perform);
    return { header: { revision: String(revision) }, ...(won && { succeeded: true }), responses };
  }

  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => response.end(JSON.stringify(transact(JSON.parse(String(Buffer.concat(chunks)))))));
  });
  await new Promise<void>(ready => server.listen(0, '127.0.0.1', ready));
  return server;
}
