# shellcheck shell=bash
# 40 (E2E_SCALE=full: 200) StatefulSets of 25 pods on the real API server: the leader's memory, CPU, requests and writes, idle and in a rollout
# stage: control-plane
# server: --allow-local-pods
# Limits: 64 MiB of memory at any time, 2 s of CPU for a full resync, no write when nothing changed, 10 requests in any one
# second. They are the design's, on any machine; measurements are far below, and CPU is time used, not time passed.
# Without kubelet and sidecars: examples/stand-in-sidecars.rs gives every pod an address, marks it Ready and answers.
# Without E2E_SCALE=full it is a fifth of that, 40 StatefulSets of 25 pods: minutes, not a quarter of an hour.
spaces=(e2e-scale-a e2e-scale-b e2e-scale-c e2e-scale-d) each=10 replicas=25 rolled=4 resyncs=3
[ "${E2E_SCALE-}" != full ] || { each=50 rolled=10 resyncs=6; }
sets=$((${#spaces[@]} * each)) all=$((${#spaces[@]} * each * replicas))
# rolled: StatefulSets that get another plan, about 40 requests each; resyncs: full resyncs in which nothing may be written
max_rss_kib=$((64 * 1024)) max_cpu_ms=2000 max_requests=10

stand_in=$(dirname "$SERVER")/examples/stand-in-sidecars
[ -x "$stand_in" ] || { bad "no $stand_in: build it with cargo build --release --example stand-in-sidecars"; exit 1; }
cp "$WORK/config/config.yaml" "$WORK/config.before"
finish_scale() {
  [ -z "${stand_in_pid-}" ] || kill "$stand_in_pid" 2>/dev/null || true
  server_stop
  cp "$WORK/config.before" "$WORK/config/config.yaml"
  kubectl delete namespace "${spaces[@]}" --timeout=300s >/dev/null 2>&1 || true # the next scenario must not run in parallel
}
trap finish_scale EXIT

# cpu_ms PID: user and system time
cpu_ms() { awk -v tick="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); printf "%d\n", ($12 + $13) * 1000 / tick }' "/proc/$1/stat"; }
# memory_kib PID VmRSS|VmHWM
memory_kib() { awk -v key="$2:" '$1 == key { print $2 }' "/proc/$1/status"; }
mib() { echo "$(($1 / 1024)).$(($1 % 1024 * 10 / 1024)) MiB"; }
at_least() { local value; value=$(metric "$1") && [ "${value%.*}" -ge "$2" ]; }
# busiest MS: of the lines of "asked", the maximum in any interval of that length
busiest() { awk -v of="$1" '{ at[NR] = $1 } END { first = 1; for (i = 1; i <= NR; i++) { while (at[i] - at[first] >= of) first++; n = i - first + 1; if (n > most) most = n } print most + 0 }'; }
by_kind() { awk '{ n[$2 " " $3]++ } END { for (k in n) printf "%s%s %d", s++ ? ", " : "", k, n[k] }'; }
writes() { awk '$2 ~ /^(create|update|patch|delete)$/ && $3 != "leases"'; }
# Other scenarios' gateways without pods are managed, too.
settled() { at_least timeshard_confirmed_pods "$all" && [ "$(metric timeshard_rollout_moves_left)" = 0 ] && at_least timeshard_managed_statefulsets "$sets"; }
# quiet: settled, and earlier writes are counted: nothing but the Lease for two seconds
quiet() { settled && [ -z "$(asked $(($(now_ms) - 2000)) | writes)" ]; }
limit() { # WHAT VALUE MOST
  check "$1" test "$2" -le "$3"
}

EVERY=1 # scraping its metrics costs the server time, too
server_stop
cat >"$WORK/config/config.yaml" <<Y
operator: {update_interval: 10}
sharding: {total_shards: 3, replicas: [9, 8, 8], retention: 370d, overlap: 1d, discovery_delay: 5s, drain: 5s}
$(sed -n '/^injection:/,$p' "$WORK/config.before")
Y
server_start
eventually 30 "a fresh server is ready" server_ready
t0=$(now_ms)
for ns in "${spaces[@]}"; do
  namespace "$ns" "$ENABLED"
done
ulimit -n "$(ulimit -Hn)" # a socket for each pod
"$stand_in" "${spaces[@]}" >"$WORK/stand-in.log" 2>&1 &
stand_in_pid=$!
for ns in "${spaces[@]}"; do
  REPLICAS=$replicas POLICY=Parallel workload StatefulSet store |
    jq --argjson each "$each" '. as $set | {apiVersion: "v1", kind: "List", items: [range($each) | "store-\(.)" as $name
      | {apiVersion: "v1", kind: "Service", metadata: {name: $name}, spec: {clusterIP: "None", selector: {app: $name}, ports: [{name: "grpc", port: 10901}]}},
        ($set | .metadata.name = $name | .spec.serviceName = $name | .spec.selector.matchLabels.app = $name | .spec.template.metadata.labels.app = $name)]}' |
    kubectl -n "$ns" create -f - 2>&1 >/dev/null | grep -v '^Warning:' >&2 || true # the guard warns about each of them
done
eventually 300 "$sets StatefulSets have $all injected pods" at_least timeshard_injected_pods "$all"
eventually 600 "all of them serve their published windows" quiet
pid=$(server_pid)
say "made in $(seconds_since "$t0") s; the server, admissions included: $(mib "$(memory_kib "$pid" VmHWM)") at most, $(cpu_ms "$pid") ms of CPU; requests: $(asked "$t0" | by_kind)"
limit "admitting and publishing them took at most 64 MiB: $(mib "$(memory_kib "$pid" VmHWM)")" "$(memory_kib "$pid" VmHWM)" $max_rss_kib
check "the stand-in for kubelet and sidecars is well" kill -0 "$stand_in_pid"

# ---- a server starts: it lists everything, and asks every sidecar ---------------------------------------
server_stop
from=$(now_ms)
server_start
eventually 120 "another leader has seen all of it" settled
pid=$(server_pid)
say "from nothing to knowing every pod: $(cpu_ms "$pid") ms of CPU, $(mib "$(memory_kib "$pid" VmHWM)") at most"
same "and writes nothing" "" writes < <(asked "$from")

# ---- idle -----------------------------------------------------------------------------------------------------------------
from=$(now_ms) cpu=$(cpu_ms "$pid") reconciles=$(metric timeshard_reconciles_total) busy=$(metric timeshard_reconcile_seconds_total)
eventually 120 "$resyncs full resyncs with nothing to do" at_least timeshard_reconciles_total $((reconciles + resyncs * sets))
to=$(now_ms) cpu=$(($(cpu_ms "$pid") - cpu)) reconciles=$(($(metric timeshard_reconciles_total) - reconciles))
each_cpu=$((cpu * sets / reconciles))
say "in $(((to - from) / 1000)) s: $reconciles reconciles, of $(awk -v a="$busy" -v b="$(metric timeshard_reconcile_seconds_total)" -v n="$reconciles" 'BEGIN { printf "%d", (b - a) * 1e6 / n }') us each; all of the server took $cpu ms of CPU, asking $all sidecars every 10 s included"
limit "a full resync takes less than 2 s of CPU: $each_cpu ms" "$each_cpu" $max_cpu_ms
same "nothing is written when nothing changed" "" writes < <(asked "$from" "$to")
say "requests: $(asked "$from" "$to" | by_kind); memory: $(mib "$(memory_kib "$pid" VmRSS)"), at most $(mib "$(memory_kib "$pid" VmHWM)")"
limit "memory is at most 64 MiB at rest" "$(memory_kib "$pid" VmRSS)" $max_rss_kib

# ---- a rollout ------------------------------------------------------------------------------------------------------------
from=$(now_ms) cpu=$(cpu_ms "$pid")
mapfile -t chosen < <(seq -f 'store-%g' 0 $((rolled - 1)))
kubectl -n "${spaces[0]}" annotate statefulset "${chosen[@]}" 'thanos-timeshard.io/boundaries=[14d, 90d]' >/dev/null
eventually 30 "$rolled of the StatefulSets have another plan" at_least timeshard_rollout_moves_left 1
eventually 300 "their $((rolled * replicas)) pods have moved, and everything is at rest again" quiet
to=$(now_ms)
asked "$from" "$to" >"$WORK/rollout.requests"
most=$(busiest 1000 <"$WORK/rollout.requests") most_in_5=$(busiest 5000 <"$WORK/rollout.requests")
say "took $(((to - from) / 1000)) s and $(wc -l <"$WORK/rollout.requests") requests, at most $most in any one second: $(by_kind <"$WORK/rollout.requests")"
say "$(($(cpu_ms "$pid") - cpu)) ms of CPU; memory: $(mib "$(memory_kib "$pid" VmRSS)"), at most $(mib "$(memory_kib "$pid" VmHWM)")"
# An API server that stands still for a moment notes in one second what was sent in two.
limit "at most 50 requests in any 5 seconds of the rollout: $most_in_5" "$most_in_5" $((5 * max_requests))
check "yet there was a rollout: $(writes <"$WORK/rollout.requests" | wc -l) writes" test "$(writes <"$WORK/rollout.requests" | wc -l)" -ge $((rolled * replicas))
same "each pod of them serves the window of its new plan" "-15d .. 1d,-370d .. -90d,-91d .. -14d" sh -c "kubectl -n ${spaces[0]} get configmap store-0-time-shards -o json |
  jq -r '[.data[] | capture(\"min_time: (?<min>[^\\n]+)\\nmax_time: (?<max>[^\\n]+)\") | \"\(.min) .. \(.max)\"] | unique | join(\",\")'"
limit "memory was at most 64 MiB all the time: $(mib "$(memory_kib "$pid" VmHWM)")" "$(memory_kib "$pid" VmHWM)" $max_rss_kib
