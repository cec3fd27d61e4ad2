"""A replayed day gives what the day gave, and a job that is started from a time goes on from its own checkpoint."""

from __future__ import annotations

import base64
import itertools
import json
import math
import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from click.testing import CliRunner
from msgspec import convert
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.readwriter import DataStreamWriter

from fedstream.broker.position import Position
from fedstream.commands.replay import Replay, replay_topic
from fedstream.learning.models import make_model
from fedstream.learning.training import Scaler
from fedstream.messages.rounds import ModelUpdate, global_model
from fedstream.messages.weights import NodeWeight
from fedstream.settings import Settings
from fedstream.spark.readings import NodeReadings
from fedstream.spark.state import BatchState
from fedstream.spark.training import Trainer, build_training_query
from tests.spark.conftest import RECORD_DDL, Recorder, Topic
from tests.unit.fake_broker import Broker

DAY = "sensor-data-node-1"
SENSORS = {"node-1": 1}
MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC)
MINUTES = 24 * 60


def ms(minutes: float) -> int:
    """Return the time (ms since 1970) so many minutes after midnight."""
    return round((MIDNIGHT + timedelta(minutes=minutes)).timestamp() * 1000)


@pytest.fixture(scope="module")
def fog(script) -> ModuleType:
    """Return the job script."""
    return script("fog/fog_node.py")


# --- the same input gives the same output


def fill(broker: Broker) -> list[dict]:
    """Put a day of readings on two partitions, one a minute, with the hour before and the hour after it.

    Fractions of 64 and 1024 add up exactly, in whatever order. Return the good readings of the day.
    """
    source = random.Random(24)
    broker.make(DAY, 2)
    good = []
    for minute in range(-60, MINUTES + 60):
        temperature, vibration = source.randint(60 * 64, 90 * 64) / 64, source.randint(20, 102) / 1024
        reading = {"sensor_id": "node-1", "temperature": temperature, "vibration": vibration}
        reading |= {"label": int(temperature > 85 or vibration > 0.08), "event_time": ms(minute)}
        is_bad = minute % 100 == 7
        # Some come 200 s late, so that times go back within a partition; at midnight none do.
        late_ms = source.choice((0, 0, 200_000)) if 0 < minute < MINUTES - 5 else 0
        value = b"hello" if is_bad else json.dumps(reading).encode()
        broker.add(DAY, int(minute % 3 == 0), ms(minute) + late_ms, value=value, key=b"node-1")
        if 0 <= minute < MINUTES and not is_bad:
            good.append(reading)
    return good


class Results:
    """What a fog node makes of a topic: its running weight, and what it trains in a round."""

    def __init__(self, fog: ModuleType, spark: SparkSession, folder: Path, run_driver: Callable) -> None:
        """Prepare for one topic after the other."""
        self.fog, self.spark, self.folder, self.run_driver = fog, spark, folder, run_driver
        self.numbers = itertools.count()

    def of(self, log: Iterable[SimpleNamespace], per_batch: int) -> tuple[dict, ModelUpdate, int]:
        """Return the node's last weight, its update of a round and its number of micro-batches."""
        folder = self.folder / str(next(self.numbers))
        folder.mkdir()
        lines = [(each.topic, each.partition, each.value) for each in log]
        whole, parts = Topic(folder / "whole", DAY), Topic(folder / "parts", DAY)
        whole.append_records(lines)
        for first in range(0, len(lines), per_batch):
            parts.append_records(lines[first : first + per_batch])
        weights, updates = Recorder(), Recorder()
        readings = NodeReadings(Settings(), SENSORS, lambda letters: None)
        state = BatchState(folder / "state", self.fog.FogNode.initial())
        node = self.fog.FogNode(Settings(), state, weights.publish)
        self.run_driver(self.fog.build_query(parts.read(self.spark), "fog-1", readings, node), folder / "state")
        model = make_model("mlp", {})
        opened = global_model("run-1", 1, 0, model.initial_arrays(1), scaler=Scaler((75.0, 0.06), (9.0, 0.02)))
        rounds = SimpleNamespace(wait=lambda last, hosted: opened)
        state = BatchState(folder / "training", Trainer.initial())
        weight = {"fog-1": NodeWeight("fog-1", 1.0, 1)}
        trainer = Trainer(Settings(), state, rounds, lambda: weight, updates.publish)
        self.run_driver(build_training_query(whole.read(self.spark), readings, trainer), folder / "training")
        ((*_, update),) = updates.published
        return weights.published[-1][-1], convert(update, ModelUpdate), len(weights.published)


