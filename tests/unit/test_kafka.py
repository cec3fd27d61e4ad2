"""The options of Spark's source and sink, the stack's topics, and what is said when no broker answers."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from fake_broker import Broker
from kafka import TopicPartition
from kafka.errors import KafkaTimeoutError

from fedstream.broker import kafka
from fedstream.broker.kafka import KafkaUnavailableError, NotKnownError, TopicLimitError
from fedstream.settings import Settings


def test_a_source_reads_its_topic_from_the_first_record_and_never_skips_any():
    options = kafka.source_options(Settings(kafka_bootstrap_servers="kafka:29092"), "sensor-data-node-1", 5000)
    assert options["kafka.bootstrap.servers"] == "kafka:29092"
    assert options["subscribe"] == "sensor-data-node-1"
    assert options["startingOffsets"] == "earliest"
    assert options["failOnDataLoss"] == "true"
    assert options["maxOffsetsPerTrigger"] == "5000"


def test_a_fetch_that_stands_still_is_begun_anew_before_the_driver_is_ended():
    options = kafka.source_options(Settings(), "a", 1)
    assert int(options["kafkaConsumer.pollTimeoutMs"]) / 1000 < Settings().stall_timeout_seconds / 2


def test_no_source_and_no_consumer_reads_what_was_taken_back(monkeypatch):
    assert kafka.source_options(Settings(), "a", 1)["kafka.isolation.level"] == "read_committed"
    assert kafka.source_options(Settings(), "a", None)["kafka.isolation.level"] == "read_committed"
    monkeypatch.setattr(kafka, "KafkaConsumer", lambda **options: options)
    assert kafka.connect_consumer(Settings())["isolation_level"] == "read_committed"


def test_a_pattern_and_a_list_of_topics_are_told_apart():
    assert kafka.source_options(Settings(), "a,b", 1)["subscribe"] == "a,b"
    options = kafka.source_options(Settings(), "sensor-data-node-.*", 1)
    assert options["subscribePattern"] == "sensor-data-node-.*"
    assert "subscribe" not in options


def test_readings_are_gathered_for_all_nodes_of_a_driver_but_not_for_ever():
    settings = Settings(update_min_readings=30, update_max_wait_seconds=2.5)
    assert kafka.gathering_options(settings, 4) == {"minOffsetsPerTrigger": "120", "maxTriggerDelay": "2500ms"}


def test_a_micro_batch_waits_for_no_further_records_and_real_time_mode_for_a_moment():
    settings = Settings(fetch_max_wait_ms=25)
    assert kafka.source_options(settings, "numbers", 1)["kafka.fetch.max.wait.ms"] == "0"
    unbounded = kafka.source_options(settings, "numbers", None)
    assert (unbounded | kafka.real_time_options(settings))["kafka.fetch.max.wait.ms"] == "25"
    assert Settings().fetch_max_wait_ms <= 50  # the client's default of 500 ms is half a second of latency


def test_options_are_text_as_spark_wants_them():
    options = kafka.source_options(Settings(), "numbers", 1) | kafka.sink_options(Settings(), "squares")
    assert all(isinstance(value, str) for value in options.values())


def test_a_sink_takes_the_dead_letter_of_the_largest_record_that_a_broker_takes():
    options = kafka.sink_options(Settings(kafka_bootstrap_servers="kafka:29092"), "dead-letter")
    assert options["kafka.bootstrap.servers"] == "kafka:29092"
    assert options["topic"] == "dead-letter"
    # A record of 1 MiB is 4/3 MiB in base64; 4 kB are for the other fields.
    assert int(options["kafka.max.request.size"]) >= 2**20 * 4 // 3 + 4096


def test_the_topics_of_a_stack_are_those_of_the_contract():
    assert sorted(kafka.stack_topics(3)) == [
        "dead-letter",
        "events",
        "global-model",
        "model-versions",
        "model-weights",
        "round-control",
        "sensor-data",
        "sensor-data-node-1",
        "sensor-data-node-2",
        "sensor-data-node-3",
    ]


class Admin:
    """A client of a broker whose topics are all there; their limits are those given, or the broker's own."""

    def __init__(self, **limits):
        """Take limits in bytes by topic."""
        self.limits, self.made = limits, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Do nothing."""

    def list_topics(self):
        """Return the names."""
        return kafka.stack_topics(1)

    def create_topics(self, topics):
        """Note what is made."""
        self.made.append(topics)

    def wait_for_topics(self, names, timeout_ms):
        """They are there."""

    def describe_configs(self, resources, config_filter):
        """Return all that holds for the topics, as the broker does; 1048588 is its own limit."""
        assert config_filter == "all"
        names = [each.name for each in resources]
        limits = {name: self.limits.get(name.replace("-", "_"), 1_048_588) for name in names}
        return {"topic": {name: {"max.message.bytes": {"value": str(most)}} for name, most in limits.items()}}


def test_a_topic_that_takes_no_messages_as_long_as_the_settings_allow_is_told_before_a_job_begins(monkeypatch):
    # MAX_UPDATE_BYTES and 50,000 beside; a dead letter of 2 MiB.
    as_made = {name: 1_250_000 for name in ("global_model", "round_control", "model_versions")}
    admin = Admin(**as_made, model_weights=1_050_000, dead_letter=2 * 2**20)
    monkeypatch.setattr(kafka, "connect_admin", lambda settings: admin)
    settings = Settings(max_update_bytes=1_200_000, kafka_bootstrap_servers="somewhere:1")
    with pytest.raises(TopicLimitError) as told:
        kafka.ensure_topics(settings, kafka.stack_topics(1))
    assert told.value.message == (
        "topic model-weights takes messages of at most 1050000 bytes; expected 1250000, as MAX_UPDATE_BYTES=1200000 "
        "needs it. Lower the setting, or raise the limit: kafka-configs --bootstrap-server somewhere:1 --alter "
        "--entity-type topics --entity-name model-weights --add-config max.message.bytes=1250000"
    )
    admin.limits["model_weights"] = 1_250_000
    assert kafka.ensure_topics(settings, kafka.stack_topics(1)) == []
    admin.limits["dead_letter"] = 2 * 2**20 - 1
    with pytest.raises(TopicLimitError, match="topic dead-letter takes messages of at most 2097151 bytes"):
        kafka.ensure_topics(settings, ["dead-letter"])
    assert kafka.ensure_topics(settings, ["sensor-data-node-1", "events"]) == []
    assert admin.made == []


@pytest.mark.parametrize(
    "call",
    [
        "connect_producer(settings)",
        "connect_publisher(settings)",
        "follow_topic(settings, 'model-weights')",
        "ensure_topics(settings, ['model-weights'])",
        "main()",
    ],
)
def test_no_broker_is_named_within_the_bounded_time_with_what_to_check(program, closed_port, call):
    code = (
        "import os, sys, time\n"
        "from fedstream.broker.kafka import *\n"
        "from fedstream.broker.kafka import main\n"
        "settings = Settings.from_env(os.environ)\n"
        "begin = time.monotonic()\n"
        f"try: {call}\n"
        "except KafkaUnavailableError as error: print(time.monotonic() - begin, error)\n"
        "else: print('connected')\n"
    )
    brokers = f"127.0.0.1:{closed_port}"
    variables = {"KAFKA_BOOTSTRAP_SERVERS": brokers, "WAIT_TIMEOUT_SECONDS": "0.3"}
    with program("-c", code, "2", **variables) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    seconds, _, text = out.partition(" ")
    assert text.startswith(f"no Kafka broker answered at {brokers} within 0.3 s; is the stack up (`make ps`")
    assert "KAFKA_BOOTSTRAP_SERVERS" in text
    assert float(seconds) < 10


class Producer:
    """Takes messages, and answers each later; one of key `bad` is refused."""

    def __init__(self):
        """Keep what happens, in order."""
        self.steps = []

    def send(self, topic, key, value):
        """Return the answer to come."""
        self.steps.append(("sent", topic, key, json.loads(value)))

        def get(timeout):
            self.steps.append(("answered", key))
            if key == b"bad":
                raise KafkaTimeoutError("too slow")

        return SimpleNamespace(get=get)


def test_all_messages_are_on_their_way_in_their_order_before_an_answer_is_awaited(monkeypatch):
    producer = Producer()
    monkeypatch.setattr(kafka, "connect_producer", lambda settings: producer)
    publish = kafka.connect_publisher(Settings())
    publish()
    publish(("a", "k", {"n": 1}), ("b", "l", {"n": 2}))
    assert producer.steps == [
        ("sent", "a", b"k", {"n": 1}), ("sent", "b", b"l", {"n": 2}), ("answered", b"k"), ("answered", b"l")
    ]  # fmt: skip


def test_a_message_that_the_broker_does_not_take_is_named(monkeypatch):
    monkeypatch.setattr(kafka, "connect_producer", lambda settings: Producer())
    publish = kafka.connect_publisher(Settings(kafka_bootstrap_servers="somewhere:1"))
    with pytest.raises(KafkaUnavailableError, match="topic b at somewhere:1 did not take a message of key bad: Kafka"):
        publish(("a", "k", {}), ("b", "bad", {}), ("c", "m", {}))


class Consumer:
    """Has so many records on a topic of one partition, hands them out in twos, and falls silent at an offset."""

    def __init__(self, count: int, silent_at: int) -> None:
        """Nothing is read yet."""
        self.count, self.silent_at, self.at, self.is_closed = count, silent_at, 0, False
        self.assign = lambda partitions: None
        self.partitions_for_topic = lambda topic: {0}

    def beginning_offsets(self, partitions):
        return dict.fromkeys(partitions, 0)

    def end_offsets(self, partitions, timeout_ms=None):
        return dict.fromkeys(partitions, self.count)

    def seek(self, partition, offset):
        self.at = offset

    def position(self, partition):
        return self.at

    def poll(self, timeout_ms):
        if self.at >= self.silent_at:
            return {}
        batch = range(self.at, min(self.at + 2, self.silent_at))
        self.at = batch.stop
        return {"": list(batch)}

    def close(self):
        self.is_closed = True


def test_a_topic_is_read_to_its_end_or_from_so_many_records_before_it(monkeypatch):
    for last, expected in ((None, [0, 1, 2, 3, 4]), (2, [3, 4]), (9, [0, 1, 2, 3, 4])):
        consumer = Consumer(count=5, silent_at=5)
        monkeypatch.setattr(kafka, "connect_consumer", lambda settings, consumer=consumer: consumer)
        assert list(kafka.read_topic(Settings(), "t", last)) == expected
        assert consumer.is_closed


def test_a_broker_that_falls_silent_in_the_midst_of_a_topic_is_told_with_the_place(monkeypatch):
    consumer = Consumer(count=9, silent_at=6)
    monkeypatch.setattr(kafka, "connect_consumer", lambda settings: consumer)
    read = kafka.read_topic(Settings(wait_timeout_seconds=0.01), "t")
    assert [next(read) for _ in range(6)] == [0, 1, 2, 3, 4, 5]
    with pytest.raises(
        KafkaUnavailableError, match=r"nothing more came of partition 0 of topic t at .*, offset 6 within"
    ):
        next(read)
    assert consumer.is_closed


def test_a_topic_that_was_just_deleted_is_told_and_no_key_error(monkeypatch):
    def gone(partitions, timeout_ms):
        raise KeyError(TopicPartition("t", 0))

    consumer = SimpleNamespace(end_offsets=gone)
    with pytest.raises(NotKnownError, match=r"the broker does not say where .*topic='t', partition=0.* ends"):
        kafka.ends_of(consumer, [TopicPartition("t", 0)])
    assert kafka.ends_of(consumer, []) == {}


@pytest.fixture
def broker(monkeypatch):
    """Return a broker with 1000 records in partition 0 of topic t, and 30 in partition 1."""
    broker = Broker().install(monkeypatch)
    broker.make("t", partitions=2)
    for number in range(1000):
        broker.add("t", 0, number, value=number)
    for number in range(30):
        broker.add("t", 1, number, value=-number)
    return broker


def test_a_topic_is_read_backwards_in_pieces_that_grow(broker):
    pieces = [list(piece) for piece in kafka.read_backwards(Settings(), "t", step=100)]
    first = [[r.value for r in piece if r.partition == 0] for piece in pieces]
    # 100, 200, 400, and the 300 that are left.
    assert first == [list(range(900, 1000)), list(range(700, 900)), list(range(300, 700)), list(range(300))]
    assert [len([r for r in piece if r.partition == 1]) for piece in pieces] == [30, 0, 0, 0]
    assert broker.consumers[-1].is_closed


def test_who_has_found_what_he_looks_for_reads_no_older_piece(broker):
    for piece in kafka.read_backwards(Settings(), "t", step=100):
        found = [record for record in piece if record.partition == 0 and record.value <= 850]
        if found:
            break
    assert found[-1].value == 850
    assert broker.consumers[-1].handed_out < 350, "300, and what a fetch brings beside"


def test_what_has_come_on_a_topic_is_handed_on_piece_by_piece(broker):
    read = kafka.follow_topic(Settings(), "t")
    records = read(0)
    assert next(records).value is not None
    assert broker.consumers[-1].handed_out <= 6, "three of each partition are fetched at once"
    assert len(list(records)) == 1029
    broker.add("t", 0, 0, value="new")
    assert [record.value for record in read(0)] == ["new"]
    from_now_on = kafka.follow_topic(Settings(), "t", last=0)
    assert list(from_now_on(0)) == []
    broker.add("t", 1, 0, value="newer")
    assert [record.value for record in from_now_on(0)] == ["newer"]
