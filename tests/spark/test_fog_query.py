"""The fog node: sums of each node, a shared topic, and each reading counted once whatever happens."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

from fedstream.errors import SettingError, StackError
from fedstream.learning.models import make_model
from fedstream.messages.rounds import GlobalModel
from fedstream.settings import Settings
from fedstream.spark.plain import Plain
from fedstream.spark.state import BatchState, StateError
from fedstream.spark.streams import parse_readings
from tests.spark.conftest import RECORD_DDL, Recorder, Topic

READINGS_DDL = "node INT, sensor_id STRING, temperature DOUBLE, vibration DOUBLE, reason STRING"
INITIAL = {"totals": {}, "changed": []}


@pytest.fixture(scope="module")
def fog(script) -> ModuleType:
    """Return the job script."""
    return script("fog/fog_node.py")


def reading(temperature: float, vibration: float, sensor_id: str = "node-1") -> bytes:
    """Return a reading as it stands on a topic."""
    return f'{{"sensor_id":"{sensor_id}","temperature":{temperature},"vibration":{vibration},"label":0}}'.encode()


class Driver:
    """A fog driver that reads topics of files."""

    def __init__(
        self,
        fog: ModuleType,
        topic: Topic,
        sensors: dict[str, int] | None,
        folder: Path,
        recorder: Recorder,
        run_driver: Callable,
    ) -> None:
        """Prepare a driver that has not run yet."""
        self.fog = fog
        self.topic = topic
        self.sensors = sensors
        self.folder = folder
        self.recorder = recorder
        self.run_driver = run_driver

    @property
    def published(self) -> list[tuple[str, dict]]:
        """What was published, without the sums: a test of their own is about these."""
        headlines = []
        for key, message in self.recorder.published:
            assert (len(message["sums"]), len(message["squares"])) == (2, 2)
            headlines.append((key, {name: message[name] for name in message if name not in ("sums", "squares")}))
        return headlines

    def build(self, **settings: int) -> DataStreamWriter:
        """Return the query that a new driver starts."""
        state, plain = BatchState(self.folder, INITIAL), Plain(Settings(**settings), self.sensors)
        return self.fog.build_query(
            self.topic.read(SparkSession.active()),
            "fog-1",
            plain,
            state,
            self.recorder.publish,
            self.recorder.dead_letters,
            self.topic.read_again,
        )

    def run(self) -> StreamingQuery:
        """Start a driver on the folder and let it process all there is."""
        return self.run_driver(self.build(), self.folder)


@pytest.fixture
def make_driver(fog, spark, topic, tmp_path, recorder, run_driver) -> Callable[[dict[str, int] | None], Driver]:
    """Return a function that prepares a driver, from whose the sensors are (None: the topics tell the nodes)."""

    def make(sensors: dict[str, int] | None) -> Driver:
        return Driver(fog, topic, sensors, tmp_path / "fog-1", recorder, run_driver)

    return make


@pytest.fixture
def node(make_driver) -> Driver:
    """Return a driver of node 1 alone, which has not run yet; some-topic is not its own, so the sensors tell it."""
    return make_driver({"node-1": 1})


def update(weight: float, samples: int, rejected: int = 0, node: int = 1) -> tuple[str, dict]:
    """Return what a node publishes, without the sums."""
    return f"fog-{node}", {"node_id": f"fog-{node}", "weight": weight, "samples": samples, "rejected": rejected}


# --- the pure functions


def summaries_of(fog: ModuleType, spark: SparkSession, rows: list[tuple]) -> dict[int, tuple]:
    """Return each node's count, sums of temperatures and vibrations, those of their squares, and number rejected."""
    summaries = fog.summarise(spark.createDataFrame(rows, READINGS_DDL).repartition(2)).collect()
    for summary in summaries:
        assert summary.__fields__ == [
            *("node", "count", "sum_temperature", "sum_vibration"),
            *("sum_squared_temperature", "sum_squared_vibration", "rejected"),
        ]
    assert len({summary.node for summary in summaries}) == len(summaries), "one row a node"
    return {summary.node: tuple(summary)[1:] for summary in summaries}


