"""The cloud: latest weights, rounds of a strategy, and messages that come twice, late or broken, or after a crash."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec import convert, to_builtins
from pyspark.sql import DataFrame, Row
from pyspark.sql.streaming.query import StreamingQuery

from fedstream.broker import deadline, kafka
from fedstream.errors import StateError
from fedstream.learning import arrays as wire
from fedstream.learning.scores import Score
from fedstream.messages.door import encode
from fedstream.messages.rounds import Deadline, GlobalModel, TooLargeError, global_model
from fedstream.messages.weights import GlobalWeight, NodeWeight, merged_weight
from fedstream.rounds import cloud_state
from fedstream.rounds.cloud_state import Rounds
from fedstream.rounds.federation import Federation
from fedstream.settings import Settings
from fedstream.spark.state import BatchState
from fedstream.tables import console_table
from tests.spark.conftest import Recorder, Topic, release_lock

MAX_UPDATE_BYTES = 1000


@pytest.fixture(scope="module")
def cloud(script) -> ModuleType:
    """Return the job script."""
    return script("cloud/aggregator.py")


def update(node_id: str, weight: float, samples: int) -> bytes:
    """Return an update of the running weight alone, without sums, as it stands on the topic."""
    return json.dumps({"node_id": node_id, "weight": weight, "samples": samples}).encode()


def model(global_weight: float, samples: int, nodes: int) -> tuple[str, str, dict]:
    """Return what the cloud publishes of the running weights."""
    return "global-model", "weight", {"global_weight": global_weight, "samples": samples, "nodes": nodes}


class Cloud:
    """An aggregator that reads topics of files."""

    def __init__(
        self, cloud: ModuleType, records: DataFrame, folder: Path, run_driver: Callable, settings: Settings
    ) -> None:
        """Prepare an aggregator that has not run yet."""
        self.cloud = cloud
        self.records = records
        self.folder = folder
        self.recorder = Recorder()
        self.run_driver = run_driver
        self.settings = settings
        self.last: GlobalModel | None = None
        self.armed: list[GlobalModel | None] = []
        self.ms = itertools.count(1000)

    @property
    def published(self) -> list[tuple[str, str, dict]]:
        """What was published: (topic, key, message)."""
        return self.recorder.published

    @property
    def rejected(self) -> list[Row]:
        """The records that went to dead-letter."""
        return self.recorder.rejected

    def arm_deadline(self, opened: GlobalModel | None) -> None:
        """Keep what was given; this is the last step before Spark commits the micro-batch."""
        self.armed.append(opened)
        self.recorder.step("in arm_deadline")

    def rounds(self) -> Any:
        """Return from where a federation goes on."""
        return replace(Rounds.of(self.settings), last=self.last)

    def run(self) -> StreamingQuery:
        """Start a driver on the folder and let it process all there is."""
        outlets = self.cloud.Outlets(self.recorder.publish, self.arm_deadline, lambda: next(self.ms))
        state = BatchState(self.folder, self.cloud.INITIAL, features=self.settings.feature_names)
        writer = self.cloud.build_query(self.records, state, self.rounds(), outlets)
        return self.run_driver(writer, self.folder)


@pytest.fixture
def make_cloud(cloud, spark, topic, tmp_path, run_driver) -> Callable[..., Cloud]:
    """Return a function that prepares an aggregator from its settings, on the topic and the folder of this test."""

    def make(topic: Topic = topic, folder: str = "cloud", **settings: Any) -> Cloud:
        return Cloud(cloud, topic.read(spark), tmp_path / folder, run_driver, Settings(**settings))

    return make


@pytest.fixture
def aggregator(make_cloud) -> Cloud:
    """Return an aggregator of weights alone that has not run yet."""
    return make_cloud(model="mean", max_update_bytes=MAX_UPDATE_BYTES)


# --- the pure functions


def record(offset: int, value: bytes | None, partition: int = 0) -> Row:
    """Return a record as the handler gets it."""
    return Row(value=value, topic="model-weights", partition=partition, offset=offset)


def take_in(cloud: ModuleType, records: list[Row], before: dict[str, Any] | None = None, **settings: Any) -> Any:
    """Return what a cloud without rounds makes of records."""
    rounds = cloud.Rounds(Settings(model="mean", **settings), None, "")
    return cloud.take_in(records, cloud.INITIAL if before is None else before, rounds, now=1)


def test_updates_are_read_in_the_topics_order_and_bad_records_stand_aside_with_the_reason(cloud):
    largest = update("fog-3", 1.0, 1).ljust(100)
    bad, long = record(1, b"hello"), record(5, largest + b" ")
    records = [
        record(2, update("fog-2", 44.0, 3)),
        long,
        bad,
        record(0, update("fog-1", 40.0, 1)),
        record(0, largest, partition=1),
        record(6, None),
    ]
    taken = take_in(cloud, records, max_update_bytes=100)
    assert list(taken.latest.values()) == [
        NodeWeight("fog-1", 40.0, 1),
        NodeWeight("fog-2", 44.0, 3),
        NodeWeight("fog-3", 1.0, 1),
    ], "in the order of partitions and offsets"
    assert taken.stale == 0
    assert [rejected_record for rejected_record, _ in taken.rejected] == [bad, long, record(6, None)]
    assert taken.rejected[0][1].startswith("not JSON")
    assert (
        taken.rejected[1][1] == f"value of {len(largest) + 1} bytes; expected at most MAX_UPDATE_BYTES={len(largest)}"
    )
    assert taken.rejected[2][1].startswith("empty value")


def test_taking_in_a_batch_keeps_the_latest_update_of_each_node_and_counts_the_stale_ones(cloud):
    first = [record(0, update("fog-2", 44.0, 3)), record(1, update("fog-1", 40.0, 1))]
    taken = take_in(cloud, first)
    assert taken.stale == 0
    assert taken.latest == {"fog-2": NodeWeight("fog-2", 44.0, 3), "fog-1": NodeWeight("fog-1", 40.0, 1)}
    more = [record(2, update("fog-1", 9.0, 1)), record(3, update("fog-1", 41.0, 2))]
    later = take_in(cloud, more, to_builtins(cloud.outcome(taken)))
    assert later.stale == 1
    assert later.latest == {"fog-2": taken.latest["fog-2"], "fog-1": NodeWeight("fog-1", 41.0, 2)}


def test_what_is_saved_is_sorted_so_that_equal_states_are_equal_files(aggregator, topic):
    topic.append(update("fog-2", 44.0, 3), update("fog-1", 40.0, 1))
    aggregator.run()
    saved = json.loads((aggregator.folder / "state.json").read_text())["value"]
    assert list(saved["latest"]) == ["fog-1", "fog-2"]
    assert saved["latest"]["fog-2"].items() >= {"node_id": "fog-2", "weight": 44.0, "samples": 3}.items()


def test_the_global_weight_is_the_weighted_mean_of_the_latest_updates():
    latest = {each.node_id: each for each in (NodeWeight("fog-1", 40.0, 1), NodeWeight("fog-2", 44.0, 3))}
    # (40 * 1 + 44 * 3) / 4 = 43
    assert merged_weight(latest) == GlobalWeight(43.0, 4, 2)


def test_without_updates_there_is_no_global_weight():
    assert merged_weight({}) is None


@pytest.mark.parametrize("weight", [40.22337737135774, 40.5, -50.0, 0.0, 1234567.25, 0.001])
def test_the_console_table_is_the_one_that_spark_draws(spark, weight):
    drawn = spark.createDataFrame([(weight,)], "global_weight DOUBLE")._show_string(20, truncate=False)
    lines = console_table(1340, GlobalWeight(weight, 4, 2)).split("\n")
    # What Spark's console sink prints around it: ConsoleWrite, "Batch: N" between two rules of 43 hyphens.
    assert lines[:3] == ["-" * 43, "Batch: 1340", "-" * 43]
    assert "\n".join(lines[3:]) == drawn


def test_the_console_table_of_the_report():
    assert console_table(1342, GlobalWeight(40.22335024752477, 1, 1)) == (
        "-------------------------------------------\n"
        "Batch: 1342\n"
        "-------------------------------------------\n"
        "+-----------------+\n"
        "|global_weight    |\n"
        "+-----------------+\n"
        "|40.22335024752477|\n"
        "+-----------------+\n"
    )


def test_the_console_table_without_a_model_is_the_one_that_spark_draws_for_null(spark):
    drawn = spark.createDataFrame([(None,)], "global_weight DOUBLE")._show_string(20, truncate=False)
    assert console_table(0, None).endswith(f"Batch: 0\n{'-' * 43}\n{drawn}")


def test_a_state_of_another_version_is_told_and_no_traceback(cloud):
    for odd in ({"latest": {"fog-1": {"weight": 1}}}, {"run": {"run_id": "x"}}):
        with pytest.raises(StateError, match=r"state is of another version of fedstream \(.*\); to begin anew: make"):
            cloud.read_state(cloud.INITIAL | odd)


def test_a_micro_batch_is_taken_in_by_parts_of_bounded_size_as_if_it_were_one(cloud, make_cloud, topic, monkeypatch):
    """Five records of 1000 bytes, and room for 2500: parts of two, two and one."""
    topic.append_records(joins(1, 2))
    records = [
        (WEIGHTS, 0, update("fog-1", 41.0, 101).ljust(1000)),
        (WEIGHTS, 0, update("fog-2", 42.0, 102).ljust(1000)),
        (WEIGHTS, 0, b"hello".ljust(1000)),
        command(command="deadline", run_id="another", round=1),
        (WEIGHTS, 0, update("fog-1", 43.0, 105).ljust(1000)),
        (WEIGHTS, 0, update("fog-3", 44.0, 30).ljust(1000)),
    ]
    topic.append_records(records)
    whole, parted = make_cloud(**LOGISTIC, folder="whole"), make_cloud(**LOGISTIC, folder="parted")
    monkeypatch.setattr(cloud_state, "new_run_id", lambda _: "run-1")
    whole.run()
    take_in, sizes = cloud.take_in, []

    def measured(records: list[Row], *more: Any) -> Any:
        sizes.append(sum(len(record.value) for record in records))
        return take_in(records, *more)

    monkeypatch.setattr(cloud, "take_in", measured)
    monkeypatch.setattr(cloud, "MOST_BYTES", 2500)
    parted.run()
    assert max(sizes) <= 2500
    assert len(sizes) == 1 + 3, "the micro-batch of two joins, and three parts"
    assert [weight for _, key, weight in parted.published if key == "weight"][-1] == whole.published[-1][2]
    assert saved_by(parted)["latest"] == saved_by(whole)["latest"]
    assert saved_by(parted)["run"] == saved_by(whole)["run"]
    assert reasons(parted) == reasons(whole) == ["not JSON: JSON is malformed: invalid character (byte 0)"]


def test_no_part_that_spark_hands_over_at_once_is_larger_than_what_the_cloud_takes_at_once(cloud):
    for size in (1_000, 1_000_000, 1_400_000):
        parts = kafka.parted_options(Settings(max_update_bytes=size), cloud.MOST_BYTES)
        assert 1 <= int(parts["maxRecordsPerPartition"]) <= 2**25 / size


# --- the query


def test_each_batch_that_brings_news_publishes_the_global_model(aggregator, topic, capsys):
    topic.append(update("fog-1", 40.0, 1))
    topic.append(update("fog-2", 44.0, 3))
    aggregator.run()
    assert aggregator.published == [model(40.0, 1, 1), model(43.0, 4, 2)]
    topic.append(update("fog-1", 42.0, 4), update("fog-1", 46.0, 5))
    aggregator.run()
    # (46 * 5 + 44 * 3) / 8 = (230 + 132) / 8 = 45.25
    assert aggregator.published[2:] == [model(45.25, 8, 2)]
    assert aggregator.rejected == []
    out = capsys.readouterr().out
    assert "Batch: 2\n-------------------------------------------\n+-------------+\n|global_weight|\n" in out
    assert "|45.25        |\n" in out


def test_replayed_and_late_messages_change_nothing_and_publish_nothing(aggregator, topic, capsys):
    topic.append(update("fog-1", 40.0, 2), update("fog-2", 44.0, 6))
    aggregator.run()
    capsys.readouterr()
    topic.append(update("fog-1", 40.0, 2))  # replayed
    topic.append(update("fog-2", 99.0, 5), update("fog-2", 98.0, 6))  # late; equal samples, another weight
    aggregator.run()
    assert aggregator.published == [model(43.0, 8, 2)]  # (80 + 264) / 8 = 43
    out = capsys.readouterr().out
    assert "Cloud -> 1 message(s) rejoué(s) ou en retard, ignoré(s)" in out
    assert "Cloud -> 2 message(s) rejoué(s) ou en retard, ignoré(s)" in out
    assert out.count("|43.0         |") == 2, "the table of a batch that changed nothing"
    topic.append(update("fog-1", 48.0, 4))
    aggregator.run()
    assert aggregator.published[1:] == [model(45.6, 10, 2)]  # (48 * 4 + 44 * 6) / 10 = 456 / 10


def test_a_node_that_was_started_from_a_time_replaces_its_own_weight_until_it_goes_on_as_before(aggregator, topic):
    topic.append(update("fog-1", 40.0, 6), update("fog-2", 44.0, 2))
    aggregator.run()
    assert aggregator.published == [model(41.0, 8, 2)]  # (240 + 88) / 8
    since_noon = {"node_id": "fog-1", "weight": 50.0, "samples": 1, "source": "from 2026-11-22T12:00:00Z"}
    topic.append(json.dumps(since_noon).encode())
    aggregator.run()
    assert aggregator.published[1:] == [model(46.0, 3, 2)]  # (50 + 88) / 3
    topic.append(json.dumps(since_noon).encode(), json.dumps(since_noon | {"weight": 48.0, "samples": 2}).encode())
    aggregator.run()
    assert aggregator.published[2:] == [model(46.0, 4, 2)]  # (96 + 88) / 4
    topic.append(update("fog-1", 40.0, 7))
    aggregator.run()
    assert aggregator.published[3:] == [model(368 / 9, 9, 2)]  # (280 + 88) / 9


def test_bad_messages_are_rejected_with_reasons_and_the_good_ones_are_kept(aggregator, topic, capsys):
    long = update("x" * MAX_UPDATE_BYTES, 1.0, 1)
    records = {
        b"hello": "not JSON",
        b"": "empty value",
        b'{"node_id":"fog-1","weight":null,"samples":1}': "weight is null",
        b'{"node_id":"fog-1","weight":"40","samples":1}': 'weight is "40"; expected a number',
        b'{"node_id":"fog-1","weight":NaN,"samples":1}': "not JSON",
        b'{"node_id":"fog-1","weight":1,"samples":0}': "samples is 0",
        b'{"node_id":"fog-1","weight":1' + b"0" * 400 + b',"samples":1}': "weight is 1",
        b"\xff": "invalid UTF-8",
        long: f"value of {len(long)} bytes; expected at most MAX_UPDATE_BYTES=1000",
    }
    topic.append(update("fog-1", 40.0, 1), *records, None, update("fog-2", 44.0, 3))
    aggregator.run()
    assert aggregator.published == [model(43.0, 4, 2)]
    assert [bytes(row.value) for row in aggregator.rejected[:-1]] == list(records), "the whole of each, long ones too"
    assert aggregator.rejected[-1].value is None
    assert {row.by for row in aggregator.rejected} == {"cloud"}
    for row, reason in zip(aggregator.rejected, [*records.values(), "empty value"], strict=True):
        assert row.reason.startswith(reason)
        assert (row.topic, row.partition) == ("some-topic", 0)
    assert [row.offset for row in aggregator.rejected] == list(range(1, 11))
    assert "Cloud -> 10 message(s) rejeté(s) vers dead-letter" in capsys.readouterr().out


@pytest.mark.parametrize(
    "value",
    [
        b'{"node_id":"fog-1","weight":1e308,"samples":1000}',
        b'{"node_id":"fog-1","weight":-1e308,"samples":9223372036854775807}',
        b'{"node_id":"fog-1","weight":1,"samples":' + b"1" * 900 + b"}",
        b'{"node_id":"\\ud800","weight":1,"samples":1}',
    ],
)
def test_no_message_stops_the_stream(aggregator, topic, value):
    topic.append(value)
    topic.append(update("fog-2", 44.0, 3))
    aggregator.run()
    assert aggregator.published[-1][2]["samples"] >= 3
    json.dumps(aggregator.published, allow_nan=False)


def test_bad_messages_only_publish_nothing(aggregator, topic):
    topic.append(b"hello")
    aggregator.run()
    assert aggregator.published == []
    assert len(aggregator.rejected) == 1
    topic.append(update("fog-1", 40.0, 1))
    topic.append(b"hello")
    aggregator.run()
    assert aggregator.published == [model(40.0, 1, 1)]


def test_a_restart_on_the_same_folder_knows_the_latest_updates_and_publishes_nothing_again(aggregator, topic):
    topic.append(update("fog-1", 40.0, 1), update("fog-2", 44.0, 3))
    aggregator.run()
    aggregator.run()
    assert aggregator.published == [model(43.0, 4, 2)]
    topic.append(update("fog-1", 40.0, 1))
    aggregator.run()
    assert aggregator.published == [model(43.0, 4, 2)]
    topic.append(update("fog-1", 46.0, 5))
    aggregator.run()
    assert aggregator.published[1:] == [model(45.25, 8, 2)]  # (230 + 132) / 8


def test_a_driver_that_dies_between_saving_and_publishing_publishes_after_its_restart(aggregator, topic):
    topic.append(update("fog-1", 40.0, 1))
    aggregator.run()
    topic.append(update("fog-2", 44.0, 3), b"hello")
    with aggregator.recorder.dies("before publish"):
        aggregator.run()
    assert aggregator.published == [model(40.0, 1, 1)]
    aggregator.run()
    assert aggregator.published[1:] == [model(43.0, 4, 2)]
    assert [bytes(row.value) for row in aggregator.rejected] == [b"hello"]


def test_a_driver_that_dies_before_its_state_is_saved_does_the_batch_again(aggregator, topic):
    topic.append(update("fog-1", 40.0, 1), b"hello")
    with aggregator.recorder.dies("in dead_letters"):
        aggregator.run()
    assert aggregator.published == []
    aggregator.run()
    assert aggregator.published == [model(40.0, 1, 1)]
    assert [row.offset for row in aggregator.rejected] == [1, 1]


def test_a_healthy_batch_takes_one_spark_job(aggregator, topic, count_jobs):
    topic.append(*(update(f"fog-{number}", 40.0, number) for number in range(1, 30)))
    assert count_jobs(aggregator.run()) == 1
    # 1 + 2 + ... + 29 = 29 * 30 / 2 = 435
    assert aggregator.published == [model(40.0, 435, 29)]


# --- rounds

LOGISTIC: dict[str, Any] = {"model": "logistic", "round_quorum": 2}
ONES = {"coef": np.array([[1.0, 2.0]]), "intercept": np.array([3.0])}
THIRDS = {"coef": np.array([[-0.1, 1 / 3]]), "intercept": np.array([0.7])}
WEIGHTS = "model-weights"
CONTROL = "round-control"


def weight_of(node: int, samples: int = 20) -> dict[str, Any]:
    """Return the running weight of a node, with sums: temperatures of mean 75, vibrations of mean 0.05."""
    sums, squares = (75.0 * samples, 0.05 * samples), (5625.5 * samples, 0.01 * samples)
    return to_builtins(NodeWeight(f"fog-{node}", 40.0, samples, 0, sums, squares))


def joins(*nodes: int) -> list[tuple[str, int, bytes]]:
    """Return the records with which nodes tell that they are there."""
    return [(WEIGHTS, 0, json.dumps(weight_of(node)).encode()) for node in nodes]


def answer(
    opened: dict[str, Any], node: int, arrays: wire.Arrays, num_examples: int = 10, **changes: Any
) -> tuple[str, int, bytes]:
    """Return the record with which a node answers an opened round; its samples grow with the rounds."""
    number = opened["round"]
    given = {
        "schema_version": 1,
        "run_id": opened["run_id"],
        "round": number,
        "base_version": opened["version"],
        "num_examples": num_examples,
        "trained_at": 1000 * number,
        "arrays": to_builtins(wire.to_wire(arrays)),
        "metrics": to_builtins(changes.pop("score", Score(0.3 * num_examples, ((num_examples - 1, 0), (1, 0))))),
    }
    return WEIGHTS, 0, json.dumps(weight_of(node, 20 + 10 * number) | given | changes).encode()


def command(**fields: Any) -> tuple[str, int, bytes]:
    """Return a record of round-control."""
    return CONTROL, 0, json.dumps(fields).encode()


def models(aggregator: Cloud) -> list[dict[str, Any]]:
    """Return the models that have opened a round."""
    return [message for topic, key, message in aggregator.published if topic == "global-model" and key == "logistic"]


def events(aggregator: Cloud) -> list[tuple[str, str | None]]:
    """Return kind and node of the events."""
    return [(message["kind"], message["node_id"]) for topic, _, message in aggregator.published if topic == "events"]


def values_of(message: dict[str, Any]) -> list[float]:
    """Return all numbers of a model's arrays."""
    return [value for array in message["arrays"] for value in array["values"]]


