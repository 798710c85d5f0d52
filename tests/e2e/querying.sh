# shellcheck shell=bash
# Real queriers over a year of real blocks, with constant strict queries: sourced by scenarios that have set $ns, $bucket, $interval,
# $drain and $termination_drain (design.md: while a window moves, no strict query may fail or be incomplete). An empty value means the
# default.

# The sum over 369 days at one instant, from one block a day: any missing block makes it smaller.
at=$(date +%s) complete="\"$((369 * 370 / 2))\"]"
# get ADDRESS PATH: $answer is the querier's response, in one line. Without any other process: at four queries a second those would
# cost as much CPU as all pods together.
get() {
  local line connection
  answer=''
  { exec {connection}<>"/dev/tcp/$1/10902"; } 2>/dev/null || return 0
  printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&"$connection" || true
  while IFS= read -r -t 120 -u "$connection" line || [ -n "$line" ]; do answer+=${line%$'\r'}; done
  exec {connection}>&-
}
# query ADDRESS: $verdict is "ok"; or "incomplete" for a success without all data, "failed" for any other answer; then the answer
query() {
  local kind=failed at_time
  get "$1" "/api/v1/query?query=sum_over_time(timeshard_day%5B369d%5D)&time=$at&partial_response=false"
  case $answer in
  *'"status":"success"'*) kind=incomplete ;;
  esac
  case $answer in
  *warnings*) ;;
  *'"status":"success"'*"$complete"*) verdict=ok; return ;;
  esac
  printf -v at_time '%(%T)T' -1
  verdict="$kind $at_time ${answer#*GMT}"
}
# A querier is in $ns, or in $querier_in.
# asking NAME: one query after the other, a line for each answer in $WORK/NAME.answers, until $WORK/NAME.stop exists
asking() {
  local ip never asked pace
  ip=$(pods "${querier_in:-$ns}" "$1" | jq -er '.[0].status.podIP')
  trap '' PIPE
  exec {never}<> <(:)
  while [ ! -e "$WORK/$1.stop" ]; do
    asked=${EPOCHREALTIME/[.,]/}
    query "$ip"
    echo "$verdict"
    # A pace, not a wait: four queries a second show each gap that a querier has, and a busy one is busy half of the time.
    pace=$((${EPOCHREALTIME/[.,]/} - asked))
    pace=$((pace < 200000 ? 200000 : pace > 2000000 ? 2000000 : pace))
    printf -v pace '%d.%06d' $((pace / 1000000)) $((pace % 1000000))
    read -r -t "$pace" -u "$never" || true
  done >"$WORK/$1.answers"
}
# mark NAME: answers so far; answers NAME [FROM [TO]]: those after the mark FROM, up to TO
mark() { wc -l <"$WORK/$1.answers"; }
answers() { sed -n "$((${2:-0} + 1)),${3:-\$}p" "$WORK/$1.answers"; }
# count KIND NAME [FROM [TO]]: answers that are ok, failed or incomplete; tally NAME [FROM [TO]]: as a sentence
count() { local kind=$1; shift; answers "$@" | grep -c "^$kind\b" || true; }
tally() { echo "$(count failed "$@") failed and $(count incomplete "$@") incomplete of $(answers "$@" | wc -l) strict queries"; }
# complete_since NAME MARK WHAT: since then no answer failed or was incomplete
complete_since() {
  local to wrong
  for _ in $(seq 300); do [ $(($(mark "$1") - $2)) -lt 50 ] || break; sleep 1; done
  to=$(mark "$1")
  wrong=$(answers "$1" "$2" "$to" | grep -v '^ok$') || true
  [ $((to - $2)) -ge 50 ] || wrong+=" only $((to - $2)) answers"
  same "$3: $(tally "$1" "$2" "$to")" "" echo "$(head -n 5 <<<"$wrong" | cut -c1-300)"
}

# querier NAME SET: finds the SET's pods by DNS; ZONE=cluster.local (cached.local is the same with answers of up to 30 s ago)
querier() {
  kubectl -n "$ns" apply -f - >/dev/null <<Y
apiVersion: v1
kind: Service
metadata: {name: $2}
spec: {clusterIP: None, selector: {app: $2}, ports: [{name: grpc, port: 10901}]}
Y
  # A querier that waits for CPU through one update of its stores drops all of them at once.
  CPU_REQUEST=100m REPLICAS=1 ARGS="[\"query\", \"--http-address=0.0.0.0:10902\", \"--grpc-address=0.0.0.0:10901\"${interval:+, \"--store.sd-dns-interval=$interval\"},
    \"--endpoint=dnssrv+_grpc._tcp.$2.$ns.svc.${ZONE:-cluster.local}\"]" workload Deployment "$1" | kubectl -n "${querier_in:-$ns}" apply -f - >/dev/null
}
# gateways SET REPLICAS [KEY VALUE]…: on the bucket, with these annotations; the server knows them before the first pod is created.
#   OBJSTORE=objstore (the ConfigMap with thanos' configuration of the bucket), and the variables of workload
gateways() {
  local set=$1 replicas=$2 annotations='{}'
  shift 2
  set -- ${drain:+drain "$drain"} ${termination_drain:+termination-drain "$termination_drain"} "$@"
  while [ $# -gt 0 ]; do
    annotations=$(jq --arg key "thanos-timeshard.io/$1" --arg value "$2" '.[$key] = $value' <<<"$annotations")
    shift 2
  done
  REPLICAS=0 POLICY=Parallel ANNOTATIONS=$annotations workload StatefulSet "$set" |
    jq --arg bucket "$bucket" --arg objstore "${OBJSTORE:-objstore}" '.spec.template.spec.volumes |= map(
      if .name == "bucket" then {name, hostPath: {path: $bucket}} elif .name == "objstore" then {name, configMap: {name: $objstore}} else . end)' |
    kubectl -n "$ns" apply -f - >/dev/null
  known_drain() { member "$ns" "$set" probe-0 | kubectl -n "$ns" create --dry-run=server -o json -f - | grep -e "--termination-drain=$termination_drain"; }
  eventually 30 "$set: the server knows its annotations" known_drain
  kubectl -n "$ns" scale statefulset "$set" --replicas="$replicas" >/dev/null
}
# stores QUERIER: how many gateways it has
stores() { of_pod "${querier_in:-$ns}" "$(pods "${querier_in:-$ns}" "$1" | jq -r '.[0].metadata.name')" 10902 /api/v1/stores | jq '[.data[]?[]?] | length'; }
