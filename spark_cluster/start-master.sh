#!/usr/bin/env bash
# Starts the Spark master in the foreground. It keeps a list of workers and applications in $SPARK_RECOVERY_DIR: a master
# that was killed and comes back goes on with them, where a new one would have the workers end all executors.
set -euo pipefail
mkdir -p "$SPARK_RECOVERY_DIR" "$DATA_DIR/spark-events"
# A full disk cuts a file of that list off at the end of a block, and a master that reads such a file takes nobody. What
# the file was about registers again, or is started anew.
find "$SPARK_RECOVERY_DIR" -type f -printf '%s %f\n' | while read -r size name; do
  ((size % 4096)) || rm "$SPARK_RECOVERY_DIR/$name"
done
export SPARK_MASTER_OPTS="-Dspark.deploy.recoveryMode=FILESYSTEM -Dspark.deploy.recoveryDirectory=$SPARK_RECOVERY_DIR -Dspark.deploy.recoveryTimeout=20s"
exec "$SPARK_HOME/bin/spark-class" org.apache.spark.deploy.master.Master \
  --host "$SPARK_MASTER_HOST" --port "$SPARK_MASTER_PORT" --webui-port "$SPARK_MASTER_UI_PORT"
