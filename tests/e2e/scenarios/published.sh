# shellcheck shell=bash
# a published entry in the StatefulSet's ConfigMap takes precedence over the planned window
# stage: control-plane
# server: --no-refresher
ns=e2e-published
namespace $ns "$ENABLED"
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
  probe-0.yaml: "{shard: 0, replica: 0, min_time: -60d, max_time: 2d}"
---
apiVersion: v1
kind: ConfigMap
metadata: {name: foreign-time-shards}
data:
  foreign-0.yaml: "{shard: 0, replica: 0, min_time: -60d, max_time: 2d}"
Y
REPLICAS=6 POLICY=Parallel store_set $ns store
REPLICAS=6 POLICY=Parallel store_set $ns foreign
known $ns store probe-0 "shard=0 -60d .. 2d"
until_same 30 "store-0 starts with its published window, the others without an entry with the planned one" \
  "store-0 shard=0 -60d .. 2d
$(planned store 6 | tail -n +2)" windows $ns store
until_same 30 "a ConfigMap without timeshard's label is ignored: planned windows" "$(planned foreign 6)" windows $ns foreign
