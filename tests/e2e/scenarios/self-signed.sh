# shellcheck shell=bash
# three servers make their own certificates (deploy/self-signed): leaf and CA rotate under admissions, and no admission fails
# stage: control-plane
ns=e2e-self-signed secret=timeshard-self-signed
# Two thirds of these: a leaf each 8 s, a CA each 24 s. A CA signs 3 s after it is in the caBundle.
short=(--self-signed --self-signed-ca-validity=36s --self-signed-leaf-validity=12s --self-signed-propagation=3s)
own=$WORK/self-signed
rm -rf "$own"
mkdir -p "$own"
port() { echo $((PORT_BASE + 40 + $1)); }
admin_port() { echo $((PORT_BASE + 50 + $1)); }
pids=()
# replica N: as a pod of deploy/self-signed would run it. None leads: certificates must not need a leader.
replica() {
  KUBECONFIG=$WORK/server.kubeconfig setsid "$SERVER" serve --config "$WORK/config/config.yaml" "${short[@]}" --no-refresher --shutdown-drain 1s \
    --listen "$HOOK_IP:$(port "$1")" --admin-listen "127.0.0.1:$(admin_port "$1")" --probe-listen 127.0.0.1:0 --pod-name "own-$1" --pod-namespace "$SYSTEM" \
    </dev/null >>"$WORK/server.log" 2>&1 &
  pids[$1]=$!
  disown # the shell must neither wait for it nor report that it was killed
}
is_ready() { http 127.0.0.1 "$(admin_port "$1")" /readyz | grep -q '^HTTP/1.[01] 200'; }
# endpoint N READY: a slice for each, because each has its own port
endpoint() {
  kubectl -n "$SYSTEM" apply -f - >/dev/null <<Y
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: own-$1, labels: {kubernetes.io/service-name: timeshard, endpointslice.kubernetes.io/managed-by: tests-e2e}}
addressType: IPv4
ports: [{name: https, port: $(port "$1"), protocol: TCP}]
endpoints: [{addresses: ["$HOOK_IP"], conditions: {ready: $2}}]
Y
}
back() { # in any case the next scenario finds this run's registration
  local i
  touch "$own/stop"
  for i in 1 2 3; do
    [ -z "${pids[$i]-}" ] || kill -9 "${pids[$i]}" 2>/dev/null || true
    kubectl -n "$SYSTEM" delete endpointslice "own-$i" --ignore-not-found >/dev/null
  done
  wait
  kubectl delete -f "$CHECKOUT/deploy/self-signed/rights.yaml" --ignore-not-found >/dev/null
  kubectl -n "$SYSTEM" delete secret $secret --ignore-not-found >/dev/null
  server_stop
  register control-plane
}
trap back EXIT
hook() { kubectl get mutatingwebhookconfiguration timeshard -o "jsonpath=$1"; }
bundle() { hook '{.webhooks[0].clientConfig.caBundle}' | base64 -d; }
anchors() { bundle | grep -c BEGIN; }
of_secret() { kubectl -n "$SYSTEM" get secret $secret -o "jsonpath={.data.$1}" | base64 -d; }
# served N: the certificate that it serves
served() { openssl s_client -connect "$HOOK_IP:$(port "$1")" -servername "timeshard.$SYSTEM.svc" </dev/null 2>/dev/null | openssl x509 -noout -fingerprint; }
same_leaf() { local want; want=$(of_secret 'tls\.crt' | openssl x509 -noout -fingerprint) && [ "$(for i in 1 2 3; do served $i; done | sort -u)" = "$want" ]; }
# rotations WHAT: made by the running replicas
rotations() {
  local i
  for i in 1 2 3; do http 127.0.0.1 "$(admin_port "$i")" /metrics; done | awk -v want="timeshard_certificate_rotations_total{certificate=\"$1\"}" '$1 == want { sum += $2 } END { print sum + 0 }'
}
at_least() { [ "$(rotations "$1")" -ge "$2" ]; }

