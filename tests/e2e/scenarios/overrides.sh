# shellcheck shell=bash
# annotations on the StatefulSet override the defaults: total-shards "2"
# stage: control-plane
ns=e2e-overrides
namespace $ns "$ENABLED"
two() { # NAME
  local s
  for i in 0 1 2 3 4 5; do
    s=$((i < 4 ? i / 2 : 0))
    if [ $s = 0 ]; then echo "$1-$i shard=0 -186d .. 1d"; else echo "$1-$i shard=1 -370d .. -185d"; fi
  done
}
export ANNOTATIONS='{"thanos-timeshard.io/total-shards": "2"}'
REPLICAS=6 POLICY=Parallel store_set $ns store
known $ns store store-0 "shard=0 -186d .. 1d"
until_same 30 "2 shards of 2 replicas, the 2 surplus pods in the newest" "$(two store)" windows $ns store
export ANNOTATIONS='{}'
REPLICAS=6 POLICY=Parallel store_set $ns plain
until_same 30 "another StatefulSet without the annotation keeps the defaults" "$(planned plain 6)" windows $ns plain
# on the pod template it would be a rolling restart: ignored
REPLICAS=6 POLICY=Parallel POD_ANNOTATIONS='{"thanos-timeshard.io/total-shards": "2"}' store_set $ns template
until_same 30 "the same annotation on the pod template is ignored" "$(planned template 6)" windows $ns template
# an Event on the StatefulSet reports what does not fit or is refused, and the last good split stays
events() { kubectl -n $ns get events.events.k8s.io -o json | jq -r --arg set "$1" --arg reason "$2" '.items[] | select(.regarding.name == $set and .reason == $reason) | .note'; }
has_event() { events "$1" "$2" | grep -F "$3"; }
eventually 30 "an Event says that 2 pods are surplus" has_event store ReplicasDoNotFit "2 are extra replicas of the newest shard"
kubectl -n $ns annotate --overwrite statefulset store thanos-timeshard.io/total-shards=many >/dev/null
eventually 30 "an Event names the annotation, the value and what is right" has_event store InvalidAnnotation 'total_shards: "many" is not accepted: write a whole number'
same "a bad annotation keeps the last good division" "probe-0 shard=0 -186d .. 1d" dry_window $ns store probe-0
eventually 30 "an Event names the template's annotation" has_event template KeyOnPodIgnored "annotate the StatefulSet itself"
kubectl -n $ns annotate statefulset plain thanos-timeshard.io/total-shard=2 >/dev/null
eventually 30 "an Event names a misspelled annotation and the right one" has_event plain UnknownAnnotation "did you mean thanos-timeshard.io/total-shards?"
