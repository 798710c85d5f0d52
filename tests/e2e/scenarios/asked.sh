# shellcheck shell=bash
# queriers are asked: default periods with all queriers known, a querier with a DNS interval of 90 s, one replica and a spare pod
# stage: node
# No strict query fails or is incomplete. With all queriers known, 3 to 4 shards of 2 with default periods takes two steps and at most
# 300 s. By hand (tests/e2e/matrix asked): E2E_REPEAT=3 makes that change three times, for a median, in at most 200 s each. E2E_SLOW=5m is the slow querier's
# DNS interval. E2E_UNASKED=1 puts the slow querier into a namespace where no querier is asked: the delays alone, too short for it.
# E2E_ONLY=all|slow|one is one of the three sets alone.
ns=e2e-asked
bucket=$("$CHECKOUT/tests/e2e/cluster/bucket.sh")
namespace "$ns" "$ENABLED"
interval='' drain='' termination_drain=20s
# shellcheck source=../querying.sh
. "$CHECKOUT/tests/e2e/querying.sh"
# shellcheck source=../rollouts.sh
. "$CHECKOUT/tests/e2e/rollouts.sh"
queriers=(q-all q-quick q-slow q-one)
ended() {
  local q
  for q in "${queriers[@]}" all; do touch "$WORK/$q.stop"; done
  wait
}
for q in "${queriers[@]}" all; do rm -f "$WORK/$q".{answers,stop}; done
trap ended EXIT
chosen() { [[ ${E2E_ONLY-$1} = "$1" ]]; }
# A set with default periods, whose user says that timeshard knows all queriers.
if chosen all; then
  querier q-all all
  gateways all 8 queriers-complete true
fi
# A set with periods for a querier that learns within 16 s, and a second one that takes 90 s.
slow_in=$ns slow_takes=${E2E_SLOW:-90s}
if chosen slow; then
  if [ -n "${E2E_UNASKED-}" ]; then
    slow_in=e2e-elsewhere
    namespace "$slow_in"
  fi
  interval=2s querier q-quick slow
  querier_in=$slow_in interval=$slow_takes querier q-slow slow
  drain=17s gateways slow 6 discovery-delay 20s canary false
fi
# A set of one replica; its fifth pod is a spare one, also in the plans to come.
if chosen one; then
  interval=2s querier q-one one
  drain=17s gateways one 5 replicas-per-shard 1 discovery-delay 20s queriers-complete true
fi

# listing QUERIER FILE: which addresses the querier uses, a line each time: milliseconds, its stores; until $WORK/all.stop exists
listing() {
  local ip micros
  ip=$(pods "$ns" "$1" | jq -er '.[0].status.podIP')
  while [ ! -e "$WORK/all.stop" ]; do
    get "$ip" /api/v1/stores
    micros=${EPOCHREALTIME/[.,]/}
    [ -z "$answer" ] || echo "${micros%???} $answer"
    sleep 0.2 # a pace, not a wait
  done >"$2"
}
# counted SET FILE: the leader's state of each pod, a line each: milliseconds, pod, state
counted() {
  while [ ! -e "$WORK/all.stop" ]; do
    report "$1" | jq -r --arg ms "$(now_ms)" '.pods[] | "\($ms) \(.pod) \(.state)"' || true
    sleep 0.3 # a pace, not a wait
  done >"$2"
}
# transitions SET: a line for each pod that moved: pod; milliseconds from when the querier had dropped it until thanos restarted, and
# from when the querier listed it again until the leader counted on it
transitions() {
  local pod ip restarted
  pods "$ns" "$1" | jq -r '.[] | "\(.metadata.name) \(.status.podIP)"' | while read -r pod ip; do
    restarted=$(kubectl -n "$ns" logs "$pod" -c thanos --timestamps | grep -F 'restarting thanos in place' | head -n 1 | cut -d' ' -f1)
    [ -n "$restarted" ] || continue
    restarted=$(date -d "$restarted" +%s%3N)
    awk -v pod="$pod" -v address="\"$ip:10901\"" -v restarted="$restarted" '
      FNR == NR { listed = index($0, address) > 0
        if (!listed && was && !gone) gone = $1
        if (listed && gone && !back) back = $1
        was = listed; next }
      $2 == pod && $3 == "confirmed" && back && $1 >= back && !known { known = $1 }
      END { if (gone && known) print pod, restarted - gone, known - back }' "$WORK/$1.listing" "$WORK/$1.counted"
  done
}
# quick SET: of each transition at most 3 s are ours, and a second for these observers
quick() {
  local moved
  transitions "$1" >"$WORK/$1.transitions"
  moved=$(wc -l <"$WORK/$1.transitions")
  say "pod, ms from dropped to restarted, ms from listed to counted: $(tr '\n' ';' <"$WORK/$1.transitions")"
  check "$moved pods were seen to move, at least 6" test "$moved" -ge 6
  if [ -n "${E2E_REPEAT-}" ]; then
    same "none took more than 3 s beyond the querier's own time" "" awk '$2 > 4000 || $3 > 4000' "$WORK/$1.transitions"
  else # next to everything else; the default delays would be 90 s
    same "the quickest took no more than 3 s beyond the querier's own time, and none 30 s" "" \
      awk '$2 > 30000 || $3 > 30000 { print } $2 <= 4000 { dropped = 1 } $3 <= 4000 { listed = 1 } END { if (!dropped || !listed) print "none was quick" }' "$WORK/$1.transitions"
  fi
}