def reasons(aggregator: Cloud) -> list[str]:
    """Return why records were rejected."""
    return [row.reason for row in aggregator.rejected]


@pytest.fixture
def rounds(make_cloud, topic) -> Cloud:
    """Return an aggregator whose first round is open for fog-1 and fog-2."""
    aggregator = make_cloud(**LOGISTIC)
    topic.append_records(joins(1, 2))
    aggregator.run()
    return aggregator


def test_the_first_round_opens_with_a_version_of_its_own_and_the_deadline_is_armed(rounds):
    (opened,) = models(rounds)
    assert (opened["round"], opened["version"], opened["mode"]) == (1, 0, "sync")
    assert opened["run_id"].startswith("logistic-")
    assert values_of(opened) == [0.0, 0.0, 0.0]
    # Two nodes alike: mean 75 and 0.05, variance 5625.5 - 75² = 0.5 and 0.01 - 0.05² = 0.0075.
    assert opened["scaler"]["mean"] == pytest.approx([75.0, 0.05])
    assert opened["scaler"]["std"] == pytest.approx([0.5**0.5, 0.0075**0.5])
    assert opened.items() >= {"global_weight": 40.0, "samples": 40, "nodes": 2}.items(), "the running weight, too"
    topics = [(topic, key) for topic, key, _ in rounds.published]
    assert topics == [
        ("global-model", "weight"),
        ("events", opened["run_id"]),
        ("global-model", "logistic"),
        ("model-versions", f"{opened['run_id']}/0"),
    ]
    assert rounds.published[2][2] == rounds.published[3][2]
    (armed,) = rounds.armed
    assert (armed.run_id, armed.round, armed.opened_at) == (opened["run_id"], 1, opened["opened_at"])


