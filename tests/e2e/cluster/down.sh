#!/usr/bin/env bash
# Stops what up.sh started and removes what it left on the machine: processes, containers, mounts, network, cgroups, state.
# usage: [KEEP_LOGS=1] down.sh [--control-plane-only]
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/env.sh"
[ -e "$STATE/pids" ] || { echo "down.sh: nothing runs in $STATE" >&2; exit 0; }

# ended PID: within 5 s
ended() { for _ in $(seq 50); do [ -d "/proc/$1" ] || return 0; sleep 0.1; done; return 1; }
# stop NAME: by its pid file, only while that pid still is the program of that name
stop() {
  local f="$STATE/pids/$1" pid exe
  [ -e "$f" ] || return 0
  pid=$(cat "$f")
  exe=$(readlink "/proc/$pid/exe" 2>/dev/null)
  exe=${exe% (deleted)} # a rebuilt binary
  if [ "${exe##*/}" = "$1" ]; then
    kill "$pid" 2>/dev/null
    ended "$pid" || { kill -9 "$pid" 2>/dev/null; ended "$pid"; } # until then it may still write
  fi
  rm -f "$f"
}

stop timeshard # the server, if tests/e2e/run started it here
stop cert-manager
stop kubelet
stop kube-proxy
stop coredns
stop kube-scheduler
stop kube-controller-manager
if [ -e "$STATE/pids/containerd" ]; then
  c() { timeout 60 ctr -a "$CTR_SOCK" -n k8s.io "$@"; }
  c tasks ls -q 2>/dev/null | while read -r id; do c tasks kill -s KILL "$id" >/dev/null 2>&1; done
  sleep 0.5
  c tasks ls -q 2>/dev/null | while read -r id; do c tasks rm -f "$id" >/dev/null 2>&1; done
  c containers ls -q 2>/dev/null | while read -r id; do
    c containers rm "$id" >/dev/null 2>&1
    rm -f "/var/lib/cni/results/"*"-$id-"* # libcni has no other place for its results
  done
  sleep 0.5
  # a shim names its containerd's socket on its command line
  for p in /proc/[0-9]*; do
    { tr '\0' ' ' <"$p/cmdline"; } 2>/dev/null | grep -qF "containerd-shim-runc-v2 -namespace k8s.io -id" || continue
    { tr '\0' '\n' <"$p/cmdline"; } 2>/dev/null | grep -qxF "$CTR_SOCK" && kill -9 "${p#/proc/}" 2>/dev/null
  done
  stop containerd
fi
stop kube-apiserver
stop etcd

for _ in 1 2 3; do
  awk -v s="$STATE/" 'index($5, s) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r m; do umount "$m" 2>/dev/null || umount -l "$m"; done
done
[ ! -e "$STATE/lo-address" ] || ip addr del "$(cat "$STATE/lo-address")" dev lo
if [ -e "$STATE/bridge" ]; then
  nft delete table ip kube-proxy 2>/dev/null
  nft delete table ip6 kube-proxy 2>/dev/null
  ip link del "$(cat "$STATE/bridge")"
  for d in /sys/fs/cgroup/*/kubepods /sys/fs/cgroup/kubepods; do [ ! -d "$d" ] || find "$d" -depth -type d -exec rmdir {} \; ; done
  find /var/log/containers -type l -lname "$STATE/*" -delete 2>/dev/null
  rmdir /var/log/containers /var/lib/cni/results /var/lib/cni /run/containerd/s /run/containerd/runc/k8s.io /run/containerd/runc /run/containerd 2>/dev/null
  if [ -e "$STATE/no-var-lib-kubelet" ]; then
    rm -f /var/lib/kubelet/device-plugins/kubelet.sock
    rmdir /var/lib/kubelet/device-plugins /var/lib/kubelet
  fi
  sysctl -q -p "$STATE/sysctl.before"
fi
if [ -n "${KEEP_LOGS-}" ]; then rm -rf "$E2E_DIR/lastlog-$CLUSTER_NAME" && cp -r "$STATE/log" "$E2E_DIR/lastlog-$CLUSTER_NAME"; fi
if awk -v s="$STATE/" 'index($5, s) == 1 {f=1} END {exit !f}' /proc/self/mountinfo; then die "mounts are left under $STATE: not removed"; fi
rm -rf --one-file-system "$STATE"
