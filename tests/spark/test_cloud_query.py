"""The cloud: the latest update of each node, the global model, and messages that come twice, late or broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, Row
from pyspark.sql.streaming.query import StreamingQuery

from fedstream.messages import GlobalModel, NodeUpdate

MAX_VALUE_BYTES = 1000


@pytest.fixture(scope="module")
def cloud(script) -> ModuleType:
    """Return the job script."""
    return script("cloud/aggregator.py")


def update(node_id: str, weight: float, samples: int) -> bytes:
    """Return an update as it stands on the topic."""
    return json.dumps({"node_id": node_id, "weight": weight, "samples": samples}).encode()


def model(global_weight: float, samples: int, nodes: int) -> tuple[str, dict]:
    """Return what the cloud publishes."""
    return "weight", {"global_weight": global_weight, "samples": samples, "nodes": nodes}


class Cloud:
    """An aggregator that reads a topic of files; it keeps what it published and what it rejected."""

    def __init__(self, cloud: ModuleType, records: DataFrame, folder: Path, run_driver: Callable) -> None:
        """Prepare an aggregator that has not run yet."""
        self.cloud = cloud
        self.records = records
        self.folder = folder
        self.run_driver = run_driver
        self.published: list[tuple[str, dict]] = []
        self.rejected: list[Row] = []
        self.crash_in_publish = False
        self.crash_in_dead_letters = False

    def publish(self, key: str, message: dict) -> None:
        """Keep a message, or die first."""
        if self.crash_in_publish:
            raise ConnectionError("the driver dies in publish")
        self.published.append((key, message))

    def dead_letters(self, rejected: DataFrame) -> None:
        """Keep rejected records, and die afterwards if it is time: the worst moment."""
        self.rejected += sorted(rejected.collect(), key=lambda row: row.offset)
        if self.crash_in_dead_letters:
            raise ConnectionError("the driver dies in dead_letters")

    def run(self) -> StreamingQuery:
        """Start a driver on the folder and let it process all there is."""
        writer = self.cloud.build_query(self.records, self.folder, MAX_VALUE_BYTES, self.publish, self.dead_letters)
        return self.run_driver(writer, self.folder)

    def run_and_crash(self, where: str) -> None:
        """Start a driver that dies in publish or in dead_letters."""
        setattr(self, f"crash_in_{where}", True)
        with pytest.raises(StreamingQueryException, match=f"the driver dies in {where}"):
            self.run()
        setattr(self, f"crash_in_{where}", False)


@pytest.fixture
def aggregator(cloud, spark, topic, tmp_path, run_driver) -> Cloud:
    """Return an aggregator that has not run yet."""
    return Cloud(cloud, topic.read(spark), tmp_path / "cloud", run_driver)


# --- the pure functions


def record(offset: int, value: bytes | None, partition: int = 0, size: int | None = None) -> Row:
    """Return a record as the handler gets it."""
    if size is None and value is not None:
        size = len(value)
    return Row(value=value, size=size, topic="model-weights", partition=partition, offset=offset)


def test_updates_are_read_in_the_topics_order_and_bad_records_stand_aside_with_the_reason(cloud):
    bad, long = record(1, b"hello"), record(5, None, size=1001)
    records = [
        record(2, update("fog-2", 44.0, 3)),
        long,
        bad,
        record(0, update("fog-1", 40.0, 1)),
        record(0, update("fog-3", 1.0, 1), partition=1, size=1000),  # the largest that is read
        record(6, None),
    ]
    updates, rejected = cloud.read_updates(records, 1000)
    assert updates == [NodeUpdate("fog-1", 40.0, 1), NodeUpdate("fog-2", 44.0, 3), NodeUpdate("fog-3", 1.0, 1)]
    assert [rejected_record for rejected_record, _ in rejected] == [bad, long, record(6, None)]
    assert rejected[0][1].startswith("not JSON")
    assert rejected[1][1] == "value of 1001 bytes; expected at most MAX_VALUE_BYTES=1000"
    assert rejected[2][1].startswith("empty value")


def test_closing_a_batch_keeps_the_latest_update_of_each_node_and_counts_the_stale_ones(cloud):
    latest, stale = cloud.close_batch({}, [NodeUpdate("fog-2", 44.0, 3), NodeUpdate("fog-1", 40.0, 1)])
    assert stale == 0
    assert list(latest) == ["fog-1", "fog-2"], "sorted, so that equal states are equal files"
    assert latest["fog-2"].items() >= {"node_id": "fog-2", "weight": 44.0, "samples": 3}.items()
    assert json.loads(json.dumps(latest)) == latest, "what is saved comes back as it was"
    later, stale = cloud.close_batch(latest, [NodeUpdate("fog-1", 9.0, 1), NodeUpdate("fog-1", 41.0, 2)])
    assert stale == 1
    assert later["fog-1"]["weight"] == 41.0
    assert later["fog-2"] == latest["fog-2"]


def test_the_global_model_is_the_weighted_mean_of_the_latest_updates(cloud):
    latest, _ = cloud.close_batch({}, [NodeUpdate("fog-1", 40.0, 1), NodeUpdate("fog-2", 44.0, 3)])
    # (40 * 1 + 44 * 3) / 4 = 43
    assert cloud.global_model(latest) == GlobalModel(43.0, 4, 2)


def test_without_updates_there_is_no_global_model(cloud):
    assert cloud.global_model({}) is None


@pytest.mark.parametrize("weight", [40.22337737135774, 40.5, -50.0, 0.0, 1234567.25, 0.001])
def test_the_console_table_is_the_one_that_spark_draws(cloud, spark, weight):
    drawn = spark.createDataFrame([(weight,)], "global_weight DOUBLE")._show_string(20, truncate=False)
    lines = cloud.console_table(1340, GlobalModel(weight, 4, 2)).split("\n")
    # What Spark's console sink prints around it: ConsoleWrite, "Batch: N" between two rules of 43 hyphens.
    assert lines[:3] == ["-" * 43, "Batch: 1340", "-" * 43]
    assert "\n".join(lines[3:]) == drawn


def test_the_console_table_of_the_report(cloud):
    assert cloud.console_table(1342, GlobalModel(40.22335024752477, 1, 1)) == (
        "-------------------------------------------\n"
        "Batch: 1342\n"
        "-------------------------------------------\n"
        "+-----------------+\n"
        "|global_weight    |\n"
        "+-----------------+\n"
        "|40.22335024752477|\n"
        "+-----------------+\n"
    )


def test_the_console_table_without_a_model_is_the_one_that_spark_draws_for_null(cloud, spark):
    drawn = spark.createDataFrame([(None,)], "global_weight DOUBLE")._show_string(20, truncate=False)
    assert cloud.console_table(0, None).endswith(f"Batch: 0\n{'-' * 43}\n{drawn}")


def test_an_over_long_value_stays_with_the_executors_and_its_size_comes_along(cloud, spark):
    records = [(bytearray(b"12345"), "t", 0, 0), (bytearray(b"123456"), "t", 0, 1), (None, "t", 0, 2)]
    frame = spark.createDataFrame(records, "value BINARY, topic STRING, partition INT, offset BIGINT")
    rows = sorted(cloud.bounded_records(frame, 5).collect(), key=lambda row: row.offset)
    assert [(row.value and bytes(row.value), row.size) for row in rows] == [(b"12345", 5), (None, 6), (None, None)]


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


def test_bad_messages_are_rejected_with_reasons_and_the_good_ones_are_kept(aggregator, topic, capsys):
    long = update("x" * MAX_VALUE_BYTES, 1.0, 1)
    records = {
        b"hello": "not JSON",
        b"": "empty value",
        b'{"node_id":"fog-1","weight":null,"samples":1}': "weight is null",
        b'{"node_id":"fog-1","weight":"40","samples":1}': "weight is of the wrong type",
        b'{"node_id":"fog-1","weight":NaN,"samples":1}': "not JSON: NaN",
        b'{"node_id":"fog-1","weight":1,"samples":0}': "samples is 0",
        b'{"node_id":"fog-1","weight":1' + b"0" * 400 + b',"samples":1}': "weight is 1",
        b"\xff": "invalid UTF-8",
        long: f"value of {len(long)} bytes; expected at most MAX_VALUE_BYTES=1000",
    }
    topic.append(update("fog-1", 40.0, 1), *records, None, update("fog-2", 44.0, 3))
    aggregator.run()
    assert aggregator.published == [model(43.0, 4, 2)]
    assert [bytes(row.value) for row in aggregator.rejected[:-1]] == list(records), "the whole of each, long ones too"
    assert aggregator.rejected[-1].value is None
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
    assert aggregator.published[-1][1]["samples"] >= 3
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
    aggregator.run_and_crash("publish")
    assert aggregator.published == [model(40.0, 1, 1)]
    aggregator.run()
    assert aggregator.published[1:] == [model(43.0, 4, 2)]
    assert [bytes(row.value) for row in aggregator.rejected] == [b"hello"]


def test_a_driver_that_dies_before_its_state_is_saved_does_the_batch_again(aggregator, topic):
    topic.append(update("fog-1", 40.0, 1), b"hello")
    aggregator.run_and_crash("dead_letters")
    assert aggregator.published == []
    aggregator.run()
    assert aggregator.published == [model(40.0, 1, 1)]
    assert [row.offset for row in aggregator.rejected] == [1, 1]


def test_a_healthy_batch_takes_one_spark_job(aggregator, topic, count_jobs):
    topic.append(*(update(f"fog-{number}", 40.0, number) for number in range(1, 30)))
    assert count_jobs(aggregator.run()) == 1
    # 1 + 2 + ... + 29 = 29 * 30 / 2 = 435
    assert aggregator.published == [model(40.0, 435, 29)]
