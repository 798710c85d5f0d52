# shellcheck shell=bash
# with deploy/components/policy a server can do all its work, and anyone with its token is refused everything else
# stage: control-plane
# server: --allow-local-pods
ns=e2e-policy other=e2e-policy-unlabelled
if [ "$(minor)" -lt 30 ]; then ok "Kubernetes before 1.30 has no ValidatingAdmissionPolicy: nothing to try"; exit 0; fi
# shellcheck source=../everything.sh
. "$CHECKOUT/tests/e2e/everything.sh"
policies=$CHECKOUT/deploy/components/policy/policies.yaml
who=system:serviceaccount:$SYSTEM:timeshard
back() {
  no_stand_in
  [ -n "${E2E_POLICY-}" ] || kubectl delete -f "$policies" --ignore-not-found >/dev/null
  kubectl delete -f "$CHECKOUT/deploy/self-signed/rights.yaml" --ignore-not-found >/dev/null
  kubectl delete namespace $other --ignore-not-found --wait=false >/dev/null
  kubectl delete clusterrole/e2e-policy clusterrolebinding/e2e-policy --ignore-not-found >/dev/null
  kubectl -n "$SYSTEM" delete configmap e2e-policy-probe --ignore-not-found >/dev/null
  server_start
}
trap back EXIT
check "the policies pass strict validation" kubectl apply --server-side --validate=strict -f "$policies"
# With the additional rights of --self-signed, because policies limit them too.
kubectl apply -f "$CHECKOUT/deploy/self-signed/rights.yaml" >/dev/null
as_server() { kubectl --as="$who" "$@"; }
# object KIND NAMESPACE NAME REST: as JSON; REST is merged into it
object() { jq -n --arg kind "$1" --arg ns "$2" --arg name "$3" --argjson rest "$4" '{apiVersion: (if $kind == "PodDisruptionBudget" then "policy/v1" else "v1" end), kind: $kind, metadata: {name: $name, namespace: $ns}} * $rest'; }
# creates KIND NAMESPACE NAME REST: as the server, as a dry run, which policies cover too
creates() { object "$@" | as_server create --dry-run=server -f -; }
in_force() { ! creates ConfigMap "$SYSTEM" e2e-policy-probe '{}' 2>"$WORK/refusal" && grep -q "timeshard-configmaps" "$WORK/refusal"; }
eventually 30 "they are in force" in_force
checked() { kubectl get validatingadmissionpolicies -l app.kubernetes.io/name=thanos-timeshard -o json | jq -r '.items[] | select(.status.observedGeneration == null) | .metadata.name'; }
until_same 30 "their expressions are type-checked" "" checked
warned() { kubectl get validatingadmissionpolicies -l app.kubernetes.io/name=thanos-timeshard -o json | jq -r '.items[] | .metadata.name as $n | .status.typeChecking.expressionWarnings[]? | "\($n) \(.fieldRef): \(.warning)"'; }
same "without a warning" "" warned

# ---- the server's own writes pass ----------------------------------------------------------------------------------------
log_from=$(wc -l <"$WORK/server.log")
everything
refusals() { tail -n "+$((log_from + 1))" "$WORK/server.log" | grep -c 'ValidatingAdmissionPolicy'; }
same "no policy refused any of the server's writes" 0 refusals
same "nor does the audit log have a write of it that was refused as forbidden or invalid" "" answered 422
same "or forbidden" "" answered 403
writes() { called allow | grep -E '^(create|update|patch|delete) ' | paste -sd' ' | sed 's/ \([a-z]*\) /, \1 /g; s/^\([a-z]*\), /\1 /'; }
say "it wrote: $(called allow | grep -E '^(create|update|patch|delete) ' | paste -sd, )"
adopts() { called allow | grep -cE '^(create|patch) configmaps|^patch (pods|statefulsets)/status|^(create|update|delete) (poddisruptionbudgets|services)|^(create|patch) events'; }
same "every kind of write that gateways need was among them" 12 adopts
kubectl label namespace $ns "$ENABLED" >/dev/null

