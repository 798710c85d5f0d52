# shellcheck shell=bash
# pods that are not store gateways of a StatefulSet, and pods that opted out, run unchanged
# stage: node
ns=e2e-untouched other=e2e-untouched-unlabelled
namespace $ns "$ENABLED" "$RESTRICTED"
namespace $other "$RESTRICTED"
export REPLICAS=1
deploy() { workload "$1" "$2" | kubectl -n $ns apply -f - >/dev/null; }
deploy StatefulSet store # the gateway
deploy Deployment deployment
deploy DaemonSet daemonset
ARGS='["store", "--help"]' deploy Job job
ARGS='["query", "--http-address=0.0.0.0:10902", "--grpc-address=0.0.0.0:10901", "--endpoint=store:10901"]' deploy StatefulSet query
ARGS='["compact", "--wait", "--data-dir=/data", "--objstore.config-file=/etc/objstore/objstore.yml", "--http-address=0.0.0.0:10902"]' deploy StatefulSet compact
POD_LABELS='{"thanos-timeshard.io/inject": "false"}' deploy StatefulSet out-by-label
POD_ANNOTATIONS='{"thanos-timeshard.io/inject": "false"}' deploy StatefulSet out-by-annotation
store_set $other store
until_same 60 "the gateway in the same namespace is Ready" "1 of 1" ready $ns store
same "and injected" "store-0 shard=0" sh -c "echo '$(windows $ns store)' | cut -d' ' -f1-2"
untouched() { # NAMESPACE APP: its one pod
  pods "$1" "$2" | jq -r "$describe"' "\(length) " + (.[0] | window | sub("^[^ ]* "; ""))'
}
for what in "deployment:Deployment of thanos store" "daemonset:DaemonSet of thanos store" "query:thanos query" "compact:thanos compact" \
  "out-by-label:gateway that opted out by label" "out-by-annotation:gateway that opted out by annotation"; do
  until_same 60 "${what#*:}: Ready" "1 of 1" ready $ns "${what%%:*}"
  same "${what#*:}: untouched" "1 untouched" untouched $ns "${what%%:*}"
done
events() { kubectl -n $ns get events.events.k8s.io -o json | jq -r '.items[] | select(.reportingController == "thanos-timeshard") | .regarding.name' | sort -u; }
reported() { events | grep -qx store; }
eventually 60 "an Event reports to the gateway's user what does not fit" reported
same "other programs get no Event" "" grep -xE 'query|compact|deployment|daemonset' <(events)
check "Job with the arguments of thanos store: complete" kubectl -n $ns wait --for=condition=Complete job/job --timeout=240s
same "Job: untouched" "1 untouched" untouched $ns job
until_same 60 "gateway in an unlabelled namespace: Ready" "1 of 1" ready $other store
same "gateway in an unlabelled namespace: untouched" "1 untouched" untouched $other store
