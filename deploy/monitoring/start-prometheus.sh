#!/usr/bin/env bash
# Starts Prometheus in the foreground. It scrapes the board and Spark, and judges rules.yml.
set -euo pipefail
cd "$(dirname "$0")"
export BOARD_HOST=${BOARD_HOST:-localhost} PWD
mkdir -p "$DATA_DIR/prometheus"
perl -pe 's/\$\{(\w+)\}/$ENV{$1}/g' prometheus.yml >"$DATA_DIR/prometheus/prometheus.yml"
exec "${PROMETHEUS:-prometheus}" --config.file="$DATA_DIR/prometheus/prometheus.yml" \
  --storage.tsdb.path="$DATA_DIR/prometheus/series" --storage.tsdb.retention.size=512MB \
  --web.listen-address="${LISTEN_ADDRESS}:$PROMETHEUS_PORT" --log.level=warn