up() { # SET PODS QUERIER…
  local set=$1 n=$2 q
  shift 2
  until_same 120 "$set: $n pods are Ready" "$n of $n" ready "$ns" "$set"
  for q in "$@"; do until_same "${E2E_SLOW:+3}150" "$q lists all of them" "$n" stores "$q"; done
}
sane() { [ "$(mark "$1")" -ge 20 ]; }

# saw_end LISTED COUNTED: after so many lines both observers have looked again
saw_end() { [ "$(wc -l <"$WORK/all.listing")" -ge $(($1 + 2)) ] && [ "$(wc -l <"$WORK/all.counted")" -ge $(($2 + 16)) ]; }
with_all_known() {
  local t0 took times=() i l c shards=4 limit=300
  # 200 s where it is measured, without other scenarios next to it
  [ -z "${E2E_REPEAT-}" ] || limit=200
  up all 8 q-all
  asking q-all &
  eventually 30 "q-all: 20 answers" sane q-all
  eventually 200 "the leader knows all of the set" settled all '[.pods[].shard] | max == 2'
  for i in $(seq "${E2E_REPEAT:-1}"); do
    rm -f "$WORK/all.stop"
    listing q-all "$WORK/all.listing" &
    counted all "$WORK/all.counted" &
    t0=$(now_ms)
    reshard all q-all "default periods, all queriers known: to $shards shards of 2" "[.pods[].shard] | max == $((shards - 1))" "total-shards=$shards"
    took=$((($(now_ms) - t0) / 1000))
    l=$(wc -l <"$WORK/all.listing") c=$(wc -l <"$WORK/all.counted")
    eventually 60 "the observers saw its end" saw_end "$l" "$c"
    touch "$WORK/all.stop"
    # Two steps with the default delays take six minutes or more.
    check "within $limit s ($took s)" test "$took" -le "$limit"
    [ "$i" != 1 ] || quick all
    times+=("$took")
    # back again for the next one
    [ "$i" = "${E2E_REPEAT:-1}" ] || reshard all q-all "back to 3 shards" '[.pods[].shard] | max == 2' total-shards=3
  done
  say "seconds: ${times[*]}"
}
# slow_answers MARK: the slow querier, which the steps wait for, lost nothing since then; if it is not asked, it must have
slow_answers() {
  [ -n "${E2E_UNASKED-}" ] || { complete_since q-slow "$1" "and the slow one"; return; }
  check "the slow one, which is not asked: $(tally q-slow "$1")" [ $(($(count failed q-slow "$1") + $(count incomplete q-slow "$1"))) -gt 0 ]
}
one_is_slow() {
  local t querier_in=$slow_in
  up slow 6 q-slow
  querier_in=$ns up slow 6 q-quick
  querier_in=$ns asking q-quick &
  asking q-slow &
  eventually 30 "q-slow: 20 answers" sane q-slow
  eventually 200 "the leader knows all of the set" settled slow '[.pods[].shard] | max == 2'
  t=$(mark q-slow)
  waits_for_slow() { says slow '.message | test("q-slow")'; }
  [ -n "${E2E_UNASKED-}" ] || { eventually 200 "status names the querier that the step waits for" waits_for_slow; } &
  E2E_DEFAULTS=${E2E_SLOW-} reshard slow q-quick "one of two queriers takes $slow_takes: retention 370 d to 400 d" \
    '.pods[5].desired.min_time == "-400d"' retention=400d
  slow_answers "$t"
  wait $! || true
}
one_replica() {
  up one 5 q-one
  asking q-one &
  eventually 30 "q-one: 20 answers" sane q-one
  eventually 200 "the leader knows all of the set" settled one '[.pods[].shard] | max == 2'
  reshard one q-one "one replica and a spare pod: 3 to 4 shards" '[.pods[].shard] | max == 3' total-shards=4
  reshard one q-one "overlap 1 d to 2 d" '.pods[0].desired.min_time == "-94d12h"' overlap=2d
  reshard one q-one "boundaries" '.pods[0].desired.min_time == "-16d"' total-shards- 'boundaries=[14d, 90d, 200d]'
}
running=() logs=()
# in_parallel SET FUNCTION, if the set is chosen
in_parallel() {
  chosen "$1" || return 0
  { "$2"; touch "$WORK/q-$1.stop"; } >"$WORK/$1.log" 2>&1 & # further queries would take CPU from the other sets
  running+=($!) logs+=("$WORK/$1.log")
}
in_parallel all with_all_known
in_parallel slow one_is_slow
in_parallel one one_replica
wait "${running[@]}" || true
cat "${logs[@]}"
same "no container was restarted" 0 restarts "$ns"
# times_settled SET: how often it became settled since its last window was published
times_settled() {
  awk -v set="statefulset=\"$1\"" 'index($0, set) && /published new windows/ { n = 0 } index($0, set) && /every pod serves its planned window/ { n++ } END { print n }' "$WORK/server.log"
}
# No querier is asked any more, and that changes nothing.
for set in all slow one; do ! chosen "$set" || same "$set settled once" 1 times_settled "$set"; done
