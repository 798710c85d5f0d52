# shellcheck shell=bash disable=SC2154
# deploy/ is accepted by the API server as it is, and its ServiceAccount may do exactly what it needs
# stage: control-plane
render=$WORK/manifests.yaml
kubectl kustomize "$CHECKOUT/deploy/base" >"$render"
check "deploy/base: every object passes strict validation" kubectl apply --dry-run=server --validate=strict --server-side --force-conflicts -f "$render"
warnings() { kubectl apply --dry-run=server --server-side --force-conflicts -f "$render" 2>&1 >/dev/null; }
same "and none of them gets a warning (Pod Security restricted, deprecated fields)" "" warnings
check "deploy/cert-manager: renders" kubectl kustomize "$CHECKOUT/deploy/cert-manager"

who=system:serviceaccount:$SYSTEM:timeshard
may() { # VERB RESOURCE
  kubectl auth can-i "$1" "$2" --as=$who --all-namespaces
}
for r in namespaces statefulsets.apps configmaps; do
  same "may list $r" yes may list $r
  same "may watch $r" yes may watch $r
done
same "may create Events" yes may create events.events.k8s.io
same "may patch Events" yes may patch events.events.k8s.io
denied=''
for v in get list watch create update patch delete deletecollection; do
  for r in pods pods/status pods/exec secrets configmaps statefulsets.apps deployments.apps namespaces nodes leases.coordination.k8s.io \
    poddisruptionbudgets.policy mutatingwebhookconfigurations.admissionregistration.k8s.io clusterroles.rbac.authorization.k8s.io serviceaccounts/token; do
    case "$v $r" in "list configmaps" | "watch configmaps" | "list statefulsets.apps" | "watch statefulsets.apps" | "list namespaces" | "watch namespaces") continue ;; esac
    [ "$(may "$v" "$r" 2>/dev/null)" = no ] || denied+=" $v:$r"
  done
done
same "may do nothing else with pods, Secrets, workloads, RBAC or webhooks" "" echo "$denied"

hook() { kubectl get mutatingwebhookconfiguration timeshard -o json | jq -r ".webhooks | length as \$n | .[0] | \"\\(\$n) \\(.failurePolicy) \\(.timeoutSeconds) \\(.sideEffects) \\(.reinvocationPolicy) \\(.matchPolicy) \\(.clientConfig.service.path) \\(.rules[0].operations | join(\",\")) \\(.rules[0].resources | join(\",\"))\""; }
same "one webhook: failurePolicy, timeout, side effects, reinvocation, match policy, path and rule as they must be" \
  "1 Fail 5 NoneOnDryRun IfNeeded Equivalent /mutate CREATE pods" hook
