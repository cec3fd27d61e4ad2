#!/usr/bin/env bash
# Starts the Spark master in the foreground.
set -euo pipefail
exec "$SPARK_HOME/bin/spark-class" org.apache.spark.deploy.master.Master \
  --host "$SPARK_MASTER_HOST" --port "$SPARK_MASTER_PORT" --webui-port "$SPARK_MASTER_UI_PORT"
