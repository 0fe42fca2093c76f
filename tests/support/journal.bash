#!/usr/bin/env bash
# `tollgate up` with its journal and without, over HTTP in batches: accepted and decided transactions a second, latency, and
# what a group commit costs.
#
# usage: tests/support/journal.bash TOLLGATE OUTPUT.json [--rate N] [--batch N] [--duration TIME]
# The rate is above what `up` takes, unless told otherwise: what is accepted is then the throughput.
set -euo pipefail

tollgate=$1 output=$2
shift 2
rate=40000 batch=100 duration=20s
while [ $# -gt 0 ]; do
  case $1 in
    --rate) rate=$2 ;;
    --batch) batch=$2 ;;
    --duration) duration=$2 ;;
    *) echo "journal: $1: expected --rate, --batch or --duration" >&2; exit 2 ;;
  esac
  shift 2
done

work=$(mktemp -d)
up=
end() {
  [ -z "$up" ] || kill -KILL "$up" 2>/dev/null || true
  rm -rf "$work"
}
trap end EXIT

field() { sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",]*\).*/\1/p" "$2" | head -n 1; }

# The upper bound of the histogram's bucket in which the median lies, in milliseconds.
median() {
  awk '
    /^tollgate_log_journal_commit_seconds_bucket/ {
      split($1, part, "le=\""); split(part[2], bound, "\"")
      bounds[++n] = bound[1]; counts[n] = $2; total = $2
    }
    END {
      for (i = 1; i <= n; i++) if (total > 0 && counts[i] >= total / 2) { printf "%s", bounds[i] * 1000; exit }
      printf "0"
    }' "$1"
}

measure() { # name, value of kafka.journal or nothing for the default
  local name=$1 dir=$work/$1 began ended
  mkdir -p "$dir"
  (
    cd "$dir"
    for listener in INGEST__LISTEN PERSISTENCE__LISTEN INGEST__ADMIN_LISTEN SCORER__ADMIN_LISTEN PERSISTENCE__ADMIN_LISTEN NOTIFIER__ADMIN_LISTEN; do
      export "TOLLGATE_$listener=127.0.0.1:0"
    done
    [ "$name" = journal ] || export TOLLGATE_KAFKA__JOURNAL=
    export TOLLGATE_NOTIFIER__SINKS='[{"kind":"file","path":"alerts.ndjson"}]'
    exec "$tollgate" up >up.out 2>up.err
  ) &
  up=$!
  for _ in $(seq 300); do
    [ ! -e "$dir/tollgate-data/up.json" ] || break
    sleep 0.1
  done
  local file=$dir/tollgate-data/up.json
  (cd "$dir" && "$tollgate" load --rate "$rate" --batch "$batch" --duration "$duration" >load.out 2>/dev/null) || true
  began=$(date +%s%N)
  local accepted decided=0
  accepted=$(awk '/^accepted/ { print $2 }' "$dir/load.out")
  for _ in $(seq 1200); do
    decided=$(curl -fsS "$(field persistence "$file")/v1/stats" | grep -o '"by_status":{[^}]*}' | grep -o ':[0-9]*' | tr -d : | awk '{ sum += $1 } END { print sum + 0 }')
    [ "$decided" -lt "${accepted:-0}" ] || break
    sleep 0.1
  done
  ended=$(date +%s%N)
  curl -fsS "$(field scorer "$file")/metrics" >"$dir/metrics"
  local commits seconds p50 p99 drained
  commits=$(awk '/^tollgate_log_journal_commit_seconds_count/ { print $2 }' "$dir/metrics")
  seconds=$(awk '/^sent/ { print $4 }' "$dir/load.out")
  p50=$(awk '$1 == "p50" { print $2 }' "$dir/load.out")
  p99=$(awk '$1 == "p99" { print $2 }' "$dir/load.out")
  drained=$(awk -v ns=$((ended - began)) 'BEGIN { printf "%.1f", ns / 1e9 }')
  kill -TERM "$up"
  wait "$up" || true
  up=
  printf '{"name":"%s","accepted":%s,"decided":%s,"accepted_per_second":%s,"stored_after_seconds":%s,"p50_ms":%s,"p99_ms":%s,"commits":%s,"median_commit_ms_at_most":%s}' \
    "$name" "${accepted:-0}" "$decided" "$(awk -v a="${accepted:-0}" -v s="$seconds" 'BEGIN { printf "%.0f", a / s }')" \
    "$drained" "$p50" "$p99" "${commits:-0}" "$(median "$dir/metrics")" >"$work/$name.json"
}

measure journal
measure memory
mkdir -p "$(dirname "$output")"
printf '[%s,\n %s]\n' "$(cat "$work/journal.json")" "$(cat "$work/memory.json")" >"$output"
cat "$output"
