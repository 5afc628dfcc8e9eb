#!/usr/bin/env bash
# Builds the single executable: bundle-sea.sh [--arch x64|arm64] [--out dist]; the work is in bundle.ts.
set -euo pipefail
cd "$(dirname "$0")/.."
node=node_modules/.bin/node
if [ ! -x "$node" ]; then
  echo "bundle-sea.sh: $node is missing; run: bash scripts/setup.sh build" >&2
  exit 1
fi
# Two builds at once would do the same work twice; the second one waits and then finds everything done.
mkdir -p node_modules/.cache
exec 9>node_modules/.cache/bundle.lock
if ! flock -n 9; then
  echo "bundle: another build is running, waiting for it"
  flock 9
fi
exec "$node" scripts/bundle.ts "$@"
