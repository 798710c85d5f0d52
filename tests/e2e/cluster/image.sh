#!/usr/bin/env bash
# Makes an OCI image of one layer from a directory and imports it into the running containerd for pods (imagePullPolicy: Never).
# usage: [IMAGE_USER=UID] image.sh NAME ROOTFS_DIR [ENTRYPOINT…]     NAME with its registry part and tag: localhost/thanos:v1
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/env.sh"
[ $# -ge 2 ] || die "usage: [IMAGE_USER=UID] image.sh NAME ROOTFS_DIR [ENTRYPOINT…]"
name=$1 rootfs=$2
shift 2
case $name in */*:*) ;; *) die "$name: write it as localhost/NAME:TAG" ;; esac
[ -d "$rootfs" ] || die "no directory $rootfs"
mkdir -p "$E2E_DIR"
w=$(mktemp -d "$E2E_DIR/image.XXXXXX")
trap 'rm -rf "$w"' EXIT
mkdir -p "$w/blobs/sha256"

# blob FILE: moves it under its digest; sets $digest and $size
blob() {
  digest=$(sha256sum "$1" | cut -d' ' -f1) size=$(stat -c %s "$1")
  mv "$1" "$w/blobs/sha256/$digest"
}
entry=
for a in "$@"; do
  a=${a//\\/\\\\}
  entry+="${entry:+,}\"${a//\"/\\\"}\""
done
tar -C "$rootfs" --numeric-owner --owner=0 --group=0 --sort=name --mtime=@0 -cf "$w/layer" .
blob "$w/layer"
layer=$digest lsize=$size
printf '{"architecture":"amd64","os":"linux","config":{"User":"%s","Env":["PATH=/bin:/usr/bin"],"Entrypoint":[%s],"WorkingDir":"/"},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
  "${IMAGE_USER-}" "$entry" "$layer" >"$w/config"
blob "$w/config"
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%s","size":%s}]}' \
  "$digest" "$size" "$layer" "$lsize" >"$w/manifest"
blob "$w/manifest"
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"platform":{"architecture":"amd64","os":"linux"},"annotations":{"io.containerd.image.name":"%s"}}]}' \
  "$digest" "$size" "$name" >"$w/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' >"$w/oci-layout"
tar -C "$w" -cf "$w/image.tar" blobs index.json oci-layout
ctr -a "$CTR_SOCK" -n k8s.io images import "$w/image.tar" >"$w/log" 2>&1 || { cat "$w/log" >&2; die "import of $name failed"; }
echo "$name: sha256:$digest" >&2