def bits(update: ModelUpdate) -> dict[str, bytes]:
    """Return the trained arrays as bytes."""
    return {name: array.tobytes() for name, array in update.arrays.items()}


def test_a_replayed_day_gives_the_same_weight_samples_and_trained_model(fog, spark, tmp_path, run_driver, monkeypatch):
    broker, results = Broker().install(monkeypatch), Results(fog, spark, tmp_path, run_driver)
    good = fill(broker)
    wanted = Replay(DAY, Position(time_ms=ms(0)), Position(time_ms=ms(MINUTES)), speed=math.inf)
    summary = replay_topic(Settings(), wanted)
    assert (summary["records"], summary["into"]) == (MINUTES, f"{DAY}-replay")
    day, copy = (
        [record for partition in broker.topics[name] for record in partition if ms(0) <= record.timestamp < ms(MINUTES)]
        for name in (DAY, f"{DAY}-replay")
    )
    assert len(day) == len(copy) == MINUTES

    weight, update, batches = results.of(day, per_batch=200)
    weight_again, update_again, batches_again = results.of(copy, per_batch=333)
    assert (batches, batches_again) == (8, 5), "cut into other micro-batches"
    # The contract's formula, from the readings as they were made up.
    temperature, vibration = (math.fsum(each[name] for each in good) for name in ("temperature", "vibration"))
    assert weight["weight"] == round((temperature + 100 * vibration) / len(good) / 2, 4)
    assert weight["samples"] == update.num_examples == len(good) == MINUTES - 15
    assert weight["rejected"] == 15  # minutes 7, 107, ... 1407
    assert weight_again == weight
    assert bits(update_again) == bits(update)
    assert (update_again.metrics, update_again.num_examples) == (update.metrics, update.num_examples)

    copy[100], copy[101] = copy[101], copy[100]  # within a partition
    weight_of_another_order, update_of_another_order, _ = results.of(copy, per_batch=333)
    assert weight_of_another_order == weight
    assert bits(update_of_another_order) != bits(update), "else the comparison above would say little"


# --- jobs that start from a time

NOON = "2026-11-21T12:00:00Z"


class Job:
    """A job's own `main`, on a topic of files whose records have times."""

    def __init__(
        self, module: ModuleType, topic: Topic, spark: SparkSession, folder: Path, run_driver: Callable, monkeypatch
    ) -> None:
        """Put files in Kafka's place."""
        self.module, self.topic, self.folder, self.run_driver = module, topic, folder, run_driver
        self.recorder = Recorder()
        self.starts: list[Position | None] = []
        self.writers: list[DataStreamWriter] = []
        monkeypatch.setenv("CHECKPOINT_DIR", str(folder))
        monkeypatch.setenv("MODEL", "mean")
        monkeypatch.setattr(module.kafka, "ensure_topics", lambda *_: [])
        monkeypatch.setattr(module.kafka, "connect_publisher", lambda *_: self.recorder.publish)
        monkeypatch.setattr(module, "SolePublisher", lambda *_: self.recorder.publish, raising=False)  # the cloud's
        monkeypatch.setattr(module.kafka, "count_partitions", lambda *_: 1)
        monkeypatch.setattr("fedstream.broker.models.follow_models", lambda *_: None)
        monkeypatch.setattr(module.watchdog, "guard_topics", lambda *_: lambda: None)
        monkeypatch.setattr(module.session, "start_session", lambda *_: spark)
        monkeypatch.setattr(module.session, "read_topic", self.read_topic)
        monkeypatch.setattr(module.session, "run_query", lambda _, *writers, **__: self.writers.extend(writers))

    def read_topic(self, spark, settings, topics, max_records, start=None, **options) -> DataFrame:
        """Return the records since the start, as Kafka's source does where there is no checkpoint."""
        self.starts.append(start)
        records = self.topic.read(spark, f"{RECORD_DDL}, time_ms BIGINT")
        return records.where(records.time_ms >= (start.time_ms if start else 0)).drop("time_ms")

    def append(self, minute: int, message: dict) -> None:
        """Put a message on the topic, as a micro-batch of its own."""
        value = base64.b64encode(json.dumps(message).encode()).decode()
        place = {"topic": self.topic.name, "partition": 0, "offset": self.topic.files}
        self.topic.append_lines([json.dumps({"value": value, "time_ms": ms(minute)} | place)])

    def run(self, folder: str, *words: str) -> list[dict]:
        """Start the job, let it process all there is, and return what it published; its state is in the folder."""
        self.recorder.published.clear()
        self.writers.clear()
        CliRunner().invoke(self.module.main, words, catch_exceptions=False, standalone_mode=False)
        assert (self.folder / folder / "state.lock").exists()
        for writer in self.writers:
            self.run_driver(writer, self.folder / folder)
        return [parts[-1] for parts in self.recorder.published]


