# shellcheck shell=bash
# after others delete, edit, take over or disable objects, windows stay or become correct, and nothing else is restarted
# stage: node
ns=e2e-meddling
namespace $ns "$ENABLED"
# shellcheck source=../rollouts.sh
. "$CHECKOUT/tests/e2e/rollouts.sh"
# no querier runs here, so no drain is needed
annotations='{"thanos-timeshard.io/drain": "1s", "thanos-timeshard.io/discovery-delay": "1s", "thanos-timeshard.io/termination-drain": "0s",
  "thanos-timeshard.io/total-shards": "2", "thanos-timeshard.io/replicas-per-shard": "3"}'
# gateways NAME REPLICAS: the server knows its annotations before the first pod comes
gateways() {
  ANNOTATIONS=$annotations REPLICAS=0 POLICY=Parallel store_set $ns "$1"
  until_same 30 "$1 is known" "probe-0 shard=0 -186d .. 1d" dry_window $ns "$1" probe-0
  kubectl -n $ns scale statefulset "$1" --replicas="$2" >/dev/null
}
# has_event SET REASON: there is such an Event on the StatefulSet
has_event() { kubectl -n $ns get events.events.k8s.io -o json | jq -e --arg set "$1" --arg reason "$2" '.items[] | select(.regarding.kind == "StatefulSet" and .regarding.name == $set and .reason == $reason)'; }
# seen: everything that a restart, a reload, a new pod or another window would change
seen() {
  pods $ns store | jq -r '.[] | "\(.metadata.name) \(.metadata.uid) restarts \([.status | (.containerStatuses, .initContainerStatuses)[]?.restartCount] | add)"'
  report store | jq -r '.pods[] | "\(.pod) \(.published) \(.applied) \(.restarts) in place"'
}
# unharmed WHAT: settled again, and nothing of that changed
unharmed() {
  eventually 60 "$1: all is as planned" settled store
  same "$1: no pod, container, thanos or window changed" "$calm" seen
}
gateways store 6
until_same 90 "6 pods are Ready" "6 of 6" ready $ns store
eventually 60 "all is as planned" settled store '[.pods[].shard] | max == 1'
until_same 30 "with PDBs" "0: 1, 1: 1" budgets store
calm=$(seen) published=$(entries store)

kubectl -n $ns delete configmap store-time-shards >/dev/null
until_same 30 "the ConfigMap is deleted: the leader recreates it" "$published" entries store
unharmed "deleted ConfigMap"
kubectl -n $ns patch configmap store-time-shards --type=merge -p '{"data": {"store-0.yaml": "shard: 0\nmin_time: -1d\nmax_time: 1d\n", "store-9.yaml": "x", "store-1.yaml": null}}' >/dev/null
until_same 30 "entries are edited, added and removed: they are put back" "$published" entries store
unharmed "edited entries"
kubectl -n $ns label configmap store-time-shards app.kubernetes.io/managed-by- >/dev/null
eventually 30 "its label is removed: an Event reports that timeshard does not manage it" has_event store ConfigMapNotOurs
kubectl -n $ns label configmap store-time-shards app.kubernetes.io/managed-by=thanos-timeshard >/dev/null
unharmed "removed label of the ConfigMap"
kubectl label namespace $ns thanos-timeshard.io/injection- >/dev/null
unknown() { ! report store; }
eventually 30 "the namespace's label is removed: the server skips it" unknown
kubectl label namespace $ns "$ENABLED" >/dev/null
unharmed "namespace's label removed and put back"
kubectl -n "$SYSTEM" delete lease timeshard-refresher >/dev/null
led() { kubectl -n "$SYSTEM" get lease timeshard-refresher; }
eventually 30 "the Lease is deleted: a server leads again" led
unharmed "deleted lease"

# ---- PDBs and Services of others ------------------------------------------------------------------------------------------
kubectl -n $ns create poddisruptionbudget users --selector=app=store --max-unavailable=1 >/dev/null
until_same 30 "a user's PDB selects the pods: timeshard deletes its own" "" budgets store
eventually 30 "and an Event reports it" has_event store BudgetConflict
kubectl -n $ns delete poddisruptionbudget users >/dev/null
until_same 30 "it is deleted: timeshard's PDBs are back" "0: 1, 1: 1" budgets store
kubectl -n $ns create service clusterip publishes-all --clusterip=None --tcp=10901 >/dev/null
kubectl -n $ns patch service publishes-all --type=merge -p '{"spec": {"selector": {"app": "store"}, "publishNotReadyAddresses": true}}' >/dev/null
eventually 30 "a Service publishes addresses that are not ready: an Event reports it" has_event store DrainIneffective
kubectl -n $ns delete service publishes-all >/dev/null
unharmed "others' objects"

# ---- a ConfigMap of that name that timeshard does not manage -------------------------------------------------------------------------------
kubectl -n $ns create configmap foreign-time-shards --from-literal=mine=yes >/dev/null
gateways foreign 1
until_same 60 "a foreign ConfigMap has our name: the gateway is Ready all the same" "1 of 1" ready $ns foreign
eventually 30 "an Event reports it" has_event foreign ConfigMapNotOurs
same "it is untouched" '{"mine":"yes"} null' sh -c "kubectl -n $ns get configmap foreign-time-shards -o json | jq -rc '\"\\(.data) \\(.metadata.labels)\"'"
kubectl -n $ns annotate configmap foreign-time-shards thanos-timeshard.io/adopt=true >/dev/null
eventually 60 "with the annotation adopt it is taken over" settled foreign
same "and has the published windows" '["foreign-0.yaml"]' sh -c "kubectl -n $ns get configmap foreign-time-shards -o json | jq -c '.data | keys'"
kubectl -n $ns delete statefulset foreign >/dev/null

