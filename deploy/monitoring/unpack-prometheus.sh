#!/usr/bin/env bash
# unpack-prometheus.sh FOLDER: Debian's package of Prometheus without installing it, so without root and without a service.
set -euo pipefail
if ! command -v apt-get >/dev/null; then
  echo "Prometheus comes from Debian's package, and apt-get is not there: install Prometheus yourself, and name it:" \
    "PROMETHEUS=/path/to/prometheus" >&2
  exit 1
fi
mkdir -p "$1"
into=$(realpath "$1")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -q prometheus
dpkg-deb -x prometheus_*.deb .
mv usr/bin/prometheus usr/bin/promtool "$into/"
