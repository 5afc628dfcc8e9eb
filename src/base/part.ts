// What a daemon is made of: parts that start, tell how they are, and stop.

export interface PartState {
  readonly ready: boolean;
  /** For people: what it waits for, or what it has. */
  readonly detail: string;
}

export interface Part {
  readonly name: string;
  /** Throws when the agent cannot run without it. What only takes time goes on behind its back, and shows in `state`. */
  start(): Promise<void>;
  state(): PartState;
  /** Ends what is under way, in bounded time; never throws. */
  stop(): Promise<void>;
}