# ---- rights -------------------------------------------------------------------------------------------------------------
server_stop
kubectl -n "$SYSTEM" delete endpointslice this-machine --ignore-not-found >/dev/null
kubectl -n "$SYSTEM" delete secret $secret --ignore-not-found >/dev/null
kubectl apply -f "$CHECKOUT/deploy/self-signed/rights.yaml" >/dev/null
for kind in mutating validating; do
  kubectl patch "${kind}webhookconfiguration" timeshard --type=json -p '[{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]' >/dev/null
done
who=system:serviceaccount:$SYSTEM:timeshard
refused "with the rights of deploy/self-signed it reads no other Secret" Forbidden kubectl --as="$who" -n "$SYSTEM" get secret timeshard-tls
refused "and changes no other registration" Forbidden kubectl --as="$who" patch mutatingwebhookconfiguration other --type=merge -p '{}'
server_rights

# ---- a Secret of others -----------------------------------------------------------------------------------
kubectl -n "$SYSTEM" create secret generic $secret --from-literal=a=b >/dev/null
replica 1
why() { http 127.0.0.1 "$(admin_port 1)" /readyz | tail -n 1; }
until_same 30 "a Secret of that name without timeshard's label: not ready, with the reason" \
  "no certificate yet: Secret $SYSTEM/$secret is not labelled app.kubernetes.io/managed-by=thanos-timeshard, so it is not touched; delete it, or set another name with --self-signed-secret" why
same "and not touched" '{"a":"Yg=="}' kubectl -n "$SYSTEM" get secret $secret -o 'jsonpath={.data}'
kubectl -n "$SYSTEM" delete secret $secret >/dev/null

# ---- a first start ------------------------------------------------------------------------------------------------------
replica 2
replica 3
for i in 1 2 3; do
  eventually 30 "replica $i makes or finds the certificate and is ready" is_ready $i
  endpoint $i true
done
until_same 60 "one CA is trusted" 1 anchors
eventually 20 "all three serve one certificate" same_leaf
namespace $ns "$ENABLED"
REPLICAS=0 store_set $ns store
injected() { dry_window $ns store probe-0 | grep shard=0; }
eventually 30 "the API server trusts it, and gateways are injected" injected

# ---- rotations under load -----------------------------------------------------------------------------------------------
pod=$(member $ns store probe-1)
load() {
  until [ -e "$own/stop" ]; do
    while [ -e "$own/pause" ] && [ ! -e "$own/stop" ]; do : >"$own/paused.$1"; sleep 0.05; done
    if a=$(echo "$pod" | kubectl -n $ns create --dry-run=server -o 'jsonpath={.metadata.labels.thanos-timeshard\.io/shard}' -f - 2>&1); then echo "injected $a"; else echo "failed $a"; fi
  done >"$own/answers.$1"
}
# A client that learns late: the caBundle of 1 s ago must verify a full handshake with each replica in the Service.
handshakes() {
  local i fetched old=$own/old.crt
  until [ -e "$own/stop" ]; do
    fetched=$(now_ms)
    bundle >"$old"
    sleep 1
    for i in 1 2 3; do
      [ ! -e "$own/out.$i" ] || continue
      if openssl s_client -connect "$HOOK_IP:$(port $i)" -servername "timeshard.$SYSTEM.svc" -verify_hostname "timeshard.$SYSTEM.svc" \
        -CAfile "$old" -verify_return_error </dev/null >"$own/handshake" 2>&1; then
        echo verified
      # 3 s after it was read it may be too old, and a replica may be killed during its handshake
      elif [ ! -e "$own/out.$i" ] && [ $(($(now_ms) - fetched)) -lt 2500 ]; then
        echo "failed $i $(tail -n 3 "$own/handshake" | tr '\n' ' ')"
      fi
    done
  done >"$own/handshakes"
}
clients=()
load 1 &
clients+=($!)
load 2 &
clients+=($!)
handshakes &
clients+=($!)
t0=$(now_ms) generation=$(hook '{.metadata.generation}')
eventually 60 "a CA is followed by another one" at_least ca 2
eventually 30 "leaves were renewed in between" at_least leaf 3