def test_a_round_closes_with_the_mean_weighted_by_num_examples_and_its_table_is_printed(rounds, topic, capsys):
    (opened,) = models(rounds)
    topic.append_records([answer(opened, 1, ONES, 10)])
    topic.append_records([answer(opened, 2, {"coef": ONES["coef"] * 5, "intercept": ONES["intercept"]}, 30)])
    rounds.run()
    assert not any("arrays" in weight for weight in saved_by(rounds)["latest"].values())
    closed = models(rounds)[-1]
    # (10 * 1 + 30 * 5) / 40 = 4, (10 * 2 + 30 * 10) / 40 = 8, 3 stays 3
    assert values_of(closed) == [4.0, 8.0, 3.0]
    assert (closed["round"], closed["version"], closed["base_version"]) == (2, 1, 0)
    assert closed["metrics"]["loss"] == pytest.approx(0.3)
    assert closed["metrics"]["accuracy"] == 38 / 40
    assert [(each["node_id"], each["num_examples"], each["place"]) for each in closed["updates"]] == [
        ("fog-1", 10, [0, 2]),  # partition and offset: the two that joined were 0 and 1
        ("fog-2", 30, [0, 3]),
    ]
    assert [armed.round for armed in rounds.armed] == [1, 1, 2]
    out = capsys.readouterr().out
    assert "Ronde 1 : version 0 -> 1" in out
    assert "│ fog-2  │       30 │ 0.3000 │     0.9667 │" in out


