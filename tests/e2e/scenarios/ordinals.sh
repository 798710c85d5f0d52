# shellcheck shell=bash disable=SC2154
# spec.ordinals.start: 5 counts shards from the fifth ordinal on
# stage: control-plane
ns=e2e-ordinals
namespace $ns $ENABLED
# Known before its first pod: admission reads the StatefulSet from its cache.
REPLICAS=0 POLICY=Parallel START=5 store_set $ns store
until_same 30 "store-5 would be the first pod of shard 0" "store-5 shard=0 ${shard_windows[0]}" dry_window $ns store store-5
kubectl -n $ns scale statefulset/store --replicas=6 >/dev/null
until_same 30 "store-5 to store-10 have the windows of 3 shards" "$(planned store 6 5)" windows $ns
