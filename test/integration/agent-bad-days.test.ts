// The agent stopped, killed or replaced at any moment of a request, and plugins that leave: no ADD lost, none done twice, nothing left.
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Agent, type Spoken, startRelay, until } from '../helpers/agent.ts';
import { holdings } from '../helpers/agreement.ts';
import { confOf, Ground, type Json, type Site } from '../helpers/plugin.ts';
import { type Ended, run, start } from '../helpers/plugin-process.ts';

let ground: Ground;
let site: Site;
let agent: Agent;

beforeAll(async () => {
  ground = await Ground.make('etcd');
});
beforeEach(async () => {
  site = await ground.site();
  agent = await Agent.start({ dataDir: site.folder });
});
afterEach(() => agent[Symbol.asyncDispose]());
afterAll(() => ground[Symbol.asyncDispose]());

function conf(ipam: Json = {}): Json {
  const ranges = [[{ subnet: '10.1.0.0/22' }], [{ subnet: 'fd00::/64' }]];
  return confOf(site, { ranges, timeout: 30, agentSocket: agent.socket, ...ipam });
}

/** Fences stay for an hour on purpose: they are what keeps late commits out. */
async function remains(): Promise<string[]> {
  return (await site.remains()).filter(key => !key.includes('/fences/'));
}

/** DEL of each of them, by whichever path, and then nothing is left, now or a moment later. */
async function deleteAll(ids: readonly string[], ipam: Json = {}): Promise<void> {
  const gone = await Promise.all(ids.map(containerID => run('DEL', { conf: conf(ipam), containerID })));
  expect(gone.flatMap(({ error }) => error?.msg ?? [])).toEqual([]);
}

/** What every ADD must have come to: an answer, an address of its own, and a record that says so. */
async function expectAll(answers: ReadonlyMap<string, Ended>): Promise<void> {
  const { attachments } = await holdings(site);
  for (const [id, { error, addresses }] of answers) {
    expect([id, error?.msg]).toEqual([id, undefined]);
    expect([id, ...(attachments.get(`${id}/eth0`) ?? [])]).toEqual([id, ...addresses]);
  }
  expect(attachments.size).toBe(answers.size);
}

async function addAll(ids: readonly string[], ipam: Json = {}): Promise<Map<string, Ended>> {
  const all = ids.map(async id => [id, await run('ADD', { conf: conf(ipam), containerID: id })] as const);
  return new Map(await Promise.all(all));
}

const names = (count: number, prefix = 'pod') => Array.from({ length: count }, (_, n) => `${prefix}-${n}`);

describe('a stopped agent', () => {
  it('before "taken": the plugin does it itself after 2 s, and the agent never', async () => {
    await agent.pause();
    const { addresses, ms } = await run('ADD', { conf: conf() });
    expect(addresses).toHaveLength(2);
    expect(ms).toBeGreaterThan(1900);
    await deleteAll(['pod-1']);
    agent.resume();
    await sleep(500);
    expect(await remains()).toEqual([]);
    expect(await agent.metric('kube_ipam_agent_requests_total{command="ADD",code="0"}')).toBeUndefined();
  });

  it('after "taken": no work, code 11 at the end of the time, and nothing after the DEL', async () => {
    const relay = join(agent.folder, 'relay.sock');
    const stopAtTaken = async ({ type }: Spoken) => {
      if (type === 'taken') await agent.pause();
    };
    await using _ = await startRelay(agent.socket, relay, stopAtTaken);
    const { error, ms } = await run('ADD', { conf: conf({ agentSocket: relay, timeout: 3 }) });
    expect(error).toMatchObject({ code: 11, msg: expect.stringContaining('has not answered in time') });
    expect(ms).toBeGreaterThan(2900);
    expect(readdirSync(join(site.folder, 'doubt'))).toHaveLength(1);
    // The agent that does not answer is passed by.
    await deleteAll(['pod-1']);
    expect(readdirSync(join(site.folder, 'doubt'))).toEqual([]);
    agent.resume();
    await sleep(1000);
    expect(await remains()).toEqual([]);
    expect((await site.remains()).filter(key => key.includes('/fences/'))).toHaveLength(1);
  });

  // The stop falls anywhere: before the first read, between read and commit, behind the commit, behind the answer.
  it.each(['late', 'killed'] as const)('after "go", the plugins %s: nothing after the DELs', async fate => {
    const ids = names(10);
    for (let round = 0; round < 5; round++) {
      const relay = join(agent.folder, `relay-${round}.sock`);
      let gone = 0;
      const stopAt = Math.floor(Math.random() * ids.length);
      const stopAtGo = ({ type }: Spoken) => {
        if (type === 'go' && gone++ === stopAt) {
          // The agent gets this "go", and a moment to begin with it.
          setTimeout(() => agent.child.kill('SIGSTOP'), Math.random() * 12);
        }
      };
      await using _ = await startRelay(agent.socket, relay, stopAtGo);
      const running = ids.map(id => start('ADD', { conf: conf({ agentSocket: relay, timeout: 3 }), containerID: id }));
      if (fate === 'killed') {
        await sleep(600);
        for (const { child } of running) child.kill('SIGKILL');
      }
      const ended = await Promise.all(running.map(one => one.ended));
      const told = ended.filter(({ signal }) => signal === null);
      for (const { error } of told) expect([undefined, 11]).toContain(error?.code);
      await deleteAll(ids);
      agent.resume();
      // What it had sent before it was stopped may be applied, and is taken back.
      await sleep(200);
      await until(async () => (await agent.metric('kube_ipam_agent_requests_in_flight')) === 0);
      expect(await remains()).toEqual([]);
    }
  });
});