def test_a_version_that_is_no_longer_kept_is_removed_from_its_topic(make_cloud, topic):
    aggregator = make_cloud(**LOGISTIC, versions_kept=2)
    topic.append_records(joins(1, 2))
    aggregator.run()
    for _ in range(2):
        topic.append_records([answer(models(aggregator)[-1], node, ONES) for node in (1, 2)])
        aggregator.run()
    versions = [(key, message is None) for topic, key, message in aggregator.published if topic == "model-versions"]
    run = models(aggregator)[0]["run_id"]
    assert versions == [(f"{run}/0", False), (f"{run}/1", False), (f"{run}/2", False), (f"{run}/0", True)]


def test_the_updates_give_the_same_bits_in_one_micro_batch_and_in_several_in_any_order(make_cloud, tmp_path, spark):
    found = []
    for name, order in (("one", [[1, 2]]), ("reversed", [[2, 1]]), ("several", [[2], [1]])):
        topic = Topic(tmp_path / f"topic-{name}", WEIGHTS)
        aggregator = make_cloud(topic, name, **LOGISTIC)
        topic.append_records(joins(1, 2))
        aggregator.run()
        (opened,) = models(aggregator)
        answers = {1: answer(opened, 1, ONES, 7), 2: answer(opened, 2, THIRDS, 3)}
        for nodes in order:
            topic.append_records([answers[node] for node in nodes])
        aggregator.run()
        found.append(values_of(models(aggregator)[-1]))
    assert found[0] == found[1] == found[2]
    # (7 * 1 - 3 * 0.1) / 10 = 0.67, (7 * 2 + 3 / 3) / 10 = 1.5, (7 * 3 + 3 * 0.7) / 10 = 2.31
    assert found[0] == pytest.approx([0.67, 1.5, 2.31], rel=1e-12)


def test_weights_without_sums_join_no_round(make_cloud, topic):
    aggregator = make_cloud(**LOGISTIC)
    topic.append(update("fog-1", 40.0, 100), update("fog-2", 44.0, 300))
    topic.append_records(joins(3))
    aggregator.run()
    assert models(aggregator) == []
    assert [message["samples"] for _, _, message in aggregator.published] == [400, 420]
    assert aggregator.armed == [None, None]


def test_with_model_mean_updates_of_rounds_and_commands_only_move_the_weight(make_cloud, topic):
    aggregator = make_cloud(model="mean")
    opened = {"run_id": "run-1", "round": 3, "version": 2}
    topic.append_records([*joins(1, 2), answer(opened, 1, ONES), command(command="deadline", run_id="run-1", round=3)])
    aggregator.run()
    assert aggregator.published == [model(40.0, 70, 2)]  # fog-1 has 20 + 10 * 3 samples, fog-2 20
    assert aggregator.rejected == []
    assert aggregator.armed == [None]


# --- rounds and crashes


def taught(number: int, node: int) -> wire.Arrays:
    """Return what a node has learned in a round."""
    return {"coef": np.array([[0.1 * number, -node / 3]]), "intercept": np.array([0.5 / number])}


def lesson(opened: dict[str, Any]) -> list[list[tuple[str, int, bytes]]]:
    """Return three rounds of two nodes as micro-batches, with a duplicate and a bad message in between."""
    opens = [opened | {"round": number, "version": number - 1} for number in (1, 2, 3)]
    first, second, third = (
        {node: answer(o, node, taught(o["round"], node), 10 * node) for node in (1, 2)} for o in opens
    )
    return [
        [first[1]],
        [(WEIGHTS, 0, b"hello"), first[2]],
        [second[1], first[1], second[1]],
        [second[2], third[1]],
        [third[2]],
    ]


ADAM = LOGISTIC | {"strategy": "FedAdam", "strategy_options": "eta=0.1,beta_1=0.9,beta_2=0.99,tau=0.001"}


def outcome(aggregator: Cloud) -> tuple[dict[int, str], dict[str, Any]]:
    """Return every version that was published, and the state in the end; without what differs between runs."""
    run_id = models(aggregator)[0]["run_id"]
    versions: dict[int, str] = {}
    for topic, key, message in aggregator.published:
        if topic == "model-versions":
            assert key == f"{run_id}/{message['version']}"
            text = json.dumps(message)
            assert versions.setdefault(message["version"], text) == text, "a version that was sent again is the same"
    saved = json.loads((aggregator.folder / "state.json").read_text())["value"]["run"]
    stripped = {version: {**json.loads(text), "run_id": "", "opened_at": 0} for version, text in versions.items()}
    saved["opened"]["model"] |= {"run_id": "", "opened_at": 0}
    for each in saved["opened"]["pending"]:
        each["update"]["run_id"] = ""
    return stripped, saved | {"run_id": ""}


