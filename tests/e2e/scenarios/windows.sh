# shellcheck shell=bash
# a plain StatefulSet in a labelled namespace gets its windows; an unlabelled namespace is untouched; scaling 6 to 8
# stage: control-plane
ns=e2e-windows other=e2e-windows-unlabelled
namespace $ns "$ENABLED" "$RESTRICTED"
namespace $other "$RESTRICTED"
REPLICAS=6 POLICY=Parallel store_set $ns store
REPLICAS=6 POLICY=Parallel store_set $other store
until_same 30 "6 replicas: 6 pods with the windows of 3 shards, label, status annotation, sidecar and launcher" "$(planned store 6)" windows $ns
until_same 30 "unlabelled namespace: 6 pods, untouched" "$(for i in 0 1 2 3 4 5; do echo "store-$i untouched"; done)" windows $other
same "and nothing but the namespace's label made the difference" true jq -n --argjson a "$(pods $other | jq '.[0].spec.containers[0].args')" \
  --argjson b "$(pods $ns | jq '.[0].spec.containers[0].args')" '$b[:($a | length)] == $a and ($b | length) == ($a | length) + 2'
same "the launcher runs the image's thanos: everything after -- is the original command" thanos \
  jq -rn --argjson c "$(pods $ns | jq '.[0].spec.containers[0].command')" '$c[($c | index("--")) + 1:] | join(" ")'
same "the ConfigMap volume is optional, so a start never waits for it" true jq -n --argjson p "$(pods $ns | jq '.[0]')" \
  '$p.spec.volumes[] | select(.name == "timeshard-config") | .configMap.optional'
# an injected pod is admitted again unchanged: other webhooks make the API server call twice (reinvocationPolicy)
again=$(pods $ns | jq '.[0] | del(.status, .metadata.uid, .metadata.resourceVersion, .metadata.creationTimestamp, .metadata.managedFields, .metadata.generation) | .metadata.name = "store-100"')
twice() { echo "$again" | kubectl -n $ns create --dry-run=server -o json -f - | jq -S '[.spec, .metadata.labels, .metadata.annotations]'; }
same "an injected pod that is admitted again is not changed" "$(echo "$again" | jq -S '[.spec, .metadata.labels, .metadata.annotations]')" twice
kubectl -n $ns scale statefulset/store --replicas=8 >/dev/null
until_same 30 "8 replicas: the 2 surplus pods are extra replicas of the newest shard" "$(planned store 8)" windows $ns
