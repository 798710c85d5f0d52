# shellcheck shell=bash
# 6 real store gateways run with their windows under Pod Security "restricted", then 8
# stage: node
# Namespace and name are those of the compatibility configuration.
ns=monitoring set=thanos-store-gateway
namespace $ns "$ENABLED" "$RESTRICTED"
REPLICAS=6 store_set $ns $set
until_same 90 "6 of 6 replicas are Ready, one after the other" "6 of 6" ready $ns $set
same "with the windows of 3 shards, label, status annotation, sidecar and launcher" "$(planned $set 6)" windows $ns $set
# the flags that thanos reports; it writes 24h as 1d
flags() { kubectl -n $ns exec "$set-$1" -c thanos -- wget -qO- http://127.0.0.1:10902/api/v1/status/flags | jq -r '.data | "\(."min-time") .. \(."max-time")"'; }
for i in 0 3 5; do same "thanos in $set-$i runs with it" "${shard_windows[i / 2]}" flags $i; done
same "thanos is a child of the launcher, which is PID 1" "1 /run/timeshard/timeshard-agent launch" \
  sh -c "kubectl -n $ns exec $set-0 -c thanos -- cat /proc/1/cmdline | tr '\\0' ' ' | cut -d' ' -f1-2 | sed 's/^/1 /'"
# token WORDS: the files at the token's path in the container of store 0 whose command begins with WORDS
token() { find "/proc/$(process $ns $set-0 "$1" | head -n 1)/root/var/run/secrets/kubernetes.io/serviceaccount/" -maxdepth 1 \( -name token -o -name "$set-0.yaml" \) -printf '%f\n'; }
same "thanos has the token of the pod's ServiceAccount" token token '/run/timeshard/timeshard-agent launch'
same "and the sidecar the windows in its place" $set-0.yaml token '/timeshard-agent sidecar'
kubectl -n $ns scale statefulset/$set --replicas=8 >/dev/null
until_same 60 "scaled to 8, 8 of 8 are Ready" "8 of 8" ready $ns $set
same "the 2 surplus pods are extra replicas of the newest shard" "$(planned $set 8)" windows $ns $set
same "no container was restarted" 0 restarts $ns
