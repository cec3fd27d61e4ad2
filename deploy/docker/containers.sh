# Sourced by the scripts of the Docker runner: what they ask of the stack's containers.

master=${CONTAINER_PREFIX}spark-master
export COMPOSE_IGNORE_ORPHANS=true

# of_stack OPTIONS: `docker ps` of this stack's containers, also of those that have ended.
of_stack() { docker ps -a --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" "$@"; }

expect_stack() {
  [[ $(docker inspect -f '{{.State.Health.Status}}' "$master" 2>/dev/null) == healthy ]] && return
  echo "the stack is not up (Docker runner); start it with: make up" >&2
  exit 1
}

# show_end NAME TROUBLE: the trouble of a container, and the end of its log.
show_end() {
  echo "$1 $2; end of its log (make logs S=$1):"
  docker logs --tail 30 "$CONTAINER_PREFIX$1" 2>&1
} >&2

# show_failed: the same of all containers that are not well.
show_failed() {
  local name
  while read -r name; do
    show_end "${name#"$CONTAINER_PREFIX"}" "is not ready"
  done < <(of_stack --format '{{.Names}} {{.Status}}' | grep -vE 'Exited \(0\)|\(healthy\)|Up [^(]*$' | cut -d' ' -f1)
}

# condition NAME: ready, waiting or what is wrong. A driver is ready by its health check; what has none, once it has said
# something or lived for 10 s.
condition() {
  local status code ends begin health
  local form='{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}} {{.State.StartedAt}}'
  read -r status code ends begin health < <(docker inspect \
    -f "$form {{with .State.Health}}{{.Status}}{{end}}" "$CONTAINER_PREFIX$1")
  if [[ $status == exited && $code == 0 ]]; then
    echo "ready"
  elif [[ $status == exited || $status == dead ]]; then
    echo "has ended (exit code $code)"
  elif [[ $health == healthy ]]; then
    echo "ready"
  elif ((ends >= 2)); then
    echo "has ended $ends times and was started again"
  elif [[ -z $health && $status == running && ($SECONDS -ge 10 || -n $(docker logs --since "$begin" --tail 1 "$CONTAINER_PREFIX$1" 2>&1)) ]]; then
    echo "ready"
  else
    echo "waiting"
  fi
}

# wait_for NAMES: returns when all are ready; fails as soon as one is in trouble.
wait_for() {
  local waiting=("$@") left name found start='' every=10 end='\n' shown=0
  local -A worked=() # at the look before: what a program says first may be why it ends
  if [[ -t 1 ]]; then start='\r\e[K' every=1 end=''; fi
  SECONDS=0
  while true; do
    left=()
    for name in "${waiting[@]}"; do
      found=$(condition "$name")
      if [[ $found == ready && -z ${worked[$name]-} ]]; then
        worked[$name]=yes
        left+=("$name")
      elif [[ $found == ready ]]; then
        printf "$start  %-12s ready (%d s)\n" "$name" "$SECONDS"
      elif [[ $found == waiting ]] && ((SECONDS < UP_TIMEOUT_SECONDS)); then
        left+=("$name")
      else
        [[ ! -t 1 ]] || echo
        show_end "$name" "${found/waiting/is not ready after $SECONDS s}"
        return 1
      fi
    done
    ((${#left[@]})) || return 0
    waiting=("${left[@]}")
    if ((SECONDS >= shown + every)); then
      shown=$SECONDS
      printf "$start  waiting for %s ... %d s$end" "${waiting[*]}" "$SECONDS"
    fi
    sleep 0.5
  done
}
