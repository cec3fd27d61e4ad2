"""A broker in memory: partitions with offsets, times and gaps, for what reads or writes a part of a topic."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

from kafka import TopicPartition

from fedstream.broker import kafka


class Future:
    """The broker's answer to one record; it is open until it has been waited for or, of a quick broker, at once."""

    def __init__(self, broker, error=None):
        """Count as open."""
        self.broker, self.error, self.is_done = broker, error, broker.is_quick
        broker.open += 1
        broker.most_open = max(broker.most_open, broker.open)

    def get(self, timeout):
        """Return, or raise what went wrong."""
        self.broker.open -= 1
        if self.error:
            raise self.error


class Broker:
    """Stands in for the clients that `fedstream.broker.kafka` connects."""

    def __init__(self):
        """Start without a topic."""
        self.topics = {}  # name: partitions: records
        self.configs = {}  # name: configuration of its own
        self.ends = {}  # a partition's end, where it lies behind its last record
        self.starts = {}
        self.is_quick = False
        self.fails_after = None  # records, after which the broker takes no more
        self.error = None
        self.open = self.most_open = self.sent = self.most_held = 0
        self.consumers = []

    def make(self, topic, partitions=1, **config):
        """Make a topic."""
        self.topics[topic] = [[] for _ in range(partitions)]
        self.configs[topic] = {name.replace("_", "."): value for name, value in config.items()}

    def add(self, topic, partition, time_ms, value=b"v", key=b"k", headers=(), offset=None):
        """Put a record on a topic, at the next offset or after a gap."""
        log = self.topics[topic][partition]
        offset = self.end(TopicPartition(topic, partition)) if offset is None else offset
        about = {"topic": topic, "partition": partition, "offset": offset, "timestamp": time_ms}
        log.append(SimpleNamespace(**about, key=key, value=value, headers=list(headers)))

    def end(self, partition):
        """Return the offset of the next record."""
        log = self.topics[partition.topic][partition.partition]
        return max(log[-1].offset + 1 if log else 0, self.ends.get(partition, 0))

    def install(self, monkeypatch):
        """Put this broker in the place of a real one."""
        monkeypatch.setattr(kafka, "connect_consumer", lambda settings, **options: Consumer(self, **options))
        monkeypatch.setattr(kafka, "connect_producer", lambda settings, linger_ms=0: self.producer(linger_ms))
        monkeypatch.setattr(kafka, "connect_admin", lambda settings: self.admin())
        return self

    @contextmanager
    def producer(self, linger_ms):
        """Return a producer; what it sends is on the topic at once."""
        self.linger_ms = linger_ms

        def send(topic, key, value, headers, partition, timestamp_ms):
            self.sent += 1
            if self.fails_after is not None and self.sent > self.fails_after:
                return Future(self, self.error)
            self.add(topic, partition, timestamp_ms, value, key, headers)
            return Future(self)

        yield SimpleNamespace(send=send, partitions_for=lambda topic: set(range(len(self.topics[topic]))))

    @contextmanager
    def admin(self):
        """Return a client that lists, describes and makes topics."""

        def describe_configs(resources):
            def entry(name, value):
                return {"value": value, "config_source": "DYNAMIC_TOPIC_CONFIG"}

            found = {}
            for resource in resources:
                own = {name: entry(name, value) for name, value in self.configs[resource.name].items()}
                inherited = {"value": "604800000", "config_source": "STATIC_BROKER_CONFIG"}
                found[resource.name] = own | {"retention.ms": inherited}
            return {"topic": found}

        def create_topics(topics, wait_for_metadata):
            assert wait_for_metadata
            for name, about in topics.items():
                assert about["replication_factor"] == -1  # the cluster's default
                self.make(name, about["num_partitions"])
                self.configs[name] = about["configs"]

        yield SimpleNamespace(
            list_topics=lambda: list(self.topics),
            describe_configs=describe_configs,
            create_topics=create_topics,
            describe_topics=lambda names: [{"partitions": self.topics[name]} for name in names],
        )


class Consumer:
    """A consumer of that broker; a poll returns some records of each partition that is not paused."""

    def __init__(self, broker, **options):
        """Start without a partition."""
        self.broker, self.options = broker, options
        self.positions, self.paused, self.is_closed = {}, set(), False
        self.per_poll = 3
        self.handed_out = 0
        broker.consumers.append(self)

    def topics(self):
        """Return the names of all topics."""
        return set(self.broker.topics)

    def partitions_for_topic(self, topic):
        """Return a topic's numbers, None if there is no such topic."""
        return set(range(len(self.broker.topics[topic]))) if topic in self.broker.topics else None

    def beginning_offsets(self, partitions):
        """Return the first offsets."""
        return {each: self.broker.starts.get(each, 0) for each in partitions}

    def end_offsets(self, partitions, timeout_ms=None):
        """Return the offsets of the next records."""
        return {each: self.broker.end(each) for each in partitions}

    def offsets_for_times(self, times):
        """Return where the first record at or after a time stands."""
        found = {}
        for each, time_ms in times.items():
            log = self.broker.topics[each.topic][each.partition]
            found[each] = next((record for record in log if record.timestamp >= time_ms), None)
        return found

    def assign(self, partitions):
        """Take over partitions."""
        self.positions = dict.fromkeys(partitions, 0)

    def seek(self, partition, offset):
        """Go to an offset."""
        self.positions[partition] = offset

    def position(self, partition):
        """Return the offset to read next."""
        return self.positions[partition]

    def pause(self, partition):
        """Read no more of a partition."""
        self.paused.add(partition)

    def resume(self, partition):
        """Read a partition again."""
        self.paused.discard(partition)

    def poll(self, timeout_ms):
        """Return some records; a partition without any goes to its end, as over a transaction's marker."""
        found = {}
        for each in set(self.positions) - self.paused:
            log = self.broker.topics[each.topic][each.partition]
            records = [record for record in log if record.offset >= self.positions[each]][: self.per_poll]
            self.positions[each] = records[-1].offset + 1 if records else self.broker.end(each)
            if records:
                found[each] = records
                self.handed_out += len(records)
        self.broker.most_held = max(self.broker.most_held, self.handed_out - self.broker.sent)
        return found

    def close(self):
        """Close."""
        self.is_closed = True
