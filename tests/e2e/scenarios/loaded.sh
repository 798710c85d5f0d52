# shellcheck shell=bash
# the object store fails for loading pods: no query fails or is incomplete while a pod with the blocks is left, and waiting rollouts name them
# stage: node
# parallel: asked
ns=e2e-loaded
bucket=$("$CHECKOUT/tests/e2e/cluster/bucket.sh")
namespace $ns "$ENABLED"
# As in the scenario "reshard"; and thanos reads the bucket every 30 s instead of every 15 min, so that it finds repaired blocks.
interval=2s drain=17s termination_drain=20s discovery_delay=20s sync=30s
# shellcheck source=../querying.sh
. "$CHECKOUT/tests/e2e/querying.sh"
# shellcheck source=../rollouts.sh
. "$CHECKOUT/tests/e2e/rollouts.sh"
# shellcheck source=../faults.sh
. "$CHECKOUT/tests/e2e/faults.sh"

# A bucket for each of the two gateways: a fault for one does not affect the other. Only HEAD is broken where pods that have loaded
# the block must keep reading its index.
first=$((PORT_BASE + 36)) second=$((PORT_BASE + 38)) pids=()
ended() {
  touch "$WORK"/{year,other}.stop
  kill "${pids[@]}" 2>/dev/null || true
  wait
  local q
  for q in year other; do
    say "$q, in all: $(tally $q)"
    answers $q | grep '^failed' | cut -c1-300 | head -n 2 || true
  done
  kubectl -n $ns get events.events.k8s.io -o json >"$E2E_DIR/loaded-events.json" || true
}
rm -f "$WORK"/{year,other}.{answers,stop}
touch "$WORK"/{year,other}.answers
trap ended EXIT
for port in $first $second; do
  bucket_server "$port"
  pids+=("$bucket_pid")
done
# from the beginning, for all pods and for good; so the complete answer lacks it
lost=$(blocks 340) everything=$complete complete="\"$((369 * 370 / 2 - 341))\"]"
for_good=$(broken "$lost" '{"status": 500}' method '"HEAD"')
faults $first "$(rules "$for_good")"
store_args=$(jq -c --arg sync $sync '. + ["--sync-block-duration=" + $sync]' <<<"$store_args")
objstore objstore-first $first
objstore objstore-second $second
querier year store
querier other single
OBJSTORE=objstore-first gateways store 8 discovery-delay $discovery_delay load-retry 20s
OBJSTORE=objstore-second gateways single 2 discovery-delay $discovery_delay total-shards 1
for s in store:8:year single:2:other; do
  IFS=: read -r set n q <<<"$s"
  until_same 60 "querier $q is Ready" "1 of 1" ready $ns "$q"
  until_same 120 "$set: $n pods are Ready" "$n of $n" ready $ns "$set"
  until_same 60 "its querier has all of them" "$n" stores "$q"
done
asking year &
sane() { [ "$(mark "$1")" -ge 20 ]; }
eventually 30 "year: 20 answers" sane year
eventually 120 "the leader knows all of them" settled store '[.pods[].shard] | max == 2'

# ---- in parallel: a rolling restart, whose new pods can load no index of a range for a minute -----------------------------------
restarted() {
  local t complete=$everything
  asking other &
  eventually 30 "other: 20 answers" sane other
  t=$(mark other)
  faults $second "$(rules "$(broken "$(blocks 30 40)" '{"status": 503}' method '"HEAD"' seconds 60)")"
  kubectl -n $ns rollout restart statefulset single >/dev/null
  check "a rolling restart while 11 indexes are broken for all who load, for a minute: it ends" kubectl -n $ns rollout status statefulset single --timeout=900s
  until_same 60 "its querier has both" 2 stores other
  complete_since other "$t" "a rolling restart while 11 indexes are broken for a minute"
  touch "$WORK/other.stop"
}
# ---- one change of shards, with all the other faults: 3 to 4 of 2 replicas; 0, 2, 4 and 6 of 8 pods move first ---------------------
# Afterwards store-1 and store-7 alone have the block of day 110, store-3 that of day 220, and store-5 that of day 300: store-7 can
# still move, and then no pod can.
one=$(blocks 300) everybodys=$(jq -c -n --argjson a "$(blocks 110)" --argjson b "$(blocks 220)" '$a + $b')
# store-6 and store-7 load the newest part of the window of store-4 and store-5
for_all=$(broken "$everybodys" '{"status": 500}' method '"HEAD"')
faults $first "$(rules "$for_good" "$for_all" \
  "$(broken "$(blocks 290 310)" '"reset"' client "$(address store-6)")" \
  "$(broken "$one" '{"status": 500}' client "$(address store-7)")" \
  "$(broken "$(blocks 200 230)" '{"status": 503}' method '"HEAD"' seconds 30)")"
