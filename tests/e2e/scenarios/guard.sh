# shellcheck shell=bash
# the guard: creating, changing or scaling a gateway reports the effect, and a gap is refused with the safe commands
# stage: control-plane
# server: --no-refresher
ns=e2e-guard other=e2e-guard-unlabelled
namespace $ns "$ENABLED"
namespace $other

# warnings COMMAND…: the warnings that the user sees, one a line, without those of other parts of Kubernetes
warnings() { "$@" 2>&1 >/dev/null | sed -n 's/^Warning: //p'; }
scale() { kubectl -n "${NS:-$ns}" scale statefulset "$1" --replicas="$2" "${@:3}"; }
replicas() { kubectl -n "${NS:-$ns}" get statefulset "$1" -o 'jsonpath={.spec.replicas}'; }
annotate() { kubectl -n $ns annotate --overwrite statefulset "$1" "thanos-timeshard.io/$2"; }
# published POD…: the ConfigMap of "store" as the leader would write it, "POD SHARD REPLICA MIN MAX" each
published() {
  local entries=() pod shard replica min max
  for entry in "$@"; do
    read -r pod shard replica min max <<<"$entry"
    entries+=("store-$pod" "{shard: $shard, replica: $replica, min_time: $min, max_time: $max}")
  done
  publish $ns store "${entries[@]}"
}
three_of_two=("0 0 0 -124d8h 1d" "1 0 1 -124d8h 1d" "2 1 0 -247d16h -123d8h" "3 1 1 -247d16h -123d8h" "4 2 0 -370d -246d16h" "5 2 1 -370d -246d16h")
# the leader's windows with target-replicas 4: shards of 2, 1 and 1, the others in the newest
for_four=("0 0 0 -124d8h 1d" "1 0 1 -124d8h 1d" "2 1 0 -247d16h -123d8h" "3 2 0 -370d -246d16h" "4 0 2 -124d8h 1d" "5 0 3 -124d8h 1d")
counted() { # OUTCOME [REASON]: the number of requests with that outcome
  admin /metrics | sed -n "s/^timeshard_guard_requests_total{outcome=\"$1\",reason=\"${2-}\"} //p"
}

# ---- created ------------------------------------------------------------------------------------------------------------
create() { workload StatefulSet "$1" | kubectl -n "${NS:-$ns}" apply -f -; }
export POLICY=Parallel
summary="6 pods: 3 shards of 2 replicas, newest -124d8h .. 1d, oldest -370d .. -246d16h"
try() { workload StatefulSet "$1" | kubectl -n $ns apply --dry-run=server -f -; }
REPLICAS=6 same "a server-side dry run reports the windows" "$summary" warnings try store
refused "and leaves nothing" NotFound kubectl -n $ns get statefulset store
REPLICAS=6 same "kubectl apply reports them too" "$summary" warnings create store
REPLICAS=5 same "pods that do not fit are reported" \
  "5 pods where 6 fill the plan: the shards have 2, 2, 1 replicas, newest first; no window is larger than planned
one replica serves shard 2: while it restarts, its part of the time is missing; use at least 2
5 pods: 3 shards of 2, 2, 1 replicas, newest -124d8h .. 1d, oldest -370d .. -246d16h" warnings try few
flags=$(jq -c '. + ["--min-time=-7d"]' <<<"$store_args")
ARGS=$flags same "time flags in the template block injection" \
  'thanos-timeshard skips these pods: --min-time is set by hand and respected; remove it, or annotate the StatefulSet with thanos-timeshard.io/replace-time-flags: "true"' \
  warnings try flags
COMMAND='["sh", "-c", "exec thanos store"]' ARGS='[]' same "and so does a shell" \
  'thanos-timeshard skips these pods: thanos store runs inside "exec thanos store", where flags cannot be added safely; make thanos the container'"'"'s command' \
  warnings try shell
ANNOTATIONS='{"thanos-timeshard.io/total-shard": "4"}' REPLICAS=6 same "a misspelt annotation gets the right one" \
  "annotation thanos-timeshard.io/total-shard is unknown and has no effect; did you mean thanos-timeshard.io/total-shards?
