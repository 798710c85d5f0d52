# shellcheck shell=bash
# README's quick start and docs/install.md's removal, command by command as written, on a real API server
# stage: control-plane
# server: --allow-local-pods
# Commands that need kubelet, Docker or the network are named and skipped; examples/stand-in-sidecars.rs plays kubelet and sidecars.
ns=monitoring
stand_in=$(dirname "$SERVER")/examples/stand-in-sidecars
[ -x "$stand_in" ] || { bad "no $stand_in: build it with cargo build --release --example stand-in-sidecars"; exit 1; }
# shellcheck source=../rollouts.sh
. "$CHECKOUT/tests/e2e/rollouts.sh"
back() { # in any case the next scenario finds this run's registration
  [ -z "${stand_in_pid-}" ] || kill "$stand_in_pid" 2>/dev/null || true
  server_stop
  kubectl delete namespace $ns --ignore-not-found >/dev/null
  kubectl -n "$SYSTEM" delete certificates,issuers --all --ignore-not-found >/dev/null 2>&1 || true
  kubectl delete mutatingwebhookconfiguration timeshard --ignore-not-found >/dev/null
  register control-plane
}
# commands FILE MARK: the lines of the code block after the comment MARK, without their comments
commands() { sed -n "/^<!-- $2 -->\$/,/^\`\`\`\$/p" "$CHECKOUT/$1" | sed -e '/^<!--/d' -e '/^```/d' -e 's/ *# .*//' -e '/^$/d'; }
# as_written FILE MARK: runs them
as_written() {
  local line
  commands "$1" "$2" >"$WORK/commands"
  check "$1 has a block of commands, $2" test -s "$WORK/commands"
  check "of at most ten" test "$(wc -l <"$WORK/commands")" -le 10
  while read -r line <&3; do
    case $line in
    git\ clone\ * | kind\ * | docker\ * | timeshard\ * | *https://* | *" wait --for=condition=Available "* | *"rollout status deployment/"*) say "not here: $line" ;;
    "kubectl delete -k "*)
      server_stop # it plays the Deployment, which is deleted with the rights
      check "$line" bash -c "cd '$CHECKOUT' && $line" ;;
    *) check "$line" bash -c "cd '$CHECKOUT' && $line" ;;
    esac
  done 3<"$WORK/commands"
}
trap back EXIT
kubectl delete namespace $ns --ignore-not-found >/dev/null
[ -e "$STATE/pids/cert-manager" ] || "$CHECKOUT/tests/e2e/cluster/cert-manager.sh" "$STAGE_FLAG" # instead of the release's manifest
kubectl -n "$SYSTEM" delete secret timeshard-tls timeshard-ca --ignore-not-found >/dev/null
"$stand_in" $ns >"$WORK/stand-in.log" 2>&1 &
stand_in_pid=$!

as_written README.md "quick start"
check "its certificate is issued" kubectl -n "$SYSTEM" wait --for=condition=Ready certificate/timeshard-tls --timeout=240s
until_same 60 "the gateways have their windows" "$(planned thanos-store-gateway 6)" windows $ns thanos-store-gateway
until_same 60 "and are Ready" "6 of 6" ready $ns thanos-store-gateway
same "the querier is unchanged" 1 sh -c "kubectl -n $ns get pods -l app=thanos-querier -o json | jq '[.items[] | select(.spec.initContainers == null and (.metadata.labels | has(\"thanos-timeshard.io/shard\") | not))] | length'"
says_settled() { report thanos-store-gateway | jq -e '.state == "settled" and .configmap == "thanos-store-config"'; }
eventually 120 "all is as planned" says_settled
entries() { kubectl -n $ns get configmap thanos-store-config -o json | jq -S .data; }
budgets_left() { kubectl get pdb -A -l app.kubernetes.io/managed-by=thanos-timeshard -o name; }
published=$(entries)
check "with a PDB for each shard" test "$(budgets_left | wc -l)" -ge 3

# ---- removal ------------------------------------------------------------------------------------------------------------
uids() { pods $ns thanos-store-gateway | jq -r '.[] | "\(.metadata.name) \(.metadata.uid)"'; }
before=$(uids)
kubectl -n "$SYSTEM" delete endpointslice this-machine >/dev/null # it is this run's, and the namespace is deleted
as_written docs/install.md "removal"
same "no PDB is left" "" budgets_left
same "the windows stay published" "$published" entries
same "and no gateway was touched" "$before" uids
kubectl label namespace $ns "$ENABLED" >/dev/null
same "a new one is created immediately, unchanged, even in a labelled namespace" "probe-0 untouched" dry_window $ns thanos-store-gateway probe-0
gone() { ! kubectl get namespace "$SYSTEM"; }
eventually 60 "nothing of the server is left" gone
same "also cluster-wide" "" kubectl get mutatingwebhookconfigurations,clusterroles,clusterrolebindings -l app.kubernetes.io/name=thanos-timeshard -o name
