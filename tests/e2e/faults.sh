# shellcheck shell=bash
# The bucket behind an S3 endpoint that fails on command (examples/faulty-bucket): sourced by scenarios that have set $ns and $bucket.

faulty=$(dirname "$SERVER")/examples/faulty-bucket
[ -x "$faulty" ] || { bad "no $faulty: build it with cargo build --release --example faulty-bucket"; exit 1; }
# bucket_server PORT: serves $bucket on the node's address, and takes rules on PORT + 1; sets $bucket_pid
bucket_server() {
  # in a session of its own, which shares no CPU with the shells that ask
  setsid "$faulty" --directory "$bucket" --listen "$NODE_IP:$1" --control "127.0.0.1:$(($1 + 1))" >"$WORK/bucket-$1.log" 2>&1 &
  bucket_pid=$!
  eventually 10 "the bucket on port $1 answers" faults "$1" '[]'
}
# faults PORT RULES: sets exactly these rules from now on; RULES is a JSON list
faults() {
  local answer
  answer=$(exec 3<>"/dev/tcp/127.0.0.1/$(($1 + 1))" && printf 'PUT /faults HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s' "${#2}" "$2" >&3 && timeout 60 cat <&3)
  case $answer in
  *" 204 "*) ;;
  *) echo "the bucket refuses these rules: $answer" >&2; return 1 ;;
  esac
}
# served PORT: requests and faults so far, of all clients
served() { http 127.0.0.1 "$(($1 + 1))" /faults | sed '1,/^\r$/d' | jq -r '"\([.clients[].requests] | add // 0) requests, \([.clients[].faults] | add // 0) of them broken"'; }
# objstore NAME PORT: a ConfigMap with the configuration of thanos for that endpoint
objstore() {
  kubectl -n "$ns" create configmap "$1" --dry-run=client -o yaml --from-literal=objstore.yml="{type: S3, config: {endpoint: \"$NODE_IP:$2\", bucket: e2e, region: e2e,
    access_key: e2e, secret_key: e2e-secret, insecure: true, bucket_lookup_type: path, max_retries: 2}}" | kubectl -n "$ns" apply -f - >/dev/null 2>&1
}
# blocks FROM [TO]: a JSON list of the ULIDs of the blocks from FROM to TO days ago; the sample of a block is its age plus one
blocks() {
  jq -sc --argjson from "$1" --argjson to "${2:-$1}" --argjson midnight "$(date -u -d "${bucket##*/bucket-}" +%s)" \
    '[.[] | select((($midnight - .minTime / 1000) / 86400 | round) as $age | $age >= $from and $age <= $to) | .ulid]' "$bucket"/*/meta.json
}
# broken BLOCKS FAULT [FIELD VALUE]…: a rule that breaks the indexes of these blocks; fields are JSON
broken() {
  local rule
  rule=$(jq -nc --argjson blocks "$1" --argjson fault "$2" '{prefixes: $blocks, suffix: "/index", fault: $fault}')
  shift 2
  while [ $# -gt 0 ]; do
    rule=$(jq -c --arg field "$1" --argjson value "$2" '.[$field] = $value' <<<"$rule")
    shift 2
  done
  echo "$rule"
}
# rules RULE…: as a list
rules() { local IFS=,; echo "[$*]"; }
# address POD: as a JSON string
address() { kubectl -n "$ns" get pod "$1" -o 'jsonpath="{.status.podIP}"'; }
