// Environment variables by which Node can be steered, against the built executable: none of them has its way.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Certificates, makeCertificates } from '../helpers/certificates.ts';
import { executable } from '../helpers/executable.ts';
import { project } from '../helpers/project.ts';

let folder = '';
let certificates: Certificates;
let server: Server;
let requests = 0;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'kube-ipam-environment-'));
  certificates = await makeCertificates(folder, 'client');
  const { cert, key } = certificates.server;
  // Counts who got as far as sending a request: whoever trusts a stranger's certificate does.
  server = createServer({ cert: readFileSync(cert), key: readFileSync(key) }, (_request, response) => {
    requests += 1;
    response.writeHead(503).end('{"message":"not today"}');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
});

afterAll(() => {
  server.closeAllConnections();
  server.close();
  rmSync(folder, { recursive: true, force: true });
});

async function plugin(command: string, env: Record<string, string>, conf: object = {}) {
  const attachment = { CNI_CONTAINERID: 'c1', CNI_NETNS: '/run/netns/c1', CNI_IFNAME: 'eth0' };
  const child = spawn(executable, [], { env: { CNI_COMMAND: command, ...attachment, ...env }, cwd: folder });
  const [out, errors]: [Buffer[], Buffer[]] = [[], []];
  child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => errors.push(chunk));
  child.stdin.end(JSON.stringify(conf));
  const [code] = await once(child, 'close');
  return { code, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(errors).toString() };
}

async function addOverTls(env: Record<string, string>, trust: object = {}) {
  requests = 0;
  const { port } = server.address() as AddressInfo;
  const etcdConfig = { etcdURL: `https://localhost:${port}`, ...trust };
  const ipam = {
    type: 'kube-ipam',
    subnet: '10.4.0.0/24',
    timeout: 3,
    etcdConfig,
    dataDir: join(folder, 'state'),
    logFile: join(folder, 'log'),
  };
  const { code, stdout } = await plugin('ADD', env, { cniVersion: '1.0.0', name: 'tls', ipam });
  return { code, error: JSON.parse(stdout), requests };
}

describe('TLS', () => {
  it('speaks to a server whose authority is configured, which shows that the others below could have', async () => {
    const answer = await addOverTls({}, { etcdTrustedCAFile: certificates.ca });
    expect(answer.requests).toBeGreaterThan(0);
    expect(answer.code).toBe(1);
  });

  it.each([
    ['nothing', () => ({})],
    ['NODE_TLS_REJECT_UNAUTHORIZED', () => ({ NODE_TLS_REJECT_UNAUTHORIZED: '0' })],
    ['NODE_EXTRA_CA_CERTS', () => ({ NODE_EXTRA_CA_CERTS: certificates.ca })],
    ['NODE_USE_SYSTEM_CA', () => ({ NODE_USE_SYSTEM_CA: '1', SSL_CERT_FILE: certificates.ca })],
    ['NODE_OPTIONS', () => ({ NODE_OPTIONS: '--use-openssl-ca', SSL_CERT_FILE: certificates.ca })],
  ])('trusts no stranger with %s in the environment', async (_name, env) => {
    const answer = await addOverTls(env() as Record<string, string>);
    expect(answer.requests).toBe(0);
    expect(answer).toMatchObject({ code: 1, error: { code: 11 } });
  });
});

describe('steering', () => {
  const answer = (stdout: string) => JSON.parse(stdout).supportedVersions;

  it('NODE_OPTIONS injects nothing', async () => {
    const injected = join(folder, 'injected.cjs');
    writeFileSync(injected, `require('node:fs').writeFileSync(${JSON.stringify(`${injected}.ran`)}, '')`);
    const { code, stdout, stderr } = await plugin('VERSION', {
      NODE_OPTIONS: `--require ${injected} --inspect=127.0.0.1:0`,
    });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(answer(stdout)).toContain('1.1.0');
    expect(existsSync(`${injected}.ran`)).toBe(false);
  });

  it('OPENSSL_CONF loads nothing', async () => {
    const conf = join(folder, 'openssl.cnf');
    const lines = [
      'nodejs_conf = init',
      'openssl_conf = init',
      '[init]',
      'providers = p',
      '[p]',
      'evil = e',
      '[e]',
      'module = /nowhere/evil.so',
      'activate = 1',
    ];
    writeFileSync(conf, `${lines.join('\n')}\n`);
    const { code, stdout, stderr } = await plugin('VERSION', { OPENSSL_CONF: conf });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(answer(stdout)).toContain('1.1.0');
  });

  it.each(['NODE_V8_COVERAGE', 'NODE_COMPILE_CACHE', 'NODE_REDIRECT_WARNINGS'])(
    '%s: no file is written',
    async name => {
      const place = join(folder, name);
      const { code, stdout } = await plugin('VERSION', { [name]: place });
      expect(code).toBe(0);
      expect(answer(stdout)).toContain('1.1.0');
      // For a compile cache Node makes two folders before the program begins, and they stay empty.
      const written = readdirSync(folder, { recursive: true, withFileTypes: true })
        .map(entry => ({ entry, path: join(entry.parentPath, entry.name) }))
        .filter(({ entry, path }) => entry.isFile() && path.startsWith(place));
      expect(written).toEqual([]);
    },
  );

  it('SIGUSR1 opens no inspector, and a signal does not disturb the reading', async () => {
    async function signalled(command: string, args: readonly string[]) {
      const child = spawn(command, args, { env: { CNI_COMMAND: 'VERSION' } });
      const [out, errors]: [Buffer[], Buffer[]] = [[], []];
      child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
      child.stderr.on('data', (chunk: Buffer) => errors.push(chunk));
      await new Promise(resolve => setTimeout(resolve, 700));
      child.kill('SIGUSR1');
      await new Promise(resolve => setTimeout(resolve, 500));
      child.stdin.end();
      const [status] = await once(child, 'close');
      expect(status).toBe(0);
      expect(answer(Buffer.concat(out).toString())).toContain('1.1.0');
      return Buffer.concat(errors).toString();
    }
    expect(await signalled(executable, [])).toBe('');
    // Plain Node, on the same sources, opens one.
    expect(await signalled(process.execPath, [join(project, 'src/main.ts')])).toMatch(/inspector|debugger/i);
  });
});
