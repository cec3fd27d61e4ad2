"""Every option and call of a Kafka client, for Spark and for plain Python, in one place."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource
from kafka.errors import CorruptRecordError, KafkaError, KafkaTimeoutError, TopicAlreadyExistsError

from fedstream.errors import StackError
from fedstream.messages.door import encode
from fedstream.messages.topics import (
    DEAD_LETTER,
    EVENTS,
    GLOBAL_MODEL,
    MODEL_VERSIONS,
    MODEL_WEIGHTS,
    ROUND_CONTROL,
    SENSOR_DATA,
    Outgoing,
    sensor_topic,
)
from fedstream.settings import Settings

Answer = TypeVar("Answer")

CLUSTER_DEFAULT = -1  # replicas of a topic: as many as default.replication.factor of the brokers says
# A dead letter is the original record in base64 (4/3 of its size) and some fields; no other topic takes 1.5 MB.
DEAD_LETTER_MAX_BYTES = 2 * 2**20


ROUND_TOPICS = (MODEL_WEIGHTS, GLOBAL_MODEL, ROUND_CONTROL, MODEL_VERSIONS, EVENTS)

VERSIONS_SEGMENT_BYTES = 2**24
RECORD_OVERHEAD_BYTES = 50_000  # of a message's other fields, its key and the record batch around it

# Of a consumer that reads a part of a topic: records that are gone are an error.
HISTORY = {
    "auto_offset_reset": "none",
    "max_poll_records": 2000,
    "fetch_max_bytes": 8 * 2**20,
}


class KafkaUnavailableError(StackError):
    """No broker answered in time; the text names the brokers, the time and what to check."""


class NotKnownError(KafkaUnavailableError):
    """The broker does not know of a partition now: its topic was just made, or just deleted."""


class TopicLimitError(StackError):
    """A topic takes no messages as long as the settings allow; the text names both limits and what to type."""


def source_options(settings: Settings, topics: str, max_records: int | None) -> dict[str, str]:
    """Return the options with which Spark reads topics (`a,b`, or a pattern with `*`), from their first records on.

    Args:
        settings: broker and waits.
        topics: names or pattern.
        max_records: of a micro-batch; None in real-time mode, which knows no such bound.
    """
    micro_batch = {
        "maxOffsetsPerTrigger": str(max_records),
        # What a micro-batch fetches is there; what the client fetches ahead holds up all that it asks next.
        "kafka.fetch.max.wait.ms": "0",
        # As the system sizes it: with the client's 64 KiB a fetch trickles in, and what is asked next waits behind it.
        "kafka.receive.buffer.bytes": "-1",
    }
    return (micro_batch if max_records is not None else {}) | {
        **_committed_options(settings),
        "subscribePattern" if "*" in topics else "subscribe": topics,
        "startingOffsets": "earliest",
        "kafka.max.poll.records": str(_poll_records(topics)),
        # A task whose fetch stands still is begun anew, with another client; by default only after two minutes.
        "kafkaConsumer.pollTimeoutMs": "30000",
        # A topic that was deleted or expired under a checkpoint is an error, never a silent gap.
        "failOnDataLoss": "true",
    }


def _committed_options(settings: Settings) -> dict[str, str]:
    """Return where the topics are, and that what a producer has taken back (aborted) is not read."""
    return {
        "kafka.bootstrap.servers": settings.kafka_bootstrap_servers,
        "kafka.isolation.level": "read_committed",
    }


def _poll_records(topics: str) -> int:
    """Return how many records a poll may take: of few topics all that a fetch of 1 MiB holds.

    For each poll a micro-batch asks for the topic's first and last offset, and drops what else was fetched: with the
    default of 500 that costs a third of the time. But what a poll took and the micro-batch did
    not stays in the executor's memory, for each partition: so fewer of many topics, or of a pattern.
    """
    return 500 if "*" in topics else max(500, 50_000 // len(topics.split(",")))


def real_time_options(settings: Settings) -> dict[str, str]:
    """Return the options in which a source in real-time mode differs: it waits for records that are to come."""
    return {
        "kafka.fetch.max.wait.ms": str(settings.fetch_max_wait_ms),
        # What a poll took is in memory until it is done, and each garbage collection copies it: with fetches of 1 MiB,
        # the client's default, that takes a tenth of the cores.
        "kafka.max.partition.fetch.bytes": str(2**18),
    }


def gathering_options(settings: Settings, nodes: int) -> dict[str, str]:
    """Return the options with which Spark waits for enough readings to train that many nodes, within limits."""
    return {
        "minOffsetsPerTrigger": str(settings.update_min_readings * nodes),
        "maxTriggerDelay": f"{round(settings.update_max_wait_seconds * 1000)}ms",
    }


def parted_options(settings: Settings, most_bytes: int) -> dict[str, str]:
    """Return the options with which Spark reads updates in parts of at most so many bytes, to be taken one by one."""
    return {"maxRecordsPerPartition": str(max(1, most_bytes // settings.max_update_bytes))}


def sink_options(settings: Settings, topic: str | None = None) -> dict[str, str]:
    """Return the options with which Spark writes a topic, or to the topic that each row names."""
    options = {
        "kafka.bootstrap.servers": settings.kafka_bootstrap_servers,
        "kafka.max.request.size": str(DEAD_LETTER_MAX_BYTES),
        "kafka.linger.ms": str(settings.sink_linger_ms),
        # With the default of 16 KiB a job that catches up waits for its requests.
        "kafka.batch.size": str(2**17),
    }
    return options | ({"topic": topic} if topic else {})


def _connection_options(settings: Settings) -> dict[str, Any]:
    return {
        "bootstrap_servers": settings.kafka_bootstrap_servers.split(","),
        "bootstrap_timeout_ms": int(settings.wait_timeout_seconds * 1000),
        # The default doubles the pause up to 30 s, long after a broker that was just starting is there.
        "reconnect_backoff_max_ms": 500,
    }


def connect_producer(settings: Settings, linger_ms: int = 0, **options: Any) -> KafkaProducer:
    """Return a producer; it is idempotent and waits for all replicas (the defaults of kafka-python 3).

    Raises:
        KafkaUnavailableError: no broker answered within `wait_timeout_seconds`.
    """
    timeout_ms = int(settings.wait_timeout_seconds * 1000)
    try:
        return KafkaProducer(
            **_connection_options(settings),
            **options,
            delivery_timeout_ms=max(timeout_ms, 31_000),  # at least one request_timeout_ms (30 s) and the linger
            linger_ms=linger_ms,
            batch_size=2**18 if linger_ms else 2**14,  # who lingers has many records, and each request has its cost
            max_request_size=DEAD_LETTER_MAX_BYTES,
        )
    except KafkaTimeoutError as error:
        raise _unavailable(settings) from error


def connect_publisher(settings: Settings) -> Callable[..., None]:
    """Return `publish(*outgoing)`, which returns when the broker has all messages on their topics, in their order.

    Each is (topic, key, message). All are on their way before the first answer is awaited.

    Raises:
        KafkaUnavailableError: no broker answered in time, or (raised by `publish`) it did not take a message.
    """
    producer = connect_producer(settings)
    return lambda *outgoing: send_all(producer, settings, outgoing, settings.wait_timeout_seconds)


def send_all(producer: KafkaProducer, settings: Settings, outgoing: Iterable[Outgoing], timeout_seconds: float) -> None:
    """Send messages, and wait until the broker has each, so long for each answer.

    Raises:
        KafkaUnavailableError: it did not take one of them.
    """
    values = [(topic, key, None if message is None else encode(message)) for topic, key, message in outgoing]
    answers = []
    for topic, key, value in values:
        place = f"topic {topic} at {settings.kafka_bootstrap_servers} did not take a message of key {key}"
        answers.append((place, take(place, producer.send, topic=topic, key=key and key.encode(), value=value)))
    for place, answer in answers:
        take(place, answer.get, timeout=timeout_seconds)


def take(what: str, step: Callable[..., Any], **options: Any) -> Any:
    """Return what a step of a client gives.

    Raises:
        KafkaUnavailableError: it failed; the text says `what` did not happen, and why.
    """
    try:
        return step(**options)
    except KafkaError as error:
        raise KafkaUnavailableError(f"{what}: {type(error).__name__}: {error}") from error


def within(seconds: float, step: Callable[[], Answer]) -> Answer:
    """Return what a step of a client gives that may wait without an end, since its broker died under a request.

    Raises:
        kafka.errors.KafkaTimeoutError: it is not done in time; its thread is left behind.
    """
    answer: Future[Answer] = Future()

    def run() -> None:
        try:
            answer.set_result(step())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError as error:
        raise KafkaTimeoutError(f"no answer within {seconds:g} s") from error


def connect_consumer(settings: Settings, **options: Any) -> KafkaConsumer:
    """Return a consumer that belongs to no group, and does not see what was taken back (aborted).

    Raises:
        KafkaUnavailableError: no broker answered within `wait_timeout_seconds`.
    """
    options |= {"enable_auto_commit": False, "fetch_max_wait_ms": settings.fetch_max_wait_ms}
    options["isolation_level"] = "read_committed"
    try:
        return KafkaConsumer(**_connection_options(settings), **options)
    except KafkaTimeoutError as error:
        raise _unavailable(settings) from error


def connect_admin(settings: Settings) -> KafkaAdminClient:
    """Return a client that can list and make topics.

    Raises:
        KafkaUnavailableError: no broker answered within `wait_timeout_seconds`.
    """
    try:
        return KafkaAdminClient(**_connection_options(settings))
    except KafkaTimeoutError as error:
        raise _unavailable(settings) from error


def ends_of(
    consumer: Any, partitions: list[TopicPartition], timeout_ms: int | None = None
) -> dict[TopicPartition, int]:
    """Return where partitions end: the offset of the next record of each.

    Raises:
        NotKnownError: the broker does not know of one of them now.
        kafka.errors.KafkaError: the broker does not answer.
    """
    try:
        return dict(consumer.end_offsets(partitions, timeout_ms=timeout_ms)) if partitions else {}
    except KeyError as error:  # the client looks for what the broker has left out
        msg = f"the broker does not say where {error} ends: its topic was just made, or deleted; ask again"
        raise NotKnownError(msg) from error


def follow_topic(settings: Settings, topic: str, last: int | None = None) -> Callable[[float], Iterator[Any]]:
    """Return `read(timeout_seconds)`, which yields the records of a topic that have come since the last call, in order.

    The first call yields all there is, or of each partition the `last` ones (0: only what is still to come). A call
    waits for new records up to the timeout. Few are in memory, however many have come.

    Raises:
        KafkaUnavailableError: no broker answered within `wait_timeout_seconds`, or there is no such topic.
    """
    consumer, partitions = _consumer_at(settings, topic, last)

    def read(timeout_seconds: float) -> Iterator[Any]:
        ends = ends_of(consumer, partitions)
        if all(consumer.position(partition) >= ends[partition] for partition in partitions):
            for batch in consumer.poll(timeout_ms=int(timeout_seconds * 1000)).values():
                yield from batch
        yield from _up_to(ends, consumer, settings)

    return read


def read_topic(settings: Settings, topic: str, last: int | None = None) -> Iterator[Any]:
    """Yield the records that are on a topic now, or of each partition the `last` ones, in order; few are in memory.

    Raises:
        KafkaUnavailableError: no broker answered within `wait_timeout_seconds`, or there is no such topic.
    """
    consumer, partitions = _consumer_at(settings, topic, last)
    with closing(consumer):
        yield from _up_to(ends_of(consumer, partitions), consumer, settings)


def read_backwards(settings: Settings, topic: str, step: int = 100) -> Iterator[Iterator[Any]]:
    """Yield the records that are on a topic now in pieces, the newest piece first; in a piece they are in order.

    Of each partition the first piece has `step` records, and each further one twice as many as the one before: who
    looks for the newest record of a kind reads about as far back as it stands. Few are in memory. A piece is to be
    read to its end before the next one is asked for.

    Raises:
        KafkaUnavailableError: no broker answered within `wait_timeout_seconds`, or there is no such topic.
    """
    consumer, partitions = _consumer_at(settings, topic, None)
    with closing(consumer):
        starts = {each: consumer.position(each) for each in partitions}
        ends = ends_of(consumer, partitions)
        while ends := {each: end for each, end in ends.items() if end > starts[each]}:
            begins = {each: max(starts[each], end - step) for each, end in ends.items()}
            consumer.assign(list(begins))
            for each, offset in begins.items():
                consumer.seek(each, offset)
            yield _before(ends, _up_to(ends, consumer, settings))
            ends, step = begins, 2 * step


def _before(ends: Mapping[TopicPartition, int], records: Iterable[Any]) -> Iterator[Any]:
    return (record for record in records if record.offset < ends[TopicPartition(record.topic, record.partition)])


def _consumer_at(settings: Settings, topic: str, last: int | None) -> tuple[KafkaConsumer, list[TopicPartition]]:
    consumer = connect_consumer(settings)
    numbers = consumer.partitions_for_topic(topic)
    if not numbers:
        msg = f"there is no topic {topic} at {settings.kafka_bootstrap_servers}; start the stack first: make up"
        raise KafkaUnavailableError(msg)
    partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
    consumer.assign(partitions)
    starts, ends = consumer.beginning_offsets(partitions), ends_of(consumer, partitions)
    for partition in partitions:
        first = starts[partition] if last is None else max(starts[partition], ends[partition] - last)
        consumer.seek(partition, first)
    return consumer, partitions


def _up_to(ends: Mapping[TopicPartition, int], consumer: KafkaConsumer, settings: Settings) -> Iterator[Any]:
    came_at = time.monotonic()
    while left := [each for each in ends if consumer.position(each) < ends[each]]:
        batches = consumer.poll(timeout_ms=500)
        for batch in batches.values():
            yield from batch
        if batches:
            came_at = time.monotonic()
        elif time.monotonic() - came_at > settings.wait_timeout_seconds:
            place = f"partition {left[0].partition} of topic {left[0].topic}"
            where = f"{place} at {settings.kafka_bootstrap_servers}, offset {consumer.position(left[0])}"
            msg = f"nothing more came of {where} within {settings.wait_timeout_seconds:g} s"
            raise KafkaUnavailableError(f"{msg}; does the broker run: make ps")


def last_unreadable(settings: Settings, partition: TopicPartition, first: int) -> int:
    """Return the last record of a damaged batch that begins at an offset: none of a batch is read, or all.

    Raises:
        KafkaUnavailableError: no broker answered within `wait_timeout_seconds`.
    """
    with closing(connect_consumer(settings)) as consumer:
        consumer.assign([partition])
        last, behind = first, ends_of(consumer, [partition])[partition]
        while behind - last > 1:
            middle = (last + behind) // 2
            consumer.seek(partition, middle)
            try:
                consumer.poll(timeout_ms=1000)
            except CorruptRecordError as error:
                is_same = f" at offset {first} " in str(error)
            else:
                is_same = False
            last, behind = (middle, behind) if is_same else (last, middle)
    return last


def ensure_topics(settings: Settings, names: Iterable[str]) -> list[str]:
    """Create the topics that are missing, wait until each has a leader, and return those that were created.

    Raises:
        KafkaUnavailableError: no broker answered within `wait_timeout_seconds`.
        TopicLimitError: one that was there already takes no messages as long as the settings allow.
    """
    timeout_ms = int(settings.wait_timeout_seconds * 1000)
    names = list(names)
    with connect_admin(settings) as admin:
        missing = sorted(set(names) - set(admin.list_topics()))
        for name in missing:
            topic = {"num_partitions": settings.topic_partitions, "replication_factor": CLUSTER_DEFAULT}
            try:
                admin.create_topics({name: topic | {"configs": _topic_configs(name, settings)}})
            except TopicAlreadyExistsError:
                continue  # another job was quicker
        try:
            admin.wait_for_topics(names, timeout_ms=timeout_ms)
        except KafkaError as error:
            msg = f"topics {', '.join(names)} are not ready after {settings.wait_timeout_seconds:g} s: {error}"
            raise KafkaUnavailableError(msg) from error
        _check_limits(admin, {name: _topic_configs(name, settings) for name in names}, settings)
    return missing


def _check_limits(admin: KafkaAdminClient, configs: Mapping[str, Mapping[str, str]], settings: Settings) -> None:
    """Refuse topics that would not take all messages: a micro-batch whose results cannot be sent is repeated for ever.

    Raises:
        TopicLimitError: a topic's `max.message.bytes` is lower than in `configs`.
    """
    limit = "max.message.bytes"
    wanted = {name: int(config[limit]) for name, config in configs.items() if limit in config}
    if not wanted:
        return
    resources = [ConfigResource("TOPIC", name) for name in wanted]
    found = admin.describe_configs(resources, config_filter="all")["topic"]
    for name, least in wanted.items():
        most = int(found[name][limit]["value"])
        if most < least:
            brokers, setting = settings.kafka_bootstrap_servers, f"MAX_UPDATE_BYTES={settings.max_update_bytes}"
            raise TopicLimitError(
                f"topic {name} takes messages of at most {most} bytes; expected {least}, as {setting} needs it. Lower "
                f"the setting, or raise the limit: kafka-configs --bootstrap-server {brokers} --alter --entity-type "
                f"topics --entity-name {name} --add-config {limit}={least}"
            )


def _topic_configs(name: str, settings: Settings) -> dict[str, str]:
    """Return what is not as usual about a topic."""
    configs = {"max.message.bytes": str(settings.max_update_bytes + RECORD_OVERHEAD_BYTES)}
    if name == DEAD_LETTER:
        return {"max.message.bytes": str(DEAD_LETTER_MAX_BYTES)}
    if name in (MODEL_WEIGHTS, GLOBAL_MODEL, ROUND_CONTROL):
        return configs
    if name == MODEL_VERSIONS:
        # Only a finished segment is compacted; one of the default size is so after weeks.
        return configs | {"cleanup.policy": "compact", "segment.bytes": str(VERSIONS_SEGMENT_BYTES)}
    return {}


def partitions_of(consumer: Any, topics: str) -> list[TopicPartition]:
    """Return the partitions that topics (`a,b`, or a pattern with `*`) have now; a topic that is not there has none."""
    names = [name for name in consumer.topics() if re.fullmatch(topics, name)] if "*" in topics else topics.split(",")
    return [TopicPartition(name, number) for name in names for number in consumer.partitions_for_topic(name) or ()]


def count_partitions(settings: Settings, topics: str) -> int:
    """Return how many partitions topics (`a,b`, or a pattern with `*`) have now.

    Raises:
        KafkaUnavailableError: no broker answered within `wait_timeout_seconds`.
    """
    with closing(connect_consumer(settings)) as consumer:
        return len(partitions_of(consumer, topics))


def topic_ids(admin: KafkaAdminClient, topics: str) -> dict[str, str]:
    """Return the id of each topic (of `a,b`, or of a pattern with `*`) that is there: one made anew has another.

    Raises:
        kafka.errors.KafkaError: no broker answered in time.
    """
    found = admin.describe_topics(None if "*" in topics else topics.split(","))
    return {
        topic["name"]: str(topic["topic_id"])
        for topic in found
        if topic["error_code"] == 0 and ("*" not in topics or re.fullmatch(topics, topic["name"]))
    }


def stack_topics(nodes: int) -> list[str]:
    """Return the topics of a stack with that many fog nodes."""
    return [SENSOR_DATA, *map(sensor_topic, range(1, nodes + 1)), *ROUND_TOPICS, DEAD_LETTER]


def _unavailable(settings: Settings) -> KafkaUnavailableError:
    return KafkaUnavailableError(
        f"no Kafka broker answered at {settings.kafka_bootstrap_servers} within {settings.wait_timeout_seconds:g} s; "
        "is the stack up (`make ps`, `make doctor`)? Else set KAFKA_BOOTSTRAP_SERVERS or WAIT_TIMEOUT_SECONDS."
    )


def main() -> None:
    """Create the stack's topics; run once at start-up: `python -m fedstream.broker.kafka NODES`."""
    settings, names = Settings.from_env(os.environ), stack_topics(int(sys.argv[1]))
    created = ensure_topics(settings, names)
    print(f"topics ready: {', '.join(names)} ({len(created)} new)")


if __name__ == "__main__":
    main()
