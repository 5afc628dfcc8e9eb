// Reads the files that a user names.
import { readFileSync } from 'node:fs';
import { code, FailureError, messageOf, systemCode } from '../base/errors.ts';

/** Throws a FailureError that names the file and why it cannot be read. */
export function readNamedFile(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    const missing = systemCode(error) === 'ENOENT' ? 'there is no such file' : messageOf(error);
    throw new FailureError(code.io, `${file} cannot be read: ${missing}`, { cause: error });
  }
}
