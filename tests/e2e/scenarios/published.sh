# shellcheck shell=bash disable=SC2154
# a published entry in the StatefulSet's ConfigMap wins over the planned window
# stage: control-plane
ns=e2e-published
namespace $ns $ENABLED
kubectl -n $ns apply -f - >/dev/null <<'Y'
apiVersion: v1
kind: ConfigMap
metadata:
  name: store-time-shards
  labels: {app.kubernetes.io/managed-by: thanos-timeshard}
data:
  store-0.yaml: |
    shard: 0
    replica: 0
    min_time: -60d
    max_time: 2d
---
apiVersion: v1
kind: ConfigMap
metadata: {name: foreign-time-shards}
data:
  foreign-0.yaml: "{shard: 0, replica: 0, min_time: -60d, max_time: 2d}"
Y
REPLICAS=0 POLICY=Parallel store_set $ns store
REPLICAS=0 POLICY=Parallel store_set $ns foreign
until_same 30 "the entry is known" "store-0 shard=0 -60d .. 2d" dry_window $ns store store-0
kubectl -n $ns scale statefulset/store statefulset/foreign --replicas=6 >/dev/null
until_same 30 "store-0 starts with its published window, the others without an entry with the planned one" \
  "store-0 shard=0 -60d .. 2d
$(planned store 6 | tail -n +2)" windows $ns store
until_same 30 "a ConfigMap without our label is not ours: planned windows" "$(planned foreign 6)" windows $ns foreign
