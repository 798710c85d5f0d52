# shellcheck shell=bash
# Changes of plan and the leader's reports: sourced by scenarios that have set $ns.

# report SET: the leader's report
report() { leader_status | jq -e --arg ns "$ns" --arg set "$1" '.statefulsets[] | select(.namespace == $ns and .name == $set)'; }
# says SET FILTER: its report matches
says() { report "$1" | jq -e "select($2)"; }
# settled SET [FILTER]: everything is as planned, and the plan matches FILTER
settled() { says "$1" ".state == \"settled\" and .moves_left == 0 and (${2-true})"; }
# annotate SET KEY=VALUE…, or KEY- to remove one
annotate() {
  local set=$1
  shift
  kubectl -n "$ns" annotate --overwrite statefulset "$set" "${@/#/thanos-timeshard.io/}" >/dev/null
}
# moves SET: restarts of thanos in place so far
moves() { # tried again, because it is called outside of a wait
  local n _
  for _ in $(seq 30); do n=$(report "$1" | jq -e '[.pods[].restarts] | add // 0') && [ -n "$n" ] && { echo "$n"; return; }; sleep 1; done
  return 1
}
# budgets SET: each shard's PDB, and how many pods may be evicted
budgets() { kubectl -n "$ns" get pdb -o json | jq -r --arg set "$1" '[.items[] | select(.metadata.name | startswith($set + "-shard-")) | "\(.metadata.name | ltrimstr($set + "-shard-")): \(.status.disruptionsAllowed)"] | join(", ")'; }
# entries SET: the published entries, without comments
entries() { kubectl -n "$ns" get configmap "$1-time-shards" -o json | jq -S .data; }

# With querying.sh:
# reshard SET QUERIER WHAT FILTER KEY=VALUE…: under queries, until all is as planned
reshard() {
  local set=$1 querier=$2 what=$3 filter=$4 t ms before after
  shift 4
  t=$(mark "$querier") ms=$(now_ms) before=$(moves "$set")
  annotate "$set" "$@"
  eventually "${E2E_DEFAULTS:+1}900" "$what: rolled out" settled "$set" "$filter"
  after=$(moves "$set")
  complete_since "$querier" "$t" "$what"
  say "$what: $((after - before)) restarts of thanos in place, $(seconds_since "$ms") s"
}
