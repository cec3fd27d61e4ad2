#!/usr/bin/env bash
# run-job.sh JOB[,JOB ...] [ARGS]: starts jobs of the Docker runner, anew if their arguments or settings have changed, and
# waits until they work. Called by make, which exports .env.
set -euo pipefail
cd "$(dirname "$0")/../.."
source deploy/jobs.sh
source deploy/docker/containers.sh
expect_stack

all=()
for job in ${1//,/ }; do
  listed=$(names_of "$job")
  mapfile -t names <<<"$listed"
  all+=("${names[@]}")
done
JOB_ARGS=$(quoted "${@:2}")
export JOB_ARGS

# Fog drivers beyond those of docker-compose.yml are the first one with another number; the page of each has a port.
services() {
  echo "services: {"
  for name in "${all[@]}"; do
    local number=${name#fog-} port
    [[ $name == fog-* ]] || continue
    port=$((FOG_UI_PORT_BASE + number))
    echo "$name: {"
    if ((number > 2)); then
      echo "extends: {file: docker-compose.yml, service: fog-1}, container_name: ${CONTAINER_PREFIX}$name,"
      echo "command: [spark_cluster/start-job.sh, fog, \"$number\"],"
      echo "healthcheck: {test: python -m fedstream.stack.health $name},"
    fi
    echo "ports: !override [\"$BIND_ADDRESS:$port:$port\"]},"
  done
  echo "}"
}

services | \
  docker compose --progress quiet --profile jobs -f docker-compose.yml -f - up -d --no-build --no-deps "${all[@]}"
wait_for "${all[@]}"