def test_a_batch_is_summed_up_in_one_row_a_node(fog, spark):
    # Sums of halves, quarters and eighths are exact: 70.5 + 80.25 + -0.75 = 150, 0.5 + 0.125 + 0 = 0.625;
    # 70.5² + 80.25² + 0.75² = 4970.25 + 6440.0625 + 0.5625 = 11410.875, 0.25 + 0.015625 = 0.265625.
    rows = [(1, "a", 70.5, 0.5, None), (1, "b", 80.25, 0.125, None), (1, "a", -0.75, 0.0, None)]
    one = (3, 150.0, 0.625, 11410.875, 0.265625, 0)
    assert summaries_of(fog, spark, rows) == {1: one}
    assert summaries_of(fog, spark, [*rows, (2, "a", 0.5, 2.0, None)]) == {1: one, 2: (1, 0.5, 2.0, 0.25, 4.0, 0)}


def test_rejected_records_are_counted_and_not_summed_whatever_was_read_of_them(fog, spark):
    rows = [
        (1, "a", 70.5, 0.5, None),
        (1, "a", 2000.0, 0.25, "too hot"),
        (1, "b", float("nan"), 1.0, "NaN"),
        (1, None, None, None, "?"),
        (2, "c", 90.0, 0.25, "another node's"),
    ]
    assert summaries_of(fog, spark, rows) == {1: (1, 70.5, 0.5, 4970.25, 0.25, 3), 2: (0, 0.0, 0.0, 0.0, 0.0, 1)}


def test_a_batch_without_good_readings_sums_up_to_zero(fog, spark):
    assert summaries_of(fog, spark, [(1, None, None, None, "not JSON")]) == {1: (0, 0.0, 0.0, 0.0, 0.0, 1)}
    assert summaries_of(fog, spark, []) == {}


def test_what_is_learned_adds_up_and_the_update_is_worked_out_by_hand(fog):
    summary = Row(
        node=1,
        count=2,
        sum_temperature=150.0,
        sum_vibration=0.5,
        sum_squared_temperature=11300.0,
        sum_squared_vibration=0.125,
        rejected=3,
    )
    before = {"count": 1, "sums": [70.0, 0.25], "squares": [4900.0, 0.0625], "rejected": 1}
    totals = fog.learn(before, summary)
    assert totals == {"count": 3, "sums": (220.0, 0.75), "squares": (16200.0, 0.1875), "rejected": 4}
    # (220 / 3 + 100 * 0.75 / 3) / 2 = (73.33333 + 25) / 2 = 49.16667
    sums = {"sums": [220.0, 0.75], "squares": [16200.0, 0.1875]}
    assert fog.node_update("1", totals).as_dict() == update(49.1667, 3, 4)[1] | sums
    # (74.1 + 100 * 0.03333) / 2 = 38.7165: four decimals
    totals = {"count": 1, "sums": [74.1, 0.03333], "squares": [5490.81, 0.001111], "rejected": 0}
    assert fog.node_update("7", totals).as_dict().items() >= update(38.7165, 1, node=7)[1].items()


def test_a_node_without_a_good_reading_has_no_update(fog):
    assert fog.node_update("1", {"count": 0, "sums": [0.0, 0.0], "squares": [0.0, 0.0], "rejected": 9}) is None


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("1", [1]),
        ("1-3", [1, 2, 3]),
        ("1-50", list(range(1, 51))),
        ("1,3,7-9", [1, 3, 7, 8, 9]),
        (" 7-9 , 3,1 ", [1, 3, 7, 8, 9]),
        ("2-4,3-5", [2, 3, 4, 5]),
        ("5-5", [5]),
        ("10000", [10_000]),
    ],
)
def test_nodes_are_given_by_numbers_and_ranges(fog, text, nodes):
    assert fog.parse_nodes(text) == nodes


