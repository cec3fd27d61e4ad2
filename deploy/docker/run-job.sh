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

# show_files ARGS: sets `words`, in which the file or pattern behind --csv lies below /files, and `shown`: what of the host
# the sensors see there, to be read only. What is not on the host stays as it is, such as /data/my.csv.
show_files() {
  local i file before folder
  words=("$@") shown=''
  for i in "${!words[@]}"; do
    before='' file=${words[i]}
    if [[ $file == --csv=* ]]; then
      before=--csv= file=${file#--csv=}
    elif ((i == 0)) || [[ ${words[i - 1]} != --csv ]]; then
      continue
    fi
    if [[ -e $file ]]; then
      shown=$(realpath -- "$file")
      words[i]=$before/files$shown
    elif compgen -G "$file" >/dev/null; then
      [[ $file == /* ]] || file=$PWD/$file
      folder=${file%%[*?[]*} # up to the pattern's first sign
      folder=${folder%/*}
      shown=$(realpath -- "$folder/")
      words[i]=$before/files$shown${file#"$folder"}
    fi
  done
  if [[ $shown == / ]]; then
    echo "--csv is $file; expected one in a folder: the sensors are not to see all of this machine" >&2
    exit 2
  fi
}

# yaml TEXT: as a text of a Compose file.
yaml() {
  local text=${1//\'/\'\'}
  echo "'${text//\$/\$\$}'"
}

show_files "${@:2}"
JOB_ARGS=$(quoted "${words[@]}")
export JOB_ARGS

# Fog drivers beyond those of docker-compose.yml are the first one with another number; the page of each has a port.
services() {
  echo "services: {"
  for name in "${all[@]}"; do
    local number=${name#fog-} port
    if [[ $name == sensors && $shown ]]; then
      echo "sensors: {volumes: [{type: bind, source: $(yaml "$shown"), target: $(yaml "/files$shown"), read_only: true}]},"
    fi
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

# What holds its place after an error begins anew.
failed=$(docker exec "${CONTAINER_PREFIX}spark-master" sh -c 'cd "$CHECKPOINT_DIR/running" 2>/dev/null && ls') || true
for name in "${all[@]}"; do
  [[ $'\n'$failed$'\n' != *$'\n'"$name.error"$'\n'* ]] || docker stop "$CONTAINER_PREFIX$name" >/dev/null
done

IFS=: read -ra files <<<"${COMPOSE_FILE:-docker-compose.yml}"
services | \
  docker compose --progress quiet --profile jobs "${files[@]/#/--file=}" -f - up -d --no-build --no-deps "${all[@]}"
wait_for "${all[@]}"
