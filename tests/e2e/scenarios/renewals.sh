# shellcheck shell=bash
# cert-manager renews leaf and CA while pods are admitted: the server loads each from its mounted Secret, and no admission fails
# stage: control-plane
[ -e "$STATE/pids/cert-manager" ] || "$CHECKOUT/tests/e2e/cluster/cert-manager.sh" "$STAGE_FLAG"
ns=e2e-renewals stop=$WORK/renewals.stop
# kubelet brings a changed Secret 30 to 100 s later, the CA injector acts immediately: here kubelet's delay in seconds
mount_delay_s=6
mine=$WORK/tls.before bundle_before=$(kubectl get mutatingwebhookconfiguration timeshard -o 'jsonpath={.webhooks[0].clientConfig.caBundle}')
loads=()
back() { # in any case the next scenario finds the certificate of this run again
  touch "$stop"
  [ ${#loads[@]} = 0 ] || wait "${loads[@]}" || true
  server_stop
  rm -rf "$WORK/tls"
  mv "$mine" "$WORK/tls"
  kubectl -n "$SYSTEM" delete certificates,issuers --all --ignore-not-found >/dev/null
  kubectl annotate mutatingwebhookconfiguration timeshard cert-manager.io/inject-ca-from- >/dev/null
  kubectl patch mutatingwebhookconfiguration timeshard --type=json -p "[{\"op\": \"replace\", \"path\": \"/webhooks/0/clientConfig/caBundle\", \"value\": \"$bundle_before\"}]" >/dev/null
  kubectl -n "$SYSTEM" delete secret timeshard-tls timeshard-ca --ignore-not-found >/dev/null
  kubectl -n "$SYSTEM" create secret generic timeshard-tls --type=kubernetes.io/tls --from-file=tls.crt="$WORK/tls/tls.crt" \
    --from-file=tls.key="$WORK/tls/tls.key" --from-file=ca.crt="$WORK/tls/ca.crt" >/dev/null
  server_start
}
rm -rf "$stop" "$mine" "$WORK"/renewals.*
mv "$WORK/tls" "$mine"
trap back EXIT
server_stop
kubectl -n "$SYSTEM" delete secret timeshard-tls timeshard-ca --ignore-not-found >/dev/null
kubectl patch mutatingwebhookconfiguration timeshard --type=json -p '[{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]' >/dev/null
kubectl apply -k "$CHECKOUT/certs" >/dev/null
kubectl annotate --overwrite mutatingwebhookconfiguration timeshard "cert-manager.io/inject-ca-from=$SYSTEM/timeshard-tls" >/dev/null # as deploy/cert-manager does

# ---- issued, mounted, served and trusted certificates ------------------------------------------------------------------------------
data() { kubectl -n "$SYSTEM" get secret "$1" -o "jsonpath={.data.$2}" | base64 -d; }
serial() { openssl x509 -noout -serial; }
key() { openssl x509 -noout -pubkey; }
at_rest() { kubectl -n "$SYSTEM" get certificate "$1" -o json | jq -e '[.status.conditions[] | select(.status == "True") | .type] == ["Ready"]'; }
# mirror: a directory as kubelet mounts the Secret, files behind ..data, which is swapped in one rename
mirror() {
  local new last='' n=0
  while [ ! -e "$stop" ]; do
    # while a Secret is recreated, kubelet keeps the mounted files
    if new=$(kubectl -n "$SYSTEM" get secret timeshard-tls -o json 2>/dev/null | jq -ec '.data | select((.["tls.crt"] // "") != "")') && [ "$new" != "$last" ]; then
      [ -z "$last" ] || sleep "$mount_delay_s"
      n=$((n + 1)) last=$new
      mkdir -p "$WORK/tls/..$n"
      for f in tls.crt tls.key ca.crt; do
        jq -r --arg f "$f" '.[$f]' <<<"$new" | base64 -d >"$WORK/tls/..$n/$f"
        ln -sfn "..data/$f" "$WORK/tls/$f"
      done
      ln -sfn "..$n" "$WORK/tls/..data_tmp"
      mv -T "$WORK/tls/..data_tmp" "$WORK/tls/..data"
      rm -rf "$WORK/tls/..$((n - 1))"
    fi
    sleep 0.3
  done
}
bundle() { kubectl get mutatingwebhookconfiguration timeshard -o 'jsonpath={.webhooks[0].clientConfig.caBundle}' | base64 -d; }
# handshake BUNDLE: a new connection as an API server makes it that trusts these CAs; the certificate that is served
handshake() {
  openssl s_client -connect "$HOOK_IP:$HOOK_PORT" -servername "timeshard.$SYSTEM.svc" -verify_hostname "timeshard.$SYSTEM.svc" \
    -verify_return_error -CAfile "$1" </dev/null 2>&1
}
served() { handshake "$WORK/renewals.bundle" | serial; }
check "the serving certificate is issued" kubectl -n "$SYSTEM" wait --for=condition=Ready certificate/timeshard-tls --timeout=240s
eventually 60 "the CA is issued, and nothing is under way" at_rest timeshard-ca
mirror &
loads+=($!)
mounted() { [ -s "$WORK/tls/tls.key" ]; }
eventually 30 "the Secret is mounted" mounted
server_start
eventually 30 "the server is ready with it" server_ready
namespace $ns "$ENABLED"
REPLICAS=0 store_set $ns store
until_same 60 "the API server trusts it by the injected caBundle" "probe-5 shard=2 ${shard_windows[2]}" dry_window $ns store probe-5

# ---- load: admissions, and a new TLS connection each time ---------------------------------------------------------------------
# ten admissions for each start of kubectl, which costs more than ten admissions
member $ns store probe-1 | jq '{apiVersion: "v1", kind: "List", items: [range(10) as $i | .]}' >"$WORK/renewals.pods"
admissions() {
  until [ -e "$stop" ]; do
    kubectl -n $ns create --dry-run=server -o 'jsonpath=injected {.metadata.labels.thanos-timeshard\.io/shard}{"\n"}' -f "$WORK/renewals.pods" 2>&1 || echo failed
  done >"$WORK/renewals.admissions.$1"
}
connections() {
  local a
  until [ -e "$stop" ]; do
    bundle >"$WORK/renewals.bundle.$1" && mv "$WORK/renewals.bundle.$1" "$WORK/renewals.bundle"
    if a=$(handshake "$WORK/renewals.bundle"); then echo trusted; else echo "refused $(grep -a -m 1 -i error <<<"$a")"; fi
  done >"$WORK/renewals.connections"
}
for i in 1 2 3; do
  admissions $i &
  loads+=($!)
done
connections x &
loads+=($!)
some() { [ "$(cat "$WORK"/renewals.admissions.* | wc -l)" -ge 20 ] && [ "$(wc -l <"$WORK/renewals.connections")" -ge 5 ]; }
eventually 60 "admissions and connections are under way" some

# ---- renewals -----------------------------------------------------------------------------------------------------------------
# renew CERTIFICATE: like `cmctl renew`
renew() {
  kubectl -n "$SYSTEM" get certificate "$1" -o json | jq '.status.conditions |= map(select(.type != "Issuing"))
      + [{type: "Issuing", status: "True", reason: "ManuallyTriggered", message: "renewed by a test", lastTransitionTime: (now | todate)}]' |
    kubectl replace --subresource=status -f - >/dev/null
}
# taken_up SERIAL: another certificate is served
taken_up() { local now; now=$(served) && [ -n "$now" ] && [ "$now" != "$1" ] && [ "$now" = "$(data timeshard-tls 'tls\.crt' | serial)" ]; }
# renewed_leaf WHAT: the leaf is renewed and served
renewed_leaf() {
  local before
  before=$(served)
  eventually 20 "$1: asked for" renew timeshard-tls
  eventually 90 "$1: the server has taken it up" taken_up "$before"
}
for n in first second third; do renewed_leaf "$n renewal of the leaf"; done

ca=$(data timeshard-ca 'tls\.crt') leaf=$(served)
ca_renewed() { local new; new=$(data timeshard-ca 'tls\.crt') && [ -n "$new" ] && [ "$new" != "$ca" ] && at_rest timeshard-ca; }
eventually 20 "the CA is renewed: asked for" renew timeshard-ca
eventually 60 "the CA is renewed: issued" ca_renewed
same "with the same key, so each CA verifies the other's leaves" "$(key <<<"$ca")" key < <(data timeshard-ca 'tls\.crt')
check "the leaf of the old CA verifies against the new one" openssl verify -CAfile <(data timeshard-ca 'tls\.crt') -purpose sslserver <(data timeshard-tls 'tls\.crt')
same "the leaf is not reissued for it" "$leaf" served
renewed_leaf "the leaf after it"
check "the leaf of the new CA verifies against the old one, which the API server may still trust alone" openssl verify -CAfile <(echo "$ca") -purpose sslserver <(data timeshard-tls 'tls\.crt')

ca=$(data timeshard-ca 'tls\.crt') leaf=$(served)
kubectl -n "$SYSTEM" delete secret timeshard-ca >/dev/null
eventually 60 "the CA's Secret is deleted with its key: cert-manager makes a new CA" ca_renewed
refused "which has not signed the served certificate" "error" openssl verify -CAfile <(data timeshard-ca 'tls\.crt') <(data timeshard-tls 'tls\.crt')
same "the served certificate and the trusted CA stay" "$leaf" served
renewed_leaf "the leaf of the new CA"
flat() { grep -v CERTIFICATE | tr -d '\n'; }
holds() { grep -qF "$(flat)" <(bundle | flat); }
both() { holds <<<"$ca" && holds < <(data timeshard-ca 'tls\.crt'); }
eventually 60 "the injector has added the new CA to the old one, so either may serve" both

leaf=$(served)
kubectl -n "$SYSTEM" delete secret timeshard-tls >/dev/null
eventually 90 "the leaf's Secret is deleted: it is recreated, and loaded" taken_up "$leaf"

reloads=$(metric timeshard_certificate_reloads_total)
: >"$stop"
wait "${loads[@]}"
loads=()
say "$(cat "$WORK"/renewals.admissions.* | wc -l) admissions, $(wc -l <"$WORK/renewals.connections") new connections, $reloads reloads"
same "not one of $(cat "$WORK"/renewals.admissions.* | wc -l) admissions failed or was not injected" "injected 0" sort -u "$WORK"/renewals.admissions.1 "$WORK"/renewals.admissions.2 "$WORK"/renewals.admissions.3
same "not one of $(wc -l <"$WORK/renewals.connections") new connections was refused by who trusts the caBundle" trusted sort -u "$WORK/renewals.connections"
