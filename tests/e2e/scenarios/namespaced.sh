# shellcheck shell=bash
# deploy/components/namespaced: rights in the named namespaces suffice there, and a label without a Role is reported and blocks nothing
# stage: control-plane
# The namespace e2e-probe of every run is also labelled and not named.
ns=e2e-namespaced closed=e2e-namespaced-closed outside=e2e-namespaced-outside
# shellcheck source=../everything.sh
. "$CHECKOUT/tests/e2e/everything.sh"
folder=$E2E_DIR/overlays/namespaced
mkdir -p "$folder/gateways"
deploy=$(realpath --relative-to="$folder" "$CHECKOUT/deploy")
# as in deploy/examples/namespaced, for this namespace and one whose Role is missing
sed "s#team-a#$ns#g; s#\.\./\.\./\.\./#../$deploy/#" "$CHECKOUT/deploy/examples/namespaced/team-a/kustomization.yaml" >"$folder/gateways/kustomization.yaml"
sed -e "s#\.\./\.\./cert-manager#../../stages/control-plane#; s#^- team-a\$#- gateways#; /^- team-b\$/d; s#\.\./\.\./components#$deploy/components#; s#team-a, *team-b#$ns,$closed#g" \
  "$CHECKOUT/deploy/examples/namespaced/kustomization.yaml" >"$folder/kustomization.yaml"
back() {
  no_stand_in
  kubectl delete namespace $closed $outside --ignore-not-found --wait=false >/dev/null
  server_stop
  SERVER_FLAGS=''
  register control-plane # with the ClusterRole of deploy/base
}
trap back EXIT
server_stop
# Those that other scenarios left are being deleted.
labelled() { kubectl get namespaces -l "$ENABLED" -o name | grep -vxE "namespace/($ns|$closed|$outside)"; }
until_same 120 "no other labelled namespace is left" namespace/e2e-probe labelled
for n in $ns $closed $outside; do namespace "$n" "$ENABLED"; done
kubectl kustomize "$folder" >"$WORK/namespaced.yaml"
# everything recreates $ns
jq_roles() { kubectl create --dry-run=client --validate=false -o json -f "$WORK/namespaced.yaml" | jq -s --arg ns "$ns" '{apiVersion: "v1", kind: "List", items: [.[] | (.items[]? // .) | select(.metadata.namespace == $ns)]}'; }
jq_roles >"$WORK/namespaced-roles.json"
check "the overlay is accepted" kubectl apply --server-side --force-conflicts --validate=strict -f "$WORK/namespaced.yaml"
for s in $closed $outside; do REPLICAS=1 store_set "$s" store; done
after_namespace() { kubectl apply --server-side --force-conflicts -f "$WORK/namespaced-roles.json" >/dev/null; }
SERVER_FLAGS="--namespaces=$ns,$closed --allow-local-pods"
everything
granted() { { kubectl get clusterrole timeshard -o json; kubectl -n "$SYSTEM" get role timeshard -o json; kubectl -n $ns get role timeshard-gateways -o json; } | rules; }
same "every right was used, and no other" "$(granted)" called allow
wide() {
  jq -r --argjson from "$from" '
    (.requestReceivedTimestamp | ((.[:19] + "Z" | fromdate) * 1000 + (.[20:23] | tonumber))) as $at
    | select($at >= $from and .objectRef.resource and (.objectRef.namespace // "") == "" and (.objectRef.apiGroup // "") != "authorization.k8s.io")
    | "\(.verb) \(.objectRef.resource)"' "$STATE/log/audit.json" | LC_ALL=C sort -u
}
same "its only cluster-wide request is for namespaces" $'list namespaces\nwatch namespaces' wide
# A namespace exists and is labelled shortly before its Role exists.
elsewhere() {
  jq -r --argjson from "$from" --arg closed "$closed" '
    (.requestReceivedTimestamp | ((.[:19] + "Z" | fromdate) * 1000 + (.[20:23] | tonumber))) as $at
    | select($at >= $from and .annotations["authorization.k8s.io/decision"] and .objectRef.resource and .objectRef.namespace != $closed)
    | "\(.annotations["authorization.k8s.io/decision"]) \(.verb) \(.objectRef.resource) \(.objectRef.namespace)"' "$STATE/log/audit.json" |
    LC_ALL=C sort -u | awk '{ call = $2 " " $3 " " $4 } $1 == "allow" { allowed[call] = 1 } $1 == "forbid" && !(call in allowed) { print call }'
}
same "and was refused nowhere but in the namespace without a Role" "" elsewhere

lacking() { admin /status | sed '1,/^\r$/d' | jq -c '.namespaces_without_rights | keys'; }
until_same 60 "the namespaces without rights are on /status" "[\"$closed\",\"$outside\",\"e2e-probe\"]" lacking
until_same 30 "and counted" 3 metric timeshard_namespaces_without_rights
logged() { grep 'no rights in a labelled namespace' "$WORK/server.log" | grep -c "namespace=\"\?$1"; }
for n in $closed $outside; do until_same 30 "$n is in the log once" 1 logged "$n"; done
reported() { kubectl -n "$SYSTEM" get events.events.k8s.io -o json | jq -r '[.items[] | select(.reason == "NoRights") | .related.name] | unique | join(" ")'; }
until_same 30 "and Events on the server's pod name them" "$closed $outside e2e-probe" reported
check_says() { { "$SERVER" check --server "http://127.0.0.1:$ADMIN_PORT" -o json 2>/dev/null || [ $? = 3 ]; } | jq -r '[.checks[] | select(.id == "namespace-rights" and .result == "fail") | .subject] | sort | join(" ")'; }
until_same 30 "timeshard check names them" "$closed $outside e2e-probe" check_says
rate() { jq -r --argjson from "$(($(now_ms) - 20000))" --arg ns "$closed" '(.requestReceivedTimestamp | ((.[:19] + "Z" | fromdate) * 1000 + (.[20:23] | tonumber))) as $at | select($at >= $from and .objectRef.namespace == $ns) | .auditID' "$STATE/log/audit.json" | sort -u | wc -l; }
n=$(rate)
check "it asks there again with back-off: $n requests in 20 s, for 6 watches" test "$n" -le 20
silent_window() { dry_window "$@" 2>/dev/null; }
same "a gateway in the namespace without a Role is admitted as it is" "probe-0 untouched" silent_window $closed store probe-0
warning() { member $closed store probe-0 | kubectl -n $closed create --dry-run=server -o name -f - 2>"$WORK/warning" >/dev/null; cat "$WORK/warning"; }
check "with a warning that gives the reason" grep -q 'the server has no rights in this namespace' <(warning)
server_stop
same "while no server answers, a pod outside does not wait" "probe-0 untouched" dry_window $outside store probe-0
server_start
eventually 90 "the server is ready again" server_ready
sed "s/\"$ns\"/\"$closed\"/g" "$WORK/namespaced-roles.json" | kubectl apply --server-side -f - >/dev/null
known_there() { dry_window $closed store probe-0 | grep shard=0; }
eventually 60 "with a Role the server manages it, without a restart" known_there
until_same 10 "and is no longer reported" "[\"$outside\",\"e2e-probe\"]" lacking
