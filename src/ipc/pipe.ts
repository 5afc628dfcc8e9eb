// One connection to a unix socket by what node:net itself stands on: loading that module would double what asking the agent costs.

/** The parts of Node's `pipe_wrap` and `stream_wrap` that are used here; decision 31 says why, and what watches over them. */
interface Handle {
  onread: (bytes: ArrayBuffer | undefined) => void;
  /** These return 0 or a negative errno, and report to the request when they are done. */
  connect(request: Completion, path: string): number;
  writeUtf8String(request: Completion, text: string): number;
  readStart(): number;
  close(): void;
}

interface Completion {
  /** 0 or a negative errno. */
  oncomplete: (status: number) => void;
}

interface Bindings {
  pipe_wrap: {
    Pipe: new (type: number) => Handle;
    PipeConnectWrap: new () => Completion;
    constants: { SOCKET: number };
  };
  stream_wrap: {
    WriteWrap: new () => Completion;
    streamBaseState: Int32Array;
    kReadBytesOrError: number;
    kArrayBufferOffset: number;
  };
}

function binding<Id extends keyof Bindings>(id: Id): Bindings[Id] {
  return (process as unknown as { binding(id: Id): Bindings[Id] }).binding(id);
}

export interface Pipe {
  write(text: string): void;
  /** Nothing is heard after it. */
  close(): void;
}

export interface Listener {
  readonly onData: (piece: Buffer) => void;
  /** It could not connect, or broke, or the other side has ended it. */
  readonly onEnd: () => void;
}

/** Begins to connect; what is written before is sent after. Never throws. */
export function connectPipe(path: string, { onData, onEnd }: Listener): Pipe {
  const { Pipe, PipeConnectWrap, constants } = binding('pipe_wrap');
  const { WriteWrap, streamBaseState, kReadBytesOrError, kArrayBufferOffset } = binding('stream_wrap');
  const handle = new Pipe(constants.SOCKET);
  let isOpen = true;
  let waiting: string[] | undefined = [];

  const close = (): void => {
    if (!isOpen) return;
    isOpen = false;
    handle.close();
  };
  const check = (status: number): void => {
    if (status === 0 || !isOpen) return;
    close();
    onEnd();
  };
  const send = (text: string): void => {
    const request = new WriteWrap();
    request.oncomplete = check;
    check(handle.writeUtf8String(request, text));
  };

  handle.onread = bytes => {
    const count = streamBaseState[kReadBytesOrError]!;
    if (!isOpen || count === 0) return;
    if (count < 0 || bytes === undefined) return check(count);
    onData(Buffer.from(bytes, streamBaseState[kArrayBufferOffset], count));
  };
  const request = new PipeConnectWrap();
  request.oncomplete = status => {
    if (!isOpen) return;
    if (status !== 0) return check(status);
    const early = waiting ?? [];
    waiting = undefined;
    check(handle.readStart());
    for (const text of early) if (isOpen) send(text);
  };
  // A path that is too long is told at once, and the caller has nothing in hand yet.
  const status = handle.connect(request, path);
  if (status !== 0) queueMicrotask(() => check(status));
  return {
    write: text => {
      if (waiting !== undefined) waiting.push(text);
      else if (isOpen) send(text);
    },
    close,
  };
}
