# shellcheck shell=bash
# timeshard check passes on a healthy installation, names each fault, passes after its repair, and works with few rights
# stage: control-plane
# server: --allow-local-pods
# Without kubelet: examples/stand-in-sidecars.rs marks every pod Ready, the server's included, and answers as sidecars do. The
# server is the process on this machine.
ns=e2e-check
stand_in=$(dirname "$SERVER")/examples/stand-in-sidecars
[ -x "$stand_in" ] || { bad "no $stand_in: build it with cargo build --example stand-in-sidecars"; exit 1; }
mkdir -p "$WORK/check"
cp "$WORK/tls/tls.crt" "$WORK/check/tls.crt.before"
kubectl get mutatingwebhookconfiguration timeshard -o json | jq 'del(.metadata.resourceVersion, .metadata.uid, .metadata.managedFields)' >"$WORK/check/webhook.json"
registered() { kubectl delete mutatingwebhookconfiguration timeshard --ignore-not-found >/dev/null && kubectl create -f "$WORK/check/webhook.json" >/dev/null; }
rights() { kubectl apply --server-side --force-conflicts -f "$CHECKOUT/deploy/base/clusterrole.yaml" >/dev/null; }
finish_check() { # in any case the next scenario finds everything restored
  kubectl -n "$SYSTEM" scale deployment timeshard --replicas=0 >/dev/null
  [ -z "${stand_in_pid-}" ] || kill "$stand_in_pid" 2>/dev/null || true
  cp "$WORK/check/tls.crt.before" "$WORK/tls/tls.crt"
  registered
  rights
  kubectl -n kube-system delete configmap coredns --ignore-not-found >/dev/null
  kubectl delete clusterrole/e2e-check-viewer clusterrole/timeshard-check clusterrolebinding/e2e-check --ignore-not-found >/dev/null
}
trap finish_check EXIT

# run_check ARGUMENT…: does not fail when a check fails
run_check() { "$SERVER" check "$@" || [ $? = 3 ]; }
at_server=(--server "http://127.0.0.1:$ADMIN_PORT")
# document ARGUMENT…: the JSON output of check, for any exit code
document() { run_check "${at_server[@]}" -n "$ns" -o json "$@" 2>/dev/null; }
# troubles: a line for each warning and failure
troubles() { document | jq -r '.checks[] | select(.result == "warn" or .result == "fail") | "\(.result) \(.id) \(.subject): \(.message)"'; }
# says RESULT ID SUBJECT PART [ARGUMENT…]: there is such a finding, with a hint
says() {
  local result=$1 id=$2 subject=$3 part=$4
  shift 4
  document "$@" | jq -e --arg result "$result" --arg id "$id" --arg subject "$subject" --arg part "$part" \
    '.checks[] | select(.id == $id and .subject == $subject and .result == $result and (.message | contains($part)) and .hint != "" and .url == "docs/checks.md#\($id)")'
}
# found WHAT RESULT ID SUBJECT PART
found() { eventually 60 "$1: $2 $3" says "${@:2}"; }
silent() { until_same 150 "$1: nothing is found any more" "" troubles; }

# ---- healthy ------------------------------------------------------------------------------------------------------------
namespace $ns "$ENABLED"
ulimit -n "$(ulimit -Hn)"
"$stand_in" "$ns" "$SYSTEM" >"$WORK/check/stand-in.log" 2>&1 &
stand_in_pid=$!
kubectl -n "$SYSTEM" scale deployment timeshard --replicas=2 >/dev/null
headless() { # NAME
  kubectl -n $ns create service clusterip "$1" --clusterip=None --tcp=10901 --dry-run=client -o json |
    jq '.spec.ports = [{name: "grpc", port: 10901}]' | kubectl -n $ns apply -f - >/dev/null
}
headless store
# default settings, except that queriers ask DNS often, so that the scenario is short
ANNOTATIONS='{"thanos-timeshard.io/drain": "35s", "thanos-timeshard.io/discovery-delay": "35s"}' POLICY=Parallel REPLICAS=6 store_set $ns store
asks() { # FLAG…: the querier's
  local flags
  flags=$(jq -cn '["query", "--endpoint=dnssrv+_grpc._tcp.store.e2e-check.svc.cluster.local"] + $ARGS.positional' --args -- "$@")
  ARGS=$flags REPLICAS=1 workload Deployment query | kubectl -n $ns apply -f - >/dev/null
}
asks --store.sd-dns-interval=5s
# the ConfigMap of a cluster's CoreDNS; this cluster's reads a file
corefile() { # CACHE: the line of that plugin
  printf '.:53 {\n    kubernetes cluster.local in-addr.arpa ip6.arpa {\n        ttl 30\n    }\n    %s\n    forward . /etc/resolv.conf\n}\n' "$1" |
    kubectl -n kube-system create configmap coredns --from-file=Corefile=/dev/stdin --dry-run=client -o json | kubectl apply -f - >/dev/null
}
corefile ''
until_same 180 "a healthy installation: no warning and no failure" "" troubles
code() { local rc=0; "$SERVER" check "${at_server[@]}" -n $ns >/dev/null 2>&1 || rc=$?; echo $rc; }
until_same 60 "the exit code is 0" 0 code
skips() { document | jq -r '.checks[] | select(.result == "skipped") | "\(.id): \(.message)"'; }
until_same 60 "and nothing is skipped but nodes, of which there are none" "node-kubelets: there are no nodes" skips
passes() { document | jq -r '[.checks[] | select(.result == "pass") | .id] | unique | length'; }
until_same 60 "42 checks pass, all that there are but those of --pre, of nodes and of shard Services" 42 passes
same "no colours without a terminal" "" sh -c "'$SERVER' check | grep -c \$'\\033' | grep -v '^0\$'"
text() { run_check "${at_server[@]}" -n $ns | grep -c -x -e api -e server -e configuration -e webhook -e namespaces -e statefulsets -e rollouts -e queriers; }
same "text has its 8 sections" 8 text

