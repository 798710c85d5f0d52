# shellcheck shell=bash
# docs/migration.md: one StatefulSet replaces hand-made shards, and no strict query fails; then one of them is converted in place
# stage: node
# parallel: uninstall
ns=e2e-migration
rm -f "$WORK"/{before,after}.{answers,stop} "$WORK/migration.admitted"
trap 'touch "$WORK/before.stop" "$WORK/after.stop" "$WORK/migration.admitted"; wait' EXIT
bucket=$("$CHECKOUT/tests/e2e/cluster/bucket.sh")
namespace $ns
# as in the scenario "reshard"
interval=2s drain=17s termination_drain=20s discovery_delay=20s
# shellcheck source=../querying.sh
. "$CHECKOUT/tests/e2e/querying.sh"
# shellcheck source=../rollouts.sh
. "$CHECKOUT/tests/e2e/rollouts.sh"

# ---- before: a StatefulSet for each window, two pods each, behind one headless Service ---------------------------
# by_hand NAME REPLICAS FLAG…: applies one of the old StatefulSets, with those time flags
by_hand() {
  local name=$1 replicas=$2
  shift 2
  CPU_REQUEST=20m REPLICAS=$replicas POLICY=Parallel POD_LABELS='{"shards": "by-hand"}' \
    ARGS=$(printf '%s\n' "$@" | jq -Rnc --argjson args "$store_args" '$args + [inputs]') workload StatefulSet "$name" |
    jq --arg bucket "$bucket" '.spec.template.spec.volumes |= map(if .name == "bucket" then {name, hostPath: {path: $bucket}} else . end)' |
    kubectl -n $ns apply -f - 2>&1 >/dev/null | without_warnings
}
by_hand store-recent 2 --min-time=-90d
by_hand store-middle 2 --min-time=-200d --max-time=-85d
by_hand store-old 2 --min-time=-370d --max-time=-195d
kubectl -n $ns apply -f - >/dev/null <<Y
apiVersion: v1
kind: Service
metadata: {name: by-hand}
spec: {clusterIP: None, selector: {shards: by-hand}, ports: [{name: grpc, port: 10901}]}
Y
# asks NAME SERVICE…: a querier that finds the pods of these Services
asks() {
  local name=$1 endpoints
  shift
  endpoints=$(printf ', "--endpoint=dnssrv+_grpc._tcp.%s.'$ns'.svc.cluster.local"' "$@")
  CPU_REQUEST=100m REPLICAS=1 ARGS="[\"query\", \"--http-address=0.0.0.0:10902\", \"--grpc-address=0.0.0.0:10901\", \"--store.sd-dns-interval=$interval\"$endpoints]" \
    workload Deployment "$name" | kubectl -n $ns apply -f - >/dev/null
}
asks before by-hand
until_same 60 "the querier is Ready" "1 of 1" ready $ns before
until_same 90 "it has the six old gateways" 6 stores before
asking before &
sane() { [ "$(mark "$1")" -ge 20 ]; }
eventually 30 "20 answers" sane before
t=$(mark before)

# ---- 1 to 3: check the new split and the new StatefulSet; the old ones are kept out by their own flags --------------
cat >"$WORK/migration.yaml" <<'Y'
sharding: {total_shards: 3, replicas_per_shard: 2, retention: 370d, overlap: 5d, boundaries: [90d, 200d]}
Y
split() { "$SERVER" plan --config "$WORK/migration.yaml" --replicas 6 -o json | jq -r '[.pods[] | "\(.min_time) .. \(.max_time)"] | unique | join(", ")'; }
same "the plan is the split of today" "-205d .. -90d, -370d .. -200d, -95d .. 1d" split
kubectl label namespace $ns "$ENABLED" >/dev/null
flags_of() { pods $ns "$1" | jq -r '.[] | "\(.metadata.name): \([.spec.containers[0].args[] | select(test("^--(min|max)-time="))] | join(" ")), \([.spec.initContainers[]?] | length) sidecars"'; }
by_hand probe 0 --min-time=-90d
kept_out() { member $ns probe probe-0 | kubectl -n $ns create --dry-run=server -o json -f - | jq -er '.metadata.annotations["thanos-timeshard.io/status"] == null and (.spec.initContainers | length) == 0'; }
# the label takes effect once the server has seen it: a gateway without time flags is injected
labelled() { REPLICAS=0 store_set $ns plain && dry_window $ns plain plain-0 | grep "shard=0"; }
eventually 30 "the namespace's label is seen" labelled
check "one with time flags stays as it is" kept_out
kubectl -n $ns delete statefulset probe plain >/dev/null

