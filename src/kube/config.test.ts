// What a kubeconfig may say, what is refused, and that no secret of it ever stands in a message.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { FailureError } from '../base/errors.ts';
import { inClusterTarget, NeedsAssetError, readKubeconfig } from './config.ts';
import { parseYaml } from './yaml.ts';

const folder = mkdtempSync(join(tmpdir(), 'kube-ipam-kubeconfig-'));
afterAll(() => rmSync(folder, { recursive: true }));

const pem = '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n';
const base64 = (text: string) => Buffer.from(text).toString('base64');

interface Parts {
  readonly cluster?: object;
  readonly user?: object;
  readonly context?: object;
}

function kubeconfig({ cluster = {}, user = {}, context = {} }: Parts) {
  return {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'here',
    contexts: [
      { name: 'there', context: { cluster: 'c2', user: 'u2' } },
      { name: 'here', context: { cluster: 'c1', user: 'u1', ...context } },
    ],
    clusters: [
      { name: 'c2', cluster: { server: 'https://other.example' } },
      { name: 'c1', cluster: { server: 'https://10.0.0.1:6443', ...cluster } },
    ],
    users: [
      { name: 'u2', user: { token: 'other' } },
      { name: 'u1', user },
    ],
  };
}

let count = 0;

function written(content: object | string): string {
  const path = join(folder, `config-${++count}`);
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content));
  return path;
}

function refusal(act: () => unknown): FailureError {
  try {
    act();
  } catch (error) {
    if (error instanceof FailureError) return error;
    throw error;
  }
  throw new Error('it was accepted');
}

