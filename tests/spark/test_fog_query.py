"""The fog node: sums, its own readings on a shared topic, and each reading counted once whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from fedstream.settings import Settings
from fedstream.state import StateError
from fedstream.streams import parse_readings

READINGS_DDL = "sensor_id STRING, temperature DOUBLE, vibration DOUBLE, reason STRING"


@pytest.fixture(scope="module")
def fog(script) -> ModuleType:
    """Return the job script."""
    return script("fog/fog_node.py")


def reading(temperature: float, vibration: float, sensor_id: str = "node-1") -> bytes:
    """Return a reading as it stands on a topic."""
    return f'{{"sensor_id":"{sensor_id}","temperature":{temperature},"vibration":{vibration},"label":0}}'.encode()


class Node:
    """A fog node that reads a topic of files; it keeps what it published and what it rejected."""

    def __init__(self, fog: ModuleType, readings: DataFrame, folder: Path, run_driver: Callable) -> None:
        """Prepare node 1, which has not run yet."""
        self.fog = fog
        self.readings = readings
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
        """Start a driver on the node's folder and let it process all there is."""
        writer = self.fog.build_query(self.readings, 1, self.folder, self.publish, self.dead_letters)
        return self.run_driver(writer, self.folder)

    def run_and_crash(self, where: str) -> None:
        """Start a driver that dies in publish or in dead_letters."""
        setattr(self, f"crash_in_{where}", True)
        with pytest.raises(StreamingQueryException, match=f"the driver dies in {where}"):
            self.run()
        setattr(self, f"crash_in_{where}", False)


@pytest.fixture
def node(fog, spark, topic, tmp_path, run_driver) -> Node:
    """Return a node that has not run yet."""
    return Node(fog, parse_readings(topic.read(spark), Settings()), tmp_path / "fog-1", run_driver)


def update(weight: float, samples: int, rejected: int = 0) -> tuple[str, dict]:
    """Return what node 1 publishes."""
    return "fog-1", {"node_id": "fog-1", "weight": weight, "samples": samples, "rejected": rejected}


# --- the pure functions


def summary_of(fog: ModuleType, spark: SparkSession, rows: list[tuple]) -> tuple:
    """Return count, sum of temperatures, sum of vibrations and number of rejected records."""
    summary = fog.summarise(spark.createDataFrame(rows, READINGS_DDL).repartition(2)).collect()
    assert len(summary) == 1
    assert summary[0].__fields__ == ["count", "sum_temperature", "sum_vibration", "rejected"]
    return tuple(summary[0])


def test_a_batch_is_summed_up_in_one_row(fog, spark):
    # Sums of halves, quarters and eighths are exact: 70.5 + 80.25 + -0.75 = 150, 0.5 + 0.125 + 0 = 0.625.
    rows = [("a", 70.5, 0.5, None), ("b", 80.25, 0.125, None), ("a", -0.75, 0.0, None)]
    assert summary_of(fog, spark, rows) == (3, 150.0, 0.625, 0)


def test_rejected_records_are_counted_and_not_summed_whatever_was_read_of_them(fog, spark):
    rows = [
        ("a", 70.5, 0.5, None),
        ("a", 2000.0, 0.25, "too hot"),
        ("b", float("nan"), 1.0, "NaN"),
        (None,) * 3 + ("?",),
    ]
    assert summary_of(fog, spark, rows) == (1, 70.5, 0.5, 3)


def test_a_batch_without_good_readings_sums_up_to_zero(fog, spark):
    assert summary_of(fog, spark, [(None, None, None, "not JSON")]) == (0, 0.0, 0.0, 1)
    assert summary_of(fog, spark, []) == (0, 0.0, 0.0, 0)


def test_what_is_learned_adds_up_and_the_update_is_worked_out_by_hand(fog):
    totals = fog.learn(
        {"count": 1, "sum_temperature": 70.0, "sum_vibration": 0.05, "rejected": 1},
        Row(count=2, sum_temperature=150.0, sum_vibration=0.15, rejected=3),
    )
    assert totals == {
        "count": 3,
        "sum_temperature": 220.0,
        "sum_vibration": pytest.approx(0.2),
        "rejected": 4,
    }
    # (220 / 3 + 100 * 0.2 / 3) / 2 = (73.3333 + 6.6667) / 2 = 40
    assert fog.node_update(1, totals).as_dict() == update(40.0, 3, 4)[1]
    # (74.1 + 100 * 0.03333) / 2 = 38.7165: four decimals
    totals = {"count": 1, "sum_temperature": 74.1, "sum_vibration": 0.03333, "rejected": 0}
    assert fog.node_update(7, totals).as_dict() == {"node_id": "fog-7", "weight": 38.7165, "samples": 1, "rejected": 0}


