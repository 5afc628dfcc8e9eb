// The one clock of a test with several machines: all namespaces share CLOCK_MONOTONIC.

/** Milliseconds on CLOCK_MONOTONIC, comparable with what the judges and the machines' programs write. */
export function monotonic(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
