#!/usr/bin/env bash
# run-job.sh JOB[,JOB ...] [ARGS]: starts jobs of the local runner, anew if their arguments or settings have changed, and
# waits until they work.
set -euo pipefail
cd "$(dirname "$0")/../.."
source deploy/local/env.sh
source deploy/jobs.sh

ctl() { supervisorctl -c deploy/local/supervisord.conf "$@"; }
if ! ctl pid >/dev/null 2>&1; then
  echo "the stack is not up (local runner); start it with: make up STACK=local" >&2
  exit 1
fi

# What start-job.sh reads: a job takes its arguments and settings over when it is started again by itself, too.
given() {
  python -m fedstream.settings
  printf 'export NODES=%q NODES_PER_DRIVER=%q EVENT_LOG=%q\nJOB_ARGS=%q\n' "$NODES" "$NODES_PER_DRIVER" "$EVENT_LOG" "$(quoted "$@")"
}

all=()
for job in ${1//,/ }; do
  listed=$(names_of "$job")
  mapfile -t names <<<"$listed"
  all+=("${names[@]}")
  file=$RUN_PATH/$job.env
  given "${@:2}" >"$file.new"
  cmp -s "$file.new" "$file" || ctl stop "${names[@]/#/jobs:}" >/dev/null || true
  mv "$file.new" "$file"
  for name in "${names[@]}"; do # what holds its place after an error begins anew
    [[ ! -f $CHECKPOINT_DIR/running/$name.error ]] || ctl stop "jobs:$name" >/dev/null || true
  done
  ctl start "${names[@]/#/jobs:}" >/dev/null || true # what does not start is told below
done
exec python -m fedstream.stack.wait --timeout "$UP_TIMEOUT_SECONDS" "${all[@]}"