@pytest.mark.parametrize(
    ("slots", "topics", "partitions", "tasks"),
    [
        (2, 1, 1, (1, 1)),
        (2, 8, 8, (1, 1)),  # trained without a shuffle, beside the weights
        (2, 9, 9, (1, 2)),  # trained by all cores
        (3, 1, 2, (2, 3)),  # a topic's partitions are trained at the same time
        (1, 1, 1, (1, 1)),
        (4, 0, 0, (3, 4)),  # a pattern: nobody knows how many
    ],
)
def test_weights_leave_a_slot_to_the_training(fog, slots, topics, partitions, tasks):
    assert fog.share_slots(slots, topics, partitions, True) == tasks


def test_without_a_training_the_weights_have_all_slots(fog):
    assert fog.share_slots(2, 1, 2, False)[0] == 2


@pytest.mark.parametrize(
    "text",
    ["0", "-1", "1-", "3-1", "a", "1,,2", "1-2-3", "1.5", "", "1 2", "²", "0-3", "10001", "1-10001", "fog-1", "*"],
)
def test_other_node_numbers_are_refused_with_what_is_expected(fog, text):
    with pytest.raises(click.BadParameter, match="expected node numbers from 1 to 10000: 1, 1-50 or 1,3,7-9"):
        fog.parse_nodes(text)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--topic", "sensor-data"],
        ["--node", "1", "--topic", "sensor-data-node-.*"],
        ["--topic", "sensor-data-node-.*", "--sensors", "a"],
        ["--node", "1,2", "--topic", "sensor-data", "--sensors", "a"],
    ],
    ids=" ".join,
)
def test_options_that_do_not_go_together_are_refused_before_anything_starts(fog, arguments):
    result = CliRunner().invoke(fog.main, arguments)
    assert result.exit_code == 2
    assert "expected --node, or --topic with a pattern that has a *" in result.output


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
    return parse_readings(spark.createDataFrame(records, RECORD_DDL), Settings())


def kept(fog: ModuleType, shared: DataFrame, sensors: dict[str, int]) -> dict[str, int]:
    """Return the names of the records that a driver keeps, each with its node."""
    return {list(SHARED)[row.offset]: row.node for row in fog.node_of_sensor(shared, sensors).collect()}


def test_a_node_takes_its_own_sensors_readings_from_a_shared_topic_the_bad_ones_too(fog, shared):
    assert kept(fog, shared, {"node-2": 2}) == {"node 2's": 2, "node 2's, but too hot": 2}
    assert kept(fog, shared, {"node-1": 3, "node-2": 3}) == dict.fromkeys(set(SHARED) - NAMELESS, 3)
    assert kept(fog, shared, {"node-3": 3}) == {}


def test_several_nodes_share_a_topic_and_the_nameless_records_go_to_node_1_only(fog, shared):
    assert kept(fog, shared, {"node-1": 1, "node-2": 2, "node-3": 3}) == {
        **dict.fromkeys(NAMELESS, 1),
        "own": 1,
        "own, but too hot": 1,
        "node 2's": 2,
        "node 2's, but too hot": 2,
    }
    # Another driver, without node 1, hosts the others: the nameless ones are not its own.
    assert not set(kept(fog, shared, {"node-2": 2, "node-3": 3})) & NAMELESS


@pytest.fixture(scope="module")
def kept_by_node_1(fog, shared) -> dict[str, int]:
    """Return what a driver of node 1 alone keeps."""
    return kept(fog, shared, {"node-1": 1})


@pytest.fixture(scope="module")
def kept_by_node_2(fog, shared) -> dict[str, int]:
    """Return what a driver of node 2 alone keeps."""
    return kept(fog, shared, {"node-2": 2})


@pytest.mark.parametrize("name", sorted(NAMELESS))
def test_a_record_that_names_no_sensor_is_kept_by_node_1_and_by_no_other(kept_by_node_1, kept_by_node_2, name):
    assert kept_by_node_1[name] == 1
    assert name not in kept_by_node_2