# ---- other writes with its token are refused ----------------------------------------------------------------------------
# kubectl reads objects before it patches and replaces them, and the server has no right to that.
kubectl create clusterrole e2e-policy --verb=get --resource=pods,pods/status,statefulsets,statefulsets.apps/status,services,poddisruptionbudgets >/dev/null
kubectl create clusterrolebinding e2e-policy --clusterrole=e2e-policy --serviceaccount="$SYSTEM:timeshard" >/dev/null
# denied WHAT POLICY COMMAND…: that policy denies it
denied() { refused "$1" "ValidatingAdmissionPolicy 'timeshard-$2'" "${@:3}"; }
kubectl create namespace $other >/dev/null
uid=$(kubectl -n $ns get statefulset store -o 'jsonpath={.metadata.uid}')
owned=$(jq -cn --arg uid "$uid" '{metadata: {labels: {"app.kubernetes.io/managed-by": "thanos-timeshard"}, ownerReferences: [{apiVersion: "apps/v1", kind: "StatefulSet", name: "store", uid: $uid, controller: false, blockOwnerDeletion: false}]}}')
with() { jq -cn --argjson a "$owned" --argjson b "$1" '$a * $b'; }
without() { jq -c "del($1)" <<<"$owned"; }
entries='{"data": {"store-0.yaml": "shard: 0"}}'

check "a ConfigMap as the server makes it passes" creates ConfigMap $ns new-time-shards "$(with "$entries")"
denied "one in an unlabelled namespace" configmaps creates ConfigMap $other new-time-shards "$(with "$entries")"
denied "one in kube-system" configmaps creates ConfigMap kube-system new-time-shards "$(with "$entries")"
denied "one in the server's own namespace" configmaps creates ConfigMap "$SYSTEM" new-time-shards "$(with "$entries")"
denied "one without our label" configmaps creates ConfigMap $ns new-time-shards "$(without .metadata.labels)"
denied "one of another name" configmaps creates ConfigMap $ns application-settings "$(with "$entries")"
denied "one without an owner" configmaps creates ConfigMap $ns new-time-shards "$(without .metadata.ownerReferences)"
denied "one that belongs to a Deployment" configmaps creates ConfigMap $ns new-time-shards "$(with '{"metadata": {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "x", "uid": "u"}]}}')"
denied "one with another file" configmaps creates ConfigMap $ns new-time-shards "$(with '{"data": {"application.properties": "x"}}')"
denied "one with a finalizer" configmaps creates ConfigMap $ns new-time-shards "$(with '{"metadata": {"finalizers": ["example.com/x"]}}')"
kubectl -n $ns create configmap mine-time-shards --from-literal=mine=yes >/dev/null
take='{"metadata": {"labels": {"app.kubernetes.io/managed-by": "thanos-timeshard"}}}'
denied "changing a ConfigMap of others" configmaps as_server -n $ns patch configmap mine-time-shards --dry-run=server --type=merge -p '{"data": {"mine": "no"}}'
denied "and taking it over" configmaps as_server -n $ns patch configmap mine-time-shards --dry-run=server --type=merge -p "$take"
denied "and allowing oneself to" configmaps as_server -n $ns patch configmap mine-time-shards --dry-run=server --type=merge -p '{"metadata": {"annotations": {"thanos-timeshard.io/adopt": "true"}, "labels": {"app.kubernetes.io/managed-by": "thanos-timeshard"}}}'
denied "a change of the cluster's own ConfigMap" configmaps as_server -n $ns patch configmap kube-root-ca.crt --dry-run=server --type=merge -p '{"data": {"ca.crt": "x"}}'
denied "removing the label of timeshard's ConfigMap" configmaps as_server -n $ns patch configmap store-time-shards --dry-run=server --type=merge -p '{"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}}'
check "an annotation on timeshard's ConfigMap passes" as_server -n $ns patch configmap store-time-shards --dry-run=server --type=merge -p '{"metadata": {"annotations": {"thanos-timeshard.io/single-holders": "{}"}}}'

shard='{"spec": {"selector": {"matchLabels": {"app": "store", "thanos-timeshard.io/shard": "0"}}, "minAvailable": 1}}'
check "a PDB as the server makes it passes" creates PodDisruptionBudget $ns x-shard-0 "$(with "$shard")"
denied "one without an owner" budgets creates PodDisruptionBudget $ns x-shard-0 "$(jq -c 'del(.metadata.ownerReferences)' <<<"$(with "$shard")")"
denied "one without our label" budgets creates PodDisruptionBudget $ns x-shard-0 "$(jq -c 'del(.metadata.labels)' <<<"$(with "$shard")")"
denied "one of all pods, which would hold up every drain" budgets creates PodDisruptionBudget $ns x-shard-0 "$(with '{"spec": {"selector": {}, "maxUnavailable": 0}}')"
denied "one of another program" budgets creates PodDisruptionBudget $ns x-shard-0 "$(with '{"spec": {"selector": {"matchLabels": {"app": "prometheus"}}, "maxUnavailable": 0}}')"
denied "one in an unlabelled namespace" budgets creates PodDisruptionBudget $other x-shard-0 "$(with "$shard")"
kubectl -n $ns create poddisruptionbudget theirs --selector=app=prometheus --min-available=1 >/dev/null
denied "deleting a PDB of others" budgets as_server -n $ns delete poddisruptionbudget theirs --dry-run=server
put() { kubectl -n $ns get "$1" "$2" -o json | jq "$3" | as_server -n $ns replace --dry-run=server -f -; }
denied "changing it" budgets put poddisruptionbudget theirs '.spec.minAvailable = 0'
denied "and taking it over" budgets put poddisruptionbudget theirs "$(jq -c . <<<"$owned") as \$o | . * \$o"