@pytest.fixture(scope="module")
def uninterrupted(cloud, spark, tmp_path_factory, run_driver) -> tuple[dict, dict]:
    """Return the outcome of the lesson where no driver dies."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    topic = Topic(folder / "topic", WEIGHTS)
    aggregator = Cloud(cloud, topic.read(spark), folder / "cloud", run_driver, Settings(**ADAM))
    topic.append_records(joins(1, 2))
    aggregator.run()
    for records in lesson(models(aggregator)[0]):
        topic.append_records(records)
    aggregator.run()
    return outcome(aggregator)


def test_three_rounds_of_fedadam_are_worked_out_by_hand(uninterrupted):
    versions, saved = uninterrupted
    assert sorted(versions) == [0, 1, 2, 3]
    x = m = v = np.zeros(3)
    for number in (1, 2, 3):
        one, two = (np.concatenate([part.ravel() for part in taught(number, node).values()]) for node in (1, 2))
        delta = (10 * one + 20 * two) / 30 - x
        m, v = 0.9 * m + 0.1 * delta, 0.99 * v + 0.01 * delta**2
        # Flower corrects the bias with t = round + 1 (Kingma and Ba 2014, end of section 2).
        eta = 0.1 * math.sqrt(1 - 0.99 ** (number + 1)) / (1 - 0.9 ** (number + 1))
        x = x + eta * m / (np.sqrt(v) + 0.001)
        assert values_of(versions[number]) == pytest.approx(x.tolist(), rel=1e-12)
    assert versions[2]["counts"]["accepted"] == 2
    assert versions[2]["counts"]["duplicate"] == 1, "its own; the one of round 1 is late"
    assert (saved["opened"]["model"]["round"], saved["opened"]["model"]["version"]) == (4, 3)


# Published by the five micro-batches: weight; weight, model, version; weight; weight, model, version; the same.
@pytest.mark.parametrize(
    ("where", "number"),
    [
        ("in dead_letters", 1),
        *(("before publish", number) for number in (1, 2, 3, 4, 11)),
        *(("after publish", number) for number in (2, 4, 7, 11)),
        *(("in arm_deadline", number) for number in (1, 2, 4, 5)),
    ],
)
def test_rounds_go_on_bit_by_bit_after_a_driver_has_died(make_cloud, topic, uninterrupted, where, number):
    aggregator = make_cloud(**ADAM)
    topic.append_records(joins(1, 2))
    aggregator.run()
    for records in lesson(models(aggregator)[0]):
        topic.append_records(records)
    with aggregator.recorder.dies(where, number):
        aggregator.run()
    aggregator.run()
    assert outcome(aggregator) == uninterrupted
    opened = [message["round"] for message in models(aggregator)]
    assert sorted(set(opened)) == [1, 2, 3, 4]
    assert opened == sorted(opened), "no round comes back"
    assert {row.offset for row in aggregator.rejected} == {3}


def test_rounds_go_on_bit_by_bit_if_a_driver_dies_in_every_micro_batch(make_cloud, topic, uninterrupted):
    aggregator = make_cloud(**ADAM)
    topic.append_records(joins(1, 2))
    with aggregator.recorder.dies("after publish", number=3):  # the opened round, but not yet its version
        aggregator.run()
    deaths = [("before publish", 1), ("in dead_letters", 1), ("in arm_deadline", 1), ("after publish", 2)]
    for records, (where, number) in zip(lesson(models(aggregator)[0])[:-1], deaths, strict=True):
        topic.append_records(records)
        # The new driver first does again what the dead one has not finished.
        with aggregator.recorder.dies(where, number):
            aggregator.run()
    topic.append_records(lesson(models(aggregator)[0])[-1])
    aggregator.run()
    assert outcome(aggregator) == uninterrupted


def test_a_run_goes_on_from_the_last_model_on_the_topic_if_the_state_is_lost(make_cloud, topic, uninterrupted):
    aggregator = make_cloud(**ADAM)
    topic.append_records(joins(1, 2))
    aggregator.run()
    first = models(aggregator)[0]
    for records in lesson(first)[:3]:
        topic.append_records(records)
    aggregator.run()
    again = make_cloud(folder="anew", **ADAM)
    again.last = convert(models(aggregator)[-1], GlobalModel)
    assert again.last.round == 2
    for records in lesson(first)[3:]:
        topic.append_records(records)
    again.run()  # reads the topic from its beginning
    versions, _ = uninterrupted
    assert [values_of(message) for message in models(again)] == [values_of(versions[2]), values_of(versions[3])]
    assert [(message["run_id"], message["round"]) for message in models(again)] == [
        (first["run_id"], 3),
        (first["run_id"], 4),
    ]
    # The three answers to round 1 are late; an answer to round 2 that comes again is a duplicate.
    assert models(again)[0]["counts"].items() >= {"accepted": 2, "late": 3, "duplicate": 1}.items()


def test_another_strategy_after_a_restart_goes_on_with_the_run_and_starts_afresh(make_cloud, topic):
    before = make_cloud(**ADAM)
    topic.append_records(joins(1, 2))
    before.run()
    for records in lesson(models(before)[0])[:2]:
        topic.append_records(records)
    before.run()
    opened = models(before)[-1]
    assert (opened["round"], opened["strategy"]) == (2, "FedAdam")
    after = make_cloud(**LOGISTIC)
    topic.append_records([answer(opened, 1, ONES, 10), answer(opened, 2, ONES, 10)])
    after.run()
    (closed,) = models(after)
    assert (closed["run_id"], closed["round"], closed["version"]) == (opened["run_id"], 3, 2)
    assert closed["strategy"] == "FedAvg"
    assert values_of(closed) == [1.0, 2.0, 3.0], "the plain mean of two that are alike"


@pytest.mark.parametrize("change", [{"model": "mlp"}, {"classes": 3}], ids=str)
def test_another_model_or_other_classes_after_a_restart_start_a_new_run(make_cloud, topic, rounds, change):
    topic.append_records(joins(1, 2))
    rounds.run()
    other = make_cloud(**LOGISTIC | change)
    topic.append_records(joins(1, 2))
    other.run()
    (opened,) = [message for _, key, message in other.published if key == other.settings.model]
    assert (opened["round"], opened["version"]) == (1, 0)
    assert opened["run_id"].startswith(f"{other.settings.model}-")
    first = next(message["run_id"] for _, key, message in rounds.published if key == "logistic")
    assert opened["run_id"] != first


# --- commands


def test_a_deadline_closes_the_round_without_the_missing_node(rounds, topic):
    rounds.settings = Settings(**LOGISTIC | {"round_quorum": 1})
    (opened,) = models(rounds)
    topic.append_records([answer(opened, 1, ONES)])
    topic.append_records([command(command="deadline", run_id="another", round=1)])
    topic.append_records([command(command="deadline", run_id=opened["run_id"], round=2)])
    rounds.run()
    assert len(models(rounds)) == 1, "those were deadlines of other rounds"
    topic.append_records([command(command="deadline", run_id=opened["run_id"], round=1)])
    rounds.run()
    closed = models(rounds)[-1]
    assert (closed["round"], closed["version"], closed["counts"]["missing"]) == (2, 1, 1)
    assert values_of(closed) == [1.0, 2.0, 3.0]
    assert rounds.rejected == []


def test_a_rollback_makes_an_old_version_the_newest_one(rounds, topic):
    (opened,) = models(rounds)
    topic.append_records([answer(opened, 1, ONES), answer(opened, 2, ONES)])
    rounds.run()
    closed = models(rounds)[-1]
    (old,) = [message for _, key, message in rounds.published if key == f"{opened['run_id']}/0"]
    # In the order of the topics' names: the answer to round 2 comes first, and is forgotten with the round.
    topic.append_records(
        [answer(closed, 1, THIRDS), command(command="rollback", run_id=old["run_id"], sent_at=10**15, model=old)]
    )
    rounds.run()
    restored = models(rounds)[-1]
    assert values_of(restored) == [0.0, 0.0, 0.0]
    assert (restored["round"], restored["version"], restored["restored_from"]) == (3, 2, 0)
    assert events(rounds)[-1] == ("rollback", None)
    versions = [message["version"] for topic, _, message in rounds.published if topic == "model-versions"]
    assert versions == [0, 1, 2]


def test_commands_that_cannot_be_obeyed_are_rejected_with_reasons_and_the_round_goes_on(rounds, topic):
    (opened,) = models(rounds)
    bad = {
        b"hello": "not JSON",
        b'{"run_id":"r","round":1}': "command is missing; expected deadline or rollback",
        b'{"command":"stop"}': 'command is "stop"; expected deadline or rollback',
        b'{"command":"deadline","run_id":"r"}': "round is missing",
        b'{"command":"deadline","run_id":"r","round":0}': "round is 0",
        b'{"command":"deadline","run_id":"r","round":"1"}': 'round is "1"; expected a whole number',
        b'{"command":"rollback"}': "run_id is missing",
        b'{"command":"rollback","run_id":"r","sent_at":1}': "model is missing",
        b'{"command":"rollback","run_id":"r","sent_at":1,"model":{}}': "model.schema_version is missing",
        **{
            command(command="rollback", run_id=(opened | change)["run_id"], sent_at=10**15, model=opened | change)[
                2
            ]: reason
            for change, reason in (
                ({"run_id": "other"}, "version 0 of run other"),
                ({"arrays": []}, "version 0 of run logistic-"),
                ({"schema_version": 2}, "model.schema_version is 2; expected a whole number from 1 to 1"),
            )
        },
    }
    topic.append_records((CONTROL, 0, value) for value in bad)
    topic.append_records([answer(opened, 1, ONES), answer(opened, 2, ONES)])
    rounds.run()
    for reason, expected in zip(reasons(rounds), bad.values(), strict=True):
        assert reason.startswith(expected)
    assert [(row.topic, bytes(row.value)) for row in rounds.rejected] == [(CONTROL, value) for value in bad]
    assert [message["round"] for message in models(rounds)] == [1, 2]
    assert values_of(models(rounds)[-1]) == [1.0, 2.0, 3.0]


# --- the open round, said again


def test_a_round_whose_deadline_passes_without_its_end_is_said_again(rounds, topic, capsys):
    (first,) = models(rounds)
    topic.append_records([answer(first, 1, ONES), answer(first, 2, ONES)])
    rounds.run()
    opened = models(rounds)[-1]
    assert (opened["round"], opened["base_version"]) == (2, 0)
    topic.append_records([answer(opened, 1, ONES)])
    rounds.run()
    capsys.readouterr()
    published = len(rounds.published)
    for _ in range(2):
        topic.append_records([command(command="deadline", run_id=opened["run_id"], round=2)])
        rounds.run()
    # With the running weight as it is now, of 20 + 10 * 2 and 20 + 10 * 1 samples.
    said_again = ("global-model", "logistic", opened | {"samples": 70})
    assert rounds.published[published:] == [said_again] * 2, "and no version"
    out = capsys.readouterr().out
    assert out.count("Cloud -> ronde 2 toujours ouverte : modèle redit\n") == 2
    assert "Ronde 1" not in out
    topic.append_records([answer(opened, 2, ONES)])
    rounds.run()
    assert [message["round"] for message in models(rounds)] == [1, 2, 2, 2, 3]
    assert "toujours ouverte" not in capsys.readouterr().out


def test_what_a_dead_driver_was_to_say_again_its_successor_says(rounds, topic):
    (opened,) = models(rounds)
    topic.append_records([command(command="deadline", run_id=opened["run_id"], round=1)])
    with rounds.recorder.dies("before publish"):
        rounds.run()
    assert models(rounds) == [opened]
    rounds.run()
    assert models(rounds) == [opened, opened]


def test_the_cloud_says_the_open_round_again_when_it_starts(make_cloud, cloud, topic, tmp_path, monkeypatch, capsys):
    aggregator = make_cloud(**LOGISTIC)
    topic.append_records(joins(1, 2))
    aggregator.run()
    (opened,) = models(aggregator)
    published: list[tuple] = []
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path))  # the cloud's folder in it is the aggregator's
    monkeypatch.setenv("MODEL", "logistic")
    monkeypatch.setattr(cloud.kafka, "ensure_topics", lambda *_: [])
    monkeypatch.setattr(cloud.kafka, "connect_publisher", lambda *_: print)
    monkeypatch.setattr(cloud, "SolePublisher", lambda *_: lambda *outgoing: published.extend(outgoing))
    monkeypatch.setattr(cloud.watchdog, "guard_topics", lambda *_: lambda: None)
    monkeypatch.setattr(cloud, "DeadlineTimer", lambda *_: SimpleNamespace(arm=lambda opened: None))
    monkeypatch.setattr(cloud.session, "start_session", lambda *_: aggregator.records.sparkSession)
    monkeypatch.setattr(cloud.session, "read_topic", lambda *_, **__: aggregator.records)
    monkeypatch.setattr(cloud.session, "run_query", lambda *_, **__: None)
    try:
        cloud.main.main([], standalone_mode=False)
    finally:
        release_lock(aggregator.folder / "state.lock")
    assert [(*parts[:2], json.loads(encode(parts[2]))) for parts in published] == [("global-model", "logistic", opened)]
    assert "Cloud -> ronde 1 toujours ouverte : modèle redit" in capsys.readouterr().out


def test_a_cloud_without_a_state_learns_from_the_topic_which_versions_are_its_runs(
    make_cloud, cloud, tmp_path, monkeypatch
):
    aggregator, built = make_cloud(**LOGISTIC), []
    arrays = {"coef": np.zeros((1, 2)), "intercept": np.zeros(1)}
    versions = [global_model(run, 5, number, arrays, model="logistic") for run in ("a", "b") for number in (3, 4)]
    values = [None, b"{}", *map(encode, versions)]
    records = [SimpleNamespace(value=each, topic="model-versions", partition=0, offset=0) for each in values]
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path))
    monkeypatch.setenv("MODEL", "logistic")
    monkeypatch.setattr(cloud.kafka, "ensure_topics", lambda *_: [])
    monkeypatch.setattr(cloud.kafka, "connect_publisher", lambda *_: print)
    monkeypatch.setattr(cloud, "SolePublisher", lambda *_: print)
    monkeypatch.setattr(cloud.kafka, "read_topic", lambda *_: iter(records))
    monkeypatch.setattr(cloud.models, "follow_models", lambda *_: lambda _: versions[3])
    monkeypatch.setattr(cloud.watchdog, "guard_topics", lambda *_: lambda: None)
    monkeypatch.setattr(cloud.session, "start_session", lambda *_: aggregator.records.sparkSession)
    monkeypatch.setattr(cloud.session, "read_topic", lambda *_, **__: aggregator.records)
    monkeypatch.setattr(cloud.session, "run_query", lambda *_, **__: None)
    monkeypatch.setattr(cloud, "build_query", lambda records, state, rounds, outlets: built.append(rounds))
    try:
        cloud.main.main([], standalone_mode=False)
    finally:
        release_lock(aggregator.folder / "state.lock")
    assert built[0].last.version == 4
    assert built[0].published == {each.version: each.fingerprint for each in versions[2:]}


def test_a_second_cloud_on_the_same_folder_is_refused_before_it_ends_the_first_one(
    make_cloud, cloud, topic, tmp_path, monkeypatch
):
    aggregator, published = make_cloud(**LOGISTIC), []
    topic.append_records(joins(1, 2))
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path))
    monkeypatch.setattr(cloud.kafka, "ensure_topics", lambda *_: [])
    monkeypatch.setattr(cloud, "SolePublisher", lambda *_: published.append("the first one has ended"))
    monkeypatch.setattr(cloud.watchdog, "guard_topics", lambda *_: lambda: None)
    monkeypatch.setattr(cloud.session, "start_session", lambda *_: aggregator.records.sparkSession)
    first = BatchState(aggregator.folder, cloud.INITIAL)
    with pytest.raises(StateError, match="another running driver uses"):
        cloud.main.main([], standalone_mode=False)
    assert published == []
    release_lock(first.folder / "state.lock")


# --- bad updates


def changed(sent: tuple[str, int, bytes], before: bytes, after: bytes) -> tuple[str, int, bytes]:
    """Return a record with a part of its text replaced."""
    assert before in sent[2]
    return *sent[:2], sent[2].replace(before, after)


def test_a_node_with_too_many_bad_updates_is_kept_out_and_the_round_is_unaffected(rounds, topic):
    (opened,) = models(rounds)
    topic.append_records([answer(opened, 1, THIRDS)])
    rounds.run()
    wide = {"coef": np.zeros((1, 3)), "intercept": np.zeros(1)}
    topic.append_records(
        [
            answer(opened, 2, wide),
            changed(answer(opened, 2, ONES), b"3.0]", b"1e999]"),
            answer(opened, 2, ONES, round=99),
        ]
    )
    rounds.settings = Settings(**LOGISTIC | {"round_quorum": 1})
    rounds.run()
    for reason, expected in zip(
        reasons(rounds),
        [
            "arrays are {'coef': (1, 3)",
            "arrays[1].values[0] is Infinity; expected a number that fits",
            "round is 99",
        ],
        strict=True,
    ):
        assert reason.startswith(expected)
    assert ("quarantine", "fog-2") in events(rounds)
    closed = models(rounds)[-1]
    assert closed["round"] == 2, "it waits for nobody who is kept out"
    assert values_of(closed) == [-0.1, 1 / 3, 0.7], "bit by bit those of the one good node"
    assert (closed["counts"]["rejected"], closed["counts"]["accepted"]) == (3, 1)
    topic.append_records([answer(closed, 2, ONES), answer(closed, 1, ONES)])
    rounds.run()
    assert models(rounds)[-1]["counts"]["quarantined"] == 1
    assert len(rounds.rejected) == 3, "it is not rejected, only not taken"


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # the norm of 1e300
def test_bad_updates_are_rejected_with_reasons_and_a_good_one_of_the_same_node_counts(rounds, topic):
    rounds.settings = Settings(**LOGISTIC | {"quarantine_after": 100, "max_update_norm": 50.0})
    (opened,) = models(rounds)
    good = answer(opened, 2, ONES, 30)
    bad = {
        answer(opened, 2, ONES, round=2): "round is 2, which lies in the future; the open one is 1",
        answer(opened, 2, ONES, base_version=7): "base_version is 7, which this round does not know",
        answer(opened, 2, {"coef": np.array([[30.0, 40.1]]), "intercept": np.zeros(1)}): "the update is 50.08 away",
        answer(opened, 2, {"coef": np.array([[1e200, 1e300]]), "intercept": np.zeros(1)}): "the update is inf away",
        answer(opened, 2, ONES, 30, score=Score(1.0, ((5, 0), (0, 0)))): "metrics are of 2 classes and 5 readings",
        changed(good, b'"num_examples": 30, "trained', b'"num_examples": -1, "trained'): "num_examples is -1",
        changed(good, b'"schema_version": 1', b'"schema_version": 2'): "schema_version is 2",
        changed(good, b'"arrays": [', b'"arrays": [7, '): "arrays[0] is 7; expected an object",
        changed(good, b'"sums": [', b'"sums": [1, '): "sums has 3 numbers and squares 2",
        changed(good, b"3.0]", b"NaN]"): "not JSON",
    }
    topic.append_records([answer(opened, 1, {"coef": ONES["coef"] * 5, "intercept": ONES["intercept"]}, 10), *bad])
    topic.append_records([good])
    rounds.run()
    for reason, expected in zip(reasons(rounds), bad.values(), strict=True):
        assert reason.startswith(expected)
    # (10 * 5 + 30 * 1) / 40 = 2, (10 * 10 + 30 * 2) / 40 = 4, 3 stays 3
    assert values_of(models(rounds)[-1]) == [2.0, 4.0, 3.0]
    assert events(rounds) == [("run-started", None)]


@pytest.mark.parametrize(
    "fields",
    [
        {"node_id": "[/b]"},  # rich would take it for a closing tag
        {"node_id": "fog-\u00e9 [/b]"},
        {"squares": [-1.0, -1.0], "samples": 999},  # no sum of squares: the saved state could not be read again
        {"sums": [0.0, 0.0], "squares": [0.0, 0.0], "samples": 2**62},
        {"sums": [1e149, -1e149], "squares": [1e149, 1e149], "samples": 999},
    ],
    ids=str,
)
def test_no_node_stops_the_rounds_of_the_others(rounds, topic, fields):
    rounds.settings = Settings(**LOGISTIC | {"round_quorum": 1})
    (opened,) = models(rounds)
    sent = json.loads(answer(opened, 2, ONES)[2]) | fields
    topic.append_records([(WEIGHTS, 0, json.dumps(sent).encode())])
    topic.append_records([answer(opened, 1, ONES), answer(opened, 2, ONES, trained_at=10**6)])
    rounds.run()
    closed = models(rounds)[-1]
    assert closed["round"] == 2
    assert convert(closed, GlobalModel).round == 2
    topic.append_records([answer(closed, 1, THIRDS), answer(closed, 2, THIRDS, trained_at=10**7)])
    topic.append_records([command(command="deadline", run_id=closed["run_id"], round=2)])
    rounds.run()
    assert models(rounds)[-1]["round"] == 3


# --- all of a record or nothing


def saved_by(aggregator: Cloud) -> dict[str, Any]:
    """Return the aggregator's state."""
    return json.loads((aggregator.folder / "state.json").read_text())["value"]


