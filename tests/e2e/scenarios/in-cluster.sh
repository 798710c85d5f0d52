# shellcheck shell=bash
# the server as deploy/ runs it: a Deployment of 2 pods, and an upgrade to another image that loses no admission
# stage: node
ns=e2e-in-cluster
namespace $ns "$ENABLED" "$RESTRICTED"
t=$(now_ms)
back() {
  servers_here
  kubectl -n "$SYSTEM" set image deployment/timeshard timeshard="$IMAGE" >/dev/null
}
trap back EXIT
servers_in_pods
say "$(seconds_since "$t") s after the Deployment was scaled up; as user $(kubectl -n "$SYSTEM" get deployment timeshard -o 'jsonpath={.spec.template.spec.securityContext.runAsUser}'), memory limit $(kubectl -n "$SYSTEM" get deployment timeshard -o 'jsonpath={.spec.template.spec.containers[0].resources.limits.memory}')"
REPLICAS=6 POLICY=Parallel store_set $ns store
until_same 30 "the API server reaches them by their Service" "probe-0 shard=0 ${shard_windows[0]}" dry_window $ns store probe-0
until_same 90 "6 gateways are Ready" "6 of 6" ready $ns store
same "with their windows" "$(planned store 6)" windows $ns store

# admissions one after the other while both replicas are replaced
pod=$(member $ns store probe-1)
next=${IMAGE%:*}:next
IMAGE_USER=65532 "$CHECKOUT/tests/e2e/cluster/image.sh" "$next" "$E2E_DIR/rootfs/timeshard" /timeshard
kubectl -n "$SYSTEM" set image deployment/timeshard timeshard="$next" >/dev/null
stop=$WORK/rollout-done answers=$WORK/rollout-answers
rm -f "$stop" "$answers".*
load() { # one admission after the other
  until [ -e "$stop" ]; do
    if a=$(echo "$pod" | kubectl -n $ns create --dry-run=server -o 'jsonpath={.metadata.labels.thanos-timeshard\.io/shard}' -f - 2>&1); then
      echo "injected $a"
    else
      echo "failed $a"
    fi
    sleep 0.1 # a pace, not a wait
  done >"$answers.$1"
}
loads=()
for i in 1 2 3; do
  load $i &
  loads+=($!)
done
least() { # the minimum of ready replicas over all samples
  until [ -e "$stop" ]; do sleep 0.1; kubectl -n "$SYSTEM" get pods -l app.kubernetes.io/component=server -o json |
    jq '[.items[] | select(.metadata.deletionTimestamp | not) | select(any(.status.conditions[]?; .type == "Ready" and .status == "True"))] | length'; done >"$WORK/rollout-ready"
}
least &
loads+=($!)
check "both are replaced by pods of the other image" kubectl -n "$SYSTEM" rollout status deployment/timeshard --timeout=600s
gone() { [ "$(kubectl -n "$SYSTEM" get pods -l app.kubernetes.io/component=server -o name | wc -l)" = 2 ]; }
eventually 60 "the old pods are gone" gone
: >"$stop"
wait "${loads[@]}"
same "not one of $(cat "$answers".* | wc -l) admissions meanwhile failed or was not injected" "injected 0" sort -u "$answers".1 "$answers".2 "$answers".3
same "in none of $(wc -l <"$WORK/rollout-ready") samples were fewer than 2 replicas ready" 2 sh -c "sort -n '$WORK/rollout-ready' | head -n 1"
same "both are of the other image" "$next" sh -c "kubectl -n $SYSTEM get pods -l app.kubernetes.io/component=server -o json | jq -r '[.items[].spec.containers[0].image] | unique | join(\",\")'"
same "and no server was restarted" 0 restarts "$SYSTEM"