headless='{"spec": {"clusterIP": "None", "selector": {"app": "store", "thanos-timeshard.io/shard": "0"}, "ports": [{"name": "grpc", "port": 10901}]}}'
check "a Service as the server makes it passes" creates Service $ns x-shard-0 "$(with "$headless")"
denied "one that selects another program" services creates Service $ns x-shard-0 "$(with '{"spec": {"clusterIP": "None", "selector": {"app": "prometheus"}, "ports": [{"port": 80}]}}')"
denied "one of another name" services creates Service $ns alertmanager "$(with "$headless")"
denied "one with an external address (CVE-2020-8554)" services creates Service $ns x-shard-0 "$(with "$(jq -c '.spec.externalIPs = ["203.0.113.1"]' <<<"$headless")")"
denied "one on every node" services creates Service $ns x-shard-0 "$(with "$(jq -c 'del(.spec.clusterIP) | .spec.type = "NodePort"' <<<"$headless")")"
denied "one that is another name for a host" services creates Service $ns x-shard-0 "$(with '{"spec": {"type": "ExternalName", "externalName": "example.com"}}')"
denied "one without an owner" services creates Service $ns x-shard-0 "$headless"
denied "one in an unlabelled namespace" services creates Service $other x-shard-0 "$(with "$headless")"
kubectl -n $ns create service clusterip theirs --tcp=80 >/dev/null
denied "changing a Service of others" services put service theirs '.spec.selector = {"app": "store"}'
denied "deleting the API server's" services as_server -n default delete service kubernetes --dry-run=server
denied "and those of others" services as_server -n $ns delete service theirs --dry-run=server

status() { as_server -n "$1" patch "$2" "$3" --subresource=status --dry-run=server --type=merge -p "$4"; }
pod=store-0
check "the annotation that makes kubelet sync passes" status $ns pod $pod '{"metadata": {"annotations": {"thanos-timeshard.io/hurried": "now"}}}'
check "and another shard's label" status $ns pod $pod '{"metadata": {"labels": {"thanos-timeshard.io/shard": "1"}}}'
denied "another address of a pod" pods status $ns pod $pod '{"status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}}'
denied "a pod's Ready" pods status $ns pod $pod '{"status": {"conditions": [{"type": "Ready", "status": "False"}]}}'
denied "a pod's phase" pods status $ns pod $pod '{"status": {"phase": "Failed"}}'
denied "another label of a pod" pods status $ns pod $pod '{"metadata": {"labels": {"app": "prometheus"}}}'
denied "a pod without a label" pods status $ns pod $pod '{"metadata": {"labels": {"app": null}}}'
denied "another annotation of a pod" pods status $ns pod $pod '{"metadata": {"annotations": {"example.com/x": "y"}}}'
denied "a finalizer on a pod" pods status $ns pod $pod '{"metadata": {"finalizers": ["example.com/x"]}}'
plain() { kubectl -n "$1" run plain --image=x --restart=Never >/dev/null; }
plain $ns
plain $other
denied "a pod that is not injected" pods status $ns pod plain '{"metadata": {"annotations": {"thanos-timeshard.io/hurried": "now"}}}'
denied "a pod elsewhere" pods status $other pod plain '{"metadata": {"annotations": {"thanos-timeshard.io/hurried": "now"}}}'