# ---- the webhook --------------------------------------------------------------------------------------------------------
kubectl delete mutatingwebhookconfiguration timeshard >/dev/null
found "the webhook is deleted" fail webhook-registered "" "no MutatingWebhookConfiguration"
until_same 60 "the exit code is 3" 3 code
eventually 60 "and admission shows it, too" says fail webhook-admission $ns "lacks sidecar"
registered
silent "it is registered again"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj "/CN=timeshard e2e CA" -keyout "$WORK/check/ca.key" -out "$WORK/check/ca.crt" 2>/dev/null
bundle() { kubectl patch mutatingwebhookconfiguration timeshard --type=json -p '[{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": "'"$1"'"}]' >/dev/null; }
bundle "$(base64 -w0 "$WORK/check/ca.crt")"
found "the caBundle is of another CA" fail webhook-certificate timeshard "not signed by a CA of the caBundle"
eventually 60 "and the API server says so itself" says fail webhook-admission $ns "cannot call the webhook"
bundle ""
found "the caBundle is empty" fail webhook-ca timeshard "it is empty"
bundle "$(base64 -w0 "$WORK/tls/ca.crt")"
silent "the caBundle is right again"

# a certificate of yesterday, from the same CA and for the same key
openssl req -new -key "$WORK/tls/tls.key" -subj "/CN=timeshard.$SYSTEM.svc" -out "$WORK/check/expired.csr"
mkdir -p "$WORK/check/ca"
: >"$WORK/check/ca/index.txt"
openssl ca -batch -notext -config <(printf '[ca]\ndefault_ca=x\n[x]\ndatabase=%s/index.txt\nnew_certs_dir=%s\nrand_serial=yes\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n' "$WORK/check/ca" "$WORK/check/ca") \
  -in "$WORK/check/expired.csr" -cert "$WORK/tls/ca.crt" -keyfile "$WORK/ca.key" -extfile "$WORK/tls.ext" \
  -startdate 20200101000000Z -enddate 20200201000000Z -out "$WORK/check/expired.crt" 2>"$WORK/check/openssl.log"
cp "$WORK/check/expired.crt" "$WORK/tls/tls.crt"
found "the served certificate has expired" fail webhook-certificate timeshard "has expired"
cp "$WORK/check/tls.crt.before" "$WORK/tls/tls.crt"
silent "it is renewed"

# ---- rights and namespaces ----------------------------------------------------------------------------------------------
kubectl get clusterrole timeshard -o json | jq '.rules |= map(select(.resources != ["pods/status"]))' | kubectl replace -f - >/dev/null
found "the server has lost a right" fail server-permissions "" "patch pods/status"
rights
silent "it has it again"

kubectl label namespace $ns thanos-timeshard.io/injection- >/dev/null
found "the namespace is not labelled" fail namespace-labels $ns "the namespace is not labelled"
left() { run_check -o json 2>/dev/null | jq -e --arg ns $ns '.checks[] | select(.id == "namespace-labels" and .subject == $ns and .result == "warn" and (.message | contains("ConfigMap store-time-shards")))'; }
eventually 30 "without -n the objects left there are found" left
kubectl label namespace $ns "$ENABLED" >/dev/null
silent "it is labelled again"

