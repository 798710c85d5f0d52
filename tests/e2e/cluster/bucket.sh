#!/usr/bin/env bash
# Makes a bucket of one sample a day for the last 371 days, each in a block of its own, and prints its directory (type: FILESYSTEM).
# timeshard_day is 1 for today, 2 for yesterday, and so on: the sum over a range shows whether one is missing.
# It is made once a day, in about 15 s, because its newest sample must be of today, and kept in target/e2e, as is
# yesterday's, which a run that began then may still read; older ones are removed.
# usage: bucket.sh
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/env.sh" --
day=$(date -u +%F)
bucket=$E2E_DIR/bucket-$day
mkdir -p "$E2E_DIR"
exec 8>"$E2E_DIR/.bucket.lock"
flock 8 # scenarios run in parallel
if [ ! -e "$bucket" ]; then
  debian promtool=prometheus
  [ -x "$BIN/thanos" ] || die "no thanos in $BIN: run build.sh first"
  for old in "$E2E_DIR"/bucket-*; do
    [ "$old" = "$E2E_DIR/bucket-$(date -u -d "$day -1 day" +%F)" ] || rm -rf "$old"
  done
  w=$(mktemp -d "$E2E_DIR/bucket.XXXXXX")
  trap 'rm -rf "$w"' EXIT
  midnight=$(date -u -d "$day" +%s)
  {
    echo '# TYPE timeshard_day gauge'
    for ((age = 370; age >= 0; age--)); do echo "timeshard_day $((age + 1)) $((midnight - age * 86400))"; done
    echo '# EOF'
  } >"$w/samples"
  mkdir "$w/blocks" "$w/bucket"
  promtool tsdb create-blocks-from openmetrics "$w/samples" "$w/blocks" >"$w/log" 2>&1 || { tail "$w/log" >&2; die "promtool failed"; }
  printf 'type: FILESYSTEM\nconfig: {directory: %s}\n' "$w/bucket" >"$w/objstore.yml"
  thanos tools bucket upload-blocks --path="$w/blocks" --label='cluster="e2e"' --objstore.config-file="$w/objstore.yml" >"$w/log" 2>&1 ||
    { tail "$w/log" >&2; die "thanos could not upload the blocks"; }
  chmod -R a+rX "$w/bucket"
  mv "$w/bucket" "$bucket"
fi
echo "$bucket"
