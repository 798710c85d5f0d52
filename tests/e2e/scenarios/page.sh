# shellcheck shell=bash
# the page and its stream of events show the leader's state, live
# stage: control-plane
ns=e2e-page
namespace $ns "$ENABLED"
policy() { admin / | tr -d '\r' | sed -n "s/^content-security-policy: //p" | cut -d';' -f1-3; }
same "the page is served, and lets nothing in from elsewhere" "default-src 'none'; script-src 'self'; style-src 'self'" policy
stream=$WORK/page.events
http 127.0.0.1 "$ADMIN_PORT" /events 900 >"$stream" &
reader=$!
trap 'kill $reader 2>/dev/null || true' EXIT
# last_event FILTER: the last event about the StatefulSet
last_event() { sed -n 's/^data: //p' "$stream" | jq -rs --arg ns $ns "[.[] | select(.namespace? == \$ns and .name? == \"store\")] | last | $1"; }
eventually 30 "its stream begins with the server itself" grep -q '^event: shown' "$stream"
REPLICAS=6 POLICY=Parallel store_set $ns store
until_same 60 "a new StatefulSet appears, with its pods as the leader sees them" "6 pods in 3 shards, nothing serves" \
  last_event '"\(.pods | length) pods in \(.shards | length) shards, \(if .least == 0 then "nothing" else "something" end) serves"'
same "the gap is all of the retention: no kubelet runs them" "-370d .. 1d, 0 ready" \
  last_event '"\(.required.min_time) .. \(.required.max_time), \([.coverage[].serving] | max) ready"'
until_same 30 "with the beginning of the gap" true last_event '.gap_since != null'
kubectl -n $ns annotate statefulset store thanos-timeshard.io/total-shards=2 >/dev/null
until_same 60 "another plan appears on the same stream" 2 last_event '.shards | length'
kubectl -n $ns delete statefulset store --cascade=orphan >/dev/null
eventually 60 "and that it is gone" grep -q '^event: gone' "$stream"
kept() { leader_status | jq -r '.statefulsets | type'; }
same "/status is unchanged" array kept
