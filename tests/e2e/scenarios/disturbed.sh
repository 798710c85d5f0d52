# shellcheck shell=bash
# during a change of shards the leader, a sidecar and a thanos are killed and the API server restarts: only the killed store costs queries
# stage: node
ns=e2e-disturbed
bucket=$("$CHECKOUT/tests/e2e/cluster/bucket.sh")
namespace $ns "$ENABLED"
# As in the scenario "reshard", and 10 s more: without an API server no querier learns that a pod drains.
interval=2s drain=27s termination_drain=20s
# shellcheck source=../querying.sh
. "$CHECKOUT/tests/e2e/querying.sh"
# shellcheck source=../rollouts.sh
. "$CHECKOUT/tests/e2e/rollouts.sh"

rm -f "$WORK"/year.{answers,stop}
trap 'touch "$WORK/year.stop"; wait; servers_here' EXIT
servers_in_pods
querier year store
gateways store 8 discovery-delay 30s
until_same 60 "querier year is Ready" "1 of 1" ready $ns year
until_same 90 "store: 8 pods are Ready" "8 of 8" ready $ns store
until_same 30 "its querier has all of them" 8 stores year
asking year &
sane() { [ "$(mark year)" -ge 20 ]; }
eventually 30 "year: 20 answers" sane
eventually 60 "the leader knows all of them" settled store '[.pods[].shard] | max == 2'

# one FILTER: the first pod of that kind
one() { report store | jq -er "[.pods[] | select($1)][0].pod"; }
draining='.phase == "draining"'
holder() { kubectl -n "$SYSTEM" get lease timeshard-refresher -o 'jsonpath={.spec.holderIdentity}' | grep .; }
transitions() { kubectl -n "$SYSTEM" get lease timeshard-refresher -o 'jsonpath={.spec.leaseTransitions}'; }
# slay NAMESPACE POD WORDS: SIGKILL to a process of that pod
slay() {
  local p
  p=$(process "$1" "$2" "$3" | head -n 1)
  kill -9 "${p:-none}"
}
start_t=$(mark year) start_ms=$(now_ms) before=$(moves store)
annotate store total-shards=4

eventually 60 "a step runs" one "$draining"
leader=$(holder) ms=$(now_ms)
check "kill -9 of the leader, $leader" slay "$SYSTEM" "$leader" '[^ ]*timeshard serve'
# as when its node is lost: kubelet must not restart it under its name, or it would have the Lease back after 2 s
kubectl -n "$SYSTEM" delete pod "$leader" --force --grace-period=0 >/dev/null 2>&1
another() { holder | grep -vx "$leader" && [ "$(leader_status | jq .leader.self)" = true ]; }
# the Lease lasts 10 s, and is tried every 2 s
eventually 30 "another leads" another
say "$(seconds_since "$ms") s after the kill"
eventually 30 "and knows the rollout" says store '.state == "rolling" and .moves_left > 0'

pick() { one "$1" >"$WORK/victim"; }
eventually 120 "a pod drains" pick "$draining"
victim=$(cat "$WORK/victim")
check "kill -9 of the sidecar of $victim, which drains" slay $ns "$victim" '/timeshard-agent sidecar'
sidecar_back() { [ "$(kubectl -n $ns get pod "$victim" -o json | jq '[.status.initContainerStatuses[] | select(.name == "config-sidecar")][0] | select(.ready) | .restartCount')" = 1 ]; }
eventually 90 "kubelet restarted it, and it reached its window" sidecar_back

eventually 120 "a pod drains" one "$draining"
api=$(cat "$STATE/pids/kube-apiserver")
mapfile -d '' -t command <"/proc/$api/cmdline"
check "kill -9 of the API server" kill -9 "$api"
ms=$(now_ms)
gone() { ! readlink "/proc/$api/exe"; } # until then it still owns its port
eventually 30 "it is gone" gone
start kube-apiserver "${command[@]}"
eventually 60 "started again, it is ready" kubectl get --raw /readyz
say "$(seconds_since "$ms") s without API server"
eventually 60 "there is a leader that knows the rollout" says store '.replicas == 8'
complete_since year "$start_t" "the leader and a sidecar killed, the API server restarted"

# A killed store costs strict queries until it is back, at most the discovery delay. It is not a draining pod: no querier asks those.
eventually 150 "a pod serves its published window" pick '.state == "confirmed"'
victim=$(cat "$WORK/victim")
killed_t=$(mark year) ms=$(now_ms)
check "kill -9 of the thanos of $victim" slay $ns "$victim" '[^ ]*thanos store'
# The querier's last two updates (5 s each) succeeded, and thanos serves again: if an update finds thanos away or the connection
# closed, the querier drops the store until the next update.
recovered() { [ "$(tail -n "+$((killed_t + 1))" "$WORK/year.answers" | tail -n 120 | grep -cx ok)" = 120 ] && [ "$(kubectl -n $ns get pod "$victim" -o json | jq '[.status.containerStatuses[] | select(.name == "thanos" and .ready)][0].restartCount')" = 1 ]; }
eventually 300 "it is back, and queries succeed again" recovered
back_t=$(mark year)
say "in the $(seconds_since "$ms") s after the kill $(tally year "$killed_t" "$back_t")"

eventually 900 "3 to 4 shards of 2: rolled out all the same" settled store '[.pods[].shard] | max == 3'
complete_since year "$back_t" "after that"
say "3 to 4 shards of 2: $(($(moves store) - before)) restarts of thanos in place, $(seconds_since "$start_ms") s"
right() { report store | jq -r '[.pods[] | select(.applied == .desired and .published == .desired and .verified)] | length'; }
until_same 60 "each pod serves its planned window" 8 right
until_same 30 "every PDB is open again" "0: 1, 1: 1, 2: 1, 3: 1" budgets store
same "containers restarted: a sidecar and a thanos" 2 restarts $ns
