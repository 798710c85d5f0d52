# Functions shared by the scenarios; `run` starts each scenario in its own shell and sources this first.
# A scenario waits for conditions with a deadline, never for a fixed time, prints its checks, and does not touch other namespaces.
# shellcheck shell=bash
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cluster/env.sh" "${STAGE_FLAG---}"

SYSTEM=timeshard-system # the namespace, Service, Deployment and ServiceAccount of deploy/base
HOOK_PORT=$((PORT_BASE + 30)) ADMIN_PORT=$((PORT_BASE + 31))
WORK=$STATE/work # the server's files: certificate, configuration, kubeconfig, log
THANOS=localhost/thanos:v0.42.4 BUSYBOX=localhost/busybox:1 IMAGE=localhost/timeshard:e2e

now_ms() { date +%s%3N; }
# seconds_since MS: with one decimal
seconds_since() { local d=$(($(now_ms) - $1)); echo "$((d / 1000)).$((d % 1000 / 100))"; }
ok() { echo "ok: $*"; echo ok >>"${RESULTS:?}"; }
bad() { echo "FAILED: $*"; echo "failed ${SCENARIO-}: $*" >>"${RESULTS:?}"; }
say() { echo "    $*"; }

# check WHAT COMMAND…: it succeeds
check() {
  local what=$1 out
  shift
  if out=$("$@" 2>&1); then ok "$what"; else bad "$what"; say "\$ $*"; indent "$out"; fi
}
# refused WHAT PART COMMAND…: it fails, and its message contains PART
refused() {
  local what=$1 part=$2 out
  shift 2
  if out=$("$@" 2>&1); then bad "$what: it succeeded"; else
    case $out in *"$part"*) ok "$what" ;; *) bad "$what: \"$part\" is not in its message"; indent "$out" ;; esac
  fi
}
# same WHAT WANT COMMAND…: its output is WANT
same() {
  local what=$1 want=$2 out
  shift 2
  out=$("$@" 2>&1) || true
  if [ "$out" = "$want" ]; then ok "$what"; else
    bad "$what"
    diff <(echo "$want") <(echo "$out") | sed 's/^</    expected </; s/^>/    got      >/; /^[0-9-]/d' || true
  fi
}
# pause MS: before the next try; longer once 5 s have passed since MS, because each try costs as much CPU as a query
pause() { if [ $(($(now_ms) - $1)) -lt 5000 ]; then sleep 0.2; else sleep 1; fi; }
# patient SECONDS: a deadline that only bounds waiting, for a machine that is busy with everything else that CI does
patient() { echo $(($1 < 60 ? $1 * 4 : $1 + 180)); }
# eventually SECONDS WHAT COMMAND…: it succeeds within the time, or within that of a busy machine; the scenario ends if it does not. Tried every 0.2 s, or EVERY.
eventually() {
  local limit what=$2 out t0
  limit=$(patient "$1")
  shift 2
  t0=$(now_ms)
  until out=$("$@" 2>&1); do
    if [ $(($(now_ms) - t0)) -gt $((limit * 1000)) ]; then
      bad "$what: not within $limit s"
      say "\$ $*"
      indent "$out"
      exit 1
    fi
    if [ -n "${EVERY-}" ]; then sleep "$EVERY"; else pause "$t0"; fi
  done
  ok "$what ($(seconds_since "$t0") s)"
}
# until_same SECONDS WHAT WANT COMMAND…: its output becomes WANT within the time; the scenario ends if it does not
until_same() {
  local limit what=$2 want=$3 out t0
  limit=$(patient "$1")
  shift 3
  t0=$(now_ms)
  until out=$("$@" 2>&1) && [ "$out" = "$want" ]; do
    if [ $(($(now_ms) - t0)) -gt $((limit * 1000)) ]; then
      bad "$what: not within $limit s"
      diff <(echo "$want") <(echo "$out") | sed 's/^</    expected </; s/^>/    got      >/; /^[0-9-]/d' || true
      exit 1
    fi
    pause "$t0"
  done
  ok "$what ($(seconds_since "$t0") s)"
}
indent() { printf '%s\n' "$1" | tail -n 25 | cut -c1-400 | sed 's/^/    /'; }

