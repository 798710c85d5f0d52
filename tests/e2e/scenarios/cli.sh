# shellcheck shell=bash
# the command line on a real API server: verbs around annotations, dry runs, versions, the page through the proxy, contexts, the plugin
# stage: control-plane
# server: --allow-local-pods
# examples/stand-in-sidecars.rs plays kubelet and sidecars. The leader is the process on this machine, which is no pod, so a second
# replica with a pod answers what goes through the API server's proxy.
ns=e2e-cli
stand_in=$(dirname "$SERVER")/examples/stand-in-sidecars
[ -x "$stand_in" ] || { bad "no $stand_in: build it with cargo build --release --example stand-in-sidecars"; exit 1; }
mkdir -p "$WORK/cli"
pids=()
finish_cli() {
  local p
  for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
  kubectl -n "$SYSTEM" delete pod cli-server --ignore-not-found --force --grace-period=0 >/dev/null 2>&1 || true
}
trap finish_cli EXIT
timeshard() { "$SERVER" "$@"; }
at_server=(--server "http://127.0.0.1:$ADMIN_PORT")

namespace $ns "$ENABLED"
"$stand_in" $ns >"$WORK/cli/stand-in.log" 2>&1 &
pids+=($!)
ANNOTATIONS='{"thanos-timeshard.io/drain": "1s", "thanos-timeshard.io/discovery-delay": "1s", "thanos-timeshard.io/termination-drain": "1s"}' \
  POLICY=Parallel REPLICAS=6 store_set $ns store
annotation() { kubectl -n $ns get statefulset store -o json | jq -r --arg key "thanos-timeshard.io/$1" '.metadata.annotations[$key] // "none"'; }
state_of() { timeshard status -n $ns store "${at_server[@]}" -o json | jq -r '.statefulsets[0].state'; }
# Before it has pods a StatefulSet is settled, too.
at_rest() { timeshard status -n $ns store "${at_server[@]}" -o json | jq -r '.statefulsets[0] | "\(.state) \([.pods[] | select(.state == "confirmed")] | length)"'; }
shards() { timeshard status -n $ns store "${at_server[@]}" -o json | jq '[.statefulsets[0].pods[].shard] | unique | length'; }
until_same 120 "six gateways of three shards are settled" "settled 6" at_rest
same "of three shards" 3 shards

# ---- reshard --------------------------------------------------------------------------------------------------------------
spec() { kubectl -n $ns get statefulset store -o json | jq -cS .spec; }
before=$(spec)
check "a dry run on the client" timeshard reshard store -n $ns total-shards=2 --dry-run=client
check "a dry run on the server, which the guard answers" timeshard reshard $ns/store total-shards=2 --dry-run
same "neither writes anything" none annotation total-shards
refused "what the server would refuse is refused with its place" 'total-shards:1:1: total_shards: "many"' timeshard reshard store -n $ns total-shards=many
refused "a misspelt key gets the right one" "did you mean total-shards?" timeshard reshard store -n $ns total-shard=2
refused "a misspelt StatefulSet too" "did you mean store?" timeshard reshard stor -n $ns total-shards=2
same "the document names the change" '{"kind":"Change","annotations":{"thanos-timeshard.io/total-shards":"2"},"changed":true}' \
  sh -c "'$SERVER' reshard store -n $ns total-shards=2 -o json 2>/dev/null | jq -c '{kind, annotations, changed}'"
same "the annotation is there" 2 annotation total-shards
until_same 120 "the server reshards" 2 shards
check "until it is settled" timeshard status $ns/store --until-settled --timeout 5m "${at_server[@]}"
check "the annotation goes again" timeshard reshard store -n $ns total-shards-
same "and is gone" none annotation total-shards
until_same 120 "back to three shards" 3 shards
check "until that is settled" timeshard status $ns/store --until-settled --timeout 5m "${at_server[@]}"

# ---- pause and resume -------------------------------------------------------------------------------------------------------
check "pause, as a dry run" timeshard pause store -n $ns --dry-run
same "which writes nothing" none annotation pause
check "pause" timeshard pause store -n $ns
same "is the annotation" true annotation pause
check "a change while it is paused" timeshard reshard store -n $ns total-shards=2
until_same 60 "waits" paused state_of
check "resume" timeshard resume store -n $ns
same "removes the annotation" none annotation pause
until_same 120 "and the change goes on" 2 shards
check "back again" timeshard reshard store -n $ns total-shards-
until_same 120 "to three shards" 3 shards
check "until it is settled" timeshard status $ns/store --until-settled --timeout 5m "${at_server[@]}"

# ---- scale-down -------------------------------------------------------------------------------------------------------------
refused "more pods are no scale-down" "--to 8: StatefulSet $ns/store has 6 pods" timeshard scale-down store -n $ns --to 8
check "a dry run" timeshard scale-down store -n $ns --to 4 --dry-run
same "which writes nothing" none annotation target-replicas
same "the template and the number of pods are as before" "$before" spec
check "only the annotation" timeshard scale-down store -n $ns --to 4 --no-wait
same "is set" 4 annotation target-replicas
check "it is taken back" timeshard scale-down store -n $ns --cancel
same "and gone" none annotation target-replicas
safe() { timeshard scale-down store -n $ns --to 4 --timeout 3m "${at_server[@]}" 2>/dev/null | tail -n 1; }
same "waiting ends with the command that is safe" "safe now: kubectl -n $ns scale statefulset store --replicas=4" safe
same "the pods are still there" 6 sh -c "kubectl -n $ns get statefulset store -o 'jsonpath={.spec.replicas}'"
check "with --scale it is run" timeshard scale-down store -n $ns --to 4 --scale --timeout 3m "${at_server[@]}"
same "so four pods are left" 4 sh -c "kubectl -n $ns get statefulset store -o 'jsonpath={.spec.replicas}'"
until_same 60 "and the server removes the annotation" none annotation target-replicas

