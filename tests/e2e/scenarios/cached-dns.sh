# shellcheck shell=bash
# default settings and DNS that caches 30 s: in a rolling restart and a change of shards no strict query fails or is incomplete
# stage: node
# only by name
ns=e2e-cached-dns
bucket=$("$CHECKOUT/tests/e2e/cluster/bucket.sh")
namespace $ns "$ENABLED"
# Only one setting is changed, in the StatefulSet: minReadySeconds. Its controller deletes the next pod as soon as one is Ready. A
# querier with the old SRV answer (without the new pod) and no address for the deleted one then has neither: 261 of 4742 strict
# queries were incomplete, 30 s at a time, and none failed. No drain can help, because DNS forgets a deleted pod immediately.
# A querier learns that a pod came or went after readiness (3 s), EndpointSlice (1 s), DNS (30 s), its own interval (30 s) and its
# update of stores (5 s): 69 s. No period is set here, so this shows whether the defaults are longer.
interval='' drain='' termination_drain='' ZONE=cached.local
# shellcheck source=../querying.sh
. "$CHECKOUT/tests/e2e/querying.sh"
# shellcheck source=../rollouts.sh
. "$CHECKOUT/tests/e2e/rollouts.sh"

# Two queriers, 17 s apart: how late each learns depends on when its interval began.
queriers=(early late)
ended() {
  local q
  for q in "${queriers[@]}"; do touch "$WORK/$q.stop"; done
  wait
}
trap ended EXIT
for q in "${queriers[@]}"; do rm -f "$WORK/$q".{answers,stop}; done
querier early store
gateways store 6
until_same 60 "querier early is Ready" "1 of 1" ready $ns early
ms=$(now_ms)
apart() { [ $(($(now_ms) - ms)) -gt 17000 ]; }
eventually 30 "17 s later" apart
querier late store
until_same 60 "querier late is Ready" "1 of 1" ready $ns late
until_same 200 "6 pods are Ready" "6 of 6" ready $ns store
say "injected by default: $(pods $ns store | jq -r '[.[0].spec.containers[].args[]?, .[0].spec.initContainers[]?.args[]? | select(test("^--(termination-)?drain"))] | unique | join(" ")')"
sane() { [ "$(mark "$1")" -ge 20 ]; }
for q in "${queriers[@]}"; do
  until_same 120 "$q has all of them" 6 stores "$q"
  asking "$q" &
  eventually 30 "$q: 20 answers" sane "$q"
done
eventually 200 "the leader knows all of them" settled store '[.pods[].shard] | max == 2'

# marks: of both queriers; all_complete WHAT: since those marks
marks() { local q; for q in "${queriers[@]}"; do since[$q]=$(mark "$q"); done; }
all_complete() { local q; for q in "${queriers[@]}"; do complete_since "$q" "${since[$q]}" "$1, querier $q"; done; }
declare -A since
kubectl -n $ns patch statefulset store --type merge -p '{"spec": {"minReadySeconds": 90}}' >/dev/null
marks
ms=$(now_ms)
kubectl -n $ns rollout restart statefulset store >/dev/null
check "the rolling restart ends" kubectl -n $ns rollout status statefulset store --timeout=1800s
for q in "${queriers[@]}"; do until_same 120 "$q has all of them" 6 stores "$q"; done
all_complete "a rolling restart of 6 pods"
say "took $(seconds_since "$ms") s"

eventually 300 "all is as planned" settled store '[.pods[].state] | all(. == "confirmed")'
marks
ms=$(now_ms)
annotate store overlap=2d
eventually 1500 "overlap 1 d to 2 d: rolled out" settled store '.pods[0].desired.min_time == "-125d8h"'
for q in "${queriers[@]}"; do until_same 120 "$q has all of them" 6 stores "$q"; done
all_complete "a change of overlap"
say "took $(seconds_since "$ms") s"
same "no container was restarted" 0 restarts $ns
