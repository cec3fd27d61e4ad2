"""Topics in memory, filled by a real federation: what the commands read in place of a broker."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np

from fedstream.broker import kafka
from fedstream.learning.models import TrainConfig, make_model
from fedstream.learning.training import train
from fedstream.messages.door import encode
from fedstream.messages.rounds import model_update, read_update
from fedstream.messages.topics import MODEL_WEIGHTS, sensor_topic
from fedstream.messages.weights import GlobalWeight, NodeWeight, RunningSums, merge_update, sums_of
from fedstream.rounds.federation import Federation
from fedstream.rounds.run_state import new_run
from fedstream.rounds.runs import read_models
from fedstream.settings import Settings, parse_options
from tests.unit.report import label_of

NODES = ("fog-1", "fog-2")


class Topics:
    """Stands in for the broker at the two functions of `fedstream.broker.kafka`."""

    def __init__(self):
        """Start without a record."""
        self.clear()

    def clear(self):
        """Begin anew, where these topics are installed, too."""
        self.records = {}
        self.published = []
        self.on_publish = lambda topic, key, message: None
        self.on_read = lambda topic: None

    def add(self, topic, key, message):
        """Put a record on a topic and return its place."""
        value = message if isinstance(message, (bytes, type(None))) else encode(message)
        log = self.records.setdefault(topic, [])
        timestamp = 1000 + sum(map(len, self.records.values()))
        log.append(
            SimpleNamespace(topic=topic, partition=0, offset=len(log), timestamp=timestamp, key=key, value=value)
        )
        return [0, len(log) - 1]

    def messages(self, topic):
        """Return the messages of a topic."""
        return [json.loads(record.value) for record in self.records.get(topic, []) if record.value]

    def models(self, topic):
        """Return the models of the rounds on a topic."""
        return list(read_models(self.records.get(topic, [])))

    def follow_topic(self, settings, topic, last=None):
        """See `fedstream.broker.kafka.follow_topic`; `on_read` may add records before each reading."""
        position = 0 if last is None else max(0, len(self.records.get(topic, [])) - last)

        def read(timeout_seconds):
            nonlocal position
            self.on_read(topic)
            new = self.records.get(topic, [])[position:]
            position += len(new)
            return new

        return read

    def read_topic(self, settings, topic, last=None):
        """See `fedstream.broker.kafka.read_topic`."""
        return iter(self.follow_topic(settings, topic, last)(0))

    def read_backwards(self, settings, topic):
        """See `fedstream.broker.kafka.read_backwards`."""
        yield self.read_topic(settings, topic)

    def connect_publisher(self, settings):
        """See `fedstream.broker.kafka.connect_publisher`."""

        def publish(*outgoing):
            for topic, key, message in outgoing:
                self.published.append((topic, key, json.loads(encode(message))))
                self.on_publish(topic, key, message)

        return publish

    def install(self, monkeypatch):
        """Put these topics in the broker's place."""
        monkeypatch.setattr(kafka, "follow_topic", self.follow_topic)
        monkeypatch.setattr(kafka, "read_topic", self.read_topic)
        monkeypatch.setattr(kafka, "read_backwards", self.read_backwards)
        monkeypatch.setattr(kafka, "connect_publisher", self.connect_publisher)
        return self


class Stack:
    """A cloud and two fog nodes in one process, on these topics."""

    def __init__(self, topics, run_id="run-a", seed=0, **settings):
        """Start before the first round."""
        self.topics = topics
        self.settings = Settings(**{"model": "logistic", "local_epochs": 1} | settings)
        self.model = make_model(self.settings.model, parse_options("MODEL_OPTIONS", self.settings.model_options))
        self.latest = {}
        run = new_run(run_id, self.settings)
        self.federation = Federation(run, self.settings, self.model, self.latest, draw_secret=lambda: 7)
        self.random = np.random.RandomState(seed)
        self.seen = dict.fromkeys(NODES, RunningSums(10, (750.0, 0.6), (57_000.0, 0.042)))
        self.clock = 1_000_000 + 1_000_000 * seed
        for node in NODES:  # both are known when the first round opens
            self.hear(node)

    def hear(self, node):
        """Let the cloud know what a node has seen."""
        merge_update(self.latest, self.weight(node))
        self.federation.hear(self.latest[node])

    def weight(self, node):
        """Return a node's running weight."""
        seen = self.seen[node]
        return NodeWeight(node, 1.0, seen.count, 0, seen.sums, seen.squares)

    def send(self):
        """Publish what the cloud has to send."""
        for topic, key, message in self.federation.outbox:
            weighed = message.with_weight(GlobalWeight(40.5, 7, 2)) if hasattr(message, "with_weight") else message
            self.topics.add(topic, key, weighed)
        self.federation.outbox.clear()

    def readings(self, node, count):
        """Put readings on the node's topic and return them."""
        x = np.column_stack(
            [self.random.uniform(60, 90, count).round(2), self.random.uniform(0.02, 0.1, count).round(3)]
        )
        y = np.array([label_of(*row) for row in x])
        for (temperature, vibration), label in zip(x.tolist(), y.tolist(), strict=True):
            reading = {"sensor_id": "s", "temperature": temperature, "vibration": vibration, "label": label}
            self.topics.add(sensor_topic(int(node[-1])), b"s", reading)
        return x, y

    def answer(self, node, count=60):
        """Let a node train for the open round, and the cloud take its update in."""
        x, y = self.readings(node, count)
        self.seen[node] = self.seen[node] + sums_of(x)
        self.hear(node)
        self.clock += 1
        self.federation.settle(self.clock)
        opened = self.federation.run.opened.model
        if opened:
            trained = train(self.model, opened.arrays, opened.scaler, x, y, TrainConfig(epochs=1), self.clock)
            learned = {"arrays": trained.arrays, "score": trained.score}
            update = model_update(self.weight(node), opened, self.clock, trained.num_examples, **learned)
            place = self.topics.add(MODEL_WEIGHTS, node.encode(), update)
            self.federation.receive(read_update(encode(update)), tuple(place))
            self.federation.settle(self.clock)
        self.send()

    def run(self, rounds):
        """Let each node answer so many times; all of them together close a round."""
        for _ in range(rounds):
            for node in NODES:
                self.answer(node)
        return self
