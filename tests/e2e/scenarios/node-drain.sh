# shellcheck shell=bash
# kubectl drain, uncordon and delete work for injected pods as for others; thanos listens where its arguments say
# stage: node
# server: --no-refresher
ns=e2e-node-drain
namespace $ns "$ENABLED" "$RESTRICTED"
trap 'kubectl uncordon "$NODE_NAME" >/dev/null' EXIT
# gateways NAME [POD LABEL]: two pods with addresses of their own and a grace period of 120 s; the termination drain is 5 s
annotations='{"thanos-timeshard.io/termination-drain": "5s", "thanos-timeshard.io/total-shards": "2", "thanos-timeshard.io/replicas-per-shard": "1"}'
gateways() {
  REPLICAS=2 POLICY=Parallel ANNOTATIONS="$annotations" POD_LABELS="{\"drained\": \"here\" ${2+, $2}}" \
    ARGS="${store_args//1090/1919}" READY="${thanos_ready/10902/19192}" workload StatefulSet "$1" |
    jq '.spec.template.spec.terminationGracePeriodSeconds = 120' | kubectl -n $ns apply -f - >/dev/null
}
gateways plain '"thanos-timeshard.io/inject": "false"'
gateways store
known $ns store store-0 "shard=0 -186d .. 1d"
wanted="store-0 shard=0 -186d .. 1d
store-1 shard=1 -370d .. -185d"
until_same 60 "two injected pods are Ready" "2 of 2" ready $ns store
until_same 60 "two others are, too" "2 of 2" ready $ns plain
same "each has its window" "$wanted" windows $ns store
serving() { state $ns store-1; }
until_same 30 "verified at the addresses that the arguments say" "serving verified -370d .. -185d" serving
publish $ns store store-1 'shard: 1
min_time: -370d
max_time: -150d
drain: 0s'
until_same 60 "a published window reaches it there" "serving verified -370d .. -150d" serving

# within FROM TO WHAT COMMAND…: it succeeds, within that range of seconds
within() {
  local from=$1 to=$2 what=$3 t
  shift 3
  t=$SECONDS
  check "$what" "$@"
  check "it takes from $from to $to s, here $((SECONDS - t)) s" test $((SECONDS - t)) -ge "$from" -a $((SECONDS - t)) -le "$to"
}
uids() { pods $ns "$1" | jq -r '.[].metadata.uid'; }
before=$(uids store)
within 4 90 "kubectl drain takes all four off the node before kubelet kills them (125 s)" \
  kubectl drain "$NODE_NAME" --pod-selector drained=here --delete-emptydir-data --timeout=180s
same "none of the old pods is left" "" grep -Ff <(echo "$before") <(uids store)
waiting() { kubectl -n $ns get pods -o json | jq -r '.items | map(.metadata.name + " " + .status.phase) | sort[]'; }
until_same 30 "new ones wait for a node" "plain-0 Pending
plain-1 Pending
store-0 Pending
store-1 Pending" waiting
check "kubectl uncordon" kubectl uncordon "$NODE_NAME"
until_same 60 "the injected pods are Ready again" "2 of 2" ready $ns store
until_same 60 "and the others" "2 of 2" ready $ns plain
same "each with its window, the published one before the planned one" "store-0 shard=0 -186d .. 1d
store-1 shard=1 -370d .. -150d" windows $ns store
until_same 60 "which thanos serves" "serving verified -370d .. -150d" serving
same "no container was restarted" 0 restarts $ns

within 4 90 "kubectl delete pod ends it after its termination drain" kubectl -n $ns delete pod store-1
until_same 60 "it comes back" "2 of 2" ready $ns store
for _ in 1 2 3 4 5; do # the quickest of some, on a busy machine
  t=$SECONDS
  kubectl -n $ns delete pod store-1 --grace-period=1 >/dev/null
  took=$((SECONDS - t))
  [ $took -gt 9 ] || break
  until_same 60 "it comes back" "2 of 2" ready $ns store
done
check "kubectl delete --grace-period=1 does not wait for that ($took s)" test "$took" -le 9
until_same 60 "it comes back, too" "2 of 2" ready $ns store
until_same 30 "and serves its window" "serving verified -370d .. -150d" serving
for container in thanos config-sidecar; do check "kubectl logs -c $container" sh -c "kubectl -n $ns logs store-1 -c $container | grep ."; done
