# shellcheck shell=bash
# the API server accepts deploy/ unchanged, and its ServiceAccount has exactly the rights that it needs
# stage: control-plane
render=$WORK/manifests.yaml
kubectl kustomize "$CHECKOUT/deploy/base" >"$render"
check "deploy/base: every object passes strict validation" kubectl apply --dry-run=server --validate=strict --server-side --force-conflicts -f "$render"
warnings() { kubectl apply --dry-run=server --server-side --force-conflicts -f "$render" 2>"$WORK/warnings" >/dev/null; cat "$WORK/warnings"; }
same "and none of them gets a warning (Pod Security restricted, deprecated fields)" "" warnings
check "deploy/cert-manager: renders" kubectl kustomize "$CHECKOUT/deploy/cert-manager"
kubectl kustomize "$CHECKOUT/deploy/self-signed" >"$render"
check "deploy/self-signed: every object passes strict validation" kubectl apply --dry-run=server --validate=strict --server-side --force-conflicts -f "$render"

who=system:serviceaccount:$SYSTEM:timeshard
# without the rights of every authenticated user
may() { kubectl auth can-i --list --as="$who" --namespace="$1" --no-headers | sed -n 's/^\([a-z][^ ]*\).*\[\([a-z ]*\)\]$/\1: \2/p' | grep -v ^selfsubject | LC_ALL=C sort; }
rights='configmaps: get list watch create patch
events.events.k8s.io: create patch
namespaces: list watch
poddisruptionbudgets.policy: list watch create update delete
pods/status: patch
pods: list watch
services: list watch create update delete
statefulsets.apps/status: patch
statefulsets.apps: list watch'
for n in default kube-system; do same "in namespace $n its rights are these, and no others" "$rights" may "$n"; done
lease() { may "$SYSTEM" | grep -v -x -F "$rights"; }
same "in its own namespace the Lease as well" 'leases.coordination.k8s.io: create
leases.coordination.k8s.io: get update' lease
refused "it cannot change a StatefulSet" Forbidden kubectl --as="$who" -n default patch statefulset x --type=merge -p '{}'
refused "so it cannot change a pod" Forbidden kubectl --as="$who" -n default run x --image=x --dry-run=server
refused "nor read a Secret" Forbidden kubectl --as="$who" -n "$SYSTEM" get secret timeshard-tls

hook() { kubectl get mutatingwebhookconfiguration timeshard -o json | jq -r ".webhooks | length as \$n | .[0] | \"\\(\$n) \\(.failurePolicy) \\(.timeoutSeconds) \\(.sideEffects) \\(.reinvocationPolicy) \\(.matchPolicy) \\(.clientConfig.service.path) \\(.rules[0].operations | join(\",\")) \\(.rules[0].resources | join(\",\"))\""; }
same "one webhook: failurePolicy, timeout, side effects, reinvocation, match policy, path and rule as they must be" \
  "1 Fail 5 NoneOnDryRun IfNeeded Equivalent /mutate CREATE pods" hook
guard() { kubectl get validatingwebhookconfiguration timeshard -o json | jq -r ".webhooks | length as \$n | .[0] | \"\\(\$n) \\(.failurePolicy) \\(.timeoutSeconds) \\(.sideEffects) \\(.matchPolicy) \\(.clientConfig.service.path)\" + ([.rules[] | \" \\(.operations | join(\",\")) \\(.resources | join(\",\"))\"] | join(\"\"))"; }
same "one guard, which blocks nothing else: failurePolicy, timeout, side effects, match policy, path and rules as they must be" \
  "1 Ignore 2 None Equivalent /guard CREATE,UPDATE,DELETE statefulsets UPDATE statefulsets/scale" guard
