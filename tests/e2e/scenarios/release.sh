# shellcheck shell=bash
# removing the label, opting out or stopping the server during a step leaves no PDB closed
# stage: control-plane
# server: --allow-local-pods
# Without kubelet and sidecars: examples/stand-in-sidecars.rs gives every pod an address, marks it Ready and answers.
ns=e2e-release
stand_in=$(dirname "$SERVER")/examples/stand-in-sidecars
[ -x "$stand_in" ] || { bad "no $stand_in: build it with cargo build --release --example stand-in-sidecars"; exit 1; }
# shellcheck source=../rollouts.sh
. "$CHECKOUT/tests/e2e/rollouts.sh"
back() {
  [ -z "${stand_in_pid-}" ] || kill "$stand_in_pid" 2>/dev/null || true
  kubectl -n "$SYSTEM" delete pod another-server --now --ignore-not-found >/dev/null
  server_start
}
trap back EXIT
log_from=$(wc -l <"$WORK/server.log")
namespace $ns "$ENABLED"
"$stand_in" $ns >"$WORK/stand-in.log" 2>&1 &
stand_in_pid=$!
# A step lasts as long as queriers may take to learn of its pods: long enough to interrupt it.
ANNOTATIONS='{"thanos-timeshard.io/discovery-delay": "20s", "thanos-timeshard.io/drain": "1s"}' REPLICAS=6 POLICY=Parallel store_set $ns store
eventually 90 "6 pods serve their published windows" settled store '[.pods[] | select(.state == "confirmed")] | length == 6'
# limits: each PDB of timeshard, and whether it is closed
limits() { kubectl -n $ns get pdb -l app.kubernetes.io/managed-by=thanos-timeshard -o json | jq -r '[.items[] | "\(.metadata.name) \(if .spec.maxUnavailable == 0 then "closed" else "open" end)"] | join(", ")'; }
open="store-shard-0 open, store-shard-1 open, store-shard-2 open"
closed() { limits | grep closed; }
# stepping: its pods have changed, and queriers have 20 s to learn of it, in which nothing else happens
stepping() { closed && says store 'any(.pods[]; .state == "joining")'; }
until_same 30 "each shard has a PDB, and all are open" "$open" limits

# ---- the server stops during a step -----------------------------------------------------------------------------
annotate store overlap=2d
eventually 30 "a step runs, with PDBs closed" stepping
t=$(now_ms)
server_stop
same "SIGTERM, and no other server runs: every PDB is open ($(seconds_since "$t") s)" "$open" limits
published=$(entries store)
server_start
eventually 60 "a server runs again, continues, and closes them for its steps" stepping
eventually 90 "until all is as planned" settled store '.pods[5].desired.min_time == "-370d" and .pods[0].desired.min_time == "-125d8h"'
until_same 30 "and all are open" "$open" limits
check "windows have changed meanwhile" test "$published" != "$(entries store)"

kubectl -n "$SYSTEM" apply -f - >/dev/null <<'Y'
apiVersion: v1
kind: Pod
metadata: {name: another-server, labels: {app.kubernetes.io/name: thanos-timeshard, app.kubernetes.io/component: server}}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  containers: [{name: x, image: x, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]
Y
annotate store overlap=3d
eventually 30 "another step runs" stepping
before=$(limits)
server_stop
same "SIGTERM, and another server runs: closed PDBs stay closed for it" "$before" limits
kubectl -n "$SYSTEM" delete pod another-server --now >/dev/null

# ---- no leader while the label is removed --------------------------------------------------------------------------------------
published=$(entries store)
kubectl label namespace $ns thanos-timeshard.io/injection- >/dev/null
kubectl -n $ns create poddisruptionbudget users --selector=app=other --max-unavailable=1 >/dev/null
server_start
until_same 30 "the label was removed while no server ran: the next one deletes its PDBs" "" limits
check "and none of others" kubectl -n $ns get pdb users
same "the ConfigMap with the last windows stays" "$published" entries store
kubectl label namespace $ns "$ENABLED" >/dev/null
eventually 120 "labelled again: the rollout continues, and ends" settled store '.pods[0].desired.min_time == "-126d8h"'
until_same 30 "with open PDBs" "$open" limits

# ---- the label is removed during a step -----------------------------------------------------------------------------------
annotate store overlap=4d
eventually 30 "a third step runs" stepping
kubectl label namespace $ns thanos-timeshard.io/injection- >/dev/null
until_same 15 "the label is removed during it: no PDB is left" "" limits
published=$(entries store)
check "its ConfigMap stays" test -n "$published"
kubectl label namespace $ns "$ENABLED" >/dev/null
eventually 120 "labelled again: it ends" settled store '.pods[0].desired.min_time == "-127d8h"'
until_same 30 "with open PDBs" "$open" limits

# ---- a StatefulSet is taken out -----------------------------------------------------------------------------------------------
published=$(entries store)
kubectl -n $ns patch statefulset store --type=merge -p '{"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}, "template": {"metadata": {"labels": {"thanos-timeshard.io/inject": "false"}}}}}' >/dev/null
observed() { kubectl -n $ns get statefulset store -o json | jq -e '.status.observedGeneration == .metadata.generation'; }
eventually 60 "the controller has seen the template" observed
kubectl -n $ns delete pods -l app=store --force --grace-period=0 >/dev/null 2>&1
until_same 60 "its pods are recreated, opted out" "$(for i in 0 1 2 3 4 5; do echo "store-$i untouched"; done)" windows $ns store
until_same 30 "and its PDBs are deleted" "" limits
same "its ConfigMap stays" "$published" entries store
same "no request of the server was refused" "" sh -c "tail -n +$((log_from + 1)) '$WORK/server.log' | grep -i 'is forbidden: User' | head -3 | cut -c1-300"
