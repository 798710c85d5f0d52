# shellcheck shell=bash
# while the webhook is down store gateways wait, and start once it is back; everything else starts
# stage: node
ns=e2e-webhook-down other=e2e-webhook-down-unlabelled
namespace $ns "$ENABLED" "$RESTRICTED"
namespace $other "$RESTRICTED"
server_stop
refuses() { ! (exec 3<>"/dev/tcp/$HOOK_IP/$HOOK_PORT"); }
eventually 10 "nothing answers on the webhook's port" refuses
REPLICAS=6 POLICY=Parallel store_set $ns store
export REPLICAS=2
IMG=$BUSYBOX COMMAND='["sleep"]' ARGS='["3600"]' READY='{}' store_set $ns prometheus
POD_LABELS='{"thanos-timeshard.io/inject": "false"}' store_set $ns out-by-label
POD_ANNOTATIONS='{"thanos-timeshard.io/inject": "false"}' store_set $ns out-by-annotation
workload Deployment deployment | kubectl -n $ns apply -f - >/dev/null
store_set $other store
message() { kubectl -n $ns get events --field-selector involvedObject.name=store,reason=FailedCreate -o 'jsonpath={.items[*].message}' | grep inject.thanos-timeshard.io; }
eventually 30 "the gateway's StatefulSet names the webhook that it waits for" message
for app in prometheus out-by-label out-by-annotation deployment; do until_same 60 "same namespace, $app: 2 replicas Ready" "2 of 2" ready $ns $app; done
until_same 60 "unlabelled namespace, a gateway: 2 replicas Ready" "2 of 2" ready $other store
same "the gateway still waits: no pod" "" windows $ns store
server_start
eventually 30 "the server is back" server_ready
# The StatefulSet controller's own retries, as far apart by now as the checks above took.
until_same 900 "the gateway's pods come by themselves" "6 of 6" ready $ns store
same "injected" "$(planned store 6)" windows $ns store
