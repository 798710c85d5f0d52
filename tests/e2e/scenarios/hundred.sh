# shellcheck shell=bash disable=SC2154
# 100 pods at once (podManagementPolicy: Parallel), 50 shards of 2 replicas
# stage: control-plane
ns=e2e-hundred
namespace $ns $ENABLED
export ANNOTATIONS='{"thanos-timeshard.io/total-shards": "50"}'
REPLICAS=0 POLICY=Parallel store_set $ns store
fifty() { dry_window $ns store store-99 | grep shard=49; }
eventually 30 "the override is known" fifty
t=$(now_ms)
kubectl -n $ns scale statefulset/store --replicas=100 >/dev/null
count() { kubectl -n $ns get pods -o name | wc -l; }
until_same 60 "100 pods exist" 100 count
took=$(seconds_since "$t")
windows $ns >"$WORK/hundred"
same "each with its window, two by two: 50 different ones" "50 2" sh -c "sed 's/^store-[0-9]* //' $WORK/hundred | sort | uniq -c | awk '{n++; c[\$1]} END {for (k in c) print n, k}'"
refused "none without" "" grep -E 'untouched|no-|sidecars|null' "$WORK/hundred"
# every boundary is covered: shard i ends 1 d beyond where shard i+1 begins
same "without a hole: the oldest starts at the retention, the newest ends in the future" "-370d 1d" \
  sh -c "awk '\$2 == \"shard=49\" {o = \$3} \$2 == \"shard=0\" {n = \$5} END {print o, n}' $WORK/hundred"
say "100 pods admitted and created in $took s"
first=$(kubectl -n $ns get pods -o json | jq '[.items[].metadata.creationTimestamp | fromdate] | max - min')
say "from the first to the last creation time: $first s"
