# shellcheck shell=bash
# the sidecar does not get the token of the pod's ServiceAccount, which the API server gives to every other container
# stage: control-plane
ns=e2e-token
namespace $ns "$ENABLED" "$RESTRICTED"
REPLICAS=1 store_set $ns store
# mounts: by container, the volume at the token's path
at_path='.volumeMounts[] | select(.mountPath == "/var/run/secrets/kubernetes.io/serviceaccount") | .name | sub("kube-api-access-.*"; "token")'
mounts() { jq -r "[(.spec.initContainers[]?, .spec.containers[]) | \"\\(.name) \\([$at_path] | join(\",\"))\"] | join(\", \")"; }
of_pod_0() { kubectl -n $ns get pod store-0 -o json | mounts; }
until_same 60 "thanos has the token, the sidecar the windows in its place" "config-sidecar timeshard-config, thanos token" of_pod_0
# again JQ: a dry run with a copy of the running pod, changed by JQ
again() {
  kubectl -n $ns get pod store-0 -o json |
    jq "{apiVersion, kind, metadata: {name: \"store-7\", labels: .metadata.labels, annotations: .metadata.annotations, ownerReferences: .metadata.ownerReferences}, spec: (.spec | del(.nodeName))} | $1" |
    kubectl -n $ns create --dry-run=server -o json -f -
}
copied() { again "$1" | mounts; }
same "a copy of it is injected already" "config-sidecar timeshard-config, thanos token" copied .
sidecar='(.spec.initContainers[] | select(.name == "config-sidecar") | .volumeMounts)'
same "one whose sidecar lost the mount gets it back, and no token" "config-sidecar timeshard-config, thanos token" \
  copied "$sidecar |= map(select(.mountPath | contains(\"serviceaccount\") | not))"
token='(.spec.volumes[] | select(.name | startswith("kube-api-access")) | .name) as $token'
same "and one whose sidecar has the token, as earlier versions made it, loses it" "config-sidecar timeshard-config, thanos token" \
  copied "$token | $sidecar |= map(if .mountPath | contains(\"serviceaccount\") then .name = \$token else . end)"
same "a pod that wants no token gets none" "config-sidecar timeshard-config, thanos " copied '.spec.automountServiceAccountToken = false | .spec.volumes |= map(select(.name | startswith("kube-api-access") | not)) | .spec.containers[].volumeMounts |= map(select(.mountPath | contains("serviceaccount") | not))'
