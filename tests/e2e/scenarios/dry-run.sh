# shellcheck shell=bash
# a server-side dry run shows the injection and leaves nothing behind, not even an Event
# stage: control-plane
ns=e2e-dry-run
namespace $ns "$ENABLED"
REPLICAS=6 POLICY=Parallel store_set $ns store
until_same 30 "a dry run of a StatefulSet's pod shows its window" "probe-2 shard=1 ${shard_windows[1]}" dry_window $ns store probe-2
refused "and creates no pod" NotFound kubectl -n $ns get pod probe-2
# A pod that sets its own time flags is skipped, and an Event reports it: for a real pod, but not for a dry run.
flags='["store", "--data-dir=/data", "--objstore.config-file=/etc/objstore/objstore.yml", "--min-time=-7d"]'
events() { kubectl -n $ns get events.events.k8s.io -o json | jq -r '.items[] | select(.reportingController | test("timeshard")) | .regarding.name'; }
REPLICAS=0 ARGS=$flags store_set $ns tried
REPLICAS=0 ARGS=$flags store_set $ns created
left=$(member $ns tried tried-0 | kubectl -n $ns create --dry-run=server -o json -f - 2>"$WORK/warning" | jq -c '[.spec.containers[0].args, .spec.initContainers, .metadata.labels["thanos-timeshard.io/shard"]]')
same "a pod with its own time flags is skipped" "$(jq -nc "[$flags, null, null]")" echo "$left"
check "and kubectl prints a warning" grep -- "--min-time is set by hand" "$WORK/warning"
kubectl -n $ns scale statefulset/created --replicas=1 >/dev/null
created_event() { events | grep '^created'; }
eventually 30 "a real pod is reported by an Event" created_event
tried_event() { events | grep '^tried'; }
refused "the dry run before it by none" "" tried_event