def test_node_1_leaves_the_other_nodes_readings_alone(kept_by_node_1):
    assert not set(kept_by_node_1) & {"node 2's", "node 2's, but too hot"}


def test_a_topics_last_number_is_its_node(fog, spark):
    topics = ["sensor-data-node-1", "sensor-data-node-12", "plant2-node-7"]
    found = fog.node_of_topic(spark.createDataFrame([(name,) for name in topics], "topic STRING"))
    assert {row.topic: row.node for row in found.collect()} == dict(zip(topics, (1, 12, 7), strict=True))


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
    assert node.recorder.rejected == []
    printed = capsys.readouterr().out.splitlines()
    line = "Fog-1 -> poids envoyé : {'node_id': 'fog-1', 'weight': 40.625, 'samples': 4, 'rejected': 0}"
    assert printed[-1] == line


def test_good_readings_in_a_batch_are_kept_and_the_bad_ones_are_rejected_with_reasons(node, topic, capsys):
    topic.append(reading(70, 0.05), b"hello", reading(1000.1, 0.05), None, reading(80, 0.07))
    node.run()
    # (150 / 2 + 100 * 0.12 / 2) / 2 = (75 + 6) / 2 = 40.5
    assert node.published == [update(40.5, 2, rejected=3)]
    assert [(row.offset, row.value and bytes(row.value)) for row in node.recorder.rejected] == [
        (1, b"hello"),
        (2, reading(1000.1, 0.05)),
        (3, None),
    ]
    for row, reason in zip(node.recorder.rejected, ("not JSON", "temperature is 1000.1", "empty value"), strict=True):
        assert row.reason.startswith(reason)
        assert (row.topic, row.partition) == ("some-topic", 0)
    assert "Fog-1 -> 3 message(s) rejeté(s) vers dead-letter" in capsys.readouterr().out


def padded(value: bytes, size: int) -> bytes:
    """Return a reading with spaces before its end, so that it is so long."""
    return value[:-1].ljust(size - 1) + b"}"


def test_records_too_long_for_python_are_read_again_and_each_is_counted_once(several, topic):
    mine, other = "sensor-data-node-1", "sensor-data-node-2"
    long, longest = padded(reading(80, 0.07), 1025), padded(reading(90, 0.1), 65_536)
    bad = padded(reading(1000.1, 0.05), 2000)
    topic.append_records([(mine, 0, reading(70, 0.05)), (mine, 0, long), (mine, 1, reading(60, 0.03))])
    topic.append_records([(mine, 0, bad), (mine, 0, reading(70, 0.05)), (mine, 1, longest), (other, 0, None)])
    between = [(mine, 0, reading(70, 0.05)), (mine, 0, b"x")]
    topic.append_records([(mine, 0, b"x" * 70_000), *between, (mine, 0, long), (other, 0, long)])
    several.run()
    assert several.published == [
        update(37.5, 3),  # (210 / 3 + 100 * 0.15 / 3) / 2 = (70 + 5) / 2
        update(40.0, 5, rejected=1),  # (370 / 5 + 100 * 0.3 / 5) / 2 = (74 + 6) / 2
        update(40.1429, 7, rejected=3),  # (520 / 7 + 100 * 0.42 / 7) / 2 = (74.2857 + 6) / 2
        update(43.5, 1, rejected=1, node=2),  # (80 + 7) / 2
    ]
    assert [(row.topic, row.partition, row.offset, row.value) for row in several.recorder.rejected] == [
        (mine, 0, 2, bad),
        (other, 0, 0, None),
        (mine, 0, 4, b"x" * 70_000),
        (mine, 0, 6, b"x"),
    ]


