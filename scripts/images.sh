#!/usr/bin/env bash
# Builds the container images: images.sh [--arch x64|arm64] [--out dist/images]; the work is in images.ts.
set -euo pipefail
cd "$(dirname "$0")/.."
# Two at once would unpack packages into each other's way.
mkdir -p node_modules/.cache
exec 8>node_modules/.cache/images.lock
if ! flock -n 8; then
  echo "images: another build is running, waiting for it"
  flock 8
fi
exec node_modules/.bin/node scripts/images.ts "$@"
