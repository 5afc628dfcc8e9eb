// The plugin's side of the agent's socket: hands one command over, and knows what may be done when no answer comes.
import type { Deadline } from '../base/clock.ts';
import { connectPipe } from './pipe.ts';
import { type Answer, go, handshakeTime, Lines, line, parseFromAgent, type Request } from './protocol.ts';

/**
 * `self`: nothing was begun, do the work. `lost`: the connection broke after the work may have begun; do it yourself, and
 * an ADD's fate is unknown. `late`: the time is over, and the agent may still be at it.
 */
export type Outcome = { readonly answer: Answer } | 'self' | 'lost' | 'late';

/**
 * Asks the agent. Never throws: without a socket, refused, or no `taken` in time it is 'self'. Work begins only after our
 * `go`, so that a request is never done twice: a slow agent is waited for, and only a broken connection frees us.
 */
export function askAgent(socket: string, request: Request, deadline: Deadline): Promise<Outcome> {
  return new Promise(resolve => {
    const lines = new Lines();
    let isGone = false;
    let timer: NodeJS.Timeout;
    const end = (outcome: Outcome): void => {
      clearTimeout(timer);
      // The agent sees at once that nobody waits any longer.
      connection.close();
      resolve(outcome);
    };
    const broken = (): void => end(isGone ? 'lost' : 'self');
    const hear = (text: string): void => {
      const message = parseFromAgent(text);
      if (message?.type === 'taken' && !isGone) {
        isGone = true;
        clearTimeout(timer);
        timer = setTimeout(() => end('late'), deadline.left());
        connection.write(go);
      } else if (message?.type === 'answer' && isGone) {
        const { type: _, ...answer } = message;
        end({ answer });
      } else {
        broken();
      }
    };
    const connection = connectPipe(socket, {
      onData: piece => {
        const complete = lines.add(piece);
        if (complete === undefined) broken();
        else for (const text of complete) hear(text);
      },
      onEnd: broken,
    });
    timer = setTimeout(() => end('self'), Math.min(handshakeTime, deadline.left()));
    connection.write(line(request));
  });
}