describe('an agent that is killed', () => {
  it('in the middle of requests: their plugins do them, and each is done once', async () => {
    for (let round = 0; round < 4; round++) {
      const ids = names(20, `round-${round}`);
      const adding = addAll(ids);
      await sleep(60 + Math.random() * 400);
      await agent.end('SIGKILL');
      await expectAll(await adding);
      await deleteAll(ids);
      await agent.start();
    }
    expect(await remains()).toEqual([]);
  });

  it('leaves a socket that nobody answers: the plugin sees that at once, and the next agent takes its place', async () => {
    await agent.end('SIGKILL');
    expect(existsSync(agent.socket)).toBe(true);
    const { addresses, ms } = await run('ADD', { conf: conf() });
    expect(addresses).toHaveLength(2);
    expect(ms).toBeLessThan(1500);
    await agent.start();
    await deleteAll(['pod-1']);
    expect(await agent.metric('kube_ipam_agent_requests_total{command="DEL",code="0"}')).toBe(1);
    expect(await remains()).toEqual([]);
  });

  it('and started again and again under load: no ADD is lost, none is done twice', async () => {
    const done = new AbortController();
    const restarts = (async () => {
      for (let n = 0; !done.signal.aborted; n++) {
        await sleep(Math.random() * 300);
        expect(await agent.end(n % 2 === 0 ? 'SIGKILL' : 'SIGTERM')).toBe(n % 2 === 0 ? 'SIGKILL' : 0);
        await agent.start();
      }
    })();
    const workers = names(10, 'worker').map(async worker => {
      const answers = new Map<string, Ended>();
      for (let n = 0; n < 12; n++) {
        const id = `${worker}-${n}`;
        answers.set(id, await run('ADD', { conf: conf(), containerID: id }));
        if (n % 3 !== 0) continue;
        expect((await run('DEL', { conf: conf(), containerID: id })).error?.msg).toBeUndefined();
        answers.delete(id);
      }
      return answers;
    });
    const answers = new Map((await Promise.all(workers)).flatMap(one => [...one]));
    done.abort();
    await restarts;
    await expectAll(answers);
    await deleteAll([...answers.keys()]);
    expect(await remains()).toEqual([]);
  });
});

describe('SIGTERM', () => {
  it('under load: what has begun is ended, the rest goes to the plugins, exit code 0', async () => {
    for (let round = 0; round < 3; round++) {
      const ids = names(20, `round-${round}`);
      const adding = addAll(ids);
      await sleep(60 + Math.random() * 300);
      expect(await agent.end()).toBe(0);
      expect(existsSync(agent.socket)).toBe(false);
      await expectAll(await adding);
      await deleteAll(ids);
      await agent.start();
    }
    expect(agent.log).not.toContain('in the middle of requests');
    expect(await remains()).toEqual([]);
  });
});

describe('two agents', () => {
  it('the second one ends with code 4, the first goes on', async () => {
    const second = agent.spawn();
    const code = await new Promise(resolve => second.once('exit', resolve));
    expect(code).toBe(4);
    expect(agent.log).toContain('another agent serves');
    expect((await run('ADD', { conf: conf() })).addresses).toHaveLength(2);
    expect(await agent.metric('kube_ipam_agent_requests_total{command="ADD",code="0"}')).toBe(1);
  });

  it('of which the first hangs: the second still ends with code 4', async () => {
    await agent.pause();
    const second = agent.spawn();
    expect(await new Promise(resolve => second.once('exit', resolve))).toBe(4);
  });
});