DEEP = {"shape": [1] * 65, "values": [1.0]}
HUGE = {"shape": [0, 2**62], "values": []}


@pytest.mark.parametrize("is_open", [False, True], ids=["before the first round", "in a round"])
@pytest.mark.parametrize(
    ("array", "reason"),
    [(DEEP, "array coef has 65 dimensions"), (HUGE, "array coef has shape [0, 4611686018427387904] and 0 values")],
    ids=["65 dimensions", "nothing times 2^62"],
)
def test_an_array_that_numpy_cannot_make_is_a_dead_letter(make_cloud, topic, is_open, array, reason):
    aggregator = make_cloud(**LOGISTIC)
    topic.append_records(joins(1, 2) if is_open else joins(1))
    aggregator.run()
    sent = json.loads(answer({"run_id": "x", "round": 1, "version": 0}, 9, ONES)[2])
    sent["arrays"][0] |= array
    old = json.loads(encode(global_model("x", 1, 0, ONES))) | {"arrays": sent["arrays"]}
    back = command(command="rollback", run_id="x", sent_at=1, model=old)
    records = [(WEIGHTS, 0, json.dumps(sent).encode()), back, *joins(3)]
    topic.append_records(records)
    aggregator.run()
    assert len(aggregator.rejected) == 2
    assert all(found.startswith(reason) for found in reasons(aggregator))
    assert sorted(saved_by(aggregator)["latest"]) == (["fog-1", "fog-2", "fog-3"] if is_open else ["fog-1", "fog-3"])


