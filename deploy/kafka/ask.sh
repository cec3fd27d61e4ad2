#!/usr/bin/env bash
# Asks a service a real question, without starting a JVM; the health check of both runners.
#   deploy/kafka/ask.sh zookeeper [ruok|srvr|dump]   prints ZooKeeper's answer to a four-letter word
#   deploy/kafka/ask.sh kafka                        succeeds if the broker answers an ApiVersions request
set -euo pipefail

case "$1" in
  zookeeper)
    exec 3<>"/dev/tcp/${ZOOKEEPER_HOST:-localhost}/$ZOOKEEPER_PORT"
    printf '%s' "${2:-ruok}" >&3
    timeout 5 cat <&3
    ;;
  kafka)
    exec 3<>"/dev/tcp/${KAFKA_HOST:-localhost}/$KAFKA_NETWORK_PORT"
    # Length 14, API key 18 (ApiVersions), version 0, correlation id 1, client id "ping".
    printf '\x00\x00\x00\x0e\x00\x12\x00\x00\x00\x00\x00\x01\x00\x04ping' >&3
    # The answer's bytes 5 to 8 repeat the correlation id.
    answer=$(timeout 5 head -c 10 <&3 | od -An -tx1 | tr -d ' \n')
    [[ $answer == ????????000000010000 ]]
    ;;
  *)
    echo "ask.sh: got '$1', expected zookeeper or kafka" >&2
    exit 2
    ;;
esac
