#!/usr/bin/env bash
# Get a Docker engine with Compose v2 and buildx on a bare Debian 12 machine. Safe to run again:
# only what is missing is installed or started.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export PATH=$PATH:/usr/sbin:/sbin
log=${DOCKERD_LOG:-/var/log/dockerd.log}
wait_seconds=${WAIT_TIMEOUT_SECONDS:-60}
plugin_dir=/usr/local/lib/docker/cli-plugins

die() { echo "install-engine: $*" >&2; exit 1; }
engine_answers() { timeout 10 docker info >/dev/null 2>&1; }
has_plugin() { docker "$1" version >/dev/null 2>&1; }
complete() { engine_answers && has_plugin compose && has_plugin buildx; }
summary() {
  echo "$1: engine $(docker version --format '{{.Server.Version}}'), compose $(docker compose version --short)," \
    "buildx $(docker buildx version | cut -d' ' -f2)"
}

if complete; then
  summary "nothing to do"
  exit 0
fi
[[ $EUID -eq 0 ]] || die "needs root to install packages and start the engine (or rights on a running engine's socket)"

packages=()
engine_answers || command -v dockerd >/dev/null || packages+=(docker.io)
for pair in iptables:iptables debootstrap:debootstrap update-ca-certificates:ca-certificates; do
  command -v "${pair%%:*}" >/dev/null || packages+=("${pair##*:}")
done
if [[ ${#packages[@]} -gt 0 ]]; then
  echo "installing ${packages[*]}"
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${packages[@]}"
fi

if ! engine_answers; then
  started=
  # The package's own service may be starting it already; a second dockerd would refuse to run.
  if ! pidof dockerd >/dev/null; then
    # Its own session and no inherited stdio, so that it outlives this script and its terminal or CI step.
    setsid nohup dockerd </dev/null >"$log" 2>&1 &
    started=$!
    echo "started dockerd, log $log; pid $started; stop it with: kill \$(cat /var/run/docker.pid)"
  fi
  deadline=$((SECONDS + wait_seconds))
  until engine_answers; do
    if [[ $SECONDS -ge $deadline ]] || { [[ -n $started ]] && ! kill -0 "$started" 2>/dev/null; }; then
      tail -n 20 "$log" >&2 || true
      die "the engine does not answer (waited at most ${wait_seconds}s); see $log"
    fi
    sleep 1
  done
fi

missing=()
for plugin in compose buildx; do has_plugin "$plugin" || missing+=("docker-$plugin"); done
[[ ${#missing[@]} -eq 0 ]] || "$here/offline/compose-plugins.sh" "$plugin_dir" "${missing[@]}"
complete || die "the plugins in $plugin_dir do not run with $(command -v docker)"
summary "ready"
