// Complete synchronous reads and writes on a process's own file descriptors, blocking or not.
import { readSync, writeSync } from 'node:fs';
import { systemCode } from '../base/errors.ts';

/** Gives the other side of a non-blocking pipe a millisecond instead of spinning. */
function rest(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
}

/** Everything up to the end of the stream; a descriptor that is closed reads as empty. */
export function readToEnd(fd: number): Buffer {
  const chunks: Buffer[] = [];
  const chunk = Buffer.allocUnsafeSlow(65_536);
  for (;;) {
    try {
      const length = readSync(fd, chunk);
      if (length === 0) return chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
      // A copy: what comes byte by byte must not keep 64 KiB for each.
      chunks.push(Buffer.from(chunk.subarray(0, length)));
    } catch (error) {
      const reason = systemCode(error);
      if (reason === 'EOF' || reason === 'EBADF') return Buffer.concat(chunks);
      if (reason === 'EAGAIN') rest();
      else if (reason !== 'EINTR') throw error;
    }
  }
}

/** Writes all of the text; false when nobody is left to read it. */
export function writeFully(fd: number, text: string): boolean {
  const bytes = Buffer.from(text);
  for (let written = 0; written < bytes.length; ) {
    try {
      written += writeSync(fd, bytes, written);
    } catch (error) {
      const reason = systemCode(error);
      if (reason === 'EPIPE' || reason === 'EBADF') return false;
      if (reason === 'EAGAIN') rest();
      else if (reason !== 'EINTR') throw error;
    }
  }
  return true;
}
