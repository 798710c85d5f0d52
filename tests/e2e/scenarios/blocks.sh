# shellcheck shell=bash
# plan --blocks reads the real thanos' JSON list of a real bucket, refuses its other formats with the right command, and its suggestion is correct
# stage: control-plane
bucket=$("$CHECKOUT/tests/e2e/cluster/bucket.sh")
lists=$WORK/blocks
mkdir -p "$lists"
printf 'type: FILESYSTEM\nconfig: {directory: %s}\n' "$bucket" >"$lists/objstore.yml"
list() { "$BIN/thanos" tools bucket "$@" --objstore.config-file="$lists/objstore.yml" 2>/dev/null; }
list ls --exclude-delete -o json >"$lists/json"
list ls -o wide >"$lists/wide"
for form in table csv tsv; do list inspect --output=$form >"$lists/$form"; done
at=$(date -u +%FT%TZ)
# plan_of FORM [ARG…]: JSON
plan_of() { "$SERVER" plan --config "${config-$lists/config.yaml}" --at "$at" --blocks "$lists/$1" -o json "${@:2}"; }
printf 'sharding: {boundaries: [14d, 90d]}\n' >"$lists/config.yaml"
on_disk() { find "$bucket" -type f ! -name meta.json -printf '%s\n' | awk '{ sum += $1 } END { print sum }'; }
listed() { plan_of json | jq .blocks.listed.bytes; }
same "its bytes are those of the files" "$(on_disk)" listed
refuses() {
  local rc=0
  plan_of "$1" >/dev/null 2>"$lists/error" || rc=$?
  [ $rc = 2 ] && grep -q -- '-o json' "$lists/error"
}
for form in wide table csv tsv; do check "a list that is no JSON is refused with the command that prints JSON: $form" refuses $form; done
plan_of json >"$lists/before"
jq -r '"sharding: {boundaries: [\(.blocks.suggestion.boundaries | join(", "))]}"' "$lists/before" >"$lists/better.yaml"
pasted() { config=$lists/better.yaml plan_of json | jq .blocks.imbalance; }
same "the suggested boundaries, pasted, are as balanced as was said" "$(jq .blocks.suggestion.imbalance "$lists/before")" pasted
check "and more so than 14 d and 90 d" jq -e '.blocks.suggestion.imbalance < 1.2 and .blocks.imbalance > 2' "$lists/before"
say "imbalance: $(jq -r '"\(.blocks.imbalance) -> \(.blocks.suggestion.imbalance) with \(.blocks.suggestion.boundaries | join(", "))"' "$lists/before")"
