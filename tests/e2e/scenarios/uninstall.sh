# shellcheck shell=bash
# the server and all of its objects are deleted during a step: gateways keep their windows under strict queries, and new pods are created unchanged
# stage: node
ns=e2e-uninstall
rm -f "$WORK"/left.{answers,stop} "$WORK/uninstall.back"
trap 'touch "$WORK/uninstall.back"' EXIT # the scenario next to it waits for that
bucket=$("$CHECKOUT/tests/e2e/cluster/bucket.sh")
namespace $ns "$ENABLED"
# as in the scenario "reshard"
interval=2s drain=17s termination_drain=20s discovery_delay=20s
# shellcheck source=../querying.sh
. "$CHECKOUT/tests/e2e/querying.sh"
# shellcheck source=../rollouts.sh
. "$CHECKOUT/tests/e2e/rollouts.sh"
back() { # the next scenario finds the server and its objects again
  touch "$WORK/left.stop"
  wait "${asker-}" 2>/dev/null || true
  register node
  touch "$WORK/uninstall.back"
}
trap back EXIT
servers_in_pods
querier left store
gateways store 6 discovery-delay $discovery_delay drain-limit 1m
until_same 60 "the querier is Ready" "1 of 1" ready $ns left
until_same 120 "6 gateways are Ready" "6 of 6" ready $ns store
until_same 90 "the querier has all of them" 6 stores left
asking left &
asker=$!
sane() { [ "$(mark left)" -ge 20 ]; }
eventually 30 "20 answers" sane
eventually 120 "all is as planned" settled store
admitted() { [ ! -e "$E2E_DIR/results.migration" ] || [ -e "$WORK/migration.admitted" ]; }
eventually 600 "the scenario next to it has its pods" admitted
annotate store overlap=2d
draining() { report store | jq -er '[.pods[] | select(.phase == "draining")][0].pod'; }
eventually 60 "a step runs" draining
t=$(mark left)

kubectl -n "$SYSTEM" delete deployment timeshard >/dev/null
gone() { [ -z "$(kubectl -n "$SYSTEM" get pods -l app.kubernetes.io/component=server -o name)" ]; }
eventually 60 "the Deployment is deleted during it: no server is left" gone
closed() { kubectl -n $ns get pdb -o json | jq -r '.items[] | select(.spec.maxUnavailable == 0) | .metadata.name'; }
until_same 60 "and no closed PDB" "" closed
# The remaining objects, except for the namespace, which other scenarios need.
kubectl get -f "$WORK/deploy.yaml" --ignore-not-found -o json | jq '.items |= map(select(.kind != "Namespace"))' >"$WORK/uninstall.json"
check "its rights, its configuration and its webhook are deleted" kubectl delete -f "$WORK/uninstall.json"
published=$(entries store)
check "the windows stay published" test "$published" != null
# what_is_published POD: its published window, as its sidecar reports it
what_is_published() { kubectl -n $ns get configmap store-time-shards -o json | jq -r --arg key "$1.yaml" '.data[$key] | capture("min_time: (?<a>\\S+)\\nmax_time: (?<b>\\S+)") | "serving verified \(.a) .. \(.b)"'; }
as_published() { local i; for i in 0 1 2 3 4 5; do [ "$(state $ns store-$i)" = "$(what_is_published store-$i)" ] || return 1; done; }
# A querier is known, so a drain without a leader lasts for drain_limit and two minutes.
eventually 600 "the step ends without a server: each pod serves its published window" as_published
until_same 30 "and all are Ready" "6 of 6" ready $ns store

node_drained() { kubectl create --raw "/api/v1/namespaces/$ns/pods/store-5/eviction" -f - <<<'{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "store-5"}}'; }
eventually 60 "nothing keeps a pod from being evicted" node_drained
comes() { windows $ns store | grep -x "store-5 untouched" && [ "$(ready $ns store)" = "6 of 6" ]; }
eventually 120 "a new pod is created unchanged although its namespace is labelled, and is Ready" comes
until_same 60 "the querier has it" 6 stores left
complete_since left "$t" "the server is deleted in the middle of a step, and a pod comes back without it"
same "no container was restarted" 0 restarts $ns
