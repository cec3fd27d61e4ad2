# Sourced by whatever runs without Docker: .env, unless a variable is set already, and what follows from it.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
while IFS='=' read -r name value; do
  if [[ $name == [A-Z]* && -z ${!name+set} ]]; then export "$name=$value"; fi
done <"$root/.env"

# What `make clean` deletes lies below the checkout, and is not the checkout.
if [[ ${RUN_DIR-} =~ ^([./]*|/.*|(.*/)?\.\.(/.*)?)$ ]]; then
  echo "RUN_DIR is '${RUN_DIR-}'; expected a folder below this checkout for the stack alone, such as .run: a relative path without '..'. make clean deletes that folder, so nothing was done. Set it where it comes from: the make line, the shell or .env." >&2
  return 1
fi
export RUN_PATH=$root/$RUN_DIR
export DATA_DIR=$RUN_PATH/data CHECKPOINT_DIR=${CHECKPOINT_DIR:-$RUN_PATH/checkpoints}
export KAFKA_JARS=$root/.venv/share/kafka APP_SUM_JAR=$root/java-sum/target/app-sum-1.0-SNAPSHOT.jar
export PATH=$root/.venv/bin:$root/deploy/bin:$PATH

# Everything listens on and talks over the loopback interface only.
export LISTEN_ADDRESS=127.0.0.1 ZOOKEEPER_HOST=localhost KAFKA_HOST=localhost
export KAFKA_BOOTSTRAP_SERVERS=${KAFKA_BOOTSTRAP_SERVERS:-localhost:$KAFKA_PORT}
export NUMBERS_HOST=${NUMBERS_HOST:-localhost}
export SPARK_RECOVERY_DIR=$DATA_DIR/spark-master # emptied by make up: its workers and applications have ended
# shellcheck disable=SC2153
export SPARK_MASTER_HOST=localhost MASTER=spark://localhost:$SPARK_MASTER_PORT SPARK_LOCAL_IP=127.0.0.1
export SPARK_PUBLIC_DNS=$PUBLIC_HOST SPARK_CONF_DIR=$root/spark_cluster
# Temporary files, too, lie in the stack's folder: nobody sweeps them there under a running job, and make clean does.
export SPARK_LOCAL_DIRS=$RUN_PATH/tmp
java_tmp=-Djava.io.tmpdir=$SPARK_LOCAL_DIRS
export SPARK_DAEMON_MEMORY=$DAEMON_HEAP SPARK_DAEMON_JAVA_OPTS="-XX:+UseSerialGC -XX:TieredStopAtLevel=1 $java_tmp"
export SPARK_SUBMIT_OPTS="-Dspark.ui.port=$SPARK_DRIVER_UI_PORT $java_tmp -Dspark.executor.defaultJavaOptions=$java_tmp"
# Spark's sockets to Python have names of 43 characters and lie there, too. The kernel takes paths of up to 107.
((${#SPARK_LOCAL_DIRS} <= 64)) || SPARK_SUBMIT_OPTS+=" -Dspark.python.unix.domain.socket.dir=/tmp"
export SPARK_DRIVER_MEMORY=$DRIVER_HEAP SPARK_EXECUTOR_MEMORY=$EXECUTOR_HEAP
export PROMETHEUS=${PROMETHEUS:-$root/.venv/share/prometheus/prometheus}
export PYSPARK_PYTHON=$root/.venv/bin/python PYTHONUNBUFFERED=1 LANG=C.UTF-8
export PYTHONPATH=$root # a model or strategy of yours: MODEL=examples.own_model:Class
SPARK_HOME=$(echo "$root"/.venv/lib/python3*/site-packages/pyspark)
export SPARK_HOME
