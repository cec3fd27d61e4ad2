#!/usr/bin/env bash
# stack.sh check|up|down|clean|ps|reset JOB FROM|skip JOB AT|logs NAME|history|monitoring|stop-jobs: the local runner's
# part of the make targets of these names.
set -euo pipefail
cd "$(dirname "$0")/../.."
source deploy/local/env.sh

ctl() { supervisorctl -c deploy/local/supervisord.conf "$@"; }
is_up() { ctl pid >/dev/null 2>&1; }
processes() { python3 -m fedstream.stack.processes "$@"; }

# `make up` marks the folder that it makes; a folder of yours is not used, and not deleted. A program that was started by
# hand before, such as sensors that replay a file, may have written checkpoints.
expect_own_folder() {
  [[ ! -f $RUN_PATH/.fedstream && -n $(ls -A --ignore=checkpoints "$RUN_PATH" 2>/dev/null) ]] || return 0
  echo "RUN_DIR is '$RUN_DIR', which is there and has no file .fedstream, the mark of a folder that make up has made;" \
    "expected such a folder, an empty one or a new one, since make clean deletes it. Nothing was done. Choose another" \
    "(RUN_DIR=.run), or, if an older version of the stack has made this one: touch $RUN_DIR/.fedstream" >&2
  exit 1
}

# supervisord listens on a socket below it, whose path the kernel limits to 107 bytes.
expect_short_path() {
  ((${#RUN_PATH} <= 80)) && return
  echo "the stack's folder is $RUN_PATH, ${#RUN_PATH} characters; expected at most 80, since the path of a socket below" \
    "it may not be longer than 107. Nothing was done. Move the checkout to a shorter path, such as ~/fed." >&2
  exit 1
}

up() {
  processes --stop-left-over
  mkdir -p "$RUN_PATH"
  touch "$RUN_PATH/.fedstream"
  mkdir -p "$RUN_PATH/logs" "$DATA_DIR" "$CHECKPOINT_DIR"
  if is_up; then
    mkdir -p "$SPARK_LOCAL_DIRS"
    ctl start zookeeper kafka topics spark-master spark-worker:* producer board >/dev/null || true
  else
    rm -rf "${SPARK_RECOVERY_DIR:?}"/* "$SPARK_LOCAL_DIRS" # the first may be a disk of its own
    mkdir -p "$SPARK_LOCAL_DIRS"
    python -m fedstream.stack.doctor --ports-only
    supervisord -c deploy/local/supervisord.conf
  fi
  python -m fedstream.stack.wait --timeout "$UP_TIMEOUT_SECONDS" zookeeper kafka topics spark producer board
}

clean() {
  processes --kill
  if [[ ! -f $RUN_PATH/.fedstream ]]; then
    echo "nothing runs, and there is nothing to delete in $RUN_DIR"
    return
  fi
  rm -rf "${RUN_PATH:?}"/[!.]* # the mark stays until all else is gone: a disk may be mounted on a folder
  rm -rf "$RUN_PATH"
  echo "stopped; deleted $RUN_DIR: topics, checkpoints, outputs and logs"
  if [[ -d $CHECKPOINT_DIR ]]; then # outside of the folder
    echo "kept: the checkpoints in $CHECKPOINT_DIR (CHECKPOINT_DIR), outside of $RUN_DIR. They belong to topics that are" \
      "gone: remove them before you start a job"
  fi
}

ps() {
  if is_up; then
    ctl status | grep -v 'Not started' || true
    python -m fedstream.stack.parts
  elif [[ -n $(processes) ]]; then
    python -m fedstream.stack.parts
  else
    echo "nothing runs (local runner); start with: make up STACK=local"
  fi
}

# change reset|skip JOB TEXT: what this command does to a job while it is stopped.
change() {
  local was code=0
  was=$(ctl status "jobs:$2" 2>/dev/null) || true
  ctl stop "jobs:$2" >/dev/null 2>&1 || true
  python -m "fedstream.commands.$1" "$2" "$3" || code=$?
  if [[ $was =~ RUNNING|STARTING|BACKOFF|FATAL ]]; then ctl start "jobs:$2"; fi
  return "$code"
}

expect_stack() {
  is_up && return
  echo "the stack is not up (local runner); start it with: make up STACK=local" >&2
  exit 1
}

# start_service NAME: one that make up leaves alone.
start_service() {
  ctl start "$1" >/dev/null || true # what does not start is told below
  python -m fedstream.stack.wait --timeout "$UP_TIMEOUT_SECONDS" "$1"
}

monitoring() {
  expect_stack
  if [[ ! -x $PROMETHEUS ]]; then
    deploy/progress.sh "Prometheus, from Debian's package" deploy/monitoring/unpack-prometheus.sh "${PROMETHEUS%/*}"
  fi
  start_service prometheus
}

history() {
  expect_stack
  start_service history
}

logs() {
  local file=$RUN_PATH/logs/$1.log
  if [[ ! -f $file ]]; then
    echo "no log $file; one of: $(find "$RUN_PATH/logs" -name '*.log' -printf '%f ' 2>/dev/null | sed 's/\.log / /g')" >&2
    exit 1
  fi
  if [[ -t 1 ]]; then tail -n 100 -F "$file"; else tail -n 1000 "$file"; fi
}

case $1 in
  check)
    expect_short_path
    expect_own_folder
    ;;
  down)
    processes --stop
    echo "stopped; data kept in $RUN_DIR"
    ;;
  clean)
    expect_own_folder
    clean
    ;;
  stop-jobs) ! is_up || ctl stop jobs:* | grep -v 'not running' || true ;;
  reset | skip) change "$@" ;;
  expect-stack) expect_stack ;;
  up | ps | logs | history | monitoring) "$@" ;;
  *)
    echo "stack.sh: got '$1', expected check, up, down, clean, ps, reset, skip, logs, history, monitoring or stop-jobs" >&2
    exit 2
    ;;
esac
