# Paths, addresses and names of the test cluster; sourced by the other scripts. Each can be set in the environment.
# Two clusters can run in parallel: the full node, and (with --control-plane-only) a control plane without any node.
# shellcheck shell=bash
CHECKOUT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
: "${E2E_DIR:=$CHECKOUT/target/e2e}" # everything that is written
: "${BIN:=$E2E_DIR/bin}"             # built binaries
case " $* " in
*" --control-plane-only "*)
  CONTROL_PLANE_ONLY=1 CLUSTER_NAME=timeshard-cp
  : "${PORT_BASE:=16460}" "${NET:=10.113.0}" "${SERVICE_NET:=10.114.0}" ;;
*)
  CONTROL_PLANE_ONLY='' CLUSTER_NAME=timeshard-e2e
  : "${PORT_BASE:=16440}" # ports used: PORT_BASE+1 … PORT_BASE+9
  : "${NET:=10.111.0}"    # first three octets of the bridge's /24; the node is .1
  : "${SERVICE_NET:=10.112.0}" ;; # first three octets of the Services' /24
esac
# One running cluster: certificates, data, logs, pid files. It has Unix sockets, whose paths have at most 107 bytes.
if [ -z "${STATE-}" ]; then
  STATE=$E2E_DIR/state-${CLUSTER_NAME#timeshard-}
  if [ ${#STATE} -gt 72 ]; then
    STATE=${TMPDIR:-/tmp}/$CLUSTER_NAME-$(printf %s "$CHECKOUT" | cksum | cut -d' ' -f1)
    STATE_MOVED=1
  fi
fi
: "${CNI_BIN:=/usr/lib/cni}"  # Debian package containernetworking-plugins
: "${BRIDGE:=$CLUSTER_NAME}"  # bridge of node and pods; at most 15 characters
: "${NODE_NAME:=$CLUSTER_NAME}"
NODE_IP=$NET.1 API_PORT=$((PORT_BASE + 3))
CTR_SOCK=$STATE/containerd.sock
KUBECONFIG=$STATE/admin.kubeconfig
export KUBECONFIG PATH="$BIN:$PATH:/usr/local/go/bin"

die() { echo "${0##*/}: $*" >&2; exit 1; }
# debian COMMAND-OR-FILE=PACKAGE…: installs missing packages as root under CI, otherwise names them with the command that installs them
debian() {
  local missing='' p
  for p in "$@"; do
    command -v "${p%%=*}" >/dev/null || [ -e "${p%%=*}" ] || case "$missing " in *" ${p#*=} "*) ;; *) missing+=" ${p#*=}" ;; esac
  done
  [ -n "$missing" ] || return 0
  if [ -n "${CI-}" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing the Debian packages$missing" >&2
    # shellcheck disable=SC2086
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $missing; } >"$E2E_DIR/apt.log" 2>&1 ||
      { tail -20 "$E2E_DIR/apt.log" >&2; die "apt-get install$missing failed"; }
  else
    die "not found: Debian's$missing. Install with:  sudo apt-get update && sudo apt-get install -y$missing"
  fi
}
# start NAME COMMAND…: in its own session, so that it outlives the caller, and before others when CPU is scarce (sched(7), autogroup)
start() {
  local name=$1
  shift
  setsid bash -c '{ echo -5 >/proc/self/autogroup; } 2>/dev/null; exec "$@"' start "$@" </dev/null >"$STATE/log/$name.log" 2>&1 &
  echo $! >"$STATE/pids/$name"
  disown $! # a caller that waits for all of its children must not wait for it
}
# wait_for SECONDS WHAT COMMAND…: four times as long on a busy machine
wait_for() {
  local end=$((SECONDS + 4 * $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || die "$what: not within the time limit; logs are in $STATE/log"
    sleep 0.2
  done
}
