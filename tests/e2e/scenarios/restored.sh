# shellcheck shell=bash
# during a step all entries are edited, and yesterday's ConfigMap is applied: no pod drains for it, no strict query fails or is incomplete
# stage: node
ns=e2e-restored
bucket=$("$CHECKOUT/tests/e2e/cluster/bucket.sh")
namespace $ns "$ENABLED"
# as in the scenario "reshard"
interval=2s drain=17s termination_drain=20s discovery_delay=20s
# shellcheck source=../querying.sh
. "$CHECKOUT/tests/e2e/querying.sh"
# shellcheck source=../rollouts.sh
. "$CHECKOUT/tests/e2e/rollouts.sh"

rm -f "$WORK"/restored.{answers,stop}
touch "$WORK/restored.answers"
ended() {
  touch "$WORK/restored.stop"
  [ -z "$asking" ] || wait "$asking" # not for the server, which may have been started from here
  say "in all: $(tally restored)"
  server_start
}
asking=''
trap ended EXIT
querier restored store
gateways store 6 discovery-delay $discovery_delay
until_same 60 "the querier is Ready" "1 of 1" ready $ns restored
until_same 120 "6 pods are Ready" "6 of 6" ready $ns store
until_same 60 "the querier has all of them" 6 stores restored
asking restored &
asking=$!
sane() { [ "$(mark restored)" -ge 20 ]; }
eventually 30 "20 answers" sane
eventually 120 "the leader knows all of them" settled store '[.pods[].shard] | max == 2'
t=$(mark restored)

# ---- edits of a ConfigMap ------------------------------------------------------------------------------------------
map=store-time-shards
# saved FILE: unchanged, and without the fields that only the leader writes; both as "kubectl get -o yaml" would print them
saved() {
  kubectl -n $ns get configmap $map -o json >"$1"
  jq '.data |= map_values(split("\n") | map(select(test("^(generation|order|released):") | not)) | join("\n"))' "$1" >"$1.bare"
}
# every entry with another window, in one write; the other lines stay, as in an editor
edited() { kubectl -n $ns get configmap $map -o json | jq '.data |= map_values(sub("min_time: .*"; "min_time: -400d"))' | kubectl -n $ns replace -f - >/dev/null; }
# applied FILE: by "kubectl apply"; replaced FILE: overwrites later changes
applied() { jq 'del(.metadata.resourceVersion, .metadata.uid, .metadata.managedFields)' "$1" | kubectl -n $ns apply --server-side --force-conflicts -f - >/dev/null; }
replaced() { jq 'del(.metadata.resourceVersion, .metadata.uid)' "$1" | kubectl -n $ns replace -f - >/dev/null; }
# published PODS: their entries, without the leader's counters
published() { entries store | jq -r --arg pods "$1" '.[($pods / " ")[] + ".yaml"] | [capture("(?<k>shard|replica|min_time|max_time): (?<v>\\S+)"; "g") | "\(.k) \(.v)"] | join(", ")'; }
kubelets_look() ( for p in 0 1 2 3 4 5; do hurry $ns store-$p & done; wait )
# calm: the pods that no step moves now; harm PODS: when each became Ready, and how often its thanos and containers were restarted
calm() { report store | jq -r '[.pods[] | select(.phase == "serving" and .applied == .published) | .pod] | join(" ")'; }
harm() {
  local p
  for p in $1; do
    kubectl -n $ns get pod "$p" -o json | jq -r '"\(.metadata.name) \(.metadata.uid) \([.status.conditions[] | select(.type == "Ready") | "\(.status) since \(.lastTransitionTime)"][0]),
      containers \([.status | (.containerStatuses, .initContainerStatuses)[]?.restartCount] | add)"'
    of_pod $ns "$p" 10908 /status | jq -r '"\(.pod) \(.phase) \(.applied | "\(.min_time) .. \(.max_time)"), thanos \(.restarts)"'
  done
}
saved "$WORK/yesterday"
draining() { report store | jq -e '.pods[] | select(.phase == "draining")'; }
# during_a_step: waits until a step has just begun; sets the values that the three below compare with
during_a_step() {
  eventually 120 "a step begins" draining
  annotate store pause=true # this step goes on, and no other one begins before step_may_end
  pods_left=$(calm) was=$(published "$pods_left")
  before=$(harm "$pods_left")
  same "it leaves enough pods alone" yes sh -c "[ $(wc -w <<<"$pods_left") -ge 2 ] && echo yes"
}
step_may_end() {
  eventually 60 "the step ends" next_step
  annotate store pause-
}
# next_step: of the same rollout; those of the step before are Ready again
next_step() { [ "$(ready $ns store)" = "6 of 6" ]; }
# unharmed WHAT
unharmed() {
  until_same 30 "$1: the ConfigMap again has the windows that these pods serve" "$was" published "$pods_left"
  until_same 30 "$1: and nothing of the edit" 0 edits
  same "$1: no pod outside the step became unready, was restarted or changed its window" "$before" harm "$pods_left"
}
edits() { entries store | jq '[.[] | select(contains("-400d"))] | length'; }

annotate store total-shards=2 replicas-per-shard=3
during_a_step
check "all entries are edited in one write" edited
kubelets_look
unharmed "all entries edited"
check "yesterday's version is applied" applied "$WORK/yesterday"
kubelets_look
unharmed "yesterday's version"
check "and without the leader's numbers" replaced "$WORK/yesterday.bare"
kubelets_look
unharmed "yesterday's version without the leader's numbers"

# ---- while no server runs: nothing reverts it before the sidecars see it ----------------------------------------------------
# seen: each sidecar that no step moves reports that it ignores its entry, if the entry has another window
seen() {
  local p entry
  for p in $pods_left; do
    entry=$(entries store | jq -r --arg key "$p.yaml" '.[$key] | capture("min_time: (?<min>\\S+)\\nmax_time: (?<max>\\S+)") | "\(.min) .. \(.max)"')
    of_pod $ns "$p" 10908 /status | jq -e --arg entry "$entry" '"\(.applied.min_time) .. \(.applied.max_time)" == $entry or .last_error' >/dev/null || return 1
  done
}
step_may_end
# without_server WHAT COMMAND…
without_server() {
  local what=$1
  shift
  check "no server runs" server_stop
  check "$what" "$@"
  kubelets_look
  eventually 20 "$what: the sidecars see it and say so" seen
  same "$what: no pod became unready, was restarted or changed its window" "$before" harm "$pods_left"
  server_start
  eventually 30 "a server starts" server_ready
  eventually 30 "and leads" calm
  unharmed "$what, without a server"
}
during_a_step
without_server "all entries edited" edited
step_may_end
during_a_step
without_server "yesterday's version" applied "$WORK/yesterday"
step_may_end

eventually 900 "the rollout ends as it should" settled store '[.pods[].shard] | max == 1'
pods_left=$(calm) was=$(published "$pods_left")
before=$(harm "$pods_left")
# An entry without counters may be written by hand, so a sidecar follows it after 2 minutes without a change: a leader is back before.
without_server "yesterday's version without the leader's numbers" replaced "$WORK/yesterday.bare"
eventually 60 "all is as planned" settled store
healed() { of_pod $ns store-0 10908 /status | jq -e '.last_error == null'; }
eventually 30 "and no sidecar complains any more" healed
complete_since restored "$t" "edits and restored versions in the middle of steps"
same "no container was restarted" 0 restarts $ns
