# shellcheck shell=bash
# A line a claim, and how many held. Sourced by the scripts that try a whole thing: tests/telemetry, tests/compose, tests/kubernetes.

passed=0 failed=0 skipped=0

# Whether a command succeeds; what it said is shown where it does not.
claim() { # WHAT COMMAND…
  local what=$1 said
  shift
  if said=$("$@" 2>&1); then
    echo "ok    $what"
    passed=$((passed + 1))
  else
    echo "FAILED $what"
    printf '%s\n' "$said" | sed 's/^/       /' | tail -40
    failed=$((failed + 1))
    return 1
  fi
}

skip() { # WHAT REASON
  echo "SKIPPED: $1: $2"
  skipped=$((skipped + 1))
}

# Waits until a command succeeds, and prints its last output where it does not: within SECONDS COMMAND…
within() {
  local seconds=$1 deadline=$((SECONDS + $1)) said
  shift
  until said=$("$@" 2>&1); do
    if [ "$SECONDS" -ge "$deadline" ]; then
      printf 'not within %s s: %s\n%s\n' "$seconds" "$*" "$said"
      return 1
    fi
    sleep 0.5
  done
}
