# shellcheck shell=bash
# a real Prometheus scrapes the real programs: every metric, alert and query of the dashboard works, and alerts report real faults
# stage: control-plane
ns=e2e-monitoring deploy=$CHECKOUT/deploy/monitoring
AGENT_PORT=$((PORT_BASE + 32)) PROMETHEUS_PORT=$((PORT_BASE + 33)) OTHER_PORT=$((PORT_BASE + 34)) OTHER_ADMIN=$((PORT_BASE + 35))
mon=$WORK/monitoring
rm -rf "$mon"
mkdir -p "$mon"/{tsdb,agent/config,agent/shared}
cp "$WORK/config/config.yaml" "$mon/config.before"
pids=()
finish_monitoring() {
  [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
  cp "$mon/config.before" "$WORK/config/config.yaml"
}
trap finish_monitoring EXIT
body() { sed '1,/^\r$/d'; }

# ---- the targets: the leader, a follower, and the sidecar of a pod ------------------------------------
namespace $ns
REPLICAS=2 POLICY=Parallel store_set $ns bare
until_same 30 "2 gateways before the namespace is labelled" "bare-0 untouched
bare-1 untouched" windows $ns bare
kubectl label namespace $ns "$ENABLED" >/dev/null
REPLICAS=2 POLICY=Parallel store_set $ns store
known $ns store store-1 "shard=1 -370d .. -123d8h" # two pods are two shards
KUBECONFIG=$WORK/server.kubeconfig "$SERVER" serve --config "$WORK/config/config.yaml" --cert-dir "$WORK/tls" --listen "127.0.0.1:$OTHER_PORT" \
  --admin-listen "127.0.0.1:$OTHER_ADMIN" --probe-listen 127.0.0.1:0 --shutdown-drain 0s --pod-name other --pod-namespace "$SYSTEM" </dev/null >"$mon/other.log" 2>&1 &
pids+=($!)
"$(dirname "$SERVER")/timeshard-agent" sidecar --install --pod store-0 --config-dir "$mon/agent/config" --shared-dir "$mon/agent/shared" \
  --listen "127.0.0.1:$AGENT_PORT" </dev/null >"$mon/agent.log" 2>&1 &
pids+=($!)
# the alerts unchanged, and again without their delay and under other names
sed 's/ for: .*/ for: 0s/; s/alert: Timeshard/alert: Now/; s/- name: timeshard/- name: now/' "$deploy/alerts.yaml" >"$mon/now.yaml"
cat >"$mon/prometheus.yaml" <<Y
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [$deploy/alerts.yaml, $mon/now.yaml]
scrape_configs:
- job_name: $SYSTEM/timeshard
  honor_labels: true
  static_configs:
  - {targets: ["127.0.0.1:$ADMIN_PORT"], labels: {namespace: $SYSTEM, pod: this-machine}}
  - {targets: ["127.0.0.1:$OTHER_ADMIN"], labels: {namespace: $SYSTEM, pod: other}}
- job_name: $SYSTEM/timeshard-sidecars
  static_configs:
  - {targets: ["127.0.0.1:$AGENT_PORT"], labels: {namespace: $ns, pod: store-0}}
Y
prometheus --config.file="$mon/prometheus.yaml" --storage.tsdb.path="$mon/tsdb" --web.listen-address="127.0.0.1:$PROMETHEUS_PORT" </dev/null >"$mon/prometheus.log" 2>&1 &
pids+=($!)

# ask PATH [PARAMETER=VALUE]: Prometheus' answer
ask() {
  local parameters=''
  [ $# = 1 ] || parameters="?${2%%=*}=$(jq -rn --arg value "${2#*=}" '$value | @uri')"
  http 127.0.0.1 "$PROMETHEUS_PORT" "/api/v1/$1$parameters" | body
}
# value EXPRESSION: a line for each series, "LABELS VALUE"
value() { ask query "query=$1" | jq -r '.data.result[] | "\(.metric | to_entries | map("\(.key)=\(.value)") | join(" ")) \(.value[1])"' | sed 's/^ //' | sort; }
up() { ask targets | jq -r '.data.activeTargets[] | "\(.labels.pod) \(.health)"' | sort; }
until_same 60 "Prometheus scrapes two servers and a sidecar" "other up
store-0 up
this-machine up" up
for port in "$ADMIN_PORT" "$AGENT_PORT"; do
  http 127.0.0.1 "$port" /metrics | body >"$mon/metrics.txt"
  check "promtool finds nothing wrong with $(wc -l <"$mon/metrics.txt") lines of text" promtool check metrics <"$mon/metrics.txt"
done

# ---- metrics: those of the page, and no others -------------------------------------------------------------------------------
# The page has one line for a histogram, which is three metrics, those that only a server with --self-signed has, and those of the
# bucket, which no pod reports here.
page=$(sed -n 's/^| `\(timeshard_[a-z_]*\)` | \([a-z]*\) .*/\2 \1/p' "$CHECKOUT/docs/metrics.md" |
  grep -v ' timeshard_\(\(certificate_rotations\|ca_bundle_writes\|self_signed_failures\)_total\|blocks_outside_windows\|bucket_blocks\)$' |
  while read -r kind name; do if [ "$kind" = histogram ]; then printf '%s\n' "$name"_{bucket,count,sum}; else echo "$name"; fi; done | LC_ALL=C sort)
scraped() { ask label/__name__/values | jq -r '.data[] | select(startswith("timeshard_"))' | LC_ALL=C sort; }
until_same 30 "the $(wc -l <<<"$page") metrics of docs/metrics.md, and no others" "$page" scraped

# ---- every expression ----------------------------------------------------------------------------------------------------------
rules() { ask rules | jq -r '[.data.groups[].rules[] | select(.name | startswith("Timeshard"))] | "\(length) alerts", (.[] | select(.health != "ok") | "\(.name): \(.health) \(.lastError // "")")'; }
until_same 30 "Prometheus evaluates every alert" "$(grep -c 'alert: ' "$deploy/alerts.yaml") alerts" rules
# as Grafana would with "All" selected
jq -r '.panels[].targets[]?.expr | gsub("\\$__rate_interval"; "1m") | gsub("\\$(cluster|job|namespace|statefulset)"; ".*")' "$deploy/dashboard.json" >"$mon/queries"
evaluated() { # prints errors
  local query
  while IFS= read -r query; do
    ask query "query=$query" | jq -r --arg query "$query" 'select(.status != "success" or .warnings) | "\($query): \(.error // .warnings)"'
  done <"$mon/queries"
}
same "and all $(wc -l <"$mon/queries") queries of the dashboard" "" evaluated
choices() { ask series "match[]=timeshard_coverage_gap_seconds{namespace=\"$ns\"}" | jq -r '.data[] | "\(.namespace) \(.statefulset) of \(.pod)"' | sort -u; }
until_same 30 "its variables offer the StatefulSets, by their own namespace, from the leader alone" "$ns bare of this-machine
$ns store of this-machine" choices

# ---- only the leader has series of StatefulSets --------------------------------------------------------------------------------------
of_sets() { http 127.0.0.1 "$OTHER_ADMIN" /metrics | body | grep -c statefulset= || true; }
same "the replica that follows has no series of StatefulSets" 0 of_sets
until_same 60 "one leads" "pod=other 0
pod=this-machine 1" value 'max by (pod) (timeshard_leader)'

# ---- alerts ---------------------------------------------------------------------------------------------------------------------
alerts() { value "ALERTS{alertname=~\"$1\"${2-}}" | tr ' ' '\n' | sed -nE '/^(alertname|alertstate|statefulset)=/p' | cut -d= -f2 | paste -sd' '; }
until_same 30 "pods without injection: the alert is pending for a quarter of an hour, and fires without its delay" \
  "TimeshardPodWithoutInjection pending bare" alerts TimeshardPodWithoutInjection
until_same 60 "and no gap alert there: they serve what their arguments say" "NowCoverageGap firing store" alerts NowCoverageGap ",namespace=\"$ns\""
until_same 60 "it counts them" "namespace=$ns statefulset=bare 2" value "max by (namespace, statefulset) (timeshard_uninjected_store_pods{namespace=\"$ns\"}) > 0"
until_same 30 "firing" "NowPodWithoutInjection firing bare" alerts NowPodWithoutInjection
kubectl -n $ns delete pods -l app=bare --grace-period=0 --force >/dev/null 2>&1
until_same 60 "they are deleted and admitted again: it ends" "" alerts "(Timeshard|Now)PodWithoutInjection"
# these pods do not run, so nothing is served
until_same 30 "no pod of it is ready: a gap" "NowCoverageGap firing bare NowCoverageGap firing store" alerts NowCoverageGap ",namespace=\"$ns\""
until_same 60 "of the complete retention and the future buffer" "namespace=$ns statefulset=store $((371 * 86400))" value "max by (namespace, statefulset) (timeshard_coverage_gap_seconds{namespace=\"$ns\",statefulset=\"store\"})"
kubectl -n $ns delete statefulset store >/dev/null
until_same 60 "a StatefulSet is deleted: its series end, and so does the alert" "NowCoverageGap firing bare" alerts NowCoverageGap ",namespace=\"$ns\""
until_same 60 "the configuration is in force" "" alerts NowConfigNotLoaded
echo 'sharding: {total_shards: none}' >"$WORK/config/config.yaml"
until_same 30 "the edited configuration is wrong: both replicas report it" "NowConfigNotLoaded firing NowConfigNotLoaded firing" alerts NowConfigNotLoaded
cp "$mon/config.before" "$WORK/config/config.yaml"
until_same 30 "it is repaired: it ends" "" alerts NowConfigNotLoaded
server_stop
until_same 60 "the leader ends: the other server has the series, and the old ones are gone" "$ns bare of other" \
  eval 'value "timeshard_coverage_gap_seconds{namespace=\"$ns\"}" | sed "s/.*namespace=\([^ ]*\) pod=\([^ ]*\) statefulset=\([^ ]*\) .*/\1 \3 of \2/"'
until_same 60 "so a query that does not name a replica continues" "namespace=$ns statefulset=bare $((371 * 86400))" value "max by (namespace, statefulset) (timeshard_coverage_gap_seconds{namespace=\"$ns\"})"
until_same 30 "no leader is missing, and no webhook" "" alerts "(Timeshard|Now)(NoLeader|Down)"
kill "${pids[0]}"
until_same 30 "the last one ends: the webhook is down" "NowDown firing TimeshardDown pending" alerts "(Timeshard|Now)Down"
server_start
until_same 60 "it is back" "" alerts "(Timeshard|Now)Down"