def test_a_weight_with_sums_that_are_refused_changes_no_weight(rounds, topic):
    before = saved_by(rounds)
    bad = {"node_id": "fog-9", "weight": 99.0, "samples": 10**12, "sums": [1, 2, 3], "squares": [1, 2, 3]}
    topic.append_records([(WEIGHTS, 0, json.dumps(bad).encode())])
    rounds.run()
    assert reasons(rounds) == ["sums has 3 numbers; expected 2, one for each feature"]
    assert saved_by(rounds) == before | {"outbox": [], "said": []}


def test_an_answer_with_sums_that_are_refused_is_not_among_the_accepted(rounds, topic):
    (opened,) = models(rounds)
    before = saved_by(rounds)
    bad = json.loads(answer(opened, 1, ONES)[2]) | {"squares": [-1.0, 0.4]}
    topic.append_records([(WEIGHTS, 0, json.dumps(bad).encode())])
    rounds.run()
    assert reasons(rounds) == ["squares[0] is -1.0; expected a number of at least 0.0"]
    assert saved_by(rounds) == before | {"outbox": [], "said": []}


def test_an_answer_that_is_refused_leaves_no_weight_but_an_offence(rounds, topic):
    (opened,) = models(rounds)
    before = saved_by(rounds)
    topic.append_records([answer(opened, 9, ONES, round=99)])
    rounds.run()
    after = saved_by(rounds)
    assert after["run"]["nodes"]["offences"] == {"fog-9": 1}
    assert after["run"]["opened"]["counts"] == {"rejected": 1}
    for changed_part, name in ((after["run"]["nodes"], "offences"), (after["run"]["opened"], "counts")):
        changed_part[name] = {}
    assert after == before | {"outbox": [], "said": []}


