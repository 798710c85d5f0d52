# shellcheck shell=bash
# a StatefulSet that was known with 0 replicas is scaled up: its pods have windows that hold data
# stage: control-plane
ns=e2e-scale-from-zero
namespace $ns "$ENABLED"
REPLICAS=0 POLICY=Parallel START=5 store_set $ns store
# The server may still hold "0 replicas" when the first pods come: it plans for the configured 3 shards of 2 then.
until_same 30 "known with 0 replicas" "probe-9 shard=2 ${shard_windows[2]}" dry_window $ns store probe-9
kubectl -n $ns scale statefulset/store --replicas=6 >/dev/null
until_same 30 "its 6 pods have the windows of 3 shards" "$(planned store 6 5)" windows $ns
