#!/usr/bin/env bash
# Builds the binaries of the test cluster from the modules under tools/ into $BIN.
# usage: build.sh [NAME…]      no NAME: everything but cert-manager, helm and prometheus-operator (its CRDs)
# Keeps existing binaries; FORCE=1 rebuilds them.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/env.sh"
mkdir -p "$BIN"
command -v go >/dev/null || die "no go on PATH: the cluster is built from Go modules, with Go 1.26.8 or newer"
debian gcc=gcc /usr/include/stdio.h=libc6-dev

K8S=v1.36.3 THANOS=0.42.4 CONTAINERD=v2.4.2 HELM=v3.22.0 PROMETHEUS_OPERATOR=v0.88.0
kv=k8s.io/component-base/version
kflags="-s -w -X $kv.gitVersion=$K8S -X $kv.gitMajor=1 -X $kv.gitMinor=36 -X $kv.gitTreeState=clean"
pcv=github.com/prometheus/common/version

# Debuggers are not used here, and their tables cost a tenth of the build. Programs that do little are not optimised either.
fast=all=-dwarf=false quick='all=-dwarf=false -N -l'

# name  module directory under tools/  package  CGO  linker flags
one() {
  local name=$1 dir=$2 pkg=$3 cgo=$4 flags=$5 t0=$SECONDS
  if [ -x "$BIN/$name" ] && [ -z "${FORCE:-}" ]; then echo "$name: kept"; return; fi
  # the binary is first written next to its final name, so that an interrupted build leaves nothing behind
  (cd "$here/tools/$dir" && CGO_ENABLED=$cgo GOFLAGS="-mod=readonly -buildvcs=false" GOTOOLCHAIN=local \
    nice go build -trimpath -tags "${TAGS-}" -gcflags "${GCFLAGS-$fast}" -ldflags "$flags" -o "$BIN/.$name" "$pkg")
  mv "$BIN/.$name" "$BIN/$name"
  echo "$name: built in $((SECONDS - t0)) s"
}

# helm is a program of a module named with its version, so it needs no go.mod here. `helm template` and `helm lint` assume this
# Kubernetes version; a build that does not set it assumes 1.20.
helm() {
  local t0=$SECONDS v="" p
  if [ -x "$BIN/helm" ] && [ -z "${FORCE:-}" ]; then echo "helm: kept"; return; fi
  for p in chartutil lint/rules; do v+=" -X helm.sh/helm/v3/pkg/$p.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/$p.k8sVersionMinor=36"; done
  (cd / && GOBIN=$BIN/.helm CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOTOOLCHAIN=local \
    nice go install -trimpath -gcflags "$quick" -ldflags "-s -w$v" "helm.sh/helm/v3/cmd/helm@$HELM")
  mv "$BIN/.helm/helm" "$BIN/helm"
  rmdir "$BIN/.helm"
  echo "helm: built in $((SECONDS - t0)) s"
}
# CRDs from the Prometheus operator's module, which is not built
prometheus_operator() {
  local dir
  if grep -qs servicemonitors.monitoring "$BIN/prometheus-operator.crds.yaml" && [ -z "${FORCE:-}" ]; then return; fi
  dir=$(cd / && GOTOOLCHAIN=local go mod download -json "github.com/prometheus-operator/prometheus-operator@$PROMETHEUS_OPERATOR" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  cat "$dir"/example/prometheus-operator-crd/monitoring.coreos.com_{podmonitors,servicemonitors,prometheusrules}.yaml >"$BIN/.prometheus-operator"
  mv "$BIN/.prometheus-operator" "$BIN/prometheus-operator.crds.yaml"
}

build() {
  case $1 in
  etcd) one etcd kubernetes go.etcd.io/etcd/server/v3 1 "-s -w" ;;
  kube-apiserver | kube-controller-manager | kube-scheduler | kube-proxy | kubelet | kubectl)
    one "$1" kubernetes "k8s.io/kubernetes/cmd/$1" 1 "$kflags" ;;
  containerd | containerd-shim-runc-v2 | ctr)
    one "$1" containerd "github.com/containerd/containerd/v2/cmd/$1" 0 "-s -w -X github.com/containerd/containerd/v2/version.Version=$CONTAINERD" ;;
  thanos) # static, because the image has no libc
    TAGS=netgo,slicelabels one thanos thanos github.com/thanos-io/thanos/cmd/thanos 0 "-s -w -X $pcv.Version=$THANOS -X $pcv.Branch=HEAD -X $pcv.Revision=module" ;;
  cert-manager) # the process, with the CRDs of the same version
    GCFLAGS=$quick one cert-manager cert-manager . 0 "-s -w"
    [ ! -e "$BIN/cert-manager.crds.yaml" ] || [ -n "${FORCE:-}" ] || return 0
    cat "$(cd "$here/tools/cert-manager" && go list -m -f '{{.Dir}}' github.com/cert-manager/cert-manager)"/deploy/crds/*.yaml >"$BIN/cert-manager.crds.yaml" ;;
  coredns) one coredns coredns . 0 "-s -w" ;;
  helm) helm ;;
  prometheus-operator) prometheus_operator ;;
  *) echo "build.sh: unknown: $1" >&2; return 2 ;;
  esac
}

[ $# -gt 0 ] || set -- etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl \
  containerd containerd-shim-runc-v2 ctr coredns thanos
for b; do build "$b"; done
