"""A publisher of a name that only one program may use: taken over, and on brokers that die in the midst."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError

from fedstream.broker import kafka, sole
from fedstream.broker.kafka import KafkaUnavailableError
from fedstream.broker.sole import FencedError, SolePublisher
from fedstream.settings import Settings

SETTINGS = Settings(kafka_bootstrap_servers="somewhere:1", wait_timeout_seconds=5.0)
SENT = [("sent", "a", b"k", 1), ("sent", "b", b"l", 2), ("answered", b"k"), ("answered", b"l")]


class World:
    """A broker with the producers that were connected to it, and the notes of who owns a name."""

    def __init__(self, monkeypatch):
        """Nobody is connected, nothing is noted."""
        self.steps, self.notes, self.failing, self.connections = [], {}, {}, []
        monkeypatch.setattr(kafka, "connect_producer", self.connect)
        monkeypatch.setattr(kafka, "connect_consumer", self.connect_consumer)
        monkeypatch.setattr(sole, "TRY_SECONDS", 0.1)
        monkeypatch.setattr(sole, "PAUSE_SECONDS", 0.01)

    def connect(self, settings, transactional_id, max_block_ms):
        """Return a producer that does what kafka-python's does."""
        self.connections.append((transactional_id, max_block_ms))
        step = {name: self.step(name) for name in ("init_transactions", "begin_transaction", "commit_transaction")}
        return SimpleNamespace(send=self.send, close=lambda timeout: self.steps.append("closed"), **step)

    def step(self, name):
        """Return a step, which fails as often as it is to."""

        def do():
            if self.failing.get(name):
                self.failing[name].pop()()
            self.steps.append(name)

        return do

    def send(self, topic, key, value):
        """Return the answer to come."""
        self.steps.append(("sent", topic, key, json.loads(value)))

        def get(timeout):
            if self.failing.get("answer"):
                self.failing["answer"].pop()()
            self.steps.append(("answered", key))

        return SimpleNamespace(get=get)

    def connect_consumer(self, settings, group_id):
        """Return a consumer of a group, which keeps the text beside its one offset."""

        def commit(offsets):
            [(partition, noted)] = offsets.items()
            assert partition == TopicPartition("global-model", 0)
            self.notes[group_id] = noted.metadata

        def committed(partition, metadata):
            assert metadata
            return SimpleNamespace(metadata=self.notes[group_id])

        return SimpleNamespace(commit=commit, committed=committed, close=lambda: None)


def fenced():
    raise KafkaError("Cannot execute transactional method: we are in an error state: ProducerFencedError")


def silent():
    raise KafkaTimeoutError("Timeout after waiting for 15.0 secs.")


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def test_all_is_sent_in_one_transaction(world):
    publish = SolePublisher(SETTINGS, "cloud")
    publish()
    publish(("a", "k", 1), ("b", "l", 2))
    assert world.connections == [("cloud", 100)]
    assert world.steps == ["init_transactions", "begin_transaction", *SENT, "commit_transaction"]


def test_one_that_another_has_replaced_ends_and_names_it(world):
    publish = SolePublisher(SETTINGS, "cloud")
    world.notes["cloud"] = "host-b, process 7, 0123abcd"
    world.failing["begin_transaction"] = [fenced]
    wanted = (
        r"another cloud has been started on the topics at somewhere:1 \(host-b, process 7, 0123abcd\): this one ends "
        "for good, .*make run-cloud"
    )
    with pytest.raises(FencedError, match=wanted):
        publish(("a", "k", 3))
    assert world.steps == ["init_transactions"]


@pytest.mark.parametrize(
    ("step", "failure"), [("begin_transaction", fenced), ("answer", silent), ("commit_transaction", silent)]
)
def test_a_transaction_that_does_not_outlive_its_broker_is_sent_anew_as_a_whole(world, step, failure):
    publish = SolePublisher(SETTINGS, "cloud")
    world.failing[step] = [failure]
    publish(("a", "k", 1), ("b", "l", 2))
    assert world.steps[-8:] == ["init_transactions", "begin_transaction", *SENT, "commit_transaction", "closed"]
    assert len(world.connections) == 2


def test_nobody_is_replaced_by_one_that_comes_back_after_its_broker(world):
    publish = SolePublisher(SETTINGS, "cloud")

    def another_takes_over():
        world.notes["cloud"] = "host-b, process 7, 0123abcd"
        silent()

    world.failing["answer"] = [another_takes_over]
    with pytest.raises(FencedError, match="another cloud has been started"):
        publish(("a", "k", 3))
    assert world.steps.count("init_transactions") == 1


def test_a_commit_that_the_client_waits_for_without_an_end_is_bounded(world):
    publish, never = SolePublisher(SETTINGS, "cloud"), threading.Event()
    world.failing["commit_transaction"] = [never.wait]
    publish(("a", "k", 1), ("b", "l", 2))
    assert world.steps[-2:] == ["commit_transaction", "closed"]
    never.set()


def test_a_broker_that_does_not_come_back_is_named_after_the_bounded_time(world):
    publish = SolePublisher(Settings(kafka_bootstrap_servers="somewhere:1", wait_timeout_seconds=0.2), "cloud")
    world.failing["answer"] = [silent] * 1000
    with pytest.raises(
        KafkaUnavailableError, match="topic a at somewhere:1 did not take a message of key k: KafkaTime"
    ):
        publish(("a", "k", 3))
