#!/usr/bin/env bash
# Starts a one-node Kubernetes cluster on this machine and prints its KUBECONFIG path.
# usage: up.sh [--control-plane-only]
#   --control-plane-only   etcd, API server and controller manager, without a node: needs no root
# Further flags, split at spaces: APISERVER_ARGS, KCM_ARGS, KUBELET_ARGS.
# shellcheck disable=SC2086
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/env.sh"
case ${1-} in '') node=1 ;; --control-plane-only) node= ;; *) die "usage: up.sh [--control-plane-only]" ;; esac
t0=$SECONDS

need="etcd kube-apiserver kube-controller-manager kubectl"
[ -z "$node" ] || need+=" kube-scheduler kube-proxy kubelet containerd containerd-shim-runc-v2 ctr coredns"
for b in $need; do [ -x "$BIN/$b" ] || die "no $b in $BIN: run build.sh first"; done
[ ! -e "$STATE/pids" ] || die "$STATE is in use: run down.sh first"
[ -z "$node" ] || [ "$(id -u)" = 0 ] || die "a node needs root"
[ ${#CTR_SOCK} -lt 100 ] || die "STATE is too long for a socket's path"
[ -z "${STATE_MOVED-}" ] || echo "the checkout's path is too long for a socket: the cluster's state is in $STATE" >&2
umask 022
mkdir -p "$E2E_DIR"
debian openssl=openssl setsid=util-linux
[ -z "$node" ] || debian runc=runc ip=iproute2 nft=nftables sysctl=procps busybox=busybox-static gcc=gcc /usr/include/stdio.h=libc6-dev \
  "$CNI_BIN/bridge=containernetworking-plugins"
mkdir -p "$STATE"/{pids,log,pki}
if [ -n "$node" ]; then api_ip=$NODE_IP; else api_ip=127.0.0.1; fi
api=https://$api_ip:$API_PORT

# ---- certificates -----------------------------------------------------------
cd "$STATE/pki"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=timeshard-e2e-ca \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature \
  -keyout ca.key -out ca.crt 2>/dev/null
# cert NAME SUBJECT [SAN]
cert() {
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "$2" -keyout "$1.key" -out "$1.csr" 2>/dev/null
  { echo keyUsage=critical,digitalSignature; echo extendedKeyUsage=serverAuth,clientAuth; [ -z "${3-}" ] || echo "subjectAltName=$3"; } >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile "$1.ext" -out "$1.crt" 2>/dev/null
  rm "$1.csr" "$1.ext"
}
# kubeconfig FILE CERT
kubeconfig() {
  cat >"$1" <<Y
apiVersion: v1
kind: Config
current-context: e2e
contexts: [{name: e2e, context: {cluster: e2e, user: e2e}}]
clusters: [{name: e2e, cluster: {server: "$api", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: e2e, user: {client-certificate-data: $(base64 -w0 "$2.crt"), client-key-data: $(base64 -w0 "$2.key")}}]
Y
}
cert apiserver /CN=kube-apiserver "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:$NODE_IP,IP:$SERVICE_NET.1"
cert kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
cert admin /O=system:masters/CN=admin
cert kcm /CN=system:kube-controller-manager
kubeconfig "$KUBECONFIG" admin
kubeconfig kcm.kubeconfig kcm
openssl genrsa -out sa.key 2048 2>/dev/null
openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
if [ -n "$node" ]; then
  cert scheduler /CN=system:kube-scheduler
  cert proxy /CN=system:kube-proxy
  cert kubelet "/O=system:nodes/CN=system:node:$NODE_NAME" "DNS:$NODE_NAME,IP:$NODE_IP"
  kubeconfig scheduler.kubeconfig scheduler
  kubeconfig proxy.kubeconfig proxy
  kubeconfig kubelet.kubeconfig kubelet
fi
cd - >/dev/null

# ---- the node's network: a bridge that is also the API server's address -----
if [ -n "$node" ]; then
  # down.sh reverts what kubelet, kube-proxy and the CNI plugin change on the machine
  for k in net.ipv4.ip_forward vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops \
    kernel.keys.root_maxkeys kernel.keys.root_maxbytes net.ipv4.conf.all.route_localnet net.netfilter.nf_conntrack_max; do
    v=$(sysctl -n "$k" 2>/dev/null) && echo "$k=$v" >>"$STATE/sysctl.before"
  done
  [ -e /var/lib/kubelet ] || : >"$STATE/no-var-lib-kubelet" # for any --root-dir, kubelet puts a socket there
  if ip link show "$BRIDGE" >/dev/null 2>&1; then
    # of a cluster in another checkout, or of a killed one: then no API server is behind it
    ! { ip -o addr show dev "$BRIDGE" | grep -qF " $NODE_IP/" && timeout 2 bash -c ": </dev/tcp/$NODE_IP/$API_PORT" 2>/dev/null; } ||
      die "the interface $BRIDGE already exists, with a cluster behind it: another checkout's; stop it with its tests/e2e/cluster/down.sh"
    echo "up.sh: the interface $BRIDGE was left by a cluster that no longer runs: recreated" >&2
    ip link del "$BRIDGE"
  fi
  ip link add "$BRIDGE" type bridge
  echo "$BRIDGE" >"$STATE/bridge"
  ip addr add "$NODE_IP/24" dev "$BRIDGE"
  ip link set "$BRIDGE" up
elif [ "$(id -u)" = 0 ] && command -v ip >/dev/null; then
  # A Service's endpoint must not be 127.0.0.0/8: a webhook on this machine listens on this address. Without root it uses an address of the machine.
  ip addr add "$NODE_IP/32" dev lo
  echo "$NODE_IP/32" >"$STATE/lo-address"
fi

# ---- control plane ----------------------------------------------------------
start etcd etcd --name e2e --data-dir "$STATE/etcd" --unsafe-no-fsync --log-level warn \
  --listen-client-urls "http://127.0.0.1:$((PORT_BASE + 1))" --advertise-client-urls "http://127.0.0.1:$((PORT_BASE + 1))" \
  --listen-peer-urls "http://127.0.0.1:$((PORT_BASE + 2))" --initial-advertise-peer-urls "http://127.0.0.1:$((PORT_BASE + 2))" \
  --initial-cluster "e2e=http://127.0.0.1:$((PORT_BASE + 2))"
# Only the server's requests, which are counted by their time.
cat >"$STATE/audit.yaml" <<'Y'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  users: ["system:serviceaccount:timeshard-system:timeshard"]
- level: None
Y
# Webhooks registered by Service: with kube-proxy the API server dials the ClusterIP, without it (control plane only) the endpoints.
start kube-apiserver kube-apiserver --etcd-servers "http://127.0.0.1:$((PORT_BASE + 1))" \
  --bind-address "$api_ip" --advertise-address "$NODE_IP" --secure-port "$API_PORT" \
  --tls-cert-file "$STATE/pki/apiserver.crt" --tls-private-key-file "$STATE/pki/apiserver.key" --cert-dir "$STATE/pki" \
  --client-ca-file "$STATE/pki/ca.crt" --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
  --service-cluster-ip-range "$SERVICE_NET.0/24" --service-account-issuer https://kubernetes.default.svc.cluster.local \
  --service-account-key-file "$STATE/pki/sa.pub" --service-account-signing-key-file "$STATE/pki/sa.key" \
  --kubelet-client-certificate "$STATE/pki/kubelet-client.crt" --kubelet-client-key "$STATE/pki/kubelet-client.key" \
  --kubelet-certificate-authority "$STATE/pki/ca.crt" --kubelet-preferred-address-types InternalIP \
  --enable-aggregator-routing="$([ -n "$node" ] && echo false || echo true)" --allow-privileged \
  --audit-policy-file "$STATE/audit.yaml" --audit-log-path "$STATE/log/audit.json" \
  --profiling=false ${APISERVER_ARGS-}
wait_for 60 kube-apiserver kubectl get --raw /readyz
start kube-controller-manager kube-controller-manager --kubeconfig "$STATE/pki/kcm.kubeconfig" \
  --authentication-kubeconfig "$STATE/pki/kcm.kubeconfig" --authorization-kubeconfig "$STATE/pki/kcm.kubeconfig" \
  --root-ca-file "$STATE/pki/ca.crt" --service-account-private-key-file "$STATE/pki/sa.key" --use-service-account-credentials \
  --cluster-signing-cert-file "$STATE/pki/ca.crt" --cluster-signing-key-file "$STATE/pki/ca.key" \
  --leader-elect=false --bind-address 127.0.0.1 --secure-port $((PORT_BASE + 4)) --cert-dir "$STATE/pki" \
  --node-monitor-grace-period 5m --kube-api-qps 200 --kube-api-burst 400 ${KCM_ARGS-} # so that a large StatefulSet causes a burst of admissions

# ---- node -------------------------------------------------------------------
if [ -n "$node" ]; then
  start kube-scheduler kube-scheduler --kubeconfig "$STATE/pki/scheduler.kubeconfig" \
    --authentication-kubeconfig "$STATE/pki/scheduler.kubeconfig" --authorization-kubeconfig "$STATE/pki/scheduler.kubeconfig" \
    --leader-elect=false --bind-address 127.0.0.1 --secure-port $((PORT_BASE + 5)) --cert-dir "$STATE/pki"

  mkdir -p "$STATE/cni"
  cat >"$STATE/cni/10-pods.conflist" <<J
{"cniVersion": "1.0.0", "name": "$CLUSTER_NAME", "plugins": [{
  "type": "bridge", "bridge": "$BRIDGE", "isGateway": true, "hairpinMode": true, "ipMasq": false,
  "ipam": {"type": "host-local", "dataDir": "$STATE/ipam", "routes": [{"dst": "0.0.0.0/0"}],
    "ranges": [[{"subnet": "$NET.0/24", "rangeStart": "$NET.10", "rangeEnd": "$NET.250", "gateway": "$NODE_IP"}]]}}]}
J
  cat >"$STATE/containerd.toml" <<T
version = 3
root = '$STATE/containerd'
state = '$STATE/containerd-run'
disabled_plugins = ['io.containerd.nri.v1.nri', 'io.containerd.snapshotter.v1.zfs', 'io.containerd.snapshotter.v1.btrfs', 'io.containerd.snapshotter.v1.devmapper', 'io.containerd.snapshotter.v1.blockfile', 'io.containerd.snapshotter.v1.erofs']
[grpc]
  address = '$CTR_SOCK'
[ttrpc]
  address = '$CTR_SOCK.ttrpc'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = 'localhost/pause:1'
[plugins.'io.containerd.cri.v1.runtime']
  disable_apparmor = true
  restrict_oom_score_adj = true # where root lacks CAP_SYS_RESOURCE, a sandbox's -998 is refused
  netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['$CNI_BIN']
  conf_dir = '$STATE/cni'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = false
T
  start containerd containerd --config "$STATE/containerd.toml"
  wait_for 30 containerd ctr -a "$CTR_SOCK" version
  "$here/images.sh"

  cat >"$STATE/kubelet.yaml" <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $NODE_IP
port: $((PORT_BASE + 6))
healthzBindAddress: 127.0.0.1
healthzPort: $((PORT_BASE + 7))
failCgroupV1: false   # some machines still mount cgroup v1
cgroupDriver: cgroupfs
failSwapOn: false
containerRuntimeEndpoint: unix://$CTR_SOCK
tlsCertFile: $STATE/pki/kubelet.crt
tlsPrivateKeyFile: $STATE/pki/kubelet.key
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $STATE/pki/ca.crt}}
authorization: {mode: Webhook}
clusterDomain: cluster.local
clusterDNS: [$NODE_IP]
resolvConf: /etc/resolv.conf
podLogsDir: $STATE/podlogs
volumePluginDir: $STATE/volumeplugins
makeIPTablesUtilChains: false # does not touch the machine's iptables; kube-proxy does not need them
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 200Mi, nodefs.available: 1Gi}
# the intervals that decide how fast a ConfigMap reaches a volume keep their defaults
Y
  start kubelet kubelet --config "$STATE/kubelet.yaml" --kubeconfig "$STATE/pki/kubelet.kubeconfig" --root-dir "$STATE/kubelet" \
    --cert-dir "$STATE/pki" --hostname-override "$NODE_NAME" --node-ip "$NODE_IP" ${KUBELET_ARGS-}
  cat >"$STATE/proxy.yaml" <<Y
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables # down.sh removes its tables
hostnameOverride: $NODE_NAME
clientConnection: {kubeconfig: $STATE/pki/proxy.kubeconfig}
clusterCIDR: $NET.0/24
bindAddress: $NODE_IP
healthzBindAddress: 127.0.0.1:$((PORT_BASE + 8))
metricsBindAddress: 127.0.0.1:$((PORT_BASE + 9))
nodePortAddresses: [$NODE_IP/32]
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
Y
  start kube-proxy kube-proxy --config "$STATE/proxy.yaml"
  cat >"$STATE/Corefile" <<C
. {
  bind $NODE_IP
  errors
  cache 5
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $KUBECONFIG e2e
  }
}
# the same Services under another name, with slow updates: as in clusters whose DNS caches its own answers for 30 s
cached.local {
  bind $NODE_IP
  errors
  cache 30
  kubernetes cached.local {
    kubeconfig $KUBECONFIG e2e
    ttl 30
  }
}
C
  start coredns coredns -conf "$STATE/Corefile"
  wait_for 90 "node $NODE_NAME" sh -c "kubectl get node $NODE_NAME -o 'jsonpath={.status.conditions[?(@.type==\"Ready\")].status}' | grep -q True"
fi
wait_for 60 "the default ServiceAccount" kubectl -n default get serviceaccount/default configmap/kube-root-ca.crt
echo "up in $((SECONDS - t0)) s" >&2
echo "$KUBECONFIG"
