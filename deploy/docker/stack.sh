#!/usr/bin/env bash
# stack.sh check|setup|up|down|clean|ps|reset JOB FROM|skip JOB AT|logs NAME|history|monitoring|stop-jobs: the Docker runner's
# part of the make targets of these names. Called by make, which exports .env.
set -euo pipefail
cd "$(dirname "$0")/../.."
source deploy/docker/containers.sh

compose() { docker compose --profile "*" "$@"; }
on_host() { ! command -v python3 >/dev/null || python3 -m "$@"; }

setup() {
  if ! docker image inspect "$BASE_IMAGE" >/dev/null 2>&1; then
    deploy/progress.sh "base image $BASE_IMAGE from its registry" timeout 120 docker pull -q "$BASE_IMAGE" 2>/dev/null || {
      echo "no registry served it"
      deploy/progress.sh "base image $BASE_IMAGE from Debian packages" deploy/docker/offline/base-image.sh "$BASE_IMAGE"
    }
  fi
  deploy/progress.sh "images (the first time some minutes, then seconds)" docker compose --profile jobs build
}

up() {
  on_host fedstream.stack.doctor --ports-only
  if ! deploy/progress.sh "services" docker compose up -d --wait --wait-timeout "$UP_TIMEOUT_SECONDS"; then
    show_failed
    exit 1
  fi
}

ps() {
  of_stack --format 'table {{.Names}}\t{{.Status}}\t{{.Ports}}'
  on_host fedstream.stack.parts
}

# change reset|skip JOB TEXT: what this command does to a job while it is stopped.
change() {
  local name=$CONTAINER_PREFIX$2 was code=0
  expect_stack
  was=$(docker inspect -f '{{.State.Status}}' "$name" 2>/dev/null) || true
  [[ -z $was ]] || docker stop -t 30 "$name" >/dev/null
  docker exec -e "NODES_PER_DRIVER=$NODES_PER_DRIVER" "$master" python -m "fedstream.commands.$1" "$2" "$3" || code=$?
  if [[ $was =~ running|restarting ]]; then docker start "$name"; fi
  return "$code"
}

monitoring() {
  expect_stack
  deploy/progress.sh "the image of Prometheus" docker compose --profile monitoring build prometheus
  docker compose --progress quiet --profile monitoring up -d --no-deps prometheus
  wait_for prometheus
}

history() {
  expect_stack
  docker compose --progress quiet --profile history up -d --no-build --no-deps history
  wait_for history
}

logs() {
  local options=(--tail 1000)
  [[ ! -t 1 ]] || options=(-f --tail 100)
  docker logs "${options[@]}" "$CONTAINER_PREFIX$1" 2>&1
}

case $1 in
  check) ;; # nothing on this machine could be in the way
  down)
    compose --progress quiet down --remove-orphans
    echo "stopped; data kept in the volumes of project $COMPOSE_PROJECT_NAME"
    ;;
  clean)
    compose --progress quiet down --remove-orphans --volumes --timeout 0 # nothing is kept that could be saved
    echo "deleted the volumes of project $COMPOSE_PROJECT_NAME: topics, checkpoints and outputs"
    ;;
  stop-jobs) of_stack -q --filter status=running --filter label=fedstream.job | xargs -r docker stop -t 30 >/dev/null ;;
  reset | skip) change "$@" ;;
  expect-stack) expect_stack ;;
  setup | up | ps | logs | history | monitoring) "$@" ;;
  *)
    echo "stack.sh: got '$1', expected check, setup, up, down, clean, ps, reset, skip, logs, history, monitoring or stop-jobs" >&2
    exit 2
    ;;
esac
