# shellcheck shell=bash
# an image that runs as root on a writable layer, with the sidecar as 65532: a published window reaches thanos
# stage: node
# server: --no-refresher
ns=e2e-root-image root=localhost/thanos-root:v0.42.4
"$CHECKOUT/tests/e2e/cluster/image.sh" $root "$E2E_DIR/rootfs/thanos" /bin/thanos 2>/dev/null
namespace $ns "$ENABLED" pod-security.kubernetes.io/enforce=baseline
# roots NAME FILTER: without any security context, and with thanos' data in the container's own layer
roots() {
  IMG=$root REPLICAS=1 workload StatefulSet "$1" | jq "del(.spec.template.spec.securityContext)
    | .spec.template.spec.containers[0] |= (del(.securityContext) | .volumeMounts |= map(select(.name != \"data\"))) | $2" | kubectl -n $ns apply -f - >/dev/null
}
roots image . # root by the image's user
roots pod '.spec.template.spec.securityContext.runAsUser = 0'
users() { # thanos' user, the sidecar's (by the file that it installed), and whether thanos' data is in the container's own layer
  kubectl -n $ns exec "$1" -c thanos -- sh -c 'id -u; stat -c %u /run/timeshard/timeshard-agent; test -d /data/meta-syncer -o -w /data && echo writable'
}
for set in image pod; do
  until_same 60 "root by the $set: Ready" "1 of 1" ready $ns $set
  same "thanos is root, the sidecar is not" "0
65532
writable" users $set-0
  publish $ns $set $set-0 'shard: 0
replica: 0
min_time: -141d
max_time: 1d
drain: 2s'
  until_same 60 "the window reaches thanos" "serving verified -141d .. 1d" state $ns $set-0
  same "thanos confirms it" "-141d .. 1d" flags $ns $set-0
done
same "no container was restarted" 0 restarts $ns