function put(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

describe('a kubeconfig', () => {
  test('gives the server, what to trust and who we are, of its current context', () => {
    const path = written(
      kubeconfig({
        cluster: { 'certificate-authority-data': base64(pem), 'tls-server-name': 'api.example' },
        user: { token: ' secret-1\n' },
        context: { namespace: 'web' },
      }),
    );
    expect(readKubeconfig(path)).toMatchObject({
      source: `kubeconfig ${path}`,
      server: 'https://10.0.0.1:6443',
      host: '10.0.0.1',
      port: 6443,
      basePath: '',
      tls: { ca: Buffer.from(pem), serverName: 'api.example', insecure: false },
      token: 'secret-1',
      namespace: 'web',
    });
  });

  test('names files relative to its own folder, and all of them are told', () => {
    const [ca, cert, key, token] = ['ca.crt', 'me.crt', 'me.key', 'token'].map(name => put(name, `${pem}${name}`));
    writeFileSync(token!, 'secret-2\n');
    const path = written(
      kubeconfig({
        cluster: { 'certificate-authority': 'ca.crt' },
        user: { 'client-certificate': './me.crt', 'client-key': key, tokenFile: 'token', token: 'stale' },
      }),
    );
    const target = readKubeconfig(path);
    expect(target.files.map(file => file.path)).toEqual([path, ca, cert, key, token]);
    expect(target.tls.key?.toString()).toContain('me.key');
    // client-go prefers the file too.
    expect(target.token).toBe('secret-2');
  });

  test('data wins over a file', () => {
    const cluster = { 'certificate-authority-data': base64(`${pem}data`), 'certificate-authority': '/nowhere' };
    expect(readKubeconfig(written(kubeconfig({ cluster }))).tls.ca?.toString()).toContain('data');
  });

  test('another context can be asked for', () => {
    const target = readKubeconfig(written(kubeconfig({})), { context: 'there' });
    expect(target).toMatchObject({ server: 'https://other.example', port: 443, token: 'other', namespace: 'default' });
  });

  test.each([
    ['https://[fd00::1]:6443', 'fd00::1', 6443, ''],
    ['https://k8s.example/k8s/clusters/c-1/', 'k8s.example', 443, '/k8s/clusters/c-1'],
  ])('server %s', (server, host, port, basePath) => {
    expect(readKubeconfig(written(kubeconfig({ cluster: { server } })))).toMatchObject({ host, port, basePath });
  });

  test('may be YAML where YAML can be read', () => {
    const path = written(
      'current-context: a\ncontexts: [{name: a, context: {cluster: a, user: a}}]\n' +
        'clusters:\n- name: a\n  cluster: {server: "https://a.example:6443"}\nusers:\n- name: a\n  user: {token: t}\n',
    );
    expect(readKubeconfig(path, { parseYaml })).toMatchObject({ host: 'a.example', token: 't' });
    expect(() => readKubeconfig(path)).toThrow(NeedsAssetError);
  });

  test('an unverified server is accepted only where that is written', () => {
    expect(readKubeconfig(written(kubeconfig({}))).tls.insecure).toBe(false);
    const cluster = { 'insecure-skip-tls-verify': true };
    expect(readKubeconfig(written(kubeconfig({ cluster }))).tls.insecure).toBe(true);
  });
});

describe('is refused with code 7, file and key', () => {
  const where = 'users[1].user'.replace('users[1]', 'users\\[1\\]');

  test.each<[string, Parts, RegExp]>([
    ['exec', { user: { exec: { command: 'aws', env: [{ value: 'secret' }] } } }, RegExp(`${where}\\.exec: a program`)],
    ['auth-provider', { user: { 'auth-provider': { name: 'gcp' } } }, RegExp(`${where}\\.auth-provider: is not`)],
    ['a password', { user: { username: 'secret', password: 'secret' } }, /username: .*passwords.*password: /],
    ['impersonation', { user: { token: 't', as: 'secret' } }, RegExp(`${where}\\.as: impersonation`)],
    ['a certificate without key', { user: { 'client-certificate-data': base64(pem) } }, /client-key: is missing/],
    ['a key without certificate', { user: { 'client-key-data': base64(pem) } }, /client-certificate: is missing/],
    ['a key that is no base64', { user: { 'client-key-data': '!secret!' } }, /client-key-data: must be PEM in base64/],
    ['a key that is no text', { user: { 'client-key-data': ['secret'] } }, /client-key-data: must be PEM in base64/],
    ['data that is no PEM', { user: { 'client-key-data': base64('secret') } }, /client-key-data: must be PEM/],
    ['a missing file', { user: { tokenFile: 'not-there' } }, /user\.tokenFile: .*not-there cannot be read \(ENOENT\)/],
    ['a token of two lines', { user: { token: 'secret\r\nx: y' } }, /user\.token: is no token/],
    ['a token that is no text', { user: { token: 5 } }, /user\.token \(not shown\): must be a string/],
    ['no TLS', { cluster: { server: 'http://10.0.0.1' } }, /clusters\[1\]\.cluster\.server .*must be https/],
    ['a server with password', { cluster: { server: 'https://a:secret@b' } }, /must be https/],
    ['a proxy', { cluster: { 'proxy-url': 'http://a:secret@b' } }, /proxy-url .*: proxies are not supported/],
    [
      'trust that contradicts itself',
      {
        cluster: { 'insecure-skip-tls-verify': true, 'certificate-authority-data': base64(pem) },
      },
      /insecure-skip-tls-verify true: contradicts/,
    ],
    ['a name that is an address', { cluster: { 'tls-server-name': '10.0.0.1' } }, /must be a name, not an address/],
    ['half a truth', { cluster: { 'insecure-skip-tls-verify': 'yes' } }, /must be true or false/],
    ['an unknown user', { context: { user: 'u3' } }, /users: none has the name "u3"/],
    ['no cluster', { context: { cluster: '' } }, /cluster "": is missing/],
  ])('%s', (_what, parts, message) => {
    const path = written(kubeconfig(parts));
    const { code, message: told } = refusal(() => readKubeconfig(path));
    expect(code).toBe(7);
    expect(told).toContain(`kubeconfig ${path} cannot be used: `);
    expect(told).toMatch(message);
    expect(told).not.toMatch(/secret/);
  });

  test('every problem at once', () => {
    const path = written(kubeconfig({ cluster: { server: 'x' }, user: { exec: {}, 'client-key': '/nowhere' } }));
    expect(refusal(() => readKubeconfig(path)).message).toMatch(/server .*exec.*client-key: \/nowhere cannot/);
  });

  test.each([
    ['nothing', '', /it is no kubeconfig/],
    ['a list', '[]', /it is no kubeconfig/],
    ['text with a secret', 'token: "secret\n  - x: [', /neither JSON nor YAML \(line \d\)/],
    ['no context', '{}', /current-context: is missing/],
  ])('%s', (_what, content, message) => {
    const path = written(content);
    const told = refusal(() => readKubeconfig(path, { parseYaml })).message;
    expect(told).toMatch(message);
    expect(told).not.toMatch(/secret/);
  });
});

test('a file that is not there may come: code 11', () => {
  expect(() => readKubeconfig('/nowhere/config')).toThrow(
    expect.objectContaining({
      code: 11,
      message: expect.stringMatching(/^kubeconfig \/nowhere\/config cannot be used: there is no such file; .*agent/),
    }),
  );
});

describe('inside a pod', () => {
  const account = join(folder, 'account');
  mkdirSync(account);
  const env = { KUBERNETES_SERVICE_HOST: '10.96.0.1', KUBERNETES_SERVICE_PORT: '443' };
  writeFileSync(join(account, 'ca.crt'), pem);
  writeFileSync(join(account, 'token'), 'bound-token');
  writeFileSync(join(account, 'namespace'), 'kube-system');

  test('the service account is used', () => {
    expect(inClusterTarget(env, account)).toMatchObject({
      server: 'https://10.96.0.1',
      port: 443,
      tls: { ca: Buffer.from(pem) },
      token: 'bound-token',
      namespace: 'kube-system',
    });
    const v6 = { KUBERNETES_SERVICE_HOST: 'fd00::1', KUBERNETES_SERVICE_PORT: '6443' };
    expect(inClusterTarget(v6, account)).toMatchObject({ server: 'https://[fd00::1]:6443', host: 'fd00::1' });
  });

  test('what is missing is told', () => {
    expect(refusal(() => inClusterTarget({}, account)).message).toMatch(/this is no pod; name a kubeconfig/);
    expect(refusal(() => inClusterTarget(env, '/nowhere')).message).toMatch(/ca\.crt.*ENOENT.*token.*ENOENT/);
  });
});