$summary" warnings try misspelt
ARGS='["query"]' same "other programs get no warning" "" warnings try query
NS=$other REPLICAS=6 same "nor in a namespace without the label" "" warnings create store

# ---- scaled -------------------------------------------------------------------------------------------------------------
asked=$(counted allowed)
scale store 5 >/dev/null 2>&1
more() { [ "$(counted allowed)" -gt "$asked" ]; }
check "without published windows nothing is known, and nothing refused" more
scale store 6 >/dev/null 2>&1
published "${three_of_two[@]}"
gap() { scale store 4 2>&1; }
denied() { ! gap; }
eventually 30 "a scale-down that leaves a gap is refused" denied
same "with the range, the pods and the commands" \
  'Error from server (Forbidden): admission webhook "guard.thanos-timeshard.io" denied the request: with 4 of 6 pods, no pod would serve -370d .. -247d16h; today only store-4, store-5 do
first: kubectl -n e2e-guard annotate --overwrite statefulset store thanos-timeshard.io/target-replicas=4
then, once `timeshard status e2e-guard/store` reports that it is safe: kubectl -n e2e-guard scale statefulset store --replicas=4
to proceed anyway: kubectl -n e2e-guard annotate --overwrite statefulset store thanos-timeshard.io/guard=off' gap
same "the pods stay" 6 replicas store
refused "a dry run says so as well" "no pod would serve" scale store 4 --dry-run=server
refused "an edit of spec.replicas" "no pod would serve" kubectl -n $ns patch statefulset store -p '{"spec": {"replicas": 4}}'
refused "scaling to nothing" "with 0 of 6 pods, no pod would serve -370d .. 1d" scale store 0
autoscale() { # as an autoscaler does it: the Scale is read, changed and put back
  local url=/apis/apps/v1/namespaces/$ns/statefulsets/store/scale
  kubectl get --raw "$url" | jq '.spec.replicas = 4' | kubectl replace --raw "$url" -f -
}
refused "and what an autoscaler does" "no pod would serve -370d .. -247d16h" autoscale
check "one pod of two may go" scale store 5 --dry-run=server
same "which is reported" "5 pods where 6 fill the plan: the shards have 2, 2, 1 replicas, newest first; no window is larger than planned
one replica serves shard 2: while it restarts, its part of the time is missing; use at least 2
5 pods: 3 shards of 2, 2, 1 replicas, newest -124d8h .. 1d, oldest -370d .. -246d16h" warnings scale store 5 --dry-run=server

# ---- the safe way, as the refusal prints it -----------------------------------------------------------------------------------
same "target-replicas reports what will happen" \
  "4 pods where 6 fill the plan: the shards have 2, 1, 1 replicas, newest first; no window is larger than planned
one replica serves shard 1, 2: while it restarts, its part of the time is missing; use at least 2
6 pods, planned for 4: 3 shards of 2, 1, 1 replicas, newest -124d8h .. 1d, oldest -370d .. -246d16h
3 pods restart thanos in place, in 2 steps, at least 6m" warnings annotate store target-replicas=4
on_its_way() { grep "wait until" <(scale store 4 2>&1); }
eventually 30 "before it is done, scaling down is still refused, with the advice to wait" on_its_way
published "3 2 0 -370d -246d16h" # the first step: store-3 is on its way to what store-4 and store-5 hold
early() { grep "denied the request: the rollout to 4 pods has not finished: wait until" <(scale store 4 2>&1); }
eventually 30 "and so it is in the first step, although all that four pods need is published by then" early
published "${for_four[@]}"
silent() { [ -z "$(scale store 4 --dry-run=server 2>&1 >/dev/null)" ]; }
eventually 30 "once it is done, there is no warning" silent
check "and scaling down passes" scale store 4
same "to 4 pods" 4 replicas store
annotate store target-replicas- >/dev/null 2>&1

# ---- changed ------------------------------------------------------------------------------------------------------------
apply_with() { kubectl -n $ns patch statefulset store --type=json -p "$1"; }
args=/spec/template/spec/containers/0/args
refused "a template whose pods would get no window is refused" "pods of this template would no longer get their windows: --max-time is set by hand" \
  apply_with '[{"op": "add", "path": "'$args'/-", "value": "--max-time=-2w"}]'
