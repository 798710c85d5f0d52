#!/usr/bin/env bash
# Compares admission webhooks over TLS with the same AdmissionReview bodies: CPU, latency, memory, start-up.
# `compare` runs it with the targets of this tree; README.md explains the method.
#
# usage: run.sh 'NAME=URL[|COMMAND]'...
#   URL      https://127.0.0.1:PORT/PATH (loopback only)
#   COMMAND  starts the server in the foreground on that port; run.sh pins it, times its start-up
#            and stops it at the end. Without it the server must already listen there.
# environment: ROUNDS=3 SECONDS_EACH=3 CONNS="1 8 64" BODIES="3k 64k 250k" BURST=1536 (new connections a
#   cell, 0 = skip bursts) QUOTA=200 (millicores of the limited burst, 0 = skip; needs root and the cgroup cpu controller)
#   SERVER_CPU=0 LOAD_CPU=1 OUT=DIR PAYLOAD_ARGS="--label k=v" HEY=hey MAX_NOISE=0.10 (other load on the server's core
#   above which a cell is repeated) TRIES=3
# needs: wrk, hey (for the bursts), python3, ss, taskset. Prints Markdown; raw rows in $OUT/rows.csv.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${ROUNDS:=3}" "${SECONDS_EACH:=3}" "${CONNS:=1 8 64}" "${BODIES:=3k 64k 250k}" "${BURST:=1536}" "${QUOTA:=200}" "${HEY:=hey}"
: "${SERVER_CPU:=0}" "${LOAD_CPU:=1}" "${OUT:=$(mktemp -d)}" "${PAYLOAD_ARGS:=}" "${MAX_NOISE:=0.10}" "${TRIES:=3}"
[ $# -gt 0 ] || { sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$OUT"
hz=$(getconf CLK_TCK)
declare -a names; declare -A url pid rss0 start started

cgroups=/sys/fs/cgroup
[ ! -d "$cgroups/cpu" ] || cgroups=$cgroups/cpu # version 1
cg=$cgroups/timeshard-load
command -v "$HEY" >/dev/null || { echo "skipped: bursts of new connections and the CPU quota (no hey)" >&2; BURST=0; }
if [ "$QUOTA" -gt 0 ] && [ ! -w "$cgroups/cgroup.procs" ]; then
  echo "skipped: rows at ${QUOTA}m CPU (they put the server into a cgroup, which needs root)" >&2
  QUOTA=0
fi
cleanup() {
  for n in "${names[@]}"; do if [ -n "${started[$n]:-}" ]; then kill "${pid[$n]}" && wait "${pid[$n]}"; fi; done 2>/dev/null || true
  [ ! -d "$cg" ] || rmdir "$cg" || true
}
trap cleanup EXIT

# Go servers and OpenSSL clients would agree on different ciphers: offer only the API server's first choice.
cat >"$OUT/openssl.cnf" <<'CNF'
openssl_conf = a
[a]
ssl_conf = b
[b]
system_default = c
[c]
Ciphersuites = TLS_AES_128_GCM_SHA256
CNF

cpu_ticks() { sed 's/.*) //' "/proc/$1/stat" | awk '{print $12 + $13}'; }                    # utime + stime, all threads
core_ticks() { awk -v c="cpu$SERVER_CPU" '$1 == c {print $2 + $3 + $4 + $7 + $8 + $9}' /proc/stat; } # busy, incl. steal
status_kib() { awk -v k="$2:" '$1 == k {print $2}' "/proc/$1/status"; }
mib() { awk -v k="$1" 'BEGIN {printf "%.1f", k / 1024}'; }
on_load_cpu() { taskset -c "$LOAD_CPU" "$@"; }

# shellcheck disable=SC2086
on_load_cpu python3 "$here/payloads.py" "$OUT/payloads" $PAYLOAD_ARGS >&2
body() { echo "$OUT/payloads/$1.json"; }

for arg in "$@"; do
  n=${arg%%=*} rest=${arg#*=}
  u=${rest%%|*}
  [[ $u =~ ^https://(127\.0\.0\.1|localhost|\[::1\]):([0-9]+)/ ]] || { echo "not a loopback https URL: $u" >&2; exit 2; }
  port=${BASH_REMATCH[2]}
  names+=("$n"); url[$n]=$u; start[$n]=-
  if [ "$rest" != "$u" ]; then
    cmd="taskset -c $SERVER_CPU ${rest#*|}"
    start[$n]=$(on_load_cpu python3 "$here/probe.py" startup "$u" "$(body 3k)" "$cmd")
    $cmd >"$OUT/$n.log" 2>&1 &
    pid[$n]=$! started[$n]=1
    for _ in $(seq 100); do ss -ltnH "sport = :$port" | grep -q . && break; sleep 0.1; done
  else
    pid[$n]=$(ss -ltnpH "sport = :$port" | sed -n 's/.*pid=\([0-9]*\).*/\1/p' | head -1)
    [ -n "${pid[$n]}" ] || { echo "nothing listens at $u" >&2; exit 1; }
    taskset -acp "$SERVER_CPU" "${pid[$n]}" >/dev/null
  fi
  on_load_cpu python3 "$here/probe.py" check "$u" "$(body 3k)"
  sleep 1
  rss0[$n]=$(status_kib "${pid[$n]}" VmRSS)
  on_load_cpu python3 "$here/probe.py" check "$u" "$(body 3k)" "$(body 64k)" "$(body 250k)"
done

keepalive() { # CONNS URL BODY SECONDS
  BODY=$3 OPENSSL_CONF=$OUT/openssl.cnf on_load_cpu wrk -t1 -c"$1" -d"${4}s" --timeout 10s --latency -s "$here/post.lua" "$2" |
    awk '$1 == "RESULT" {print $2, $3, $4, $5, $6}'
}
secs() { if [ "$1" -ge 64 ] && [ "$2" = 250k ]; then echo $((SECONDS_EACH * 4)); else echo "$SECONDS_EACH"; fi; } # otherwise few requests finish
burst() { # REQUESTS URL BODY [HEY_FLAG]: 64 workers; new connections are full handshakes (wrk would resume sessions, the API server does not)
  on_load_cpu "$HEY" -n "$1" -c 64 ${4:+"$4"} -t 30 -host localhost -m POST -T application/json -D "$3" -o csv "$2" |
    on_load_cpu python3 "$here/probe.py" hey
}
quota() { # on|off PID: CPU limit of $QUOTA millicores, like a pod's
  if [ "$1" = on ]; then
    mkdir -p "$cg"
    if [ -f "$cg/cpu.cfs_quota_us" ]; then echo $((QUOTA * 100)) >"$cg/cpu.cfs_quota_us"; else echo "$((QUOTA * 100)) 100000" >"$cg/cpu.max"; fi
    echo "$2" >"$cg/cgroup.procs"
  else
    echo "$2" >"$cgroups/cgroup.procs" && rmdir "$cg"
  fi
}
measure() { # ROUND LOAD BODY NAME CMD...
  local r=$1 load=$2 b=$3 n=$4 c0 c1 k0 k1 t0 t1 res cpu noise; shift 4
  for _ in $(seq "$TRIES"); do # repeat a cell disturbed by other load
    c0=$(cpu_ticks "${pid[$n]}") k0=$(core_ticks) t0=$EPOCHREALTIME
    res=$("$@")
    t1=$EPOCHREALTIME c1=$(cpu_ticks "${pid[$n]}") k1=$(core_ticks)
    cpu=$(awk -v d=$((c1 - c0)) -v hz="$hz" 'BEGIN {print d / hz}')
    noise=$(awk -v o=$((k1 - k0 - c1 + c0)) -v hz="$hz" -v w="$(awk "BEGIN {print $t1 - $t0}")" 'BEGIN {o = o / hz / w; printf "%.3f", o < 0 ? 0 : o}')
    if awk "BEGIN {exit !($noise <= $MAX_NOISE)}"; then break; fi
  done
  # shellcheck disable=SC2086
  set -- $res
  echo "$r,$load,$b,$n,$1,$2,$3,$4,$5,$cpu,$noise" | tee -a "$OUT/rows.csv" >&2
}

echo "round,load,body,target,requests,seconds,p50_us,p99_us,errors,cpu_s,noise" >"$OUT/rows.csv"
for n in "${names[@]}"; do keepalive 8 "${url[$n]}" "$(body 3k)" 1 >/dev/null; done # warm-up
for r in $(seq "$ROUNDS"); do
  for b in $BODIES; do
    for c in $CONNS; do
      for n in "${names[@]}"; do measure "$r" "$c keep-alive" "$b" "$n" keepalive "$c" "${url[$n]}" "$(body "$b")" "$(secs "$c" "$b")"; done
    done
  done
  if [ "$BURST" -gt 0 ]; then
    for n in "${names[@]}"; do measure "$r" "64 new TLS" 3k "$n" burst "$BURST" "${url[$n]}" "$(body 3k)" -disable-keepalive; done
    if [ "$QUOTA" -gt 0 ]; then
      for n in "${names[@]}"; do
        quota on "${pid[$n]}"
        measure "$r" "512 new TLS at ${QUOTA}m" 3k "$n" burst 512 "${url[$n]}" "$(body 3k)" -disable-keepalive
        measure "$r" "512 keep-alive at ${QUOTA}m" 64k "$n" burst 512 "${url[$n]}" "$(body 64k)"
        quota off "${pid[$n]}"
      done
    fi
  fi
done

for n in "${names[@]}"; do
  echo "$n,$(mib "${rss0[$n]}"),$(mib "$(status_kib "${pid[$n]}" VmHWM)"),$(mib "$(status_kib "${pid[$n]}" VmRSS)"),$(mib $(($(stat -Lc %s "/proc/${pid[$n]}/exe") / 1024))),${start[$n]}"
done >"$OUT/facts.csv"
python3 "$here/probe.py" report "$OUT/rows.csv" "$OUT/facts.csv" "$MAX_NOISE" | tee "$OUT/report.md"
echo "raw: $OUT" >&2