def test_a_node_without_a_good_reading_has_no_update(fog):
    assert fog.node_update(1, {"count": 0, "sum_temperature": 0.0, "sum_vibration": 0.0, "rejected": 9}) is None


# --- a shared topic

SHARED = {
    "own": reading(70, 0.05, "node-1"),
    "own, but too hot": reading(2000, 0.05, "node-1"),
    "node 2's": reading(70, 0.05, "node-2"),
    "node 2's, but too hot": reading(2000, 0.05, "node-2"),
    "not JSON": b"hello",
    "empty": b"",
    "null": None,
    "without sensor_id": b'{"temperature":70,"vibration":0.05,"label":0}',
    "sensor_id null": b'{"sensor_id":null,"temperature":70,"vibration":0.05,"label":0}',
    "sensor_id empty": reading(70, 0.05, ""),
    "sensor_id a number": b'{"sensor_id":5,"temperature":70,"vibration":0.05,"label":0}',
    "sensor_id an object": b'{"sensor_id":{"a":"node-2"},"temperature":70,"vibration":0.05,"label":0}',
}
NAMELESS = set(SHARED) - {"own", "own, but too hot", "node 2's", "node 2's, but too hot"}


@pytest.fixture(scope="module")
def shared(spark) -> DataFrame:
    """Return the parsed records of a shared topic; a record's offset is its place in SHARED."""
    records = [(value and bytearray(value), "sensor-data", 0, offset) for offset, value in enumerate(SHARED.values())]
    ddl = "value BINARY, topic STRING, partition INT, offset BIGINT"
    return parse_readings(spark.createDataFrame(records, ddl), Settings())


def kept(fog: ModuleType, shared: DataFrame, node: int, sensors: list[str]) -> set[str]:
    """Return the names of the records that a node keeps."""
    return {list(SHARED)[row.offset] for row in fog.own_readings(shared, node, sensors).collect()}


def test_a_node_takes_its_own_sensors_readings_from_a_shared_topic_the_bad_ones_too(fog, shared):
    assert kept(fog, shared, 2, ["node-2"]) == {"node 2's", "node 2's, but too hot"}
    assert kept(fog, shared, 3, ["node-1", "node-2"]) == set(SHARED) - NAMELESS
    assert kept(fog, shared, 3, ["node-3"]) == set()


@pytest.mark.parametrize("name", sorted(NAMELESS))
def test_a_record_that_names_no_sensor_is_kept_by_node_1_and_by_no_other(fog, shared, name):
    assert name in kept(fog, shared, 1, ["node-1"])
    assert name not in kept(fog, shared, 2, ["node-2"])


def test_node_1_leaves_the_other_nodes_readings_alone(fog, shared):
    assert not kept(fog, shared, 1, ["node-1"]) & {"node 2's", "node 2's, but too hot"}


# --- the query


def test_each_batch_publishes_the_weight_of_all_readings_so_far(node, topic, capsys):
    topic.append(reading(70, 0.05))
    topic.append(reading(80, 0.07), reading(60, 0.03))
    node.run()
    assert node.published == [
        update(37.5, 1),  # (70 + 100 * 0.05) / 2 = 75 / 2
        update(37.5, 3),  # (210 / 3 + 100 * 0.15 / 3) / 2 = (70 + 5) / 2
    ]
    topic.append(reading(90, 0.1))
    node.run()
    # (300 / 4 + 100 * 0.25 / 4) / 2 = (75 + 6.25) / 2 = 40.625
    assert node.published[2:] == [update(40.625, 4)]
    assert node.rejected == []
    printed = capsys.readouterr().out.splitlines()
    line = "Fog-1 -> poids envoyé : {'node_id': 'fog-1', 'weight': 40.625, 'samples': 4, 'rejected': 0}"
    assert printed[-1] == line


def test_good_readings_in_a_batch_are_kept_and_the_bad_ones_are_rejected_with_reasons(node, topic, capsys):
    topic.append(reading(70, 0.05), b"hello", reading(1000.1, 0.05), None, reading(80, 0.07))
    node.run()
    # (150 / 2 + 100 * 0.12 / 2) / 2 = (75 + 6) / 2 = 40.5
    assert node.published == [update(40.5, 2, rejected=3)]
    assert [(row.offset, row.value and bytes(row.value)) for row in node.rejected] == [
        (1, b"hello"),
        (2, reading(1000.1, 0.05)),
        (3, None),
    ]
    for row, reason in zip(node.rejected, ("not JSON", "temperature is 1000.1", "empty value"), strict=True):
        assert row.reason.startswith(reason)
        assert (row.topic, row.partition) == ("some-topic", 0)
    assert "Fog-1 -> 3 message(s) rejeté(s) vers dead-letter" in capsys.readouterr().out


