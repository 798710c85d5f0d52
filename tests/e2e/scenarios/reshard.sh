# shellcheck shell=bash
# shards, replicas, overlap, boundaries and retention change under strict queries, and not one fails or is incomplete
# stage: node
ns=e2e-reshard
bucket=$("$CHECKOUT/tests/e2e/cluster/bucket.sh")
namespace $ns "$ENABLED"
# As in the scenario "queries": a querier learns within some 16 s; everything waits a little longer than that.
interval=2s drain=17s termination_drain=20s
# shellcheck source=../querying.sh
. "$CHECKOUT/tests/e2e/querying.sh"

# report SET: what the leader says of it
report() { leader_status | jq -e --arg ns $ns --arg set "$1" '.statefulsets[] | select(.namespace == $ns and .name == $set)'; }
# settled SET FILTER: everything is as planned, and the plan is the one that FILTER knows
settled() { report "$1" | jq -e "select(.state == \"settled\" and .moves_left == 0) | $2"; }
# annotate SET KEY=VALUE…
annotate() {
  local set=$1
  shift
  kubectl -n $ns annotate --overwrite statefulset "$set" "${@/#/thanos-timeshard.io/}" >/dev/null
}
# reshard SET QUERIER WHAT FILTER KEY=VALUE…: under queries, until all is as planned
reshard() {
  local set=$1 querier=$2 what=$3 filter=$4 t ms before after
  shift 4
  t=$(mark "$querier") ms=$(now_ms) before=$(moves "$set")
  annotate "$set" "$@"
  eventually 400 "$what: rolled out" settled "$set" "$filter"
  after=$(moves "$set")
  complete_since "$querier" "$t" "$what"
  say "$what: $((after - before)) restarts of thanos in place, $(seconds_since "$ms") s"
}
# moves SET: restarts of thanos in place so far
moves() { report "$1" | jq '[.pods[].restarts] | add'; }

rm -f "$WORK"/{year,other}.{answers,stop}
trap 'touch "$WORK"/{year,other}.stop; wait' EXIT
querier year store
querier other second
for q in year other; do until_same 60 "querier $q is Ready" "1 of 1" ready $ns $q; done
gateways store 8 discovery-delay 20s
gateways second 6 discovery-delay 20s
for set in store:8:year second:6:other; do
  IFS=: read -r set n q <<<"$set"
  until_same 90 "$set: $n pods are Ready" "$n of $n" ready $ns "$set"
  until_same 30 "its querier has all of them" "$n" stores "$q"
  asking "$q" &
done
sane() { [ "$(mark "$1")" -ge 20 ]; }
for q in year other; do eventually 30 "$q: 20 answers" sane $q; done
eventually 60 "the leader knows all of them" settled store '[.pods[].shard] | max == 2'
budgets() { kubectl -n $ns get pdb -o json | jq -r '[.items[] | "\(.metadata.name) \(.status.disruptionsAllowed)"] | join(", ")'; }
until_same 30 "each shard has a budget that lets one pod go" \
  "second-shard-0 1, second-shard-1 1, second-shard-2 1, store-shard-0 1, store-shard-1 1, store-shard-2 1" budgets

others() {
  reshard second other "overlap 1 d to 2 d" '.pods[0].desired.min_time == "-125d8h"' overlap=2d
  reshard second other "boundaries 14 d and 90 d" '.pods[0].desired.min_time == "-16d"' 'boundaries=[14d, 90d]'
  reshard second other "retention 370 d to 400 d" '.pods[5].desired.min_time == "-400d"' retention=400d
}
others >"$WORK/others.log" 2>&1 &
beside=$!
reshard store year "3 to 4 shards of 2" '[.pods[].shard] | max == 3' total-shards=4
reshard store year "4 to 2 shards of 2" '[.pods[].shard] | max == 1' total-shards=2
reshard store year "2 to 3 replicas" '[.pods[] | select(.shard == 1)] | length == 3' replicas-per-shard=3
wait $beside || true
cat "$WORK/others.log"
same "no container was restarted" 0 restarts $ns
