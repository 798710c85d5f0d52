# shellcheck shell=bash
# a pod near the object size limit (etcd takes requests of up to 1.5 MiB)
# stage: control-plane
ns=e2e-large
namespace $ns "$ENABLED"
env=$(jq -n '[range(1100) | {name: "PADDING_\(.)", value: ("x" * 1000)}]')
# the list is too long for an argument
large() { workload StatefulSet store | jq --slurpfile env <(echo "$env") '.spec.template.spec.containers[0].env = $env[0]'; }
REPLICAS=6 POLICY=Parallel large | kubectl -n $ns create -f - >/dev/null
until_same 30 "6 pods of it are injected" "$(planned store 6)" windows $ns
size=$(kubectl -n $ns get pod store-0 -o json | jq -c 'del(.status)' | wc -c)
check "they are large: $((size / 1024)) KiB of JSON" test "$size" -gt 1048576
same "with all of their environment" 1100 sh -c "kubectl -n $ns get pod store-0 -o json | jq '.spec.containers[0].env | length'"