def test_a_batch_of_bad_records_only_publishes_nothing_before_the_first_reading(node, topic):
    topic.append(b"hello", b"")
    node.run()
    assert node.published == []
    assert len(node.rejected) == 2
    topic.append(reading(70, 0.05))
    topic.append(b"world")
    node.run()
    assert node.published == [update(37.5, 1, rejected=2), update(37.5, 1, rejected=3)]


def test_a_restart_on_the_same_folder_counts_nothing_twice(node, topic):
    topic.append(reading(70, 0.05), b"hello")
    node.run()
    node.run()
    node.run()
    assert node.published == [update(37.5, 1, rejected=1)]
    assert len(node.rejected) == 1
    topic.append(reading(80, 0.07))
    node.run()
    assert node.published[1:] == [update(40.5, 2, rejected=1)]


def test_a_driver_that_dies_before_it_publishes_publishes_the_same_after_its_restart(node, topic):
    topic.append(reading(70, 0.05), b"hello")
    node.run()
    topic.append(reading(80, 0.07), b"world")
    node.run_and_crash("publish")
    assert len(node.published) == 1
    node.run()
    # (150 / 2 + 100 * 0.12 / 2) / 2 = 40.5; 80 °C counted twice would give (230 / 3 + 19 / 3) / 2 = 41.5 of 3 samples
    assert node.published[1:] == [update(40.5, 2, rejected=2)]
    assert [bytes(row.value) for row in node.rejected] == [b"hello", b"world"]
    topic.append(reading(90, 0.1))
    node.run()
    # (240 / 3 + 100 * 0.22 / 3) / 2 = (80 + 7.3333) / 2 = 43.6667
    assert node.published[2:] == [update(43.6667, 3, rejected=2)]


def test_a_driver_that_dies_again_and_again_stays_exact(node, topic):
    topic.append(reading(70, 0.05))
    for _ in range(3):
        node.run_and_crash("publish")
    topic.append(reading(80, 0.07))
    node.run()
    assert node.published == [update(37.5, 1), update(40.5, 2)]


def test_a_driver_that_dies_before_its_state_is_saved_does_the_batch_again_and_stays_exact(node, topic):
    topic.append(reading(70, 0.05), b"hello")
    node.run_and_crash("dead_letters")
    assert node.published == []
    node.run()
    assert node.published == [update(37.5, 1, rejected=1)]
    # Twice, with the same place in the topic: the letters of a repeated batch can be told.
    assert [(row.topic, row.partition, row.offset) for row in node.rejected] == [("some-topic", 0, 1)] * 2


def test_a_checkpoint_that_was_removed_alone_is_noticed_and_nothing_is_counted_again(node, topic):
    topic.append(reading(70, 0.05))
    topic.append(reading(80, 0.07))
    node.run()
    (node.folder / "spark").rename(node.folder / "lost")
    with pytest.raises(StreamingQueryException, match="is at micro-batch 1 but Spark's checkpoint runs micro-batch 0"):
        node.run()
    assert node.published == [update(37.5, 1), update(40.5, 2)]


def test_a_second_driver_of_the_same_node_is_refused(fog, node, topic):
    topic.append(reading(70, 0.05))
    first = fog.build_query(node.readings, 1, node.folder, node.publish, node.dead_letters)
    with pytest.raises(StateError, match="another running driver uses"):
        fog.build_query(node.readings, 1, node.folder, node.publish, node.dead_letters)
    node.run_driver(first, node.folder)
    assert node.published == [update(37.5, 1)]


def test_a_healthy_batch_takes_one_spark_job(node, topic, count_jobs):
    topic.append(*(reading(60 + number % 30, 0.05) for number in range(50)))
    assert count_jobs(node.run()) == 1
    topic.append(reading(70, 0.05))
    topic.append(reading(70, 0.05))
    assert count_jobs(node.run()) == 2  # two batches
    assert node.published[-1][1]["samples"] == 52


def test_the_query_is_named_after_its_node_and_takes_its_trigger_interval(fog, node, topic):
    topic.append(reading(70, 0.05))
    writer = fog.build_query(node.readings, 1, node.folder, node.publish, node.dead_letters, trigger_interval_ms=250)
    query = node.run_driver(writer, node.folder)
    assert query.name == "fog-1"
