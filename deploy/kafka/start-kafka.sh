#!/usr/bin/env bash
# Starts the broker in the foreground, with its data in $DATA_DIR/kafka, once there is room and ZooKeeper answers.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
deadline=$((SECONDS + 60))
data=$DATA_DIR/kafka
least_mb=100

# A broker that starts on a full disk spoils the time indexes of its topics. Once there is room again, it takes what is on
# them for older than the retention, and deletes it.
room_mb() { df --output=avail --block-size=1M "$data" | tail -n 1; }
mkdir -p "$data"
if (($(room_mb) < least_mb)); then
  echo "kafka: $(room_mb) MB of disk free in $data; expected at least $least_mb MB. Make room: it starts by itself then" >&2
fi
until (($(room_mb) >= least_mb)); do
  ((SECONDS > deadline)) && exit 1 # to be started again
  sleep 0.5
done

# ZooKeeper keeps the node of a killed broker until its session ends; registering before that fails with NodeExists.
until sessions=$("$here/ask.sh" zookeeper dump 2>/dev/null) && ! grep -q '/brokers/ids/1$' <<<"$sessions"; do
  if ((SECONDS > deadline)); then
    echo "kafka: ZooKeeper at ${ZOOKEEPER_HOST:-localhost}:$ZOOKEEPER_PORT does not answer, or another broker with id 1 is running (waited 60 s)" >&2
    exit 1
  fi
  sleep 0.5
done

metrics=()
if [[ -n ${KAFKA_METRICS_PORT-} ]]; then
  agent=$(echo "$KAFKA_JARS"/jmx_prometheus_javaagent-*.jar)
  metrics=("-javaagent:$agent=$LISTEN_ADDRESS:$KAFKA_METRICS_PORT:$here/metrics.yml")
fi

exec java "${metrics[@]}" "-Xmx$KAFKA_HEAP" "-Djava.io.tmpdir=${TMPDIR:-/tmp}" -XX:+UseG1GC -XX:MaxGCPauseMillis=20 \
  -Djava.awt.headless=true \
  -Dlog4j.configuration="file:$here/log4j.properties" -cp "$KAFKA_JARS/*" kafka.Kafka "$here/server.properties" \
  --override "zookeeper.connect=${ZOOKEEPER_HOST:-localhost}:$ZOOKEEPER_PORT" \
  --override "log.dirs=$data" \
  --override "log.retention.bytes=$TOPIC_BYTES" \
  --override "listeners=NETWORK://$LISTEN_ADDRESS:$KAFKA_NETWORK_PORT,HOST://$LISTEN_ADDRESS:$KAFKA_PORT" \
  --override "advertised.listeners=NETWORK://${KAFKA_HOST:-localhost}:$KAFKA_NETWORK_PORT,HOST://$PUBLIC_HOST:$KAFKA_PORT"