@pytest.fixture
def make_job(script, topic, spark, tmp_path, run_driver, monkeypatch) -> Callable[[str], Job]:
    """Return a function that prepares a job from its script."""
    return lambda path: Job(script(path), topic, spark, tmp_path / "checkpoints", run_driver, monkeypatch)


def counted(update: dict) -> tuple[int, float, str | None]:
    """Return the samples, the weight and the source of an update."""
    return update["samples"], update["weight"], update.get("source")


def test_a_fog_node_that_starts_from_a_time_has_a_count_of_its_own_and_goes_on_with_it(make_job):
    job = make_job("fog/fog_node.py")
    reading = {"sensor_id": "node-1", "vibration": 0.0, "label": 0}
    job.topic.name = DAY
    for hour, temperature in ((9, 60), (11, 70), (12, 80), (13, 90)):
        job.append(60 * hour, reading | {"temperature": temperature})
    ordinary, since_noon = f"fog-1/{DAY}", f"fog-1/{DAY}/from-{NOON}"
    # Weights are half of the mean temperature: of 60, 70, 80 and 90; of 80 and 90.
    assert counted(job.run(ordinary, "--node", "1")[-1]) == (4, 37.5, None)
    updates = job.run(since_noon, "--node", "1", "--from", NOON)
    assert [counted(update) for update in updates] == [(1, 40.0, f"from {NOON}"), (2, 42.5, f"from {NOON}")]
    job.append(60 * 14, reading | {"temperature": 100})
    same_time = "2026-11-21T14:00:00+02:00"
    updates = job.run(since_noon, "--node", "1", "--from", same_time)
    assert [counted(update) for update in updates] == [(3, 45.0, f"from {NOON}")], "it goes on, it does not start over"
    assert [counted(update) for update in job.run(ordinary, "--node", "1")] == [(5, 40.0, None)]
    assert job.starts == [None, Position(time_ms=ms(720)), Position(time_ms=ms(720)), None]


def test_a_shared_topic_is_a_source_of_its_own(make_job):
    job = make_job("fog/fog_node.py")
    job.append(800, {"sensor_id": "node-1", "temperature": 80, "vibration": 0.0, "label": 0})
    shared = ["--node", "1", "--topic", "sensor-data"]
    assert counted(job.run("fog-1/sensor-data", *shared)[-1]) == (1, 40.0, "sensor-data")
    (update,) = job.run(f"fog-1/sensor-data/from-{NOON}", *shared, "--from", NOON)
    assert counted(update) == (1, 40.0, f"sensor-data from {NOON}")


def test_both_queries_of_a_fog_node_start_from_the_same_place(make_job, monkeypatch):
    job = make_job("fog/fog_node.py")
    monkeypatch.setenv("MODEL", "logistic")
    CliRunner().invoke(job.module.main, ["--node", "1", "--from", NOON], catch_exceptions=False)
    assert len(job.writers) == 2
    assert job.starts == [Position(time_ms=ms(720))] * 2


def test_a_cloud_that_starts_from_a_time_has_a_state_of_its_own(make_job):
    job = make_job("cloud/aggregator.py")
    job.topic.name = "model-weights"
    for hour, node, weight in ((9, "fog-1", 40.0), (12, "fog-2", 44.0)):
        job.append(60 * hour, {"node_id": node, "weight": weight, "samples": 1})
    assert job.run("cloud")[-1] == {"global_weight": 42.0, "samples": 2, "nodes": 2}
    assert job.run(f"cloud/from-{NOON}", "--from", NOON) == [{"global_weight": 44.0, "samples": 1, "nodes": 1}]
    job.append(60 * 13, {"node_id": "fog-2", "weight": 48.0, "samples": 3})
    assert job.run(f"cloud/from-{NOON}", "--from", NOON) == [{"global_weight": 48.0, "samples": 3, "nodes": 1}]
    assert job.run("cloud") == [{"global_weight": 46.0, "samples": 4, "nodes": 2}]  # (40 + 3 * 48) / 4
