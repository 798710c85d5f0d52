# shellcheck shell=bash
# spec.ordinals.start: 5 counts shards from the fifth ordinal on
# stage: control-plane
ns=e2e-ordinals
namespace $ns "$ENABLED"
REPLICAS=6 POLICY=Parallel START=5 store_set $ns store
known $ns store store-5 "shard=0 ${shard_windows[0]}"
until_same 30 "store-5 to store-10 have the windows of 3 shards" "$(planned store 6 5)" windows $ns