# namespace NAME [LABEL=VALUE…]: makes a new one; removes one left by an earlier run with --keep first
namespace() {
  local name=$1
  shift
  if kubectl get namespace "$name" >/dev/null 2>&1; then
    kubectl -n "$name" delete pods --all --force --grace-period=0 >/dev/null 2>&1 || true
    kubectl delete namespace "$name" >/dev/null
  fi
  kubectl create namespace "$name" >/dev/null
  kubectl label namespace "$name" "e2e-scenario=${SCENARIO:-none}" "$@" >/dev/null # that scenario's end deletes it
  kubectl -n "$name" apply -f - >/dev/null <<'Y'
apiVersion: v1
kind: ConfigMap
metadata: {name: objstore}
data: {objstore.yml: "{type: FILESYSTEM, config: {directory: /bucket}}"}
Y
}
ENABLED=thanos-timeshard.io/injection=enabled
RESTRICTED=pod-security.kubernetes.io/enforce=restricted

# workload KIND NAME: the YAML of a workload that runs thanos, or CMD, under "restricted", by these variables:
#   REPLICAS=2  POLICY=OrderedReady  START= (ordinals.start)  ANNOTATIONS= ('key: "value"' lines of the workload)
#   POD_LABELS= POD_ANNOTATIONS=  IMG=$THANOS  COMMAND= ARGS= (JSON lists)  READY= (JSON, readiness probe)  EXTRA_ENV= (JSON list)  CPU_REQUEST= (without one a pod gets CPU last)
store_args='["store", "--data-dir=/data", "--objstore.config-file=/etc/objstore/objstore.yml", "--http-address=0.0.0.0:10902", "--grpc-address=0.0.0.0:10901"]'
# A drain answers at once; a busy machine may not.
thanos_ready='{"httpGet": {"path": "/-/ready", "port": 10902}, "periodSeconds": 1, "timeoutSeconds": 5}'
workload() {
  jq -n --arg kind "$1" --arg name "$2" --argjson replicas "${REPLICAS:-2}" --arg policy "${POLICY:-OrderedReady}" \
    --arg start "${START-}" --argjson annotations "${ANNOTATIONS:-{\}}" --argjson podLabels "${POD_LABELS:-{\}}" \
    --argjson podAnnotations "${POD_ANNOTATIONS:-{\}}" --arg image "${IMG:-$THANOS}" --argjson command "${COMMAND:-null}" \
    --argjson args "${ARGS:-$store_args}" --argjson ready "${READY:-$thanos_ready}" --argjson env "${EXTRA_ENV:-[]}" --arg cpu "${CPU_REQUEST-}" '
    {app: $name} as $labels
    | {metadata: {labels: ($labels + $podLabels), annotations: $podAnnotations}, spec: ({
        securityContext: {runAsNonRoot: true, runAsUser: 1001, runAsGroup: 1001, fsGroup: 1001, seccompProfile: {type: "RuntimeDefault"}},
        terminationGracePeriodSeconds: 5,
        containers: [({name: "thanos", image: $image, imagePullPolicy: "Never", args: $args, env: $env,
          ports: [{name: "http", containerPort: 10902}, {name: "grpc", containerPort: 10901}],
          securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: ["ALL"]}},
          volumeMounts: [{name: "data", mountPath: "/data"}, {name: "bucket", mountPath: "/bucket"}, {name: "objstore", mountPath: "/etc/objstore"}]}
          + (if $command then {command: $command} else {} end)
          + (if $cpu != "" then {resources: {requests: {cpu: $cpu}}} else {} end)
          + (if $kind != "Job" and ($ready | length) > 0 then {readinessProbe: $ready} else {} end))],
        volumes: [{name: "data", emptyDir: {}}, {name: "bucket", emptyDir: {}}, {name: "objstore", configMap: {name: "objstore"}}]}
        + (if $kind == "Job" then {restartPolicy: "Never"} else {} end))} as $template
    | {apiVersion: (if $kind == "Job" then "batch/v1" else "apps/v1" end), kind: $kind, metadata: {name: $name, annotations: $annotations},
       spec: ({template: $template}
         + (if $kind == "Job" then {} else {selector: {matchLabels: $labels}} end)
         + (if $kind == "StatefulSet" then {replicas: $replicas, serviceName: $name, podManagementPolicy: $policy} else {} end)
         + (if $kind == "Deployment" then {replicas: $replicas} else {} end)
         + (if $start != "" then {ordinals: {start: ($start | tonumber)}} else {} end))}'
}
# store_set NAMESPACE NAME: applies a plain Thanos Store Gateway StatefulSet; variables as for workload
store_set() { workload StatefulSet "$2" | kubectl -n "$1" apply -f - 2>&1 >/dev/null | without_warnings; }
# without_warnings: drops the guard's warnings, which are not a scenario's own output
without_warnings() { grep -v '^Warning: ' >&2 || true; }

