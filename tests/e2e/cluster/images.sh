#!/usr/bin/env bash
# Imports the images the harness itself needs: the pods' sandbox, busybox and Thanos. up.sh calls it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/env.sh"
r=$E2E_DIR/rootfs
mkdir -p "$r"

mkdir -p "$r/pause"
[ -x "$r/pause/pause" ] || gcc -Os -static -s -o "$r/pause/pause" "$here/pause.c"
"$here/image.sh" localhost/pause:1 "$r/pause" /pause

# base NAME: a root directory with busybox's commands and a user list
base() {
  [ ! -d "$r/$1" ] || return 0
  local d="$r/$1.new"
  rm -rf "$d"
  mkdir -p "$d"/{bin,etc,tmp,root}
  chmod 1777 "$d/tmp"
  cp "$(command -v busybox)" "$d/bin/busybox"
  for a in $("$d/bin/busybox" --list); do [ "$a" = busybox ] || ln -s busybox "$d/bin/$a"; done
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n%s' "${2-}" >"$d/etc/passwd"
  printf 'root:x:0:\nnobody:x:65534:\n%s' "${3-}" >"$d/etc/group"
  mv "$d" "$r/$1"
}
debian busybox=busybox-static
base busybox
"$here/image.sh" localhost/busybox:1 "$r/busybox" /bin/sh
if [ -x "$BIN/thanos" ]; then
  base thanos $'thanos:x:1001:1001:thanos:/:/bin/false\n' $'thanos:x:1001:\n'
  [ "$r/thanos/bin/thanos" -nt "$BIN/thanos" ] || install -m 755 "$BIN/thanos" "$r/thanos/bin/thanos"
  IMAGE_USER=1001 "$here/image.sh" localhost/thanos:v0.42.4 "$r/thanos" /bin/thanos
fi
