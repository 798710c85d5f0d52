# shellcheck shell=bash
# a StatefulSet known with 0 replicas is scaled up: its pods get windows with data
# stage: control-plane
ns=e2e-scale-from-zero
namespace $ns "$ENABLED"
REPLICAS=0 POLICY=Parallel START=5 store_set $ns store
# The server may still know "0 replicas" when the first pods are created: it then plans for the configured 3 shards of 2.
until_same 30 "known with 0 replicas" "probe-9 shard=2 ${shard_windows[2]}" dry_window $ns store probe-9
kubectl -n $ns scale statefulset/store --replicas=6 >/dev/null
until_same 30 "its 6 pods have the windows of 3 shards" "$(planned store 6 5)" windows $ns
