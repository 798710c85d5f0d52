# shellcheck shell=bash
# a tenant of a labelled namespace makes everything that the API server accepts: the server stays small, restarts, and others' rollouts continue
# stage: control-plane
# server: --allow-local-pods
# The limit is a quarter below the 128 MiB that deploy/base gives a server. Without kubelet: examples/stand-in-sidecars.rs plays the
# pods of the other namespace, at loopback addresses.
loud=e2e-hostile-loud quiet=e2e-hostile-quiet bare=e2e-hostile-bare
max_kib=$((96 * 1024)) proxy_port=$((PORT_BASE + 40))
stand_in=$(dirname "$SERVER")/examples/stand-in-sidecars
[ -x "$stand_in" ] || { bad "no $stand_in: build it with cargo build --release --example stand-in-sidecars"; exit 1; }
cp "$WORK/config/config.yaml" "$WORK/config.before"
finish_hostile() {
  # shellcheck disable=SC2046
  kill ${stand_in_pid-} ${proxy_pid-} $(jobs -p) 2>/dev/null || true
  server_stop
  cp "$WORK/config.before" "$WORK/config/config.yaml"
  kubectl delete namespace "$loud" "$quiet" "$bare" --timeout=300s >/dev/null 2>&1 || true
}
trap finish_hostile EXIT
memory_kib() { awk -v key="$2:" '$1 == key { print $2 }' "/proc/$1/status"; }
small() { # WHAT
  local kib
  kib=$(memory_kib "$pid" VmHWM)
  check "$1: at most $((kib / 1024)) MiB, less than $((max_kib / 1024))" test "$kib" -lt $max_kib
  same "$1: it is the same process" "$pid" server_pid
}
at_least() { local value; value=$(metric "$1") && [ "${value%.*}" -ge "$2" ]; }
quiet_is() { # STATE MIN_TIME: of the oldest shard
  admin /status | sed '1,/^\r$/d' | jq -e --arg ns $quiet --arg state "$1" --arg min "$2" \
    '.statefulsets[] | select(.namespace == $ns) | .state == $state and ([.pods[].applied.min_time] | index($min)) != null'
}
# post PATH: sends the objects in the files named on standard input, over a few connections
post() {
  awk -v url="http://127.0.0.1:$proxy_port$1" '{ printf "%surl = \"%s\"\nheader = \"Content-Type: application/json\"\ndata-binary = \"@%s\"\noutput = \"/dev/null\"\nretry = 5\nretry-delay = 1\n", (NR > 1 ? "next\n" : ""), url, $0 }' |
    curl -sS --no-progress-meter --parallel --parallel-max 4 -K -
}

server_stop
cat >"$WORK/config/config.yaml" <<Y
operator: {update_interval: 10}
sharding: {total_shards: 3, replicas_per_shard: 2, retention: 370d, overlap: 1d, discovery_delay: 5s, drain: 5s}
$(sed -n '/^injection:/,$p' "$WORK/config.before")
Y
server_start
eventually 30 "a fresh server is ready" server_ready
pid=$(server_pid)
for ns in $loud $quiet; do namespace "$ns" "$ENABLED"; done
namespace $bare
kubectl proxy --port=$proxy_port >/dev/null 2>&1 &
proxy_pid=$!
"$stand_in" $quiet >"$WORK/stand-in.log" 2>&1 &
stand_in_pid=$!
REPLICAS=6 POLICY=Parallel store_set $quiet store
eventually 120 "the gateways of a namespace that behaves are settled" quiet_is settled -370d
eventually 10 "the tenant reaches the API server" curl -sS -o /dev/null "http://127.0.0.1:$proxy_port/version"

# ---- the tenant's objects ------------------------------------------------------------------------------------------------
made=$WORK/hostile && rm -rf "$made" && mkdir -p "$made"
# Kubernetes sends < as six bytes
text=$(head -c 900000 /dev/zero | tr '\0' '<')
printf %s "$text" >"$made/text"
for i in $(seq 0 119); do
  # the windows of an existing StatefulSet, or of none
  [ "$i" -lt 60 ] && name=large-$i-time-shards || name=junk-$i
  printf '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "%s", "labels": {"app.kubernetes.io/managed-by": "thanos-timeshard"}}, "data": {"x": "%s"}}' "$name" "$text" >"$made/map-$i.json"