describe('plugins that leave', () => {
  it('killed at random while the agent is at work: their DELs leave nothing', async () => {
    const trial = await addAll(names(20, 'trial'));
    const longest = Math.max(...[...trial.values()].map(({ ms }) => ms)) * 1.1;
    await deleteAll(names(20, 'trial'));
    let killed = 0;
    for (let round = 0; round < 5; round++) {
      const running = names(20).map(id => start('ADD', { conf: conf(), containerID: id }));
      const timers = running.map(({ child }) => sleep(Math.random() * longest).then(() => child.kill('SIGKILL')));
      const ended = await Promise.all(running.map(one => one.ended));
      await Promise.all(timers);
      killed += ended.filter(({ signal }) => signal === 'SIGKILL').length;
      await holdings(site);
      await deleteAll(names(20));
      expect(await remains()).toEqual([]);
    }
    expect(killed).toBeGreaterThan(20);
  });
});

describe('the protocol', () => {
  /** Something at the agent's place that says these lines, one for each it hears. */
  async function impostor(lines: readonly object[]): Promise<AsyncDisposable & { path: string }> {
    const path = join(agent.folder, 'impostor.sock');
    const server = net.createServer(socket => {
      const left = [...lines];
      socket.on('error', () => {});
      socket.on('data', () => socket.write(`${JSON.stringify(left.shift() ?? {})}\n`));
    });
    await new Promise<void>(resolve => server.listen(path, resolve));
    return {
      path,
      async [Symbol.asyncDispose]() {
        await new Promise(resolve => server.close(resolve));
      },
    };
  }

  it('an agent of another version, or none at all: the plugin does it itself, at once', async () => {
    for (const lines of [[{ type: 'self', why: 'version 1 is too old' }], [{ type: 'accepted', version: 9 }], [{}]]) {
      await using other = await impostor(lines);
      const { addresses, ms } = await run('ADD', { conf: conf({ agentSocket: other.path }) });
      expect(addresses).toHaveLength(2);
      expect(ms).toBeLessThan(1500);
    }
    writeFileSync(join(agent.folder, 'file'), '');
    expect((await run('ADD', { conf: conf({ agentSocket: join(agent.folder, 'file') }) })).addresses).toHaveLength(2);
  });

  it('an agent that takes the work and hangs up: the plugin does it, and its DEL puts a fence', async () => {
    await using other = await impostor([{ type: 'taken' }, { type: 'nonsense' }]);
    expect((await run('ADD', { conf: conf({ agentSocket: other.path }) })).addresses).toHaveLength(2);
    expect(readdirSync(join(site.folder, 'doubt'))).toHaveLength(1);
    await deleteAll(['pod-1']);
    expect(readdirSync(join(site.folder, 'doubt'))).toEqual([]);
    expect((await site.remains()).filter(key => key.includes('/fences/'))).toHaveLength(1);
  });

  it('a plugin of another version is told so, and does it itself', async () => {
    const said = await new Promise<string>(resolve => {
      const socket = net.connect(agent.socket, () => socket.write('{"v":2,"command":"ADD"}\n'));
      socket.on('data', piece => resolve(String(piece)));
    });
    expect(JSON.parse(said)).toEqual({ type: 'self', why: 'the request has version 2, this agent speaks 1' });
  });

  it('a socket that was swept away is made anew', async () => {
    rmSync(agent.socket);
    expect((await run('ADD', { conf: conf() })).addresses).toHaveLength(2);
    await until(() => existsSync(agent.socket));
    await deleteAll(['pod-1']);
    expect(await agent.metric('kube_ipam_agent_requests_total{command="DEL",code="0"}')).toBe(1);
  });
});

describe('one container', () => {
  it('asked for ten times at once gets the same addresses', async () => {
    const all = await Promise.all(Array.from({ length: 10 }, () => run('ADD', { conf: conf() })));
    expect(new Set(all.map(({ stdout }) => stdout)).size).toBe(1);
    expect((await holdings(site)).owners.size).toBe(2);
  });

  it('deleted while its ADD is under way: the DEL has the last word', async () => {
    for (let round = 0; round < 10; round++) {
      const adding = run('ADD', { conf: conf() });
      await sleep(Math.random() * 60);
      const deleting = run('DEL', { conf: conf() });
      await Promise.all([adding, deleting]);
      await holdings(site);
      await deleteAll(['pod-1']);
      expect(await remains()).toEqual([]);
    }
  });
});