# ---- 4 to 6: the new one next to the old ones ---------------------------------------------------------------------------
gateways thanos-store-gateway 6 discovery-delay $discovery_delay total-shards 3 replicas-per-shard 2 retention 370d overlap 5d boundaries "[90d, 200d]"
until_same 120 "six new gateways are Ready" "6 of 6" ready $ns thanos-store-gateway
touch "$WORK/migration.admitted" # the scenario "uninstall" next to it may take the server away now, for some minutes
kubectl -n $ns apply -f - >/dev/null <<Y
apiVersion: v1
kind: Service
metadata: {name: thanos-store-gateway}
spec: {clusterIP: None, selector: {app: thanos-store-gateway}, ports: [{name: grpc, port: 10901}]}
Y
asks after by-hand thanos-store-gateway
until_same 60 "a querier with both is Ready" "1 of 1" ready $ns after
until_same 90 "and has all twelve" 12 stores after
asking after &
eventually 30 "20 answers" sane after
u=$(mark after)
complete_since before "$t" "the new gateways start next to the old ones"
touch "$WORK/before.stop"
eventually 1200 "every querier knows the new ones" settled thanos-store-gateway '[.pods[].state] | all(. == "confirmed")'

# ---- 7: the old ones leave discovery first, then are deleted -----------------------------------------------------------------
kubectl -n $ns patch service by-hand --type=merge -p '{"spec": {"selector": {"shards": "none"}}}' >/dev/null
until_same 60 "the querier has let go of the old ones" 6 stores after
kubectl -n $ns delete statefulset store-recent store-middle >/dev/null
fewer() { [ "$(pods $ns | jq '[.[] | select(.metadata.labels.shards == "by-hand")] | length')" = 2 ]; }
eventually 60 "two of the old StatefulSets are gone" fewer
v=$(mark after)
more() { [ "$(mark after)" -ge $((v + 30)) ]; }
eventually 120 "queries continue" more
complete_since after "$u" "the old gateways go"
same "the last of the old ones was never touched" $'store-old-0: --min-time=-370d --max-time=-195d, 0 sidecars\nstore-old-1: --min-time=-370d --max-time=-195d, 0 sidecars' flags_of store-old
touch "$WORK/after.stop"

# ---- in place, with one of them ----------------------------------------------------------------------------------------
is_back() { [ ! -e "$E2E_DIR/results.uninstall" ] || [ -e "$WORK/uninstall.back" ]; }
eventually 1200 "the server is there" is_back
kubectl -n $ns delete statefulset thanos-store-gateway >/dev/null
kubectl -n $ns annotate statefulset store-old thanos-timeshard.io/{replace-time-flags=true,drain=1s,discovery-delay=1s,termination-drain=0s} \
  thanos-timeshard.io/{total-shards=3,replicas-per-shard=2,retention=370d,overlap=5d} "thanos-timeshard.io/boundaries=[90d, 200d]" >/dev/null 2>&1
replaced() { dry_window $ns store-old probe-5 | grep "^probe-5 shard="; }
eventually 30 "the server knows that it may replace the time flags" replaced
kubectl -n $ns scale statefulset store-old --replicas=6 >/dev/null 2>&1
until_same 120 "it has six pods" "6 of 6" ready $ns store-old
planned='store-old-0 shard=0 -95d .. 1d
store-old-1 shard=0 -95d .. 1d
store-old-2 shard=1 -205d .. -90d
store-old-3 shard=1 -205d .. -90d
store-old-4 shard=2 -370d .. -200d
store-old-5 shard=2 -370d .. -200d'
same "the four new ones have windows of the plan" "$(tail -n 4 <<<"$planned")" sh -c "echo '$(windows $ns store-old)' | tail -n 4"
bare() { says store-old '[.pods[] | select(.state == "not_injected") | .pod] == ["store-old-0", "store-old-1"]'; }
eventually 30 "the leader names the two pods that are not injected" bare
has_event() { kubectl -n $ns get events.events.k8s.io -o json | jq -e '.items[] | select(.reason == "NotInjected")'; }
eventually 30 "and so does an Event" has_event
kubectl -n $ns rollout restart statefulset store-old >/dev/null 2>&1
restarted() { [ "$(windows $ns store-old)" = "$planned" ] && [ "$(ready $ns store-old)" = "6 of 6" ]; }
eventually 600 "after a rolling restart all have theirs" restarted
eventually 120 "and all is as planned" settled store-old