refused "one that runs something else" "would come back without a window, each serving the whole bucket: no container runs thanos store" \
  apply_with '[{"op": "replace", "path": "'$args'/0", "value": "query"}]'
check "a new image is not" apply_with '[{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "quay.io/thanos/thanos:v0.42.4"}]'
same "and a restart that queriers may notice is reported" \
  "a rolling update deletes the next pod as soon as one is Ready, and queriers behind a DNS cache find neither for up to 30 s: set spec.minReadySeconds to 90 first" \
  warnings kubectl -n $ns rollout restart statefulset store
same "an annotation that does not fit is reported" \
  'annotation thanos-timeshard.io/total-shards:1:1: total_shards: "many" is not accepted: write a whole number from 1 to 10000, or auto' warnings annotate store total-shards=many
annotate store total-shards- >/dev/null 2>&1
same "a deletion is a warning" "its 4 pods will be deleted, and no other pod of it serves -370d .. 1d
to keep the pods: kubectl -n e2e-guard delete --cascade=orphan statefulset store" warnings kubectl -n $ns delete --dry-run=server statefulset store
same "but not one that leaves the pods" "" warnings kubectl -n $ns delete --dry-run=server --cascade=orphan statefulset store

# ---- other modes -------------------------------------------------------------------------------------------------------
annotate store guard=warn >/dev/null 2>&1
warned() { scale store 0 --dry-run=server 2>&1 | grep "^Warning: with 0 of 4 pods, no pod would serve -370d .. 1d; today only store-0, store-1, store-2, store-3 do"; }
eventually 30 "annotated guard=warn the same is a warning" warned
annotate store guard=off >/dev/null 2>&1
quiet() { [ -z "$(scale store 0 --dry-run=server 2>&1 >/dev/null)" ]; }
eventually 30 "annotated guard=off there is no warning" quiet
annotate store guard- >/dev/null 2>&1
refuses() { ! scale store 0 --dry-run=server; }
eventually 30 "without it the guard is back" refuses

# ---- by the configuration, which is reloaded ------------------------------------------------------------------------------------
config=$WORK/config/config.yaml
cp "$config" "$WORK/guard-config.yaml"
back() { # in any case the next scenario finds the configuration and the server
  cp "$WORK/guard-config.yaml" "$config"
  server_start
}
trap back EXIT
# the file ends with the block injection
printf '  image_pull_secrets: [e2e-mirror, e2e-own]\nguard: {mode: warn}\n' >>"$config"
eventually 90 "with guard.mode: warn in the configuration it is a warning" warned
secrets() { member $ns store probe-9 | jq '.spec.imagePullSecrets = [{name: "e2e-own"}]' | kubectl -n $ns create --dry-run=server -o json -f - 2>/dev/null | jq -c '[.spec.imagePullSecrets[].name]'; }
same "with injection.image_pull_secrets a pod gets those that it lacks, behind its own" '["e2e-own","e2e-mirror"]' secrets
check "and counted as what deny would have refused" test "$(counted warned coverage_gap)" -gt 0
check "as refusals are" test "$(counted denied coverage_gap)" -gt 5
cp "$WORK/guard-config.yaml" "$config"
eventually 90 "without it, a refusal again" refuses

# ---- it blocks nothing else --------------------------------------------------------------------------------------------------------------
before=$(metric timeshard_guard_requests_total)
NS=$other scale store 0 >/dev/null
NS=$other scale store 6 >/dev/null
same "a namespace without the label: not even asked" "$before" metric timeshard_guard_requests_total
same "and nothing of all this was an error" 0 counted error unreadable_review
server_stop
t=$(now_ms)
check "while no server answers, scaling passes" scale store 0 --dry-run=server
check "and so does a new gateway's StatefulSet" try late
check "without waiting for it" test $(($(now_ms) - t)) -lt 30000
server_start
eventually 30 "the server is back" server_ready
eventually 30 "and refuses" refuses