# pods NAMESPACE [APP]: JSON list in the order of their ordinals
pods() {
  kubectl -n "$1" get pods ${2:+-l "app=$2"} -o json |
    jq '[.items[] | select(.metadata.deletionTimestamp | not)] | sort_by(.metadata.name | capture("^(?<b>.*?)(?<n>[0-9]*)$") | [.b, (.n | tonumber? // 0)])'
}
# of one pod's JSON: "NAME shard=N MIN .. MAX", or "NAME untouched"; a partly injected pod shows its parts
# shellcheck disable=SC2016
describe='
  def flag($f): [.spec.containers[0].args[]? | select(startswith("--" + $f + "=")) | ltrimstr("--" + $f + "=")] | join(",");
  def touched: (.metadata.labels["thanos-timeshard.io/shard"], .metadata.annotations["thanos-timeshard.io/status"]) // null;
  def sidecars: [.spec.initContainers[]?, .spec.containers[] | select(.name == "config-sidecar")] | length;
  def window:
    if ([touched] | all(. == null)) and sidecars == 0 and (.spec.containers[0].command[0]? // "" | endswith("timeshard-agent") | not)
      and (flag("min-time") + flag("max-time")) == "" and ([.spec.volumes[]?.name | select(startswith("timeshard-"))] | length) == 0
    then "\(.metadata.name) untouched"
    else "\(.metadata.name) shard=\(.metadata.labels["thanos-timeshard.io/shard"]) \(flag("min-time")) .. \(flag("max-time"))"
      + (if sidecars != 1 then " sidecars=\(sidecars)" else "" end)
      + (if .metadata.annotations["thanos-timeshard.io/status"] then "" else " no-status" end)
      + (if .spec.containers[0].command[0] == "/run/timeshard/timeshard-agent" then "" else " no-launcher" end)
    end;'
# windows NAMESPACE [APP]: a line for each pod
windows() { pods "$@" | jq -r "$describe"' .[] | window'; }
# planned NAME REPLICAS [START]: the same lines, as expected for 3 shards of 2 replicas of the compatibility configuration
shard_windows=('-124d8h .. 1d' '-247d16h .. -123d8h' '-370d .. -246d16h')
planned() {
  local i s
  for ((i = 0; i < $2; i++)); do
    s=$((i < 6 ? i / 2 : 0)) # surplus pods are extra replicas of the newest shard
    echo "$1-$((i + ${3:-0})) shard=$s ${shard_windows[s]}"
  done
}
# ready NAMESPACE APP: "READY of COUNT"
ready() { pods "$1" "$2" | jq -r '"\([.[] | select(any(.status.conditions[]?; .type == "Ready" and .status == "True"))] | length) of \(length)"'; }
# restarts NAMESPACE: of all containers together
restarts() { pods "$1" | jq '[.[].status | (.containerStatuses, .initContainerStatuses)[]?.restartCount] | add'; }
# member NAMESPACE SET POD: the Pod that the StatefulSet controller would create, for dry runs
member() {
  kubectl -n "$1" get statefulset "$2" -o json | jq --arg pod "$3" '
    {apiVersion: "v1", kind: "Pod", spec: .spec.template.spec, metadata: (.spec.template.metadata + {name: $pod,
      labels: (.spec.template.metadata.labels + {"apps.kubernetes.io/pod-index": ($pod | capture("-(?<n>[0-9]+)$").n), "statefulset.kubernetes.io/pod-name": $pod}),
      ownerReferences: [{apiVersion, kind, name: .metadata.name, uid: .metadata.uid, controller: true, blockOwnerDeletion: true}]})}'
}
# dry_window NAMESPACE SET POD: the result of admission for that Pod now
dry_window() { member "$@" | kubectl -n "$1" create --dry-run=server -o json -f - | jq -r "$describe"' window'; }

# known NAMESPACE SET POD WANT: waits until the server knows the current set, shown by its admission of POD, and replaces pods that
# were admitted before. A set's first pods may be created before the server has seen the set.
known() {
  local pod=probe-${3##*-}
  until_same 30 "the StatefulSet is known as it is" "$pod $4" dry_window "$1" "$2" "$pod"
  kubectl delete --raw "/api/v1/namespaces/$1/pods?gracePeriodSeconds=0&labelSelector=app%3D$2" >/dev/null
}

# ---- the server on this machine, with the rights that deploy/ gives it ------------------------------------------------
# server_pid: of the server that was started here, only while that process is the server (the file may have been rebuilt since)
server_pid() {
  local pid exe
  pid=$(cat "$STATE/pids/timeshard" 2>/dev/null) && exe=$(readlink "/proc/$pid/exe") && [ "${exe% (deleted)}" = "$SERVER" ] && echo "$pid"
}
# server_rights: exactly those of the ServiceAccount of deploy/
server_rights() {
  local token
  token=$(kubectl -n "$SYSTEM" create token timeshard --duration=4h)
  kubectl config view --raw -o json | jq --arg token "$token" '.users[0].user = {token: $token}' >"$WORK/server.kubeconfig"
}
# server_start: unless it runs with the scenario's flags ($SERVER_FLAGS, by its line "# server:"); CERTIFICATE=--self-signed for its own certificate
server_start() {
  local lock
  exec {lock}>"$STATE/server.lock" # parallel scenarios start it once
  flock "$lock"
  if ! server_pid >/dev/null || [ "$(cat "$STATE/server.flags")" != "${SERVER_FLAGS-}" ]; then
    server_stop
    printf %s "${SERVER_FLAGS-}" >"$STATE/server.flags"
    # shellcheck disable=SC2086
    KUBECONFIG=$WORK/server.kubeconfig setsid "$SERVER" serve --config "$WORK/config/config.yaml" ${CERTIFICATE:---cert-dir=$WORK/tls} \
      --listen "$HOOK_IP:$HOOK_PORT" --admin-listen "127.0.0.1:$ADMIN_PORT" --probe-listen 127.0.0.1:0 --shutdown-drain 2s \
      --pod-name this-machine --pod-namespace "$SYSTEM" ${SERVER_FLAGS-} </dev/null >>"$WORK/server.log" 2>&1 {lock}>&- &
    echo $! >"$STATE/pids/timeshard"
    # until the process is that program, not the shell that executes it
    until server_pid >/dev/null || ! kill -0 $! 2>/dev/null; do sleep 0.05; done
  fi
  exec {lock}>&-
}
server_ready() { server_pid >/dev/null && admin /readyz | grep '^HTTP/1.[01] 200'; }
# http HOST PORT PATH [SECONDS]: status line, header and body
http() { (exec 3<>"/dev/tcp/$1/$2" && printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$3" >&3 && timeout "${4:-20}" cat <&3); }
# admin PATH: a response of the server's admin port
admin() { http 127.0.0.1 "$ADMIN_PORT" "$1"; }
# metric NAME: of the server on this machine, summed over its labels; empty while it is unreachable
metric() { admin /metrics | awk -v name="$1" '$1 == name || index($1, name "{") == 1 { sum += $2; found = 1 } END { if (found) print sum }'; }
# asked FROM_MS [TO_MS]: the server's requests to the API server since then, a line each: milliseconds, verb, resource
asked() {
  jq -r --argjson from "$1" --argjson to "${2:-$(now_ms)}" '
    (.requestReceivedTimestamp | ((.[:19] + "Z" | fromdate) * 1000 + (.[20:23] | tonumber))) as $at
    | select($at >= $from and $at < $to) | "\(.auditID) \($at) \(.verb) \(.objectRef.resource // .requestURI)\(.objectRef.subresource // "" | if . == "" then "" else "/" + . end)"' \
    "$STATE/log/audit.json" | sort -u -k1,1 | cut -d' ' -f2- | sort -n
}
# leader_status: the /status document of the server that leads
leader_status() {
  local holder document
  # without kubectl, which costs more CPU than everything else that a wait does
  document=$(admin /status 2>/dev/null | sed '1,/^\r$/d') || true
  # not jq -e, which in version 1.6 succeeds without any input
  if [ "$(jq -r .leader.self <<<"$document" 2>/dev/null)" = true ]; then printf '%s\n' "$document"; return; fi
  holder=$(kubectl -n "$SYSTEM" get lease timeshard-refresher -o 'jsonpath={.spec.holderIdentity}') || return 1
  if [ "$holder" = this-machine ]; then admin /status | sed '1,/^\r$/d'; else kubectl get --raw "/api/v1/namespaces/$SYSTEM/pods/$holder:8080/proxy/status"; fi
}
# minor: of the API server's version
minor() { kubectl get --raw /version | jq '.minor | capture("^(?<n>[0-9]+)").n | tonumber'; }
# host_endpoint: points the Service of deploy/ to the server on this machine
host_endpoint() {
  kubectl -n "$SYSTEM" apply -f - >/dev/null <<Y
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: this-machine, labels: {kubernetes.io/service-name: timeshard, endpointslice.kubernetes.io/managed-by: tests-e2e}}
addressType: IPv4
ports: [{name: https, port: $HOOK_PORT, protocol: TCP}]
endpoints: [{addresses: ["$HOOK_IP"], conditions: {ready: true}}]
Y
  # older API servers find webhooks by the Endpoints, whose controller tests/e2e/matrix then leaves out
  [ "$(minor)" -lt 33 ] || return 0
  kubectl -n "$SYSTEM" apply -f - >/dev/null <<Y
apiVersion: v1
kind: Endpoints
metadata: {name: timeshard}
subsets: [{addresses: [{ip: "$HOOK_IP"}], ports: [{name: https, port: $HOOK_PORT, protocol: TCP}]}]
Y
}
server_stop() {
  local p
  p=$(server_pid) || return 0
  kill "$p"
  for _ in $(seq 600); do [ -d "/proc/$p" ] || return 0; sleep 0.1; done
  echo "the server did not end within 60 s of SIGTERM" >&2
  kill -9 "$p"
  return 1
}

# servers_in_pods: runs the two pods of the Deployment instead, until servers_here
servers_in_pods() {
  kubectl -n "$SYSTEM" scale deployment/timeshard --replicas=2 >/dev/null
  check "2 replicas of the server become ready under Pod Security restricted" kubectl -n "$SYSTEM" rollout status deployment/timeshard --timeout=240s
  # from here on the Service has the pods only
  server_stop
  kubectl -n "$SYSTEM" delete endpointslice this-machine --ignore-not-found >/dev/null
}
# servers_here: in any case the next scenario finds the server on this machine again; the pods' logs are kept
servers_here() {
  server_start
  host_endpoint
  kubectl -n "$SYSTEM" logs -l app.kubernetes.io/component=server --tail=-1 --prefix >>"$WORK/server-pods.log" 2>&1 || true
  kubectl -n "$SYSTEM" scale deployment/timeshard --replicas=0 >/dev/null
}
# process NAMESPACE POD WORDS: process IDs of the pod's containers whose command line begins with WORDS, a regular expression;
# from the node, because the image has no shell and PID 1 cannot be killed from within
process() {
  local d uid
  uid=$(kubectl -n "$1" get pod "$2" -o 'jsonpath={.metadata.uid}')
  for d in /proc/[0-9]*; do
    if grep -qs "${uid//-/[-_]}" "$d/cgroup" && tr '\0' ' ' <"$d/cmdline" 2>/dev/null | grep -q "^$3"; then echo "${d#/proc/}"; fi
  done
}

# ---- the published windows, for scenarios without a leader ("# server: --no-refresher"): written like the leader's ----------
# publish NAMESPACE SET POD ENTRY [POD ENTRY]…: in one write; then makes kubelet sync immediately
publish() {
  local ns=$1 cm=$2-time-shards data='{}' pods=() p
  shift 2
  while [ $# -gt 0 ]; do
    data=$(jq --arg key "$1.yaml" --arg entry "$2" '.[$key] = $entry' <<<"$data")
    pods+=("$1")
    shift 2
  done
  jq -n --arg name "$cm" --argjson data "$data" '{apiVersion: "v1", kind: "ConfigMap", data: $data,
    metadata: {name: $name, labels: {"app.kubernetes.io/managed-by": "thanos-timeshard"}}}' >"$WORK/published.json"
  kubectl -n "$ns" patch configmap "$cm" --type=merge --patch-file "$WORK/published.json" >/dev/null 2>&1 ||
    kubectl -n "$ns" create -f "$WORK/published.json" >/dev/null
  for p in "${pods[@]}"; do hurry "$ns" "$p"; done
}
# hurry NAMESPACE POD: sets an annotation through pods/status, so that kubelet syncs the pod's volumes within a second
hurry() {
  kubectl -n "$1" patch pod "$2" --subresource=status --type=merge \
    -p "{\"metadata\": {\"annotations\": {\"thanos-timeshard.io/published-at\": \"$(now_ms)\"}}}" >/dev/null 2>&1 || true # it may not exist
}
# of_pod NAMESPACE POD PORT PATH: the pod's response
of_pod() { kubectl get --raw "/api/v1/namespaces/$1/pods/$2:$3/proxy$4"; }
# state NAMESPACE POD: "PHASE verified|unverified MIN .. MAX" as the sidecar reports it
state() {
  of_pod "$1" "$2" 10908 /status |
    jq -r '"\(.phase) \(if .verified then "verified" else "unverified" end) \(.applied | if . then "\(.min_time) .. \(.max_time)" else "nothing" end)"'
}
last_error() { of_pod "$1" "$2" 10908 /status | jq -r '.last_error // "none"'; }
# flags NAMESPACE POD: the flags that thanos reports; it writes 24h as 1d
flags() { of_pod "$1" "$2" 10902 /api/v1/status/flags | jq -r '.data | "\(."min-time") .. \(."max-time")"'; }