# ---- objects around the gateway ---------------------------------------------------------------------------------------
kubectl -n $ns create poddisruptionbudget users --selector=app=store --max-unavailable=1 >/dev/null
found "a PDB of others" warn statefulset-budgets $ns/store "users"
kubectl -n $ns create poddisruptionbudget others --selector=app=store --max-unavailable=1 >/dev/null
found "two of them: no pod can be evicted" fail statefulset-budgets $ns/store "evicts none of them"
evict() { jq -n '{apiVersion: "policy/v1", kind: "Eviction", metadata: {name: "store-0"}}' | kubectl create --raw "/api/v1/namespaces/$ns/pods/store-0/eviction?dryRun=All" -f -; }
refused "which is so" "more than one PodDisruptionBudget" evict
kubectl -n $ns delete poddisruptionbudget users others >/dev/null
silent "both are deleted"

kubectl -n $ns patch service store --type=merge -p '{"spec": {"publishNotReadyAddresses": true}}' >/dev/null
found "a Service publishes addresses that are not ready" warn statefulset-services $ns/store publishNotReadyAddresses
check "and a querier uses it" says fail querier-endpoints "deployment $ns/query" publishNotReadyAddresses
kubectl -n $ns patch service store --type=merge -p '{"spec": {"publishNotReadyAddresses": false}}' >/dev/null
silent "it names ready ones only"

asks --store.sd-dns-interval=2m
found "a querier asks DNS too seldom" fail querier-interval "deployment $ns/query" "every 2m"
asks --store.sd-dns-interval=5s
silent "it asks often"

corefile 'cache 30'
found "DNS caches answers of the cluster" warn discovery-periods $ns/store "within 44s (readiness 3s, EndpointSlice 1s, DNS cache 30s from the Corefile"
check "a given value counts more" says warn discovery-periods $ns/store "DNS cache 25s set by --dns-cache" --dns-cache=25s
kubectl -n kube-system delete configmap coredns >/dev/null
found "without a Corefile 30 s are assumed" warn discovery-periods $ns/store "DNS cache 30s assumed: there is no ConfigMap coredns"
corefile ''
silent "it does not cache them"

# ---- the StatefulSet ----------------------------------------------------------------------------------------------------
kubectl -n $ns annotate statefulset store thanos-timeshard.io/total-shards=many >/dev/null
found "an annotation is not valid" fail statefulset-annotations $ns/store '"many"'
kubectl -n $ns annotate statefulset store thanos-timeshard.io/total-shards- thanos-timeshard.io/total-shard=3 >/dev/null
found "one is misspelt" warn statefulset-annotations $ns/store "total-shard is unknown and has no effect"
kubectl -n $ns annotate statefulset store thanos-timeshard.io/total-shard- >/dev/null
silent "both are gone"

# another gateway without pods, so that its template can be changed
gone() { ! document | jq -e --arg id "$1" --arg subject "$2" '.checks[] | select(.id == $id and .subject == $subject and (.result == "warn" or .result == "fail"))'; }
REPLICAS=0 store_set $ns odd
headless odd
template() { kubectl -n $ns patch statefulset odd --type=json -p "$1" >/dev/null; }
container=/spec/template/spec/containers/0
template '[{"op": "add", "path": "'$container'/livenessProbe", "value": {"httpGet": {"path": "/-/ready", "port": 10902}}}]'
found "a liveness probe that kills a long load" fail statefulset-probes $ns/odd "/-/healthy"
template '[{"op": "replace", "path": "'$container'/livenessProbe/httpGet/path", "value": "/-/healthy"}]'
eventually 30 "it probes something else" gone statefulset-probes $ns/odd
template '[{"op": "add", "path": "'$container'/args/-", "value": "--min-time=-1d"}]'
found "time flags set by hand" warn statefulset-eligible $ns/odd "--min-time"
template '[{"op": "remove", "path": "'$container'/args/5"}]'
eventually 30 "they are removed" gone statefulset-eligible $ns/odd
template '[{"op": "add", "path": "'$container'/args/-", "value": "--sync-block-duration=2d"}]'
found "an overlap shorter than --sync-block-duration" fail statefulset-overlap $ns/odd "shorter than"
kubectl -n $ns scale statefulset odd --replicas=1 >/dev/null
found "replicas that do not fit" warn statefulset-replicas $ns/odd "1 pod for 3 shards"
kubectl -n $ns delete statefulset odd >/dev/null
kubectl -n $ns delete service odd >/dev/null
silent "that gateway is gone"

# ---- a configuration that is not applied yet ----------------------------------------------------------------------------
printf 'sharding: {overlap: 1s}\n' >"$WORK/check/config.yaml"
check "a local file is checked instead" says fail config-valid "$WORK/check/config.yaml" "config.yaml:1:" --config "$WORK/check/config.yaml"

