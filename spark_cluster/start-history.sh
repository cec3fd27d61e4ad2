#!/usr/bin/env bash
# Starts Spark's history server in the foreground: the pages of programs that have ended.
set -euo pipefail
export SPARK_HISTORY_OPTS="-Dspark.history.ui.port=$SPARK_HISTORY_UI_PORT"
exec "$SPARK_HOME/bin/spark-class" org.apache.spark.deploy.history.HistoryServer
