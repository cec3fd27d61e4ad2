#!/usr/bin/env bash
# Starts ZooKeeper in the foreground, with its data in $DATA_DIR/zookeeper.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$DATA_DIR/zookeeper"

# ZooKeeper reads no variables, so its file is completed here.
sed -e "s|@DATA_DIR@|$DATA_DIR/zookeeper|" -e "s|@PORT@|$ZOOKEEPER_PORT|" -e "s|@LISTEN@|$LISTEN_ADDRESS|" \
  "$here/zookeeper.properties" >"$DATA_DIR/zookeeper.properties"

exec java "-Xmx$ZOOKEEPER_HEAP" "-Djava.io.tmpdir=${TMPDIR:-/tmp}" -XX:+UseSerialGC \
  -Dlog4j.configuration="file:$here/log4j.properties" \
  -cp "$KAFKA_JARS/*" org.apache.zookeeper.server.quorum.QuorumPeerMain "$DATA_DIR/zookeeper.properties"
