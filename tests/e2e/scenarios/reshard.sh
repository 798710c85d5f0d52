# shellcheck shell=bash
# shards, replicas, overlap, boundaries and retention change, a scale-down and a rolling restart: no strict query fails or is incomplete
# stage: node
ns=e2e-reshard${E2E_DEFAULTS:+-defaults}
bucket=$("$CHECKOUT/tests/e2e/cluster/bucket.sh")
namespace "$ns" "$ENABLED"
# As in the scenario "queries": a querier learns within some 16 s; all periods are a little longer.
# E2E_DEFAULTS=1: default settings, and one change only; by hand, because it takes 10 minutes.
interval=2s drain=17s termination_drain=20s discovery_delay=20s
[ -z "${E2E_DEFAULTS-}" ] || interval=30s drain=90s termination_drain=90s discovery_delay=90s
# shellcheck source=../querying.sh
. "$CHECKOUT/tests/e2e/querying.sh"
# shellcheck source=../rollouts.sh
. "$CHECKOUT/tests/e2e/rollouts.sh"

sets=(store:8:year second:6:other)
[ -z "${E2E_DEFAULTS-}" ] || sets=(store:8:defaults)
ended() {
  local s
  for s in "${sets[@]}"; do touch "$WORK/${s##*:}.stop"; done
  wait
  servers_here
}
for s in "${sets[@]}"; do rm -f "$WORK/${s##*:}".{answers,stop}; done
trap ended EXIT
servers_in_pods
for s in "${sets[@]}"; do
  IFS=: read -r set n q <<<"$s"
  querier "$q" "$set"
  gateways "$set" "$n" discovery-delay $discovery_delay
done
sane() { [ "$(mark "$1")" -ge 20 ]; }
for s in "${sets[@]}"; do
  IFS=: read -r set n q <<<"$s"
  until_same 60 "querier $q is Ready" "1 of 1" ready "$ns" "$q"
  until_same 120 "$set: $n pods are Ready" "$n of $n" ready "$ns" "$set"
  until_same 90 "its querier has all of them" "$n" stores "$q"
  asking "$q" &
  eventually 30 "$q: 20 answers" sane "$q"
  eventually 120 "the leader knows all of $set" settled "$set" '[.pods[].shard] | max == 2'
done
until_same 30 "each shard has a PDB that allows one eviction" "0: 1, 1: 1, 2: 1" budgets store

# ---- while a step runs, no pod may be evicted from the shards that stand in -------------------------------------------------
evict() { kubectl create --raw "/api/v1/namespaces/$ns/pods/$1/eviction" -f - <<<"{\"apiVersion\": \"policy/v1\", \"kind\": \"Eviction\", \"metadata\": {\"name\": \"$1\"}}"; }
draining() { report store | jq -er '[.pods[] | select(.phase == "draining")][0].shard'; }
closed() {
  local shard standing_in
  eventually 60 "a step runs" draining
  shard=$(draining)
  same "the PDB of its shard is closed" 0 kubectl -n "$ns" get pdb "store-shard-$shard" -o 'jsonpath={.status.disruptionsAllowed}'
  standing_in=$(report store | jq -er --argjson shard "$shard" '[.pods[] | select(.shard == $shard and .state == "confirmed")][0].pod')
  refused "and an eviction of $standing_in is refused (429)" TooManyRequests evict "$standing_in"
}

if [ -n "${E2E_DEFAULTS-}" ]; then
  reshard store defaults "3 to 4 shards of 2 with all defaults" '[.pods[].shard] | max == 3' total-shards=4
  same "no container was restarted" 0 restarts "$ns"
  return 0
fi

# ---- in parallel: the other settings, and a rolling restart, which a rollout waits for -------------------------------------------
others() {
  local t
  reshard second other "overlap 1 d to 2 d" '.pods[0].desired.min_time == "-125d8h"' overlap=2d
  reshard second other "boundaries 14 d and 90 d" '.pods[0].desired.min_time == "-16d"' 'boundaries=[14d, 90d]'
  t=$(mark other)
  kubectl -n "$ns" rollout restart statefulset second >/dev/null
  annotate second retention=400d
  eventually 30 "a rollout waits for a rolling restart" says second '.state == "waiting" and .moves_left > 0 and (.message | test("being updated|being deleted|not seen the last change"))'
  check "the rolling restart ends" kubectl -n "$ns" rollout status statefulset second --timeout=1200s
  complete_since other "$t" "a rolling restart"
  eventually 600 "retention 370 d to 400 d, which waited: rolled out" settled second '.pods[5].desired.min_time == "-400d"'
  complete_since other "$t" "a rolling restart, and retention 370 d to 400 d"
}
others >"$WORK/others.log" 2>&1 &
background=$!
closed >"$WORK/closed.log" 2>&1 &
watching=$!
reshard store year "3 to 4 shards of 2" '[.pods[].shard] | max == 3' total-shards=4
wait $watching || true
cat "$WORK/closed.log"
until_same 30 "after it every PDB is open again" "0: 1, 1: 1, 2: 1, 3: 1" budgets store
reshard store year "4 to 2 shards of 2" '[.pods[].shard] | max == 1' total-shards=2
until_same 30 "the PDBs of former shards are deleted" "0: 1, 1: 1" budgets store
reshard store year "2 to 3 replicas" '[.pods[] | select(.shard == 1)] | length == 3' replicas-per-shard=3
t=$(mark year)
kubectl -n "$ns" scale statefulset store --replicas=6 >/dev/null
there() { kubectl -n "$ns" get pods -l app=store -o name | wc -l; }
until_same 90 "two surplus pods are gone" 6 there
until_same 60 "the querier has six" 6 stores year
eventually 60 "all is as planned" settled store '.replicas == 6'
complete_since year "$t" "a scale from 8 to the 6 that are needed"
wait $background || true
cat "$WORK/others.log"
same "no container was restarted" 0 restarts "$ns"
