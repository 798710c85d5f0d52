# shellcheck shell=bash
# 100 pods created together (podManagementPolicy: Parallel), 50 shards of 2 replicas
# stage: control-plane
# Without a leader: it would move the pods from one split to the other step by step, and this tests admission only.
# server: --no-refresher
ns=e2e-hundred
namespace $ns "$ENABLED"
count() { kubectl -n $ns get pods -o name | wc -l; }
t=$(now_ms)
REPLICAS=100 POLICY=Parallel store_set $ns store
until_same 60 "100 pods exist" 100 count
took=$(seconds_since "$t")
same "each with its window: 6 planned ones, 94 extra replicas of the newest shard" "$(planned store 100)" windows $ns
say "from the StatefulSet applied to its 100 pods admitted and stored: $took s, seen by a poll every 0.2 s"
kubectl -n $ns annotate statefulset/store thanos-timeshard.io/total-shards=50 >/dev/null
known $ns store store-99 "shard=49 -370d .. -362d14h24m"
until_same 60 "100 pods exist again" 100 count
windows $ns >"$WORK/hundred"
same "50 shards, two by two: 50 different windows" "50 2" sh -c "sed 's/^store-[0-9]* //' $WORK/hundred | sort | uniq -c | awk '{n[\$1]++} END {for (k in n) print n[k], k}'"
same "pod N is in shard N/2" "" awk '{n = $1; sub(/.*-/, "", n); if ($2 != "shard=" int(n / 2)) print}' "$WORK/hundred"
same "no pod without something" "" sed -n '/untouched\|no-\|sidecars\|null/p' "$WORK/hundred"