@pytest.mark.parametrize("where", ["hear", "receive", "settle"])
def test_a_record_that_fails_as_nobody_foresaw_is_as_if_it_had_never_come(
    make_cloud, topic, monkeypatch, caplog, capsys, where
):
    """The failure comes late, when the record has changed the state already."""
    aggregator = make_cloud(**ADAM)
    topic.append_records(joins(1, 2))
    aggregator.run()
    (opened,) = models(aggregator)
    before = saved_by(aggregator)
    original = getattr(Federation, where)

    def fails(federation: Federation, *arguments: Any) -> Any:
        found = original(federation, *arguments)
        if "fog-9" in federation.run.opened.answered or "fog-9" in federation.latest:
            raise TypeError("unhashable type: 'list'")
        return found

    monkeypatch.setattr(Federation, where, fails)
    odd = record(7, answer(opened, 9, ONES)[2])
    good = [record(6, answer(opened, 1, ONES)[2]), record(8, answer(opened, 2, THIRDS)[2]), record(9, joins(3)[0][2])]

    def take_in(records: list[Row]) -> tuple[Any, list, list]:
        taken = aggregator.cloud.take_in(records, before, aggregator.rounds(), 5000)
        after = to_builtins(aggregator.cloud.outcome(taken), str_keys=True)
        return json.dumps([after["latest"], after["run"], taken.stale]), taken.federation.outbox, taken.rejected

    state, sent, rejected = take_in([*good[:1], odd, *good[1:]])
    expected, expected_sent, none = take_in(good)
    assert state == expected
    assert none == []
    assert rejected == [(odd, "internal: TypeError: unhashable type: 'list'")]
    assert sent[:-1] == expected_sent
    assert [topic_of for topic_of, _, _ in expected_sent] == ["global-model", "model-versions"], "the round has closed"
    kind, detail = sent[-1][2].kind, sent[-1][2].detail
    assert kind == "internal-error"
    assert detail == "model-weights[0]@7 is rejected; internal: TypeError: unhashable type: 'list'"
    assert "model-weights[0]@7" in caplog.text
    assert "in fails" in caplog.text, "the traceback"


def test_a_record_that_fails_as_nobody_foresaw_is_a_dead_letter_and_an_event(rounds, topic, monkeypatch):
    (opened,) = models(rounds)
    hear = Federation.hear

    def fails(federation: Federation, update: NodeWeight) -> None:
        hear(federation, update)
        if update.node_id in ("fog-8", "fog-9"):
            raise TypeError("odd")

    monkeypatch.setattr(Federation, "hear", fails)
    topic.append_records([answer(opened, 9, ONES), answer(opened, 1, ONES), *joins(8), answer(opened, 2, ONES)])
    rounds.run()
    assert reasons(rounds) == ["internal: TypeError: odd"] * 2
    assert [message["round"] for message in models(rounds)] == [1, 2]
    assert sorted(models(rounds)[-1]["node_metrics"]) == ["fog-1", "fog-2"]
    assert models(rounds)[-1]["samples"] == 60, "30 of each node"
    assert events(rounds) == [("run-started", None), ("internal-error", None), ("internal-error", None)]


def test_a_global_model_that_is_too_large_ends_neither_job_nor_weights(make_cloud, topic):
    limit = 1000  # of an answer, 700 bytes, and of the first model, but not of one with scores
    aggregator = make_cloud(**LOGISTIC, max_update_bytes=limit)
    topic.append_records(joins(1, 2))
    aggregator.run()
    (opened,) = models(aggregator)
    deadline = command(command="deadline", run_id=opened["run_id"], round=1)
    topic.append_records([answer(opened, 1, ONES), answer(opened, 2, ONES), *joins(3), deadline])
    aggregator.run()
    assert reasons(aggregator) == []
    failed = models(aggregator)[1]
    assert (failed["round"], failed["version"], failed["arrays"]) == (2, 0, opened["arrays"])
    wanted = r"too many answers for one message: a global model has \d+ bytes; expected at most MAX_UPDATE_BYTES=1000"
    assert re.match(wanted, failed["failed"])
    assert ("aggregation-failed", None) in events(aggregator)


def test_a_model_that_no_topic_can_carry_ends_the_cloud_at_its_start(cloud, monkeypatch):
    monkeypatch.setenv("MODEL_OPTIONS", "hidden_units=50")
    monkeypatch.setenv("MAX_UPDATE_BYTES", "1000")
    with pytest.raises(TooLargeError, match=r"a global model has \d+ bytes; expected at most MAX_UPDATE_BYTES=1000"):
        cloud.main.main([], standalone_mode=False)


# --- the clock


def test_the_deadline_is_sent_again_while_its_round_is_open_and_then_no_more(monkeypatch):
    timers: list[Any] = []

    def start_timer(seconds: float, function: Callable, arguments: tuple) -> SimpleNamespace:
        timers.append(SimpleNamespace(seconds=seconds, fire=lambda: function(*arguments), is_on=False, daemon=False))
        timers[-1].start = lambda timer=timers[-1]: setattr(timer, "is_on", True)
        timers[-1].cancel = lambda timer=timers[-1]: setattr(timer, "is_on", False)
        return timers[-1]

    monkeypatch.setattr(deadline.threading, "Timer", start_timer)
    monkeypatch.setattr(deadline.time, "time", lambda: 1000.0)
    sent: list[tuple] = []
    timer = deadline.DeadlineTimer(Settings(round_deadline_seconds=10.0), lambda *outgoing: sent.extend(outgoing))

    def arm(run_id: str, number: int, opened_at: int) -> None:
        timer.arm(global_model(run_id, number, 0, {}, opened_at=opened_at))

    timer.arm(None)
    assert timers == []
    arm("run-1", 1, 996_000)
    arm("run-1", 1, 996_000)
    assert [(timer.seconds, timer.is_on, timer.daemon) for timer in timers] == [(6.0, True, True)]
    arm("run-1", 2, 900_000)  # long ago: the cloud was down
    assert [(timer.seconds, timer.is_on) for timer in timers] == [(6.0, False), (0.0, True)]
    timers[-1].fire()
    command = (CONTROL, "run-1", Deadline("run-1", 2))
    assert sent == [command]
    assert json.loads(encode(command[2])) == {"command": "deadline", "run_id": "run-1", "round": 2}
    assert (timers[-1].seconds, timers[-1].is_on) == (10.0, True), "it may stay open"
    timers[-1].fire()
    assert sent == [command] * 2
    arm("run-1", 2, 900_000)
    assert [timer.is_on for timer in timers[2:]] == [True, True], "fired, and waiting"
    arm("run-2", 2, 1_000_000)
    assert [timer.is_on for timer in timers[3:]] == [False, True], "another run is another round"
    timers[3].fire()  # at the same moment
    assert len(timers) == 5, "that of a round that is over is not armed again"
