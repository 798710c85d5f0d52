# shellcheck shell=bash
# a server does everything once; the API server's audit log shows that each right of deploy/ is used, and nothing was refused
# stage: control-plane
# server: --allow-local-pods
ns=e2e-rights
# shellcheck source=../everything.sh
. "$CHECKOUT/tests/e2e/everything.sh"
back() {
  no_stand_in
  server_start
}
trap back EXIT
# granted: every rule of deploy/
granted() { { kubectl get clusterrole timeshard -o json; kubectl -n "$SYSTEM" get role timeshard -o json; } | rules; }
everything
same "every right of deploy/ was used, and no other" "$(granted)" called allow
same "nothing was refused" "" called forbid
