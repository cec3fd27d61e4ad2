#!/usr/bin/env bash
# progress.sh TEXT COMMAND...: runs a long command and shows how long it has been running; what it prints, only if it fails.
set -euo pipefail
text=$1
shift
log=$(mktemp)
ticker=
# Not in the ticker: one that is ended as soon as it is forked still has this trap.
trap 'if ((BASHPID == $$)); then kill $ticker 2>/dev/null || true; rm -f "$log"; fi' EXIT

# In a terminal one line is brought up to date, elsewhere a line is added now and then.
if [[ -t 1 ]]; then start='\r\e[K' every=1 end=''; else start='' every=10 end='\n'; fi
tick() {
  while sleep "$every" >/dev/null 2>&1; do printf "$start==> %s ... %d s$end" "$text" "$SECONDS"; done
}

printf "==> %s ...$end" "$text"
tick &
ticker=$!
code=0
"$@" >"$log" 2>&1 </dev/null || code=$?
kill "$ticker"
wait "$ticker" 2>/dev/null || true
ticker=
if ((code)); then
  printf "$start==> %s: failed after %d s\n" "$text" "$SECONDS"
  tail -n 40 "$log" >&2
else
  printf "$start==> %s: %d s\n" "$text" "$SECONDS"
fi
exit "$code"
