# shellcheck shell=bash
# a namespace is labelled and unlabelled while everything runs
# stage: control-plane
ns=e2e-label-at-runtime
namespace $ns
REPLICAS=6 POLICY=Parallel store_set $ns store
until_same 30 "before: 6 pods, untouched" "$(for i in 0 1 2 3 4 5; do echo "store-$i untouched"; done)" windows $ns store
kubectl label namespace $ns "$ENABLED" >/dev/null
until_same 30 "the label takes effect" "probe-4 shard=2 ${shard_windows[2]}" dry_window $ns store probe-4
same "running pods are left as they are" "$(for i in 0 1 2 3 4 5; do echo "store-$i untouched"; done)" windows $ns store
kubectl -n $ns delete pods --all --grace-period=0 --force >/dev/null 2>&1
until_same 60 "pods created from then on are injected" "$(planned store 6)" windows $ns store
kubectl label namespace $ns thanos-timeshard.io/injection- >/dev/null
until_same 30 "without the label nothing is injected any more" "probe-4 untouched" dry_window $ns store probe-4
kubectl label namespace $ns thanos-timeshard.io/injection=disabled >/dev/null
same "nor with another value" "probe-4 untouched" dry_window $ns store probe-4
