// Where the project lies.
import { resolve } from 'node:path';

/** The project's root folder. */
export const project = resolve(import.meta.dirname, '../..');