kubectl -n $ns annotate statefulset store thanos-timeshard.io/target-replicas=5 example.com/keep=x >/dev/null
check "removing a target passes" status $ns statefulset store '{"metadata": {"annotations": {"thanos-timeshard.io/target-replicas": null}}}'
denied "setting one" statefulsets status $ns statefulset store '{"metadata": {"annotations": {"thanos-timeshard.io/target-replicas": "1"}}}'
denied "another annotation of a StatefulSet" statefulsets status $ns statefulset store '{"metadata": {"annotations": {"thanos-timeshard.io/guard": "off"}}}'
denied "removing another one" statefulsets status $ns statefulset store '{"metadata": {"annotations": {"example.com/keep": null}}}'
denied "a StatefulSet's labels" statefulsets status $ns statefulset store '{"metadata": {"labels": {"app": "x"}}}'
denied "its finalizers" statefulsets status $ns statefulset store '{"metadata": {"finalizers": ["example.com/x"]}}'
denied "its owners, so that it would be collected" statefulsets status $ns statefulset store '{"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "gone"}]}}'
denied "its status" statefulsets status $ns statefulset store '{"status": {"readyReplicas": 0, "availableReplicas": 0}}'
REPLICAS=0 store_set $other elsewhere
denied "a StatefulSet elsewhere" statefulsets status $other statefulset elsewhere '{"metadata": {"annotations": {"thanos-timeshard.io/target-replicas": null}}}'

event() { jq -n --arg ns "$1" --arg by "$2" '{apiVersion: "events.k8s.io/v1", kind: "Event", metadata: {generateName: "x", namespace: $ns}, eventTime: "2026-01-01T00:00:00.000000Z",
  reportingController: $by, reportingInstance: "x", action: "x", reason: "x", type: "Normal", regarding: {kind: "StatefulSet", name: "store", namespace: $ns}}' | as_server create --dry-run=server -f -; }
check "an Event of timeshard passes" event $ns thanos-timeshard
denied "one in another's name" events event $ns kubelet
denied "one elsewhere" events event $other thanos-timeshard

secret() { jq -n --arg name "$1" --arg type "$2" '{apiVersion: "v1", kind: "Secret", type: $type, metadata: {name: $name, namespace: "'"$SYSTEM"'"}, data: {"tls.crt": "", "tls.key": ""}}' | as_server create --dry-run=server -f -; }
kubectl -n "$SYSTEM" delete secret timeshard-self-signed --ignore-not-found >/dev/null
check "the Secret of --self-signed passes" secret timeshard-self-signed kubernetes.io/tls
denied "another Secret" secrets secret another kubernetes.io/tls
token() { jq -n '{apiVersion: "v1", kind: "Secret", type: "kubernetes.io/service-account-token", metadata: {name: "timeshard-self-signed", namespace: "'"$SYSTEM"'", annotations: {"kubernetes.io/service-account.name": "default"}}}' | as_server create --dry-run=server -f -; }
denied "a Secret that would be filled with a token of another ServiceAccount" secrets token
lease() { jq -n --arg name "$1" '{apiVersion: "coordination.k8s.io/v1", kind: "Lease", metadata: {name: $name, namespace: "'"$SYSTEM"'"}}' | as_server create --dry-run=server -f -; }
denied "another Lease" leases lease another
for kind in mutating validating; do
  hook=${kind}webhookconfiguration
  registration() { kubectl get "$hook" timeshard -o json | jq "$1" | as_server patch "$hook" timeshard --dry-run=server --type=merge --patch-file /dev/stdin; }
  check "the caBundle of the $kind registration passes" registration '{webhooks: [.webhooks[] | .clientConfig.caBundle = "'"$(base64 -w0 "$WORK/tls/ca.crt")"'"]}'
  denied "its rules" $kind-registration registration '{webhooks: [.webhooks[] | .rules[0].resources = ["secrets"]]}'
  denied "its namespaces" $kind-registration registration '{webhooks: [.webhooks[] | .namespaceSelector = {}]}'
  denied "its conditions" $kind-registration registration '{webhooks: [.webhooks[] | del(.matchConditions)]}'
  denied "another address" $kind-registration registration '{webhooks: [.webhooks[] | .clientConfig = {url: "https://example.com/"}]}'
  denied "another Service" $kind-registration registration '{webhooks: [.webhooks[] | .clientConfig.service.namespace = "default"]}'
  denied "its failurePolicy" $kind-registration registration '{webhooks: [.webhooks[] | .failurePolicy = (if .failurePolicy == "Fail" then "Ignore" else "Fail" end)]}'
  denied "one webhook more" $kind-registration registration '{webhooks: (.webhooks + [.webhooks[0] | .name = "more.example.com"])}'
  denied "none" $kind-registration registration '{webhooks: []}'
  denied "its labels" $kind-registration registration '{metadata: {labels: {x: "y"}}}'
done
check "other users are not restricted" kubectl -n $ns label --dry-run=server statefulset store example.com/x=y