# ---- few rights ---------------------------------------------------------------------------------------------------------
kubectl -n $ns create serviceaccount viewer >/dev/null
token=$(kubectl -n $ns create token viewer)
kubectl config view --raw -o json | jq --arg token "$token" '.users[0].user = {token: $token}' >"$WORK/check/viewer.kubeconfig"
as_viewer() { KUBECONFIG=$WORK/check/viewer.kubeconfig run_check "$@"; }
check "a user without any right gets an answer, and the exit code 0" env KUBECONFIG="$WORK/check/viewer.kubeconfig" "$SERVER" check
none() { as_viewer -o json | jq -r '"\([.checks[] | select(.result == "fail")] | length) failed, \([.checks[] | select(.result == "skipped" and (.message | startswith("no permission to")))] | length > 8)"'; }
same "nothing fails because of a missing right; missing rights are named" "0 failed, true" none
listed() { as_viewer -o json | jq -e '.checks[] | select(.id == "api-permissions" and .result == "warn" and (.message | contains("list namespaces") and contains("list mutatingwebhookconfigurations")))'; }
check "and listed once" listed
kubectl create clusterrole e2e-check-viewer --verb=list --resource=namespaces >/dev/null
kubectl create clusterrolebinding e2e-check --clusterrole=e2e-check-viewer --serviceaccount=$ns:viewer >/dev/null
seen_namespace() { as_viewer -o json 2>/dev/null | jq -r --arg ns $ns '.checks[] | select(.id == "namespace-labels" and .subject == $ns) | .result'; }
until_same 30 "with the right to list namespaces more is seen" pass seen_namespace
kubectl delete clusterrolebinding e2e-check >/dev/null
sed -n '/^```yaml$/,/^```$/p' "$CHECKOUT/docs/checks.md" | sed '/^```/d' | kubectl apply -f - >/dev/null
kubectl create clusterrolebinding e2e-check --clusterrole=timeshard-check --serviceaccount=$ns:viewer >/dev/null
documented() { as_viewer "${at_server[@]}" -n $ns -o json 2>/dev/null | jq -r '.checks[] | select(.id == "api-permissions" or .result == "warn" or .result == "fail") | "\(.result) \(.id)"'; }
until_same 30 "with the ClusterRole of docs/checks.md nothing is skipped for lack of rights" "pass api-permissions" documented
kubectl delete clusterrolebinding e2e-check >/dev/null

# ---- before an installation ---------------------------------------------------------------------------------------------
before() { run_check --pre -o json 2>/dev/null | jq -r '.checks[] | "\(.result) \(.id)"'; }
cert_manager=warn # unless an earlier scenario installed its CRDs
! kubectl get crd certificates.cert-manager.io >/dev/null 2>&1 || cert_manager=pass
until_same 60 "--pre: the checks before an installation" "pass api-reachable
pass api-version
pass api-clock
pass api-permissions
skipped node-kubelets
pass install-permissions
pass install-namespace
warn install-names
$cert_manager install-cert-manager" before
may_not() { as_viewer --pre -o json 2>/dev/null | jq -e '.checks[] | select(.id == "install-permissions" and .result == "fail" and (.message | contains("create clusterroles")))'; }
check "--pre: a user who may not install gets a finding" may_not

# ---- many, and waiting --------------------------------------------------------------------------------------------------
namespace $ns-many "$ENABLED"
REPLICAS=0 workload StatefulSet many | jq '. as $set | {apiVersion: "v1", kind: "List", items: [range(200) | "many-\(.)" as $name | $set | .metadata.name = $name]}' |
  kubectl -n $ns-many create -f - >/dev/null
seen() { run_check "${at_server[@]}" -n $ns-many -o json 2>/dev/null | jq '[.checks[] | select(.id == "statefulset-eligible" and .result == "pass")] | length'; }
t0=$(now_ms)
until_same 60 "200 StatefulSets are checked" 200 seen
took=$(seconds_since "$t0")
# CPU is time used, not time passed: only that is comparable on a busy machine
cpu=$({ TIMEFORMAT='%U %S'; time seen >/dev/null; } 2>&1 | awk '{ printf "%d", ($1 + $2) * 1000 }')
check "in $took s, with $cpu ms of CPU, of which 3 s are allowed" test "$cpu" -le 3000
bundle "$(base64 -w0 "$WORK/check/ca.crt")"
eventually 30 "broken again" says fail webhook-certificate timeshard ""
"$SERVER" check "${at_server[@]}" -n $ns --wait 5m >"$WORK/check/wait.log" 2>&1 &
waiting=$!
bundle "$(base64 -w0 "$WORK/tls/ca.crt")"
if wait $waiting; then ok "--wait ends with 0 once it is repaired"; else bad "--wait ended with $?: $(tail -n 1 "$WORK/check/wait.log")"; fi
