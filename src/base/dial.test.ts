// What people are told about a connection that could not be had.
import { expect, test } from 'vitest';
import { connectionReason, isTlsAlert } from './dial.ts';

test('a refused client certificate is told apart from a connection that broke', () => {
  expect(isTlsAlert('ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED')).toBe(true);
  expect(isTlsAlert('ERR_SSL_SSL/TLS_ALERT_BAD_CERTIFICATE')).toBe(true);
  expect(isTlsAlert('ECONNRESET')).toBe(false);
  expect(isTlsAlert(undefined)).toBe(false);
  expect(connectionReason('ECONNREFUSED')).toBe('connection refused');
  expect(connectionReason('EWHATEVER')).toContain('EWHATEVER');
});
