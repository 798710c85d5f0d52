# A server that does everything once, under the current rights and policies: sourced by scenarios that have set $ns.
# Without kubelet and sidecars: examples/stand-in-sidecars.rs gives every pod an address, marks it Ready and answers.
# shellcheck shell=bash
stand_in=$(dirname "$SERVER")/examples/stand-in-sidecars
[ -x "$stand_in" ] || { bad "no $stand_in: build it with cargo build --release --example stand-in-sidecars"; exit 1; }
# shellcheck source=rollouts.sh
. "$CHECKOUT/tests/e2e/rollouts.sh"
# called DECISION: verb, resource and group of the server's requests since $from; without those that every user may send (selfsubject…,
# /version)
called() {
  jq -r --argjson from "$from" --arg decision "$1" '
    (.requestReceivedTimestamp | ((.[:19] + "Z" | fromdate) * 1000 + (.[20:23] | tonumber))) as $at
    | select($at >= $from and .annotations["authorization.k8s.io/decision"] == $decision and .objectRef.resource)
    | "\(.verb) \(.objectRef.resource)\(if .objectRef.subresource then "/" + .objectRef.subresource else "" end).\(.objectRef.apiGroup // "")"' \
    "$STATE/log/audit.json" | LC_ALL=C sort -u
}
# answered CODE: the server's requests since $from with that status
answered() {
  jq -r --argjson from "$from" --argjson code "$1" '
    (.requestReceivedTimestamp | ((.[:19] + "Z" | fromdate) * 1000 + (.[20:23] | tonumber))) as $at
    | select($at >= $from and .responseStatus.code == $code and .objectRef.resource)
    | "\(.verb) \(.objectRef.resource)\(if .objectRef.subresource then "/" + .objectRef.subresource else "" end): \(.responseStatus.message // "")"' \
    "$STATE/log/audit.json" | LC_ALL=C sort -u
}
# rules: of the roles on standard input, in the same form
rules() { jq -r '.rules[] | .apiGroups[] as $group | .resources[] as $resource | .verbs[] | "\(.) \($resource).\($group)"' | LC_ALL=C sort -u; }
# everything: in $ns, from a server that starts without a Lease; $from is the time of that
everything() {
  local all_services="store-shard-0 0, store-shard-1 1, store-shard-2 2"
  server_stop
  from=$(now_ms)
  kubectl -n "$SYSTEM" delete lease timeshard-refresher --ignore-not-found >/dev/null
  server_start
  eventually 60 "a server begins, without a lease" server_ready
  namespace "$ns" "$ENABLED"
  ! declare -F after_namespace >/dev/null || after_namespace
  "$stand_in" "$ns" >"$WORK/stand-in.log" 2>&1 &
  stand_in_pid=$!
  kubectl -n "$ns" create configmap foreign-time-shards --from-literal=mine=yes >/dev/null
  for set in store foreign; do
    ANNOTATIONS='{"thanos-timeshard.io/discovery-delay": "1s", "thanos-timeshard.io/drain": "1s"}' REPLICAS=6 POLICY=Parallel store_set "$ns" "$set"
  done
  eventually 90 "6 pods serve their published windows" settled store '[.pods[] | select(.state == "confirmed")] | length == 6'
  eventually 30 "a conflicting ConfigMap is read" says foreign '.state == "refused"'
  kubectl -n "$ns" annotate configmap foreign-time-shards thanos-timeshard.io/adopt=true >/dev/null
  annotate foreign overlap=30h
  eventually 90 "and taken over, once its owner says so" settled foreign '.pods[0].desired.min_time == "-124d14h"'
  annotate store overlap=2d shard-services=true
  eventually 90 "another plan is rolled out, with Services" settled store '.pods[0].desired.min_time == "-125d8h"'
  services() { kubectl -n "$ns" get services -l app.kubernetes.io/managed-by=thanos-timeshard -o json | jq -r '[.items[] | "\(.metadata.name) \(.spec.selector["thanos-timeshard.io/shard"])"] | join(", ")'; }
  until_same 30 "one for each shard" "$all_services" services
  kubectl -n "$ns" patch service store-shard-1 --type=merge -p '{"spec": {"selector": {"thanos-timeshard.io/shard": "9"}}}' >/dev/null
  until_same 30 "a changed Service is reverted" "$all_services" services
  annotate store shard-services=false
  until_same 30 "and Services that are not wanted go" "" services
  annotate store target-replicas=6
  target() { kubectl -n "$ns" get statefulset store -o json | jq -r '.metadata.annotations["thanos-timeshard.io/target-replicas"]'; }
  until_same 30 "a target that is reached is removed" null target
  events() { kubectl -n "$ns" get events.events.k8s.io -o json | jq -r '[.items[] | select(.reason == "InvalidAnnotation" and .regarding.name == "store")] | "\(length) \(map(.series.count // 1) | add)"'; }
  annotate store drain=soon
  until_same 30 "an Event reports a mistake" "1 1" events
  annotate store drain=1s overlap=much
  counted() { [ "$(events)" != "1 1" ]; }
  eventually 30 "and a repeated Event is counted" counted
  kubectl label namespace "$ns" thanos-timeshard.io/injection- >/dev/null
  budgets_left() { kubectl -n "$ns" get pdb -o name; }
  until_same 30 "PDBs are deleted with the label" "" budgets_left
}
# no_stand_in: stops it
no_stand_in() { [ -z "${stand_in_pid-}" ] || kill "$stand_in_pid" 2>/dev/null || true; }
