#!/usr/bin/env bash
# Starts worker N in the foreground: start-worker.sh 1. It offers more slots than there are CPUs, since streams mostly wait.
set -euo pipefail
ui_port=SPARK_WORKER_$1_UI_PORT
export SPARK_LOCAL_DIRS=$DATA_DIR/worker-$1 # of the executors' blocks
exec "$SPARK_HOME/bin/spark-class" org.apache.spark.deploy.worker.Worker \
  --cores "$WORKER_CORES" --memory "$WORKER_MEMORY" --webui-port "${!ui_port}" --work-dir "$DATA_DIR/worker-$1" "$MASTER"
