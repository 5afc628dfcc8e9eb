// The process of an Inside: runs the functions that the test sends it, with the program's rooms at hand.

interface Asked {
  readonly id: number;
  readonly work: string;
  readonly args: readonly unknown[];
}

export async function loadRooms() {
  return {
    ...(await import('../../src/base/clock.ts')),
    ...(await import('../../src/net/ip.ts')),
    ...(await import('../../src/host/exec.ts')),
    ...(await import('../../src/host/tool.ts')),
    ...(await import('../../src/host/ip.ts')),
    ...(await import('../../src/host/nft.ts')),
    ...(await import('../../src/host/iptables.ts')),
    ...(await import('../../src/host/arping.ts')),
    ...(await import('../../src/host/conntrack.ts')),
    ...(await import('../../src/host/return-path.ts')),
    ...(await import('../../src/host/ledger.ts')),
    ...(await import('../../src/host/sysctl.ts')),
    ...(await import('../../src/host/lock.ts')),
    /** What a test keeps from one call to the next. */
    kept: new Map<string, unknown>(),
  };
}

async function answer(rooms: object, { id, work, args }: Asked): Promise<object> {
  try {
    // The test's own text: it is as trusted as the test.
    return { id, result: await new Function(`return ${work}`)()(rooms, ...args) };
  } catch (error) {
    const { name, message } = error as Error;
    return { id, error: { name, message } };
  }
}

if (process.send !== undefined && import.meta.main) {
  const rooms = await loadRooms();
  process.on('message', async asked => process.send!(await answer(rooms, asked as Asked)));
  process.on('disconnect', () => process.exit());
  process.send({ id: 0 });
}