done
for i in $(seq 0 99); do
  REPLICAS=0 workload StatefulSet "large-$i" | jq -c --rawfile text "$made/text" \
    '.spec.template.spec.containers[0].env = [{name: "x", value: $text}] | .metadata.annotations["thanos-timeshard.io/total-shards"] = "9000"' >"$made/set-$i.json"
done
t0=$(now_ms)
printf '%s\n' "$made"/map-*.json | post "/api/v1/namespaces/$loud/configmaps"
printf '%s\n' "$made"/set-*.json | post "/apis/apps/v1/namespaces/$loud/statefulsets"
same "it has made 120 ConfigMaps of 900 kB with our label" 120 sh -c "kubectl -n $loud get configmap -l app.kubernetes.io/managed-by=thanos-timeshard -o name | wc -l"
same "and 100 StatefulSets of 900 kB" 100 sh -c "kubectl -n $loud get statefulset -o name | wc -l"
REPLICAS=10000 ANNOTATIONS='{"thanos-timeshard.io/total-shards": "9000", "thanos-timeshard.io/replicas-per-shard": "1"}' store_set $loud huge
for i in $(seq 600); do
  printf '{"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "theirs-%s", "labels": {"app.kubernetes.io/managed-by": "thanos-timeshard"}}, "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"a": "b"}}}}' "$i" >"$made/pdb-$i.json"
done
printf '%s\n' "$made"/pdb-*.json | post "/apis/policy/v1/namespaces/$bare/poddisruptionbudgets"
# like a PDB of timeshard whose namespace is no longer labelled
jq -c '.metadata.name = "gone-shard-0" | .metadata.ownerReferences = [{apiVersion: "apps/v1", kind: "StatefulSet", name: "gone", uid: "00000000-0000-0000-0000-000000000000"}]' "$made/pdb-1.json" >"$made/ours.json"
echo "$made/ours.json" | post "/apis/policy/v1/namespaces/$bare/poddisruptionbudgets"
say "made in $(seconds_since "$t0") s"
eventually 60 "the server reports what it skips" at_least timeshard_refused_objects 1
small "while all of it was made"

# ---- other namespaces are unaffected -------------------------------------------------------------------------------------------------
kubectl -n $quiet annotate statefulset store 'thanos-timeshard.io/boundaries=[14d, 90d]' >/dev/null
t0=$(now_ms)
eventually 120 "the rollout of the namespace that behaves is done meanwhile" quiet_is settled -91d
small "while others' windows moved"
same "no PDB is deleted for its label alone" 600 sh -c "kubectl -n $bare get pdb -o name | grep -c theirs-"
eventually 60 "an Event in the namespace reports it" sh -c "kubectl -n $loud get events.events.k8s.io -o json | jq -e 'any(.items[]; .reason == \"NotTakenIn\")'"

# ---- /status --------------------------------------------------------------------------------------------------------------
check "/status is smaller than 4 MiB, at 9000 shards each" test "$(admin /status | wc -c)" -lt $((4 * 1024 * 1024))
for _ in $(seq 20); do # fewer than the connections of one address
  # a reader that takes nothing loses its connection after 5 s
  (for _ in 1 2 3 4 5 6; do (exec 3<>"/dev/tcp/127.0.0.1/$ADMIN_PORT" && printf 'GET /status HTTP/1.0\r\n\r\n' >&3 && sleep 5); done) 2>/dev/null &
done
eventually 10 "more readers get 503 and Retry-After" sh -c "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:$ADMIN_PORT/status | grep -x 503"
eventually 10 "probes are answered all the same" server_ready
small "with 20 readers that do not read"

# ---- a restart with all these objects ---------------------------------------------------------------------------------------
server_stop
t0=$(now_ms)
server_start
eventually 30 "a new server is ready with all of it there" server_ready
pid=$(server_pid)
eventually 60 "and leads: the namespace that behaves is settled" quiet_is settled -91d
say "known after $(seconds_since "$t0") s, $(($(memory_kib "$pid" VmRSS) / 1024)) MiB at rest"
small "at a start"
