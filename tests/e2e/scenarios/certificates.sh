# shellcheck shell=bash
# certs/: cert-manager issues the chain, puts its CA into the webhook's registration and renews the serving certificate
# stage: control-plane
[ -e "$STATE/pids/cert-manager" ] || "$CHECKOUT/tests/e2e/cluster/cert-manager.sh" "$STAGE_FLAG"
mine=$(cat "$WORK/tls/ca.crt")
bundle() { kubectl get mutatingwebhookconfiguration timeshard -o 'jsonpath={.webhooks[0].clientConfig.caBundle}' | base64 -d; }
back() { # in any case the next scenario finds the certificate of this run again
  kubectl -n "$SYSTEM" delete certificates,issuers --all --ignore-not-found >/dev/null
  kubectl annotate mutatingwebhookconfiguration timeshard cert-manager.io/inject-ca-from- >/dev/null
  kubectl patch mutatingwebhookconfiguration timeshard --type=json -p '[{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": "'"$(base64 -w0 <<<"$mine")"'"}]' >/dev/null
}
trap back EXIT
kubectl -n "$SYSTEM" delete secret timeshard-tls timeshard-ca --ignore-not-found >/dev/null
check "certs/ is accepted by cert-manager's definitions" kubectl apply --validate=strict -k "$CHECKOUT/certs"
kubectl annotate --overwrite mutatingwebhookconfiguration timeshard "cert-manager.io/inject-ca-from=$SYSTEM/timeshard-tls" >/dev/null # as deploy/cert-manager does
check "the serving certificate is issued" kubectl -n "$SYSTEM" wait --for=condition=Ready certificate/timeshard-tls --timeout=240s
secret() { kubectl -n "$SYSTEM" get secret timeshard-tls -o "jsonpath={.data.$1}" | base64 -d; }
verifies() { openssl verify -CAfile <(secret 'ca\.crt') -purpose sslserver -verify_hostname "timeshard.$SYSTEM.svc" <(secret 'tls\.crt'); }
check "it verifies against its CA, for the name the API server calls" verifies
# cert-manager adds to the caBundle, so a changed CA is trusted together with the previous one
trusts() { openssl verify -CAfile <(bundle) -purpose sslserver -verify_hostname "timeshard.$SYSTEM.svc" <(secret 'tls\.crt'); }
eventually 30 "the API server's caBundle trusts it" trusts
days() { local e; e=$(date -d "$(openssl x509 -noout -enddate | cut -d= -f2)" +%s); echo $(((e - $(date +%s) + 43200) / 86400)); }
same "the serving certificate lasts 30 days, the CA 3650" "30 3650" echo "$(secret 'tls\.crt' | days) $(secret 'ca\.crt' | days)"
# cert-manager may issue the CA twice when all of certs/ is new; the CA at the time of the leaf's renewal matters
authority() { kubectl -n "$SYSTEM" get secret timeshard-ca -o 'jsonpath={.data.tls\.crt}' | base64 -d; }
settled() { kubectl -n "$SYSTEM" get certificate timeshard-ca -o json | jq -e '[.status.conditions[] | select(.status == "True") | .type] == ["Ready"]'; }
eventually 60 "the CA is issued, and nothing is under way" settled
old=$(secret 'tls\.crt') ca=$(authority)
kubectl -n "$SYSTEM" delete secret timeshard-tls >/dev/null
renewed() { local new; new=$(secret 'tls\.crt') && [ -n "$new" ] && [ "$new" != "$old" ]; }
eventually 60 "a new serving certificate follows the old one" renewed
same "from the same CA, so the API server's trust does not change" "$ca" secret 'ca\.crt'
