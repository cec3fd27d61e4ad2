#!/usr/bin/env bash
# Runs one of the stack's jobs in the foreground, the same way in a container and in the local runner:
#   start-job.sh sensors|bridge|cloud|squares|squares-kafka|alerts|sum [ARGS]    start-job.sh fog N [ARGS]
# More arguments come from $JOB_ARGS (containers) or from the file JOB.args that `make run-JOB ARGS=...` left (local),
# settings from the container's environment or from the file JOB.env.
set -euo pipefail
cd "$(dirname "$0")/.."
job=$1
shift
export JOB=$job # its name in make targets
[[ $job != fog ]] || JOB=fog-$1
if [[ -f ${RUN_PATH-}/$job.args ]]; then JOB_ARGS=$(<"$RUN_PATH/$job.args"); fi
if [[ -f ${RUN_PATH-}/$job.env ]]; then source "$RUN_PATH/$job.env"; fi
read -ra more <<<"${JOB_ARGS-}"
set -- "$@" "${more[@]}"

# A job's page has a port of its own; the next one would be another job's.
page() { echo "--conf spark.ui.port=$1 --conf spark.port.maxRetries=0"; }

# So many tasks at once, in one executor as far as they fit in a worker.
slots() { echo "--conf spark.cores.max=$1 --conf spark.executor.cores=$(($1 < WORKER_CORES ? $1 : WORKER_CORES))"; }

hosted() {
  local last=$(($1 * NODES_PER_DRIVER))
  ((NODES_PER_DRIVER == 1)) && echo "$1" || echo "$((last - NODES_PER_DRIVER + 1))-$last"
}

case $job in
  sensors) exec python producer/sensor_producer.py "$@" ;;
  # Driver N hosts NODES_PER_DRIVER nodes: N alone, or with 10 of them 1-10, 11-20 ...
  # One slot for each partition of the node's topic, and one so that a training does not hold up the running weight.
  fog) exec spark-submit $(slots $((TOPIC_PARTITIONS + 1))) $(page "$FOG_UI_PORT_PREFIX$1") fog/fog_node.py --node "$(hosted "$1")" "${@:2}" ;;
  cloud) exec spark-submit --conf spark.cores.max=1 $(page "$CLOUD_UI_PORT") cloud/aggregator.py "$@" ;;
  squares) exec spark-submit $(page "$SQUARES_UI_PORT") socket_stream/consumer.py "$@" ;;
  bridge) exec python socket_stream/bridge.py "$@" ;;
  # Real-time mode holds one slot for each partition that it reads.
  squares-kafka) exec spark-submit $(slots "$TOPIC_PARTITIONS") $(page "$SQUARES_KAFKA_UI_PORT") realtime/squares.py "$@" ;;
  alerts) exec spark-submit $(slots $((NODES * TOPIC_PARTITIONS))) $(page "$ALERTS_UI_PORT") realtime/alerts.py "$@" ;;
  sum) exec spark-submit --class App "$APP_SUM_JAR" "$@" ;;
  *)
    echo "start-job.sh: got '$job', expected sensors, bridge, fog, cloud, squares, squares-kafka, alerts or sum" >&2
    exit 2
    ;;
esac
