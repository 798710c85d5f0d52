# shellcheck shell=bash
# strict queries over a year stay complete across 21 drained reloads, a scale-down and a rolling restart; without a drain they do not
# stage: node
# server: --no-refresher
# only by name
# For tests/e2e/matrix: `reshard`, `asked`, `uninstall` and `node-drain` cover its drains in each run.
ns=e2e-queries
bucket=$("$CHECKOUT/tests/e2e/cluster/bucket.sh")
namespace $ns "$ENABLED"

# Here a querier learns within some 16 s that a pod came or went: 4 s until the EndpointSlice has it (three readiness probes), 5 s of
# CoreDNS' cache, this interval, and 5 s, the interval in which thanos query updates its stores.
interval=2s drain=17s termination_drain=20s

# shellcheck source=../querying.sh
. "$CHECKOUT/tests/e2e/querying.sh"

rm -f "$WORK"/{year,one}.{answers,stop}
trap 'touch "$WORK"/{year,one}.stop; wait' EXIT
querier year store
querier one single
for q in year one; do until_same 60 "querier $q is Ready" "1 of 1" ready $ns $q; done
gateways store 6
gateways single 3 total-shards 1 replicas-per-shard 3
for set in store:6:year single:3:one; do
  IFS=: read -r set n q <<<"$set"
  until_same 90 "$set: $n pods are Ready" "$n of $n" ready $ns "$set"
  until_same 30 "its querier has all of them" "$n" stores "$q"
  asking "$q" &
done
sane() { [ "$(mark "$1")" -ge 20 ]; }

# ---- a scale from 3 to 2, then a rolling restart of the two, in parallel to the reloads below ----------------------------------------------
restarts_of_single() {
  local t
  eventually 30 "one: 20 answers" sane one
  t=$(mark one)
  kubectl -n $ns scale statefulset single --replicas=2 >/dev/null
  until_same 90 "one: the third pod is gone" "2 of 2" gone_or_ready single
  until_same 60 "one: its querier has two" 2 stores one
  complete_since one "$t" "a scale from 3 to 2"
  t=$(mark one)
  kubectl -n $ns rollout restart statefulset single >/dev/null
  check "one: the rolling restart ends" kubectl -n $ns rollout status statefulset single --timeout=240s
  until_same 60 "one: its querier has both" 2 stores one
  complete_since one "$t" "a rolling restart without minReadySeconds"
}
gone_or_ready() { kubectl -n $ns get pods -l "app=$1" -o json | jq -r '"\([.items[] | select(any(.status.conditions[]?; .type == "Ready" and .status == "True"))] | length) of \(.items | length)"'; }
restarts_of_single >"$WORK/single.log" 2>&1 &
background=$!

# ---- 7 times one replica of each of the three windows, by turns, with windows that only grow -----------------------------
# entry SHARD DAYS DRAIN: the shard's window, so many days longer
entry() {
  local w=("-$((125 + $2))d 1d" "-$((248 + $2))d -123d8h" "-370d -$((246 - $2))d")
  printf 'shard: %d\nmin_time: %s\nmax_time: %s\ndrain: %s\n' "$1" "${w[$1]% *}" "${w[$1]#* }" "$3"
}
# reload REPLICA DAYS DRAIN: of all three shards together
reload() {
  publish $ns store "store-$1" "$(entry 0 "$2" "$3")" "store-$((2 + $1))" "$(entry 1 "$2" "$3")" "store-$((4 + $1))" "$(entry 2 "$2" "$3")"
}
# serve REPLICA DAYS: the published windows, verified
serve() {
  local pod
  for pod in "store-$1" "store-$((2 + $1))" "store-$((4 + $1))"; do
    of_pod $ns "$pod" 10908 /status | jq -e --arg days "-$((125 + $2))d -$((248 + $2))d -$((246 - $2))d" '
      .phase == "serving" and .verified and .applied == .published and ([.applied[]] - ($days / " ") | length) == 1' >/dev/null || return 1
  done
}
# headers POD: the index headers on its disk: block, inode, time of change
headers() { kubectl -n $ns exec "$1" -c thanos -- sh -c 'cd /data && stat -c "%n %i %y" */index-header' | sort; }
eventually 30 "year: 20 answers" sane year
t=$(mark year)
headers store-2 >"$WORK/headers"
for round in 1 2 3 4 5 6 7; do
  reload $((round % 2)) $round $drain
  eventually 90 "round $round: 3 pods drained and serve their new windows" serve $((round % 2)) $round
  until_same 60 "and the querier has all 6 again" 6 stores year
done
complete_since year "$t" "21 drained reloads"
thanos_restarts() { for p in 0 1 2 3 4 5; do of_pod $ns store-$p 10908 /status | jq .restarts; done | paste -sd' '; }
same "each thanos was restarted as often as its window changed" "3 4 3 4 3 4" thanos_restarts
same "no container was" 0 restarts $ns

# The files that thanos wrote for a block before the reloads are unchanged.
same "index headers of the blocks in both windows: none was written again" "" \
  comm -23 "$WORK/headers" <(headers store-2)
say "$(wc -l <"$WORK/headers") index headers before, $(headers store-2 | wc -l) after three reloads"

wait $background || true
cat "$WORK/single.log"
# ---- proof that these checks can fail ----------------------------------------------------------------------------------------------
touch "$WORK/one.stop"
t=$(mark year)
undrained() {
  local days
  days=$(of_pod $ns store-0 10908 /status | jq '.restarts + 5') # 8, then 9, ...
  reload 0 "$days" 0s
  for _ in $(seq 150); do serve 0 "$days" && break; sleep 0.2; done
  answers year "$t" | grep -qv '^ok$'
}
eventually 60 "without a drain, strict queries fail" undrained
say "meanwhile $(tally year "$t")"
hole='shard: 2
min_time: -300d
max_time: -240d
drain: 0s'
publish $ns store store-4 "$hole" store-5 "$hole"
incomplete() { tail -n 1 "$WORK/year.answers" | grep '^incomplete '; }
eventually 60 "and with a hole between windows and retention they succeed with less, which is noticed" incomplete