# A replica dies during the next rotation: it leaves the Service first, because a dead endpoint fails in any case.
endpoint 3 false
touch "$own/out.3"
in_between() { kubectl -n "$SYSTEM" get secret $secret -o 'jsonpath={.data.next-ca\.key}' | grep -q .; }
EVERY=0.1 eventually 60 "the next CA is made, and signs nothing yet" in_between
# The API server keeps connections to an endpoint that left; what is under way there would fail in any case.
: >"$own/pause"
paused() { [ -e "$own/paused.1" ] && [ -e "$own/paused.2" ]; }
EVERY=0.1 eventually 10 "no admission is under way" paused
kill -9 "${pids[3]}"
gone() { ! kill -0 "${pids[3]}" 2>/dev/null; }
EVERY=0.02 eventually 10 "it is gone, and its ports are free" gone
rm -f "$own"/pause "$own"/paused.*
replica 3
eventually 20 "a replica that was killed then is ready again" is_ready 3
endpoint 3 true
rm "$own/out.3"
before=$(of_secret 'tls\.crt')
kubectl -n "$SYSTEM" delete secret $secret >/dev/null
restored() { [ -n "$(of_secret 'tls\.crt')" ]; }
eventually 20 "a deleted Secret is restored" restored
kubectl -n "$SYSTEM" patch secret $secret --type=merge -p '{"data": {"tls.key": "aGVsbG8="}}' >/dev/null
fits() { of_secret 'tls\.key' | grep -q 'PRIVATE KEY'; }
eventually 20 "and a broken one is repaired" fits
third_ca() { ! in_between && [ "$(of_secret 'tls\.crt')" != "$before" ]; }
eventually 60 "and a third CA signs" third_ca
eventually 20 "all three serve one certificate again" same_leaf
: >"$own/stop"
wait "${clients[@]}"
same "not one of $(cat "$own"/answers.* | wc -l) admissions meanwhile failed or was not injected" "injected 0" sort -u "$own"/answers.1 "$own"/answers.2
same "and not one of $(wc -l <"$own/handshakes") handshakes with a caBundle of 1 s before" verified sort -u "$own/handshakes"
written=$(($(hook '{.metadata.generation}') - generation))
say "in $(seconds_since "$t0") s: $(rotations leaf) leaves and $(rotations ca) CAs made by those that run; the caBundle was written $written times"
# a CA each 24 s, each added and removed, and what the steps above change
most=$((10 + ($(now_ms) - t0) * 3 / 24000))
check "the caBundle was written 2 to $most times: a CA is added and removed, and replicas do not revert each other" test "$written" -ge 2 -a "$written" -le "$most"

# ---- an overwritten caBundle --------------------------------------------------------------------------------
theirs=$(base64 -w0 "$WORK/tls/ca.crt")
kubectl patch mutatingwebhookconfiguration timeshard --type=json -p '[{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": "'"$theirs"'"}]' >/dev/null
trusted() { openssl verify -CAfile <(bundle) <(of_secret 'tls\.crt'); }
eventually 10 "an overwritten caBundle trusts the server again" trusted
kept() { bundle | openssl crl2pkcs7 -nocrl -certfile /dev/stdin | openssl pkcs7 -print_certs | grep -q 'timeshard e2e CA'; }
check "and keeps the other content" kept
eventually 10 "and gateways are injected again" injected

same "no private key is in the log" 0 grep -c 'PRIVATE KEY' "$WORK/server.log"
expiry() { http 127.0.0.1 "$(admin_port 1)" /metrics | grep -c '^timeshard_certificate_expiry_timestamp_seconds{certificate="\(leaf\|ca\)"} [0-9]'; }
guard() { kubectl get validatingwebhookconfiguration timeshard -o 'jsonpath={.webhooks[0].clientConfig.caBundle}' | base64 -d; }
both_trust() { [ -n "$(bundle)" ] && [ "$(guard)" = "$(bundle)" ]; } # CAs rotate meanwhile
eventually 20 "the guard's registration trusts the same" both_trust
same "metrics show when leaf and CA expire" 2 expiry
