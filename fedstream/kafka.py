"""Every option and call of a Kafka client, for Spark and for plain Python, in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError, TopicAlreadyExistsError

from fedstream.messages import DEAD_LETTER, GLOBAL_MODEL, MODEL_WEIGHTS, SENSOR_DATA, sensor_topic, to_json
from fedstream.settings import Settings, StackError

# A dead letter is the original record in base64 (4/3 of its size) and some fields: it must hold the largest record
# the broker takes elsewhere (1 MiB).
DEAD_LETTER_MAX_BYTES = 2 * 2**20


class KafkaUnavailableError(StackError):
    """No broker answered in time; the text names the brokers, the time and what to check."""


def source_options(settings: Settings, topic: str, max_records: int) -> dict[str, str]:
    """Return the options with which Spark reads a topic, from its first record on."""
    return {
        "kafka.bootstrap.servers": settings.kafka_bootstrap_servers,
        "subscribe": topic,
        "startingOffsets": "earliest",
        "maxOffsetsPerTrigger": str(max_records),
        # With the default of 500 a micro-batch of single records waits for more of them: 0.4 s of latency.
        "kafka.fetch.max.wait.ms": str(settings.fetch_max_wait_ms),
        # A topic that was deleted or expired under a checkpoint is an error, never a silent gap.
        "failOnDataLoss": "true",
    }


def sink_options(settings: Settings, topic: str) -> dict[str, str]:
    """Return the options with which Spark writes a topic."""
    return {
        "kafka.bootstrap.servers": settings.kafka_bootstrap_servers,
        "topic": topic,
        "kafka.max.request.size": str(DEAD_LETTER_MAX_BYTES),
    }


def _connection_options(settings: Settings) -> dict[str, Any]:
    return {
        "bootstrap_servers": settings.kafka_bootstrap_servers.split(","),
        "bootstrap_timeout_ms": int(settings.wait_timeout_seconds * 1000),
        # The default doubles the pause up to 30 s, long after a broker that was just starting is there.
        "reconnect_backoff_max_ms": 500,
    }


def connect_producer(settings: Settings, linger_ms: int = 0) -> KafkaProducer:
    """Return a producer; it is idempotent and waits for all replicas (the defaults of kafka-python 3).

    Raises:
        KafkaUnavailableError: no broker answered within `wait_timeout_seconds`.
    """
    timeout_ms = int(settings.wait_timeout_seconds * 1000)
    try:
        return KafkaProducer(
            **_connection_options(settings),
            delivery_timeout_ms=max(timeout_ms, 31_000),  # at least one request_timeout_ms (30 s) and the linger
            linger_ms=linger_ms,
        )
    except KafkaTimeoutError as error:
        raise _unavailable(settings) from error


def connect_publisher(settings: Settings, topic: str) -> Callable[[str, dict[str, Any]], None]:
    """Return `publish(key, message)`, which returns when the broker has the message on the topic.

    Raises:
        KafkaUnavailableError: no broker answered within `wait_timeout_seconds`.
        kafka.errors.KafkaError: raised by `publish` when the broker did not take the message in time.
    """
    producer = connect_producer(settings)

    def publish(key: str, message: dict[str, Any]) -> None:
        sent = producer.send(topic, key=key.encode(), value=to_json(message))
        sent.get(timeout=settings.wait_timeout_seconds)

    return publish


def ensure_topics(settings: Settings, names: Iterable[str]) -> list[str]:
    """Create the topics that are missing, wait until each has a leader, and return those that were created.

    Raises:
        KafkaUnavailableError: no broker answered within `wait_timeout_seconds`.
    """
    timeout_ms = int(settings.wait_timeout_seconds * 1000)
    names = list(names)
    try:
        admin = KafkaAdminClient(**_connection_options(settings))
    except KafkaTimeoutError as error:
        raise _unavailable(settings) from error
    with admin:
        missing = sorted(set(names) - set(admin.list_topics()))
        for name in missing:
            topic: dict[str, Any] = {"num_partitions": settings.topic_partitions, "replication_factor": 1}
            if name == DEAD_LETTER:
                topic["configs"] = {"max.message.bytes": str(DEAD_LETTER_MAX_BYTES)}
            try:
                admin.create_topics({name: topic})
            except TopicAlreadyExistsError:
                continue  # another job was quicker
        try:
            admin.wait_for_topics(names, timeout_ms=timeout_ms)
        except KafkaError as error:
            msg = f"topics {', '.join(names)} are not ready after {settings.wait_timeout_seconds:g} s: {error}"
            raise KafkaUnavailableError(msg) from error
    return missing


def stack_topics(nodes: int) -> list[str]:
    """Return the topics of a stack with that many fog nodes."""
    return [SENSOR_DATA, *map(sensor_topic, range(1, nodes + 1)), MODEL_WEIGHTS, GLOBAL_MODEL, DEAD_LETTER]


def _unavailable(settings: Settings) -> KafkaUnavailableError:
    return KafkaUnavailableError(
        f"no Kafka broker answered at {settings.kafka_bootstrap_servers} within {settings.wait_timeout_seconds:g} s; "
        "is the stack up (`make ps`, `make doctor`)? Else set KAFKA_BOOTSTRAP_SERVERS or WAIT_TIMEOUT_SECONDS."
    )


def main() -> None:
    """Create the stack's topics; run once at start-up: `python -m fedstream.kafka NODES`."""
    import os
    import sys

    settings = Settings.from_env(os.environ)
    names = stack_topics(int(sys.argv[1]))
    created = ensure_topics(settings, names)
    print(f"topics ready: {', '.join(names)} ({len(created)} new)")


if __name__ == "__main__":
    main()
