#!/usr/bin/env bash
# Starts cert-manager's controllers and CA injector (tools/cert-manager) on the running cluster; down.sh stops them.
# usage: cert-manager.sh [--control-plane-only]      they run as a process on the host, not a pod, so a control plane is enough
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/env.sh"
[ -e "$STATE/pids" ] || die "no cluster is up"
[ ! -e "$STATE/pids/cert-manager" ] || die "it already runs"
"$here/build.sh" cert-manager >&2
kubectl apply --server-side -f "$BIN/cert-manager.crds.yaml" >/dev/null
# `kubectl wait` fails at once while a CRD has no condition, and what is established is not discovered yet.
wait_for 60 "cert-manager's CRDs" kubectl wait --for=condition=Established --timeout=5s crd/certificates.cert-manager.io \
  crd/certificaterequests.cert-manager.io crd/issuers.cert-manager.io crd/clusterissuers.cert-manager.io
wait_for 30 "cert-manager's API" kubectl get -A certificates.cert-manager.io,issuers.cert-manager.io,clusterissuers.cert-manager.io
kubectl create namespace cert-manager --dry-run=client -o yaml | kubectl apply -f - >/dev/null
start cert-manager cert-manager "$KUBECONFIG"
sleep 1
kill -0 "$(cat "$STATE/pids/cert-manager")" 2>/dev/null || die "it exited: $STATE/log/cert-manager.log"
