# shellcheck shell=bash
# the server as deploy/ runs it: a Deployment of 2 pods, and a rolling restart that loses no admission
# stage: node
ns=e2e-in-cluster
namespace $ns "$ENABLED" "$RESTRICTED"
t=$(now_ms)
trap servers_here EXIT
servers_in_pods
say "$(seconds_since "$t") s after the Deployment was scaled up; as user $(kubectl -n "$SYSTEM" get deployment timeshard -o 'jsonpath={.spec.template.spec.securityContext.runAsUser}'), memory limit $(kubectl -n "$SYSTEM" get deployment timeshard -o 'jsonpath={.spec.template.spec.containers[0].resources.limits.memory}')"
REPLICAS=6 POLICY=Parallel store_set $ns store
until_same 30 "the API server reaches them by their Service" "probe-0 shard=0 ${shard_windows[0]}" dry_window $ns store probe-0
until_same 90 "6 gateways are Ready" "6 of 6" ready $ns store
same "with their windows" "$(planned store 6)" windows $ns store

# admissions one after the other while both replicas are replaced
pod=$(member $ns store probe-1)
kubectl -n "$SYSTEM" rollout restart deployment/timeshard >/dev/null
stop=$WORK/rollout-done answers=$WORK/rollout-answers
rm -f "$stop" "$answers".*
load() { # one admission after the other
  until [ -e "$stop" ]; do
    if a=$(echo "$pod" | kubectl -n $ns create --dry-run=server -o 'jsonpath={.metadata.labels.thanos-timeshard\.io/shard}' -f - 2>&1); then
      echo "injected $a"
    else
      echo "failed $a"
    fi
  done >"$answers.$1"
}
loads=()
for i in 1 2 3; do
  load $i &
  loads+=($!)
done
check "both are replaced by a rolling restart" kubectl -n "$SYSTEM" rollout status deployment/timeshard --timeout=120s
gone() { [ "$(kubectl -n "$SYSTEM" get pods -l app.kubernetes.io/component=server -o name | wc -l)" = 2 ]; }
eventually 60 "the old pods are gone" gone
: >"$stop"
wait "${loads[@]}"
same "not one of $(cat "$answers".* | wc -l) admissions meanwhile failed or was not injected" "injected 0" sort -u "$answers".1 "$answers".2 "$answers".3
same "and no server was restarted" 0 restarts "$SYSTEM"