@pytest.mark.parametrize(("size", "is_read_again"), [(1024, False), (1025, True)])
def test_only_a_value_of_more_than_1_kib_is_read_again(node, topic, count_jobs, size, is_read_again):
    topic.append(padded(reading(70, 0.05), size))
    jobs = count_jobs(node.run())
    assert node.published == [update(37.5, 1)]
    assert jobs == 2 + is_read_again  # sums, odd records; before these, where the long ones are


def test_a_batch_of_bad_records_only_publishes_nothing_before_the_first_reading(node, topic):
    topic.append(b"hello", b"")
    node.run()
    assert node.published == []
    assert len(node.recorder.rejected) == 2
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
    assert len(node.recorder.rejected) == 1
    topic.append(reading(80, 0.07))
    node.run()
    assert node.published[1:] == [update(40.5, 2, rejected=1)]


def test_a_driver_that_dies_before_it_publishes_publishes_the_same_after_its_restart(node, topic):
    topic.append(reading(70, 0.05), b"hello")
    node.run()
    topic.append(reading(80, 0.07), b"world")
    with node.recorder.dies("before publish"):
        node.run()
    assert len(node.published) == 1
    node.run()
    # (150 / 2 + 100 * 0.12 / 2) / 2 = 40.5; 80 °C counted twice would give (230 / 3 + 19 / 3) / 2 = 41.5 of 3 samples
    assert node.published[1:] == [update(40.5, 2, rejected=2)]
    assert [bytes(row.value) for row in node.recorder.rejected] == [b"hello", b"world"]
    topic.append(reading(90, 0.1))
    node.run()
    # (240 / 3 + 100 * 0.22 / 3) / 2 = (80 + 7.3333) / 2 = 43.6667
    assert node.published[2:] == [update(43.6667, 3, rejected=2)]


def test_a_driver_that_dies_again_and_again_stays_exact(node, topic):
    topic.append(reading(70, 0.05))
    for _ in range(3):
        with node.recorder.dies("before publish"):
            node.run()
    topic.append(reading(80, 0.07))
    node.run()
    assert node.published == [update(37.5, 1), update(40.5, 2)]


def test_a_driver_that_dies_before_its_state_is_saved_does_the_batch_again_and_stays_exact(node, topic):
    topic.append(reading(70, 0.05), b"hello")
    with node.recorder.dies("in dead_letters"):
        node.run()
    assert node.published == []
    node.run()
    assert node.published == [update(37.5, 1, rejected=1)]
    # Twice, with the same place in the topic: the letters of a repeated batch can be told.
    assert [(row.topic, row.partition, row.offset) for row in node.recorder.rejected] == [("some-topic", 0, 1)] * 2


def test_a_checkpoint_that_was_removed_alone_is_noticed_and_nothing_is_counted_again(node, topic):
    topic.append(reading(70, 0.05))
    topic.append(reading(80, 0.07))
    node.run()
    (node.folder / "spark").rename(node.folder / "lost")
    with pytest.raises(StreamingQueryException, match="is at micro-batch 1 but Spark's checkpoint runs micro-batch 0"):
        node.run()
    assert node.published == [update(37.5, 1), update(40.5, 2)]


def test_a_second_driver_of_the_same_node_is_refused(node, topic):
    topic.append(reading(70, 0.05))
    first = node.build()
    with pytest.raises(StateError, match="another running driver uses"):
        node.build()
    node.run_driver(first, node.folder)
    assert node.published == [update(37.5, 1)]


def test_a_healthy_batch_takes_one_spark_job(node, topic, count_jobs):
    topic.append(*(reading(60 + number % 30, 0.05) for number in range(50)))
    assert count_jobs(node.run()) == 1
    topic.append(reading(70, 0.05))
    topic.append(reading(70, 0.05))
    assert count_jobs(node.run()) == 2  # two batches
    assert node.published[-1][1]["samples"] == 52


def test_the_query_has_the_given_name_and_takes_its_trigger_interval(node, topic):
    topic.append(reading(70, 0.05))
    query = node.run_driver(node.build(trigger_interval_ms=250), node.folder)
    assert query.name == "fog-1"


