// Where pages are served: what a flag may say.
import { describe, expect, it } from 'vitest';
import { parseListen } from './listen.ts';

describe('parseListen', () => {
  it.each([
    [':20244', { port: 20_244 }],
    ['127.0.0.1:20244', { host: '127.0.0.1', port: 20_244 }],
    ['localhost:0', { host: 'localhost', port: 0 }],
    ['[::1]:20244', { host: '::1', port: 20_244 }],
    ['off', 'off'],
  ])('reads %s', (text, address) => expect(parseListen(text)).toEqual(address));

  it.each(['', '20244', ':', ':65536', ':123456', '::1:20244', '127.0.0.1:', ':http', 5, undefined])(
    'refuses %s',
    text => expect(parseListen(text)).toBeUndefined(),
  );
});
