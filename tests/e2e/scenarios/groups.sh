# shellcheck shell=bash
# through group endpoints, one for each shard's Service: replicas and shards change, and no strict query fails or is incomplete
# stage: node
# parallel: reshard
ns=e2e-groups
bucket=$("$CHECKOUT/tests/e2e/cluster/bucket.sh")
namespace $ns "$ENABLED"
# A group whose Service does not exist yet delays each update of thanos query by --endpoint.info-timeout, 5 s. A shorter one would make
# the querier drop stores that answer late, which has nothing to do with a rollout.
interval=2s drain=20s termination_drain=20s
# shellcheck source=../querying.sh
. "$CHECKOUT/tests/e2e/querying.sh"
# shellcheck source=../rollouts.sh
. "$CHECKOUT/tests/e2e/rollouts.sh"

rm -f "$WORK"/groups.{answers,stop}
trap 'touch "$WORK/groups.stop"; wait' EXIT
gateways store 6 discovery-delay 20s shard-services true total-shards 2
# for every shard that exists before or after
endpoints=$(for n in 0 1 2; do printf ', "--endpoint-group=dnssrv+_grpc._tcp.store-shard-%d.%s.svc.cluster.local"' $n $ns; done)
CPU_REQUEST=100m REPLICAS=1 ARGS="[\"query\", \"--http-address=0.0.0.0:10902\", \"--grpc-address=0.0.0.0:10901\", \"--store.sd-dns-interval=$interval\"$endpoints]" \
  workload Deployment groups | kubectl -n $ns apply -f - >/dev/null
until_same 90 "store: 6 pods are Ready" "6 of 6" ready $ns store
services() { kubectl -n $ns get services -o json | jq -r '[.items[].metadata.name | select(startswith("store-shard-"))] | join(" ")'; }
until_same 30 "each shard has a Service" "store-shard-0 store-shard-1" services
until_same 60 "the querier is Ready" "1 of 1" ready $ns groups
until_same 60 "it has both groups, and the missing third does not block it" 2 stores groups
asking groups &
sane() { [ "$(mark groups)" -ge 20 ]; }
eventually 30 "20 answers" sane
eventually 60 "the leader knows all of them" settled store '[.pods[].shard] | max == 1'

# labels: of each pod, as in its entry
labels() {
  local entries
  entries=$(kubectl -n $ns get configmap store-time-shards -o json) || return 1
  pods $ns store | jq -r --argjson map "$entries" '[.[] | . as $pod | $map.data[$pod.metadata.name + ".yaml"] | capture("shard: (?<n>[0-9]+)").n
    | if . == $pod.metadata.labels["thanos-timeshard.io/shard"] then . else "\($pod.metadata.name): \(.) but labelled \($pod.metadata.labels["thanos-timeshard.io/shard"])" end] | join(" ")'
}
until_same 60 "two surplus pods belong to the newest shard" "0 0 1 1 0 0" labels
reshard store groups "2 to 3 replicas" '[.pods[] | select(.shard == 1)] | length == 3' replicas-per-shard=3
until_same 60 "labels match the entries" "0 0 0 1 1 1" labels
reshard store groups "2 shards of 3 to 3 shards of 2" '[.pods[].shard] | max == 2' total-shards=3 replicas-per-shard=2
until_same 60 "labels match the entries" "0 0 1 1 2 2" labels
until_same 30 "the third shard has a Service" "store-shard-0 store-shard-1 store-shard-2" services
until_same 60 "and the querier its group" 3 stores groups
until_same 30 "and a PDB" "0: 1, 1: 1, 2: 1" budgets store
same "no container was restarted" 0 restarts $ns