# ---- refused annotations, and a server that never saw valid ones ---------------------------------------------------
annotate store overlap=much
eventually 30 "an annotation is refused: an Event reports it" has_event store InvalidAnnotation
unharmed "refused annotation"
server_stop
server_start
eventually 60 "a server that starts then keeps the published windows, and gives the reason" says store '.state == "refused" and (.message | test("last good annotations.*much"))'
until_same 60 "no pod, container, thanos or window changed" "$calm" seen
annotate store overlap-
unharmed "mended annotation"

# ---- a policy that refuses an object that a step needs ---------------------------------------------------------------------------------
kubectl apply -f - >/dev/null <<Y
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-closed-budgets}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [policy], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [poddisruptionbudgets]}]}
  validations: [{expression: "!has(object.spec.maxUnavailable) || object.spec.maxUnavailable != 0", message: "budgets must let a pod go"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-closed-budgets}
spec: {policyName: no-closed-budgets, validationActions: [Deny], matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $ns}}}}
Y
enforced() { ! kubectl -n $ns create poddisruptionbudget closed --selector=app=none --max-unavailable=0 --dry-run=server; }
eventually 60 "a policy refuses PDBs that allow no eviction" enforced
annotate store overlap=2d
eventually 60 "an Event reports that no window changes" has_event store WriteRefused
eventually 60 "and the leader gives the reason" says store '.state == "waiting" and (.message | test("PodDisruptionBudget.*budgets must let a pod go"))'
kubectl -n $ns patch configmap store-time-shards --type=merge -p '{"data": {"store-1.yaml": null}}' >/dev/null
until_same 30 "edits by others are still reverted" "$published" entries store
annotate store overlap-
kubectl delete validatingadmissionpolicybinding,validatingadmissionpolicy no-closed-budgets >/dev/null
unharmed "policy of others"

# ---- a paused rollout -------------------------------------------------------------------------------------------
annotate store pause=true overlap=2d
eventually 30 "paused: a change of plan waits" says store '.state == "paused" and .moves_left > 0'
same "and no window changed" "$published" entries store
annotate store pause-
eventually 120 "no longer paused: it is rolled out" settled store '.pods[0].desired.min_time == "-187d"'

# ---- a pod without injection -------------------------------------------------------------------------------------------------
others() { seen | grep -v '^store-5 '; }
calm=$(others)
all_ready() { local _; for _ in $(seq 120); do [ "$(ready $ns store)" != "6 of 6" ] || return 0; sleep 1; done; return 1; }
kubectl label namespace $ns thanos-timeshard.io/injection- >/dev/null
eventually 30 "the namespace's label is removed" unknown
plain() { kubectl -n $ns delete pod store-5 --now >/dev/null && all_ready && windows $ns store | grep '^store-5 untouched'; }
eventually 90 "a pod that is made now is not injected" plain
kubectl label namespace $ns "$ENABLED" >/dev/null
eventually 60 "labelled again: an Event reports that pod" has_event store NotInjected
until_same 60 "and nothing happens to the others" "$calm" others
kubectl -n $ns delete pod store-5 --now >/dev/null
eventually 90 "it is deleted: all is as planned" settled store 'all(.pods[]; .state == "confirmed")'
until_same 60 "still without harm to the others" "$calm" others

# ---- down, to nothing, and back ----------------------------------------------------------------------------------------------
annotate store target-replicas=4
eventually 120 "planned for 4 pods: the others are not needed" says store '.state == "settled" and (.message | test("kubectl .*scale statefulset store --replicas=4 is safe now"))'
kubectl -n $ns scale statefulset store --replicas=4 >/dev/null
target() { kubectl -n $ns get statefulset store -o json | jq -r '.metadata.annotations["thanos-timeshard.io/target-replicas"]'; }
until_same 60 "scaled down to 4, the annotation is removed" null target
eventually 60 "all is as planned" settled store '.replicas == 4 and ([.pods[].shard] == [0, 0, 1, 1])'
until_same 60 "with 4 pods" "4 of 4" ready $ns store
count() { entries store | jq length; }
until_same 30 "the entries of the other two went with their pods" 4 count
# The entries without their numbers: those of a StatefulSet without pods are dropped, and then begin again.
slots() { entries store | jq 'map_values(split("\ngeneration")[0])'; }
published=$(slots)
refused "the guard refuses to scale it to nothing" "no pod would serve -370d .. 1d" kubectl -n $ns scale statefulset store --replicas=0
annotate store guard=off
eventually 30 "unless it is configured to" kubectl -n $ns scale statefulset store --replicas=0
until_same 60 "scaled to nothing" "0 of 0" ready $ns store
eventually 30 "and nothing is left to do" settled store '.replicas == 0'
kubectl -n $ns scale statefulset store --replicas=4 >/dev/null
until_same 90 "scaled up again" "4 of 4" ready $ns store
eventually 60 "all is as planned" settled store '.replicas == 4'
until_same 60 "with the same windows" "$published" slots
same "no container was ever restarted" 0 restarts $ns
