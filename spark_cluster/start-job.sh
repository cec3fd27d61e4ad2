#!/usr/bin/env bash
# Runs one of the stack's jobs in the foreground, the same way in a container and in the local runner:
#   start-job.sh sensors|bridge|cloud|squares|squares-kafka|alerts|sum [ARGS]    start-job.sh fog N [ARGS]
# More arguments come from $JOB_ARGS, as a shell would read them. `make run-JOB` hands them on with the job's settings:
# in the container's environment, or in the file JOB.env of the local runner.
set -euo pipefail
cd "$(dirname "$0")/.."
job=$1
shift
export JOB=$job # its name in make targets
[[ $job != fog ]] || JOB=fog-$1
if [[ -f ${RUN_PATH-}/$job.env ]]; then source "$RUN_PATH/$job.env"; fi
eval "set -- \"\$@\" ${JOB_ARGS-}"

# A driver that is stopped on purpose is marked: the board does not miss it. This is done at once, since Java may take
# longer to end than its runner waits; the driver may say something once more meanwhile.
stopped() {
  local running=$CHECKPOINT_DIR/running/$JOB
  mv "$running.json" "$running.stopped" 2>/dev/null || true
  kill "$!" || true
  wait "$!" || true
  rm -f "$running.json"
  exit 143
}

# driver SLOTS PORT PROGRAM [ARGS]: a driver with so many tasks at once, in one executor as far as they fit in a worker.
# Its page has a port of its own; the next one would be another job's.
driver() {
  spark-submit --conf "spark.cores.max=$1" --conf "spark.executor.cores=$(($1 < WORKER_CORES ? $1 : WORKER_CORES))" \
    --conf "spark.eventLog.enabled=$EVENT_LOG" --conf "spark.ui.port=$2" --conf spark.port.maxRetries=0 "${@:3}" &
  trap stopped TERM INT
  wait "$!"
}

# Driver N hosts NODES_PER_DRIVER nodes: N alone, or with 10 of them 1-10, 11-20 ...
hosted() {
  local last=$(($1 * NODES_PER_DRIVER))
  ((NODES_PER_DRIVER == 1)) && echo "$1" || echo "$((last - NODES_PER_DRIVER + 1))-$last"
}

case $job in
  sensors) exec python producer/sensor_producer.py "$@" ;;
  bridge) exec python socket_stream/bridge.py "$@" ;;
  # One slot for each partition of the node's topic, and one so that a training does not hold up the running weight.
  fog) driver $((TOPIC_PARTITIONS + 1)) $((FOG_UI_PORT_BASE + $1)) fog/fog_node.py --node "$(hosted "$1")" "${@:2}" ;;
  cloud) driver 1 "$CLOUD_UI_PORT" cloud/aggregator.py "$@" ;;
  # One slot on either worker, as spark-defaults.conf has it.
  squares) driver 2 "$SQUARES_UI_PORT" --conf spark.executor.cores=1 socket_stream/consumer.py "$@" ;;
  # Real-time mode holds one slot for each partition that it reads.
  squares-kafka) driver "$TOPIC_PARTITIONS" "$SQUARES_KAFKA_UI_PORT" realtime/squares.py "$@" ;;
  alerts) driver $((NODES * TOPIC_PARTITIONS)) "$ALERTS_UI_PORT" realtime/alerts.py "$@" ;;
  # Without what Java says of a module that Spark asks for, each time.
  sum)
    exec spark-submit --conf spark.eventLog.enabled=true --class App "$APP_SUM_JAR" "$@" \
      2> >(grep --line-buffered -v '^WARNING: Using incubator modules' >&2)
    ;;
  *)
    echo "start-job.sh: got '$job', expected sensors, bridge, fog, cloud, squares, squares-kafka, alerts or sum" >&2
    exit 2
    ;;
esac