def test_a_driver_that_dies_after_it_has_published_publishes_the_same_again(node, topic):
    topic.append(reading(70, 0.05))
    with node.recorder.dies("after publish"):
        node.run()
    node.run()
    assert node.published == [update(37.5, 1)] * 2
    assert node.recorder.published[0] == node.recorder.published[1]


# --- what the cloud needs for the features' scale


def test_the_sums_and_squares_of_all_readings_so_far_travel_along(node, topic):
    topic.append(reading(70.5, 0.5), reading(80.25, 0.125), reading(2000, 0.5))
    topic.append(b"hello", reading(-0.75, 0))
    node.run()
    # 70.5 + 80.25 = 150.75, 70.5² + 80.25² = 11410.3125; then 150 and + 0.75² = 11410.875: exact in binary.
    expected = [([150.75, 0.625], [11410.3125, 0.265625]), ([150.0, 0.625], [11410.875, 0.265625])]
    assert [(message["sums"], message["squares"]) for _, message in node.recorder.published] == expected


# --- several nodes in one application


@pytest.fixture
def several(make_driver) -> Driver:
    """Return a driver of several nodes, each with a topic of its own."""
    return make_driver(None)


def place(node: int, partition: int = 0) -> tuple[str, int]:
    """Return a partition of a node's own topic."""
    return f"sensor-data-node-{node}", partition


def test_each_node_of_one_application_publishes_its_own_weight(several, topic, capsys, count_jobs):
    # 37.5, 40.5 and 45 are (T + 100 V) / 2 of 70 and 0.05, of 75 and 0.06 and of 80 and 0.1.
    topic.append_records(
        [(*place(10), reading(80, 0.1)), (*place(1), reading(70, 0.05)), (*place(2), reading(75, 0.06))]
    )
    topic.append_records([(*place(2, 1), reading(85, 0.08)), (*place(2), b"hello"), (*place(10), b"world")])
    # Two batches; of the second also the odd records' sums and dead letters.
    assert count_jobs(several.run()) == 4
    assert several.published == [
        update(37.5, 1),
        update(40.5, 1, node=2),
        update(45.0, 1, node=10),  # after 2: in the order of the numbers
        update(43.5, 2, rejected=1, node=2),  # (160 / 2 + 100 * 0.14 / 2) / 2 = (80 + 7) / 2
        update(45.0, 1, rejected=1, node=10),
    ], "a node without a record in the batch publishes nothing"
    assert [(row.topic, row.offset) for row in several.recorder.rejected] == [
        ("sensor-data-node-10", 1),
        ("sensor-data-node-2", 1),  # of partition 0: each partition counts its own
    ]
    out = capsys.readouterr().out
    assert "Fog-2 -> 1 message(s) rejeté(s) vers dead-letter" in out
    assert "Fog-10 -> 1 message(s) rejeté(s) vers dead-letter" in out


def test_a_driver_that_dies_between_two_nodes_sends_all_of_the_batch_again_and_stays_exact(several, topic):
    topic.append_records([(*place(n), reading(70, 0.05)) for n in (1, 2, 3)])
    with several.recorder.dies("before publish", number=2):
        several.run()
    assert several.published == [update(37.5, 1)]
    topic.append_records([(*place(n), reading(80, 0.07)) for n in (2, 3)])
    several.run()
    assert several.published[1:] == [
        *(update(37.5, 1, node=n) for n in (1, 2, 3)),
        *(update(40.5, 2, node=n) for n in (2, 3)),  # (150 / 2 + 100 * 0.12 / 2) / 2
    ]


def test_several_nodes_of_a_shared_topic_are_told_by_their_sensors(make_driver, topic):
    driver = make_driver({"node-1": 1, "node-2": 2})
    topic.append(reading(70, 0.05), reading(75, 0.06, "node-2"), reading(99, 0.5, "node-3"), b"hello")
    driver.run()
    assert driver.published == [update(37.5, 1, rejected=1), update(40.5, 1, node=2)]
    assert [row.offset for row in driver.recorder.rejected] == [3]


