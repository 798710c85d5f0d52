# shellcheck shell=bash
# Real queriers over a year of real blocks, asked strictly all the time: sourced by scenarios that have set $ns, $bucket, $interval,
# $drain and $termination_drain (design.md: while a window moves, not one strict query may fail or be incomplete).

# The sum over 369 days at one instant, from one block a day: whatever is missing makes it smaller.
at=$(date +%s) complete="\"$((369 * 370 / 2))\"]"
# ask ADDRESS: "ok", or why that answer of a strict query is not
ask() {
  local answer
  answer=$(http "$1" 10902 "/api/v1/query?query=sum_over_time(timeshard_day%5B369d%5D)&time=$at&partial_response=false" 20 2>&1 | tr -d '\r\n') || true
  case $answer in
  *warnings*) ;;
  *'"status":"success"'*"$complete"*) echo ok; return ;;
  esac
  echo "$(date +%T) ${answer#*GMT}"
}
# asking NAME: one query after the other, a line for each answer in $WORK/NAME.answers, until $WORK/NAME.stop is there
asking() {
  local ip
  ip=$(pods "$ns" "$1" | jq -er '.[0].status.podIP')
  while [ ! -e "$WORK/$1.stop" ]; do
    ask "$ip"
    sleep 0.05 # a pace, not a wait: the cores are for the others, too
  done >"$WORK/$1.answers"
}
failed() { grep -vc '^ok$' "$WORK/$1.answers" || true; }
# mark NAME: answers so far; complete_since NAME MARK WHAT: none failed since then
mark() { wc -l <"$WORK/$1.answers"; }
complete_since() {
  local all bad
  all=$(tail -n "+$(($2 + 1))" "$WORK/$1.answers" | wc -l)
  bad=$(tail -n "+$(($2 + 1))" "$WORK/$1.answers" | grep -v '^ok$') || true
  [ "$all" -ge 50 ] || bad+=" only $all answers"
  same "$3: $(printf '%s' "$bad" | grep -c . || true) of $all strict queries failed or were incomplete" "" echo "$(head -n 5 <<<"$bad" | cut -c1-300)"
}

# querier NAME SET: finds the SET's pods by DNS
querier() {
  kubectl -n "$ns" apply -f - >/dev/null <<Y
apiVersion: v1
kind: Service
metadata: {name: $2}
spec: {clusterIP: None, selector: {app: $2}, ports: [{name: grpc, port: 10901}]}
Y
  REPLICAS=1 ARGS="[\"query\", \"--http-address=0.0.0.0:10902\", \"--grpc-address=0.0.0.0:10901\", \"--store.sd-dns-interval=$interval\",
    \"--endpoint=dnssrv+_grpc._tcp.$2.$ns.svc.cluster.local\"]" workload Deployment "$1" | kubectl -n "$ns" apply -f - >/dev/null
}
# gateways SET REPLICAS [KEY VALUE]…: on the bucket, with our annotations; the server knows them before the first pod comes
gateways() {
  local set=$1 replicas=$2 annotations="{\"thanos-timeshard.io/drain\": \"$drain\", \"thanos-timeshard.io/termination-drain\": \"$termination_drain\"}"
  shift 2
  while [ $# -gt 0 ]; do
    annotations=$(jq --arg key "thanos-timeshard.io/$1" --arg value "$2" '.[$key] = $value' <<<"$annotations")
    shift 2
  done
  REPLICAS=0 POLICY=Parallel ANNOTATIONS=$annotations workload StatefulSet "$set" |
    jq --arg bucket "$bucket" '.spec.template.spec.volumes |= map(if .name == "bucket" then {name, hostPath: {path: $bucket}} else . end)' |
    kubectl -n "$ns" apply -f - >/dev/null
  known_drain() { member "$ns" "$set" probe-0 | kubectl -n "$ns" create --dry-run=server -o json -f - | grep -e "--termination-drain=$termination_drain"; }
  eventually 30 "$set: the server knows its annotations" known_drain
  kubectl -n "$ns" scale statefulset "$set" --replicas="$replicas" >/dev/null
}
# stores QUERIER: how many gateways it has
stores() { of_pod "$ns" "$(pods "$ns" "$1" | jq -r '.[0].metadata.name')" 10902 /api/v1/stores | jq '[.data[]?[]?] | length'; }