t=$(mark year) ms=$(now_ms) before=$(moves store)
restarted >"$WORK/restarted.log" 2>&1 &
background=$!
annotate store total-shards=4
# listed BLOCKS: `timeshard status` has all of these; its table has only the first, so this searches the complete output
status() { "$SERVER" status --server "http://127.0.0.1:$ADMIN_PORT" --namespace $ns store "$@"; }
listed() { local all; all=$(status -o json) && jq -e --arg all "$all" 'all(.[] as $ulid | $all | contains($ulid); .)' <<<"$1"; }
# waits_for BLOCKS: the rollout waits and names one of them
waits_for() { says store '.moves_left > 0' && report store | jq -e --argjson blocks "$1" '.message | select(any($blocks[] as $ulid | contains($ulid); .))'; }
event_names() { kubectl -n $ns get events.events.k8s.io -o json | jq -e --argjson blocks "$1" '.items[] | select(.regarding.name == "store") | .note | select(any($blocks[] as $ulid | contains($ulid); .))'; }
# still_waits BLOCKS: all pods have been Ready for longer than until the next step would begin, and the rollout still waits for one of these
still_waits() {
  pods $ns store | jq -e '[.[].status.conditions[] | select(.type == "Ready")] | all(.status == "True" and now - (.lastTransitionTime | fromdate) > 45)' >/dev/null && waits_for "$1"
}
# A pod that lacks blocks is not Ready for the first 20 s, in which thanos is restarted; that covers faults of 30 s.
which=$(jq -c --argjson more "$everybodys" '. + $more' <<<"$one")
EVERY=1 eventually 900 "the rollout waits, and names a block that no pod can load, or one that two pods could not" still_waits "$which"
eventually 60 "both are listed" listed "$which"
# Later Events with the same reason are counted on the first one, whose text stays: it names the first fault.
eventually 30 "an Event names a block that is broken" event_names "$(jq -c --argjson some "$(blocks 290 310)" --argjson short "$(blocks 200 230)" '. + $some + $short' <<<"$everybodys")"
say "$(report store | jq -r .message)"
complete_since year "$t" "indexes broken for pods that load: one, a range, for all and for some, for 30 s and until now"
say "the bucket answered $(served $first)"

u=$(mark year)
faults $first "$(rules "$for_good")"
eventually 900 "repaired, the rollout continues by itself and ends" settled store '[.pods[].shard] | max == 3'
complete_since year "$u" "after the repair"
say "3 to 4 shards of 2: $(($(moves store) - before)) restarts of thanos in place, $(seconds_since "$ms") s"
eventually 30 "a block that is broken for all pods stopped nothing, and is listed" listed "$lost"
until_same 30 "each shard has a PDB that allows one eviction" "0: 1, 1: 1, 2: 1, 3: 1" budgets store
wait $background || true
cat "$WORK/restarted.log"
same "no container was restarted" 0 restarts $ns

# ---- E2E_FULL=1, for tests/e2e/matrix: each fault in a change of shards of its own, 35 minutes --------------------------------
# broken_case SHARDS WHAT LOADING HOW-LONG: the oldest shards' pods load a block, or 21 of them, that others have
broken_case() {
  local what="$1 shards, $2 broken for $3, $4" from=300 to=300 pods=(store-6 store-7) list=() p since
  [ "$2" = one ] || from=290 to=310
  [ "$1" = 4 ] || pods=(store-4 store-5)
  local fields=()
  [ "$4" != 30s ] || fields=(seconds 30)
  if [ "$3" = all ]; then list=("$(broken "$(blocks $from $to)" '{"status": 500}' method '"HEAD"' "${fields[@]}")"); else
    for p in "${pods[@]}"; do list+=("$(broken "$(blocks $from $to)" '"reset"' client "$(address "$p")" "${fields[@]}")"); done
  fi
  since=$(mark year) ms=$(now_ms)
  faults $first "$(rules "$for_good" "${list[@]}")"
  annotate store "total-shards=$1"
  if [ "$4" = waiting ]; then
    EVERY=1 eventually 260 "$what: the rollout waits, and names the block" still_waits "$(blocks $from $to)"
    faults $first "$(rules "$for_good")"
  fi
  eventually 900 "$what: the rollout ends" settled store "[.pods[].shard] | max == $(($1 - 1))"
  complete_since year "$since" "$what"
}
if [ -n "${E2E_FULL-}" ]; then
  shards=3
  for what in one range; do
    for loading in "the loading pods" all; do
      for long in 30s waiting; do
        broken_case $shards "$what" "$loading" $long
        shards=$((7 - shards))
      done
    done
  done
fi

faults $first '[]'
complete=$everything
complete_answer() { query "$(pods $ns year | jq -r '.[0].status.podIP')" && [ "$verdict" = ok ]; }
touch "$WORK/year.stop"
eventually 60 "it is repaired, too: the answer has all of the blocks" complete_answer
