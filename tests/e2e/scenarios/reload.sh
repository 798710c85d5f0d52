# shellcheck shell=bash
# a published window reaches the flags of a running thanos; bad entries, a window that fails and kills do no harm
# stage: node
# server: --no-refresher
ns=e2e-reload
namespace $ns "$ENABLED" "$RESTRICTED"
REPLICAS=1 store_set $ns store
until_same 90 "the pod is Ready under \"restricted\" with a read-only root" "1 of 1" ready $ns store
uid() { kubectl -n $ns get pod store-0 -o 'jsonpath={.metadata.uid} {.status.podIP}'; }
before=$(uid)
entry() { printf 'shard: 0\nreplica: 0\nmin_time: %s\nmax_time: %s\ndrain: %s\n' "$1" "$2" "${3-2s}"; }
for i in 1 2 3 4 5; do
  publish $ns store store-0 "$(entry "-$((130 + i))d" 24h)"
  until_same 60 "reload $i: verified, serving" "serving verified -$((130 + i))d .. 1d" state $ns store-0
done
same "thanos confirms it" "-135d .. 1d" flags $ns store-0
until_same 60 "the pod is Ready again" "1 of 1" ready $ns store
same "5 reloads and no container was restarted" 0 restarts $ns
same "it is the same pod at the same address" "$before" uid

# keeps WHAT PART: the window is unchanged, and the sidecar gives the reason
why() { last_error $ns store-0 | grep -oF -- "$1"; }
keeps() {
  until_same 30 "$1: last_error names it" "$2" why "$2"
  same "$1: the window stays" "serving verified -135d .. 1d" state $ns store-0
}
publish $ns store store-0 '{{ no YAML'
keeps "a malformed entry" "the entry is invalid"
publish $ns store store-0 "$(entry -1d -2d)"
keeps "an inverted window" "inverted"
publish $ns store store-0 "$(entry -1.5d 1d)"
keeps "a bound that Thanos would refuse" "min_time"
publish $ns store store-0 "# $(printf '%20000s' x)"
keeps "an entry of 20 kB" "bytes"
kubectl -n $ns patch configmap store-time-shards --type=json -p '[{"op": "remove", "path": "/data/store-0.yaml"}]' >/dev/null
publish $ns store store-7 "$(entry -1d 1d)"
hurry $ns store-0
keeps "an entry only for another pod" "there is no entry for this pod any more"
kubectl -n $ns delete configmap store-time-shards >/dev/null
hurry $ns store-0
same "the ConfigMap is deleted: the window stays" "serving verified -135d .. 1d" state $ns store-0
thanos_restarts() { of_pod $ns store-0 10908 /status | jq .restarts; }
same "none of it restarted thanos" 5 thanos_restarts
same "or took the pod out of its Service" "1 of 1" ready $ns store

# Valid when published, inverted once the drain is over: thanos then exits immediately.
# On a busy machine it may come too late, and is refused.
judged() { case $(state $ns store-0) in "failed "*) ;; "serving "*) why inverted ;; *) return 1 ;; esac; }
for late in 4 20 60; do
  publish $ns store store-0 "$(entry -1s "\"$(date -u -d "+$late seconds" +%FT%TZ)\"" $((2 * late))s)"
  eventually 180 "a window that ends during its drain is judged" judged
  if state $ns store-0 | grep -q '^failed '; then break; fi
  publish $ns store store-0 "$(entry -135d 1d)"
  until_same 60 "it was refused: a good one takes the reason away" none last_error $ns store-0
done
until_same 60 "a window that makes thanos exit: given up, the last good one serves" "failed verified -135d .. 1d" state $ns store-0
same "and last_error gives the reason" "was given up" why "was given up"
until_same 60 "the pod is Ready with it" "1 of 1" ready $ns store
publish $ns store store-0 "$(entry -140d 1d)"
until_same 60 "the next window is applied immediately" "serving verified -140d .. 1d" state $ns store-0
same "a window that failed restarted no container either" 0 restarts $ns

check "kubectl logs shows thanos' own lines" sh -c "kubectl -n $ns logs store-0 -c thanos | grep 'msg=\"starting store node\"'"
same "kubectl exec works" 1001 kubectl -n $ns exec store-0 -c thanos -- id -u
n=0
for words in "[^ ]*thanos store" "/timeshard-agent sidecar"; do
  p=$(process $ns store-0 "$words" | head -n 1)
  check "kill -9 of $words" kill -9 "${p:-none}"
  n=$((n + 1))
  until_same 60 "kubelet starts that container again" $n restarts $ns
  until_same 60 "it ends serving again" "serving verified -140d .. 1d" state $ns store-0
  until_same 60 "and Ready" "1 of 1" ready $ns store
done
same "it is the same pod as at the start" "$before" uid
