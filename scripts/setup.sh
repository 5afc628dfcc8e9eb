#!/usr/bin/env bash
# Installs what building, testing, the demo or the benchmarks need: setup.sh [build|build-arm64|test|demo|bench|cluster], Debian 12 or later.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

purpose=${1:-}

# --- What each purpose needs: "command-or-file package", taken as present when the command or file is there.
# The executable for the other architecture is built by tests too.
foreign_strip='aarch64-linux-gnu-strip binutils-aarch64-linux-gnu'
build_needs=(
  'patchelf patchelf'
  'strip binutils'
  "/usr/lib/$(uname -m)-linux-gnu/libatomic.so.1 libatomic1"
)
demo_needs=(
  'ip iproute2'
  '/usr/lib/cni/bridge containernetworking-plugins'
  'busybox busybox-static'
  'etcd etcd-server'
  'iptables iptables'
)
cluster_needs=(
  'etcdctl etcd-client'
  'containerd containerd'
  'runc runc'
  'unshare util-linux'
  'openssl openssl'
  'mount mount'
  'setpriv util-linux'
)
test_needs=(
  "${cluster_needs[@]}"
  'podman podman'
  'crun crun'
  'conmon conmon'
  'jq jq'
  'nft nftables'
  'arping iputils-arping'
  'ndisc6 ndisc6'
  'ndptool libndp-tools'
  'conntrack conntrack'
  'ps procps'
  'qemu-aarch64 qemu-user'
  "$foreign_strip"
)
case "$purpose" in
  '') needs=() ;;
  build) needs=("${build_needs[@]}") ;;
  build-arm64) needs=("${build_needs[@]}" "$foreign_strip") ;;
  demo) needs=("${build_needs[@]}" "${demo_needs[@]}") ;;
  bench | cluster) needs=("${build_needs[@]}" "${demo_needs[@]}" "${cluster_needs[@]}") ;;
  test) needs=("${build_needs[@]}" "${demo_needs[@]}" "${test_needs[@]}") ;;
  *) die "unknown purpose \"$purpose\": build, build-arm64, test, demo, bench or cluster" ;;
esac

present() {
  case "$1" in
    /*) [ -e "$1" ] ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
  esac
}

missing_packages() {
  local need
  for need in ${needs[@]+"${needs[@]}"}; do
    present "${need%% *}" || printf '%s\n' "${need##* }"
  done | sort -u
}

# --- Packages of Debian

# A package that brings a service would start it while it is installed. This file, as Debian's policy has it, says no.
policy=/usr/sbin/policy-rc.d
policy_is_ours=
forbid_services() {
  [ ! -e "$policy" ] || return 0
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  policy_is_ours=yes
}
allow_services() {
  [ -z "$policy_is_ours" ] || rm -f "$policy"
  policy_is_ours=
}

apt() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" </dev/null; }

install_packages() {
  local packages=("$@") log
  command -v apt-get >/dev/null || die "missing: ${packages[*]} (Debian's names); this system has no apt-get, please install them"
  [ "$(id -u)" = 0 ] || die "missing: ${packages[*]}; run as root: apt-get install --no-install-recommends ${packages[*]}"
  say "installing ${packages[*]}"
  log=$(mktemp)
  trap 'allow_services; rm -f "$log"' EXIT
  forbid_services
  if ! apt update >"$log" 2>&1; then
    cat "$log" >&2
    die 'apt-get update failed'
  fi
  if ! apt install -y --no-install-recommends "${packages[@]}" >"$log" 2>&1; then
    cat "$log" >&2
    die "apt-get install failed: ${packages[*]}"
  fi
  allow_services
  rm -f "$log"
  trap - EXIT
}

# --- Packages of npm, Node 26 among them

# npm ci starts from nothing, so it runs only when the lock file is another one than last time.
install_modules() {
  local stamp=node_modules/.kube-ipam-lock wanted
  wanted=$(sha256sum package-lock.json | cut -d ' ' -f 1)
  if [ -x node_modules/.bin/node ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then return; fi
  command -v npm >/dev/null || die 'npm is missing: Node 20 or later with npm is needed to begin with'
  say 'installing npm packages, Node 26 among them (npm ci)'
  # Warnings here are about engines: npm itself may run on an older Node than the tools, which run on Node 26.
  npm ci --loglevel=error --no-fund --no-audit </dev/null
  printf '%s\n' "$wanted" >"$stamp"
}

case "$(uname -s)-$(uname -m)" in
  Linux-x86_64 | Linux-aarch64) ;;
  *) die "Linux on x86_64 or aarch64 is needed, this is $(uname -s) on $(uname -m)" ;;
esac

# Node 26 does not start without libatomic, so the packages come before anything that runs it.
mapfile -t packages < <(missing_packages)
if [ ${#packages[@]} -gt 0 ]; then install_packages "${packages[@]}"; fi
install_modules
node_modules/.bin/node --version >/dev/null 2>&1 || {
  [ -n "$purpose" ] || { needs=("${build_needs[2]}"); mapfile -t packages < <(missing_packages); }
  [ ${#packages[@]} -eq 0 ] || install_packages "${packages[@]}"
  node_modules/.bin/node --version >/dev/null || die 'Node 26 of node_modules does not start'
}
still=$(missing_packages)
[ -z "$still" ] || die "installed, and yet missing: $(printf '%s ' $still)"

# A real Kubernetes is no package of Debian: it is built once, and kept.
case "$purpose" in
  test) scripts/tools.sh kubernetes helm cni-plugins ;;
  bench | cluster) scripts/tools.sh kubernetes cni-plugins ;;
esac

# Every installed Debian has a machine-id; a bare root folder has none, and what tells machines apart could not be tested.
if [ "$purpose" = test ] && [ -w /etc ] && ! grep -qsE '^[0-9a-f]{32}$' /etc/machine-id; then
  say 'writing /etc/machine-id, which this machine lacks'
  tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
fi
