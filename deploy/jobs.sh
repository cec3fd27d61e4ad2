# Sourced by the run-job.sh of both runners.

# names_of JOB: the processes or containers of `make run-JOB`, one a line; of the fog, one for each driver.
names_of() {
  if [[ $1 != fog ]]; then
    echo "$1"
    return
  fi
  local drivers=$(((NODES + NODES_PER_DRIVER - 1) / NODES_PER_DRIVER))
  if ((drivers > FOG_NODES_MAX)); then
    echo "NODES is $NODES; expected at most FOG_NODES_MAX=$FOG_NODES_MAX drivers (set it in .env, or host more" \
      "nodes in one: NODES_PER_DRIVER)" >&2
    return 2
  fi
  seq -f 'fog-%.0f' "$drivers"
}

# quoted WORDS: as text that a shell reads as the same words.
quoted() { (($# == 0)) || printf '%q ' "$@"; }