# ---- through the API server's proxy -------------------------------------------------------------------------------------------
if (exec 3<>"/dev/tcp/$HOOK_IP/8080") 2>/dev/null || (exec 3<>"/dev/tcp/$HOOK_IP/8443") 2>/dev/null; then
  say "not here: ports 8080 and 8443 of $HOOK_IP, which a replica's pod needs, are in use"
else
  # a replica at the ports of a pod, with that pod; it leads nothing
  KUBECONFIG=$WORK/server.kubeconfig "$SERVER" serve --config "$WORK/config/config.yaml" --cert-dir "$WORK/tls" --no-refresher \
    --listen "$HOOK_IP:8443" --admin-listen "$HOOK_IP:8080" --probe-listen 127.0.0.1:0 --pod-name cli-server --pod-namespace "$SYSTEM" \
    </dev/null >"$WORK/cli/server.log" 2>&1 &
  pids+=($!)
  replica_ready() { http "$HOOK_IP" 8080 /readyz | grep '^HTTP/1.[01] 200'; }
  eventually 30 "a replica of the server is ready at a pod's ports" replica_ready
  kubectl -n "$SYSTEM" get deployment timeshard -o json |
    jq '{apiVersion: "v1", kind: "Pod", metadata: {name: "cli-server", labels: .spec.template.metadata.labels}, spec: .spec.template.spec}' |
    kubectl -n "$SYSTEM" create -f - >/dev/null
  kubectl -n "$SYSTEM" patch pod cli-server --subresource=status --type=merge \
    -p "{\"status\": {\"phase\": \"Running\", \"podIP\": \"$HOOK_IP\", \"podIPs\": [{\"ip\": \"$HOOK_IP\"}], \"conditions\": [{\"type\": \"Ready\", \"status\": \"True\"}]}}" >/dev/null
  until_same 30 "version finds the replica" '["cli-server","string"]' \
    sh -c "'$SERVER' version -o json 2>/dev/null | jq -c '.servers[] | select(.pod == \"cli-server\") | [.pod, (.version | type)]'"
  same "and Kubernetes" "$(kubectl version -o json | jq -r .serverVersion.gitVersion)" sh -c "'$SERVER' version -o json | jq -r .cluster.kubernetes"
  check "status through the proxy" timeshard status -A
  port=$((PORT_BASE + 48))
  "$SERVER" dashboard --no-open --port "$port" >"$WORK/cli/dashboard.log" 2>&1 &
  pids+=($!)
  page() { http 127.0.0.1 "$port" / | grep -F '<title>thanos-timeshard</title>'; }
  eventually 30 "the dashboard's URL answers with the page" page
  check "which it prints" grep -x "http://127.0.0.1:$port/" "$WORK/cli/dashboard.log"
  part() { http 127.0.0.1 "$port" "$1" | grep -F "$2"; }
  eventually 30 "with its script" part /page.js "fetch('events'"
  eventually 30 "with /status" part /status '"statefulsets"'
  # the stream goes on until its deadline, which is no failure
  lives() { { http 127.0.0.1 "$port" /events 2 || true; } | grep -F "$ns"; }
  eventually 60 "and with live events" lives
  code_of() { http 127.0.0.1 "$port" "$1" | sed -n '1s/^HTTP[^ ]* \([0-9]*\).*/\1/p'; }
  same "and no other path of the API server" 400 code_of /../../../secrets
fi

# ---- contexts -----------------------------------------------------------------------------------------------------------------
other=$WORK/cli/kubeconfig
kubectl config view --raw --flatten >"$other"
current=$(kubectl config current-context)
kubectl --kubeconfig "$other" config set-cluster nowhere --server=https://127.0.0.1:1 >/dev/null
kubectl --kubeconfig "$other" config set-context nowhere --cluster=nowhere --namespace=$ns >/dev/null
kubectl --kubeconfig "$other" config set-context here --cluster="$(kubectl config view -o json | jq -r --arg c "$current" '.contexts[] | select(.name == $c) | .context.cluster')" \
  --user="$(kubectl config view -o json | jq -r --arg c "$current" '.contexts[] | select(.name == $c) | .context.user')" --namespace=$ns >/dev/null
kubectl --kubeconfig "$other" config use-context nowhere >/dev/null
refused "an API server that does not answer is named with its context" "https://127.0.0.1:1 (context nowhere): " timeshard pause store --kubeconfig "$other"
check "--context chooses another one, with its namespace" timeshard pause store --kubeconfig "$other" --context here --dry-run
refused "a misspelt context gets the right one" "did you mean --context here?" timeshard status --kubeconfig "$other" --context her
refused "--request-timeout ends a request" "no answer within 1 ms" timeshard pause store --kubeconfig "$other" --context here --request-timeout 1ms

# ---- as a plugin ---------------------------------------------------------------------------------------------------------------
ln -sf "$SERVER" "$WORK/cli/kubectl-timeshard"
same "kubectl timeshard runs it" "$(timeshard version --client)" env PATH="$WORK/cli:$PATH" kubectl timeshard version --client
ln -sf "$SERVER" "$WORK/cli/kubectl_complete-timeshard"
completes() { PATH=$WORK/cli:$PATH kubectl __complete timeshard scale- 2>/dev/null | cut -f1 | head -n 1; }
same "kubectl completes its commands" scale-down completes
check "its help has that name" sh -c "PATH='$WORK/cli:$PATH' kubectl timeshard pause --help | grep -F 'Usage: kubectl timeshard pause'"