# --- what the training asks of the running sums and of the cloud


def test_the_training_gets_the_messages_of_all_nodes_seen_and_an_error_names_the_missing_ones(fog, several, topic):
    topic.append_records([(*place(1), reading(70, 0.05)), (*place(2), reading(75, 0.06)), (*place(3), b"hello")])
    several.run()
    state = BatchState(several.folder, INITIAL)
    published = dict(several.recorder.published)
    assert fog.node_messages(state, ["fog-2"], 60) == published
    assert fog.node_messages(state, [], 60) == published
    assert sorted(published) == ["fog-1", "fog-2"], "node 3 has had no good reading"
    with pytest.raises(StackError, match=r"the sums of fog-3, fog-4 are not there after 0\.01 s"):
        fog.node_messages(state, ["fog-4", "fog-1", "fog-3"], 0.01)


def test_the_wait_for_a_round_ends_with_the_newest_model_that_will_do(fog, monkeypatch, capsys):
    rounds = [None, None, *(GlobalModel("run-1", number, number - 1, "mlp", "sync", {}) for number in (1, 2, 3))]
    coming = iter(rounds)
    monkeypatch.setattr(fog.registry, "follow_models", lambda *_: lambda timeout_seconds: next(coming))
    wait = fog.round_waiter(Settings(wait_timeout_seconds=1e-9))
    assert wait(lambda model: model.round > 1) == rounds[3]
    out = capsys.readouterr().out
    assert "Fog -> en attente de la première ronde sur global-model" in out
    assert "Fog -> en attente de la ronde après 1 sur global-model" in out
    assert wait(lambda model: True) == rounds[4]
    assert capsys.readouterr().out == ""


MODEL = GlobalModel("run-1", 1, 0, "mlp", "sync", make_model("mlp", {}).initial_arrays(1)).as_dict()
COEFS = MODEL["arrays"][0]
MISFITS = {
    "another model": {"model": "logistic"},
    "no arrays": {"arrays": []},
    "65 dimensions": {"arrays": [COEFS | {"shape": [1] * 65, "values": [1.0]}, *MODEL["arrays"][1:]]},
    "a number beyond all": {"config": {"learning-rate-factor": 10**400}},
    "a large scaler": {"scaler": {"mean": [1.0] * 3, "std": [1.0] * 3}},
}


@pytest.mark.parametrize("changes", MISFITS.values(), ids=MISFITS)
def test_a_node_waits_behind_a_model_that_does_not_fit_and_says_why(fog, monkeypatch, capsys, changes):
    bad = MODEL | changes
    coming = [MODEL | {"round": 1}, bad | {"round": 2}, bad | {"round": 3}, MODEL | {"round": 4}]
    offsets = itertools.count()

    def read(timeout_seconds: float) -> list[Any]:
        records = [coming.pop(0)] if coming else []
        place = {"topic": "global-model", "partition": 0}
        return [SimpleNamespace(value=json.dumps(m).encode(), offset=next(offsets), **place) for m in records]

    monkeypatch.setattr(fog.registry.kafka, "follow_topic", lambda *_: read)
    wait = fog.round_waiter(Settings())
    assert wait(lambda model: True).round == 1
    assert wait(lambda model: model.round != 1).round == 4
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Fog -> modèle ignoré : ")
    assert line.endswith(" (global-model[0]@1)")


def test_settings_that_no_training_can_use_end_a_fog_node_at_its_start(fog):
    with pytest.raises(SettingError, match=r"MODEL_OPTIONS is .*hidden_units"):
        fog.round_waiter(Settings(model_options="hidden_units=0"))
    with pytest.raises(SettingError, match="CLASS_WEIGHT is 'rare'"):
        fog.round_waiter(Settings(class_weight="rare"))
