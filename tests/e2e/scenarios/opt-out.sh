# shellcheck shell=bash
# a StatefulSet is opted out during a step and handed over again: its objects go, its pods keep their windows, and another one is not affected
# stage: control-plane
# server: --allow-local-pods
# Without kubelet and sidecars: examples/stand-in-sidecars.rs gives every pod an address, marks it Ready and answers. Like a sidecar it
# keeps its window when its entry vanishes.
ns=e2e-opt-out
stand_in=$(dirname "$SERVER")/examples/stand-in-sidecars
[ -x "$stand_in" ] || { bad "no $stand_in: build it with cargo build --release --example stand-in-sidecars"; exit 1; }
# shellcheck source=../rollouts.sh
. "$CHECKOUT/tests/e2e/rollouts.sh"
trap '[ -z "${stand_in_pid-}" ] || kill "$stand_in_pid" 2>/dev/null || true' EXIT
namespace $ns "$ENABLED"
"$stand_in" $ns >"$WORK/stand-in.log" 2>&1 &
stand_in_pid=$!
for set in store other; do
  # A step lasts as long as queriers may take to learn of its pods: long enough to interrupt it.
  ANNOTATIONS='{"thanos-timeshard.io/discovery-delay": "10s", "thanos-timeshard.io/drain": "1s", "thanos-timeshard.io/shard-services": "true"}' \
    REPLICAS=6 POLICY=Parallel store_set $ns $set
done
for set in store other; do
  eventually 90 "$set: 6 pods serve their published windows" settled $set '[.pods[] | select(.state == "confirmed")] | length == 6'
done
# objects KIND SET: timeshard's for the set's shards
objects() { kubectl -n $ns get "$1" -l app.kubernetes.io/managed-by=thanos-timeshard -o json | jq -r --arg set "$2-shard-" '[.items[].metadata.name | select(startswith($set))] | join(" ")'; }
of_other() { objects pdb other; objects services other; entries other; }
until_same 30 "each shard has a PDB" "store-shard-0 store-shard-1 store-shard-2" objects pdb store
until_same 30 "and a Service" "store-shard-0 store-shard-1 store-shard-2" objects services store
before=$(windows $ns store) others=$(of_other)
events() { kubectl -n $ns get events.events.k8s.io -o json | jq -r '[.items[] | select(.regarding.name == "store" and (.reportingController | test("timeshard"))) | .series.count // 1] | add // 0'; }

annotate store overlap=2d
stepping() { says store 'any(.pods[]; .state == "joining")'; }
eventually 30 "a step runs" stepping
reported=$(events) t=$(now_ms)
check "it is opted out during it" annotate store managed=false
until_same 15 "its PDBs go" "" objects pdb store
until_same 15 "and its entries" null entries store
same "its Services stay, because its pods are found through them" "store-shard-0 store-shard-1 store-shard-2" objects services store
eventually 15 "the leader reports that" says store '.opted_out and .state == "settled" and (.message | contains("6 pods keep their last windows"))'
windows_left=$(windows $ns store)
same "no pod was replaced: their arguments are as before" "$before" echo "$windows_left"
same "admission leaves a new pod alone" "probe-2 untouched" dry_window $ns store probe-2
kubectl -n $ns delete pod store-5 --force --grace-period=0 >/dev/null 2>&1
comes() { windows $ns store | grep -x "store-5 untouched"; }
eventually 30 "a pod that is created now has no window" comes
until_same 30 "a Service goes with the last pod that carries its label" "store-shard-0 store-shard-1 store-shard-2" objects services store
kubectl -n $ns delete pod store-4 --force --grace-period=0 >/dev/null 2>&1
until_same 30 "as here" "store-shard-0 store-shard-1" objects services store
check "scaling it down is not refused" kubectl -n $ns scale statefulset store --replicas=5
kubectl -n $ns scale statefulset store --replicas=6 >/dev/null
same "no Event was sent meanwhile" "$reported" events
# in this namespace: those of other scenarios are being deleted
writes() {
  jq -r --argjson from "$t" --arg ns $ns '(.requestReceivedTimestamp | ((.[:19] + "Z" | fromdate) * 1000 + (.[20:23] | tonumber))) as $at
    | select($at >= $from and .objectRef.namespace == $ns and (.verb | test("^(create|update|patch|delete)$"))
        and (.objectRef.resource | test("^(configmaps|poddisruptionbudgets|services)$"))) | .auditID' "$STATE/log/audit.json" | sort -u | wc -l
}
settled_writes=$(writes)
server_stop
server_start
eventually 60 "a new leader" says store .opted_out
same "writes nothing for it" "$settled_writes" writes
same "the other StatefulSet has everything" "$others" of_other

annotate store managed-
until_same 60 "handed over again: its PDBs are back" "store-shard-0 store-shard-1" objects pdb store
not_injected() { says store '.uninjected_store_pods == 2 and (.opted_out | not)'; }
eventually 60 "and the pods that were created meanwhile are reported" not_injected
kubectl -n $ns delete pods store-4 store-5 --force --grace-period=0 >/dev/null 2>&1
eventually 120 "deleted, they come back with their windows, and the rollout ends" settled store '.pods[0].desired.min_time == "-125d8h" and ([.pods[] | select(.state == "confirmed")] | length == 6)'
until_same 30 "each shard has a PDB" "store-shard-0 store-shard-1 store-shard-2" objects pdb store
until_same 30 "and a Service" "store-shard-0 store-shard-1 store-shard-2" objects services store
