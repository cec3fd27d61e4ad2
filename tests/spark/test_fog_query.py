"""The fog node: sums of each node, a shared topic, and each reading counted once whatever happens."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import click
import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyspark.errors import StreamingQueryException
from pyspark.sql import Row, SparkSession
from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

from fedstream.errors import SettingError, StateError
from fedstream.learning.models import make_model
from fedstream.messages.door import encode
from fedstream.messages.rounds import global_model
from fedstream.messages.topics import node_of_topic
from fedstream.settings import Settings
from fedstream.spark.readings import NodeReadings
from fedstream.spark.scope import parse_nodes, share_slots
from fedstream.spark.state import BatchState
from fedstream.spark.training import OpenRounds
from tests.spark.conftest import Recorder, Topic
from tests.spark.sink import LetterFile


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
        for topic, key, message in self.recorder.published:
            assert topic == "model-weights"
            assert (len(message["sums"]), len(message["squares"])) == (2, 2)
            headlines.append((key, {name: message[name] for name in message if name not in ("sums", "squares")}))
        return headlines

    @property
    def rejected(self) -> list[tuple[str, int, int, bytes | None]]:
        """The dead letters, as (topic, partition, offset, value)."""
        return [
            (each.topic, each.partition, each.offset, None if each.value is None else base64.b64decode(each.value))
            for each in self.letters.letters()
        ]

    @property
    def letters(self) -> LetterFile:
        """Where the executors leave their dead letters."""
        return LetterFile(self.folder.parent / "letters")

    def node(self) -> Any:
        """Return the nodes of a new driver."""
        state = BatchState(self.folder, self.fog.FogNode.initial())
        return self.fog.FogNode(Settings(wait_timeout_seconds=0.1), state, self.recorder.publish)

    def build(self, **settings: int) -> DataStreamWriter:
        """Return the query that a new driver starts."""
        readings = NodeReadings(Settings(**settings), self.sensors, self.letters)
        return self.fog.build_query(self.topic.read(SparkSession.active()), "fog-1", readings, self.node())

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


@pytest.fixture
def counting(node) -> Any:
    """Return the nodes of a driver that has not run yet."""
    return node.node()


def test_what_is_counted_adds_up_and_the_weight_is_worked_out_by_hand(counting, capsys):
    before = {"sums": {"1": {"count": 1, "sums": [70.0, 0.25], "squares": [4900.0, 0.0625], "rejected": 1}}}
    one = Row(node=1, count=2, rejected=3, sums=[150.0, 0.5], squares=[11300.0, 0.125])
    another = Row(node=7, count=1, rejected=0, sums=[74.1, 0.03333], squares=[5490.81, 0.001111])
    counting.state.value = counting.count(before | {"changed": []}, [one, another])
    assert counting.state.value["changed"] == ["1", "7"]
    weight = counting.weight_of("1")
    # (220 / 3 + 100 * 0.75 / 3) / 2 = (73.33333 + 25) / 2 = 49.16667
    assert (weight.node_id, weight.weight, weight.samples, weight.rejected) == ("fog-1", 49.1667, 3, 4)
    assert (weight.sums, weight.squares) == ((220.0, 0.75), (16200.0, 0.1875))
    # (74.1 + 100 * 0.03333) / 2 = 38.7165: four decimals
    assert counting.weight_of("7").weight == 38.7165
    assert capsys.readouterr().out == "Fog-1 -> 3 message(s) rejeté(s) vers dead-letter\n"


def test_a_node_without_a_good_reading_has_no_weight(counting):
    row = Row(node=1, count=0, rejected=9, sums=[0.0, 0.0], squares=[0.0, 0.0])
    counting.state.value = counting.count(counting.initial(), [row])
    assert counting.weight_of("1") is None


def test_the_weight_is_the_mean_over_the_features_of_factor_times_mean(fog, tmp_path):
    settings = Settings(features="temperature:-100:1000:1,vibration:0:1000:100,humidity:0:100:0.5")
    node = fog.FogNode(settings, BatchState(tmp_path / "fog-1", fog.FogNode.initial()), lambda *_: None)
    row = Row(node=1, count=2, rejected=0, sums=[150.0, 0.5, 90.0], squares=[11300.0, 0.125, 4100.0])
    node.state.value = node.count(node.initial(), [row])
    assert node.weight_of("1").weight == round((75 + 100 * 0.25 + 0.5 * 45) / 3, 4)


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
def test_nodes_are_given_by_numbers_and_ranges(text, nodes):
    assert parse_nodes(text) == nodes


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
def test_weights_leave_a_slot_to_the_training(slots, topics, partitions, tasks):
    assert share_slots(slots, topics, partitions, True) == tasks


def test_without_a_training_the_weights_have_all_slots():
    assert share_slots(2, 1, 2, False)[0] == 2


@pytest.mark.parametrize(
    "text",
    ["0", "-1", "1-", "3-1", "a", "1,,2", "1-2-3", "1.5", "", "1 2", "²", "0-3", "10001", "1-10001", "fog-1", "*"],
)
def test_other_node_numbers_are_refused_with_what_is_expected(text):
    with pytest.raises(click.BadParameter, match="expected node numbers from 1 to 10000: 1, 1-50 or 1,3,7-9"):
        parse_nodes(text)


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
NOBODYS = {"sensor_id a number"}  # sensor 5
NAMELESS = set(SHARED) - {"own", "own, but too hot", "node 2's", "node 2's, but too hot"} - NOBODYS


def kept(sensors: dict[str, int]) -> dict[str, int]:
    """Return the names of the records that a driver keeps, each with its node."""
    readings, found = NodeReadings(Settings(), sensors, lambda letters: None), {}
    for name, value in SHARED.items():
        record = pa.RecordBatch.from_pylist([{"value": value, "topic": "sensor-data", "partition": 0, "offset": 0}])
        for row in pa.Table.from_batches(readings.sum_up([record])).to_pylist():
            found[name] = row["node"]
    return found


def test_a_node_takes_its_own_sensors_readings_from_a_shared_topic_the_bad_ones_too():
    assert kept({"node-2": 2}) == {"node 2's": 2, "node 2's, but too hot": 2}
    assert kept({"node-1": 3, "node-2": 3}) == dict.fromkeys(set(SHARED) - NAMELESS - NOBODYS, 3)
    assert kept({"node-3": 3}) == {}
    assert kept({"5": 4}) == {"sensor_id a number": 4}


def test_several_nodes_share_a_topic_and_the_nameless_records_go_to_node_1_only():
    assert kept({"node-1": 1, "node-2": 2, "node-3": 3}) == {
        **dict.fromkeys(NAMELESS, 1),
        "own": 1,
        "own, but too hot": 1,
        "node 2's": 2,
        "node 2's, but too hot": 2,
    }
    # Another driver, without node 1, hosts the others: the nameless ones are not its own.
    assert not set(kept({"node-2": 2, "node-3": 3})) & NAMELESS


def test_a_record_that_names_no_sensor_is_kept_by_node_1_and_by_no_other():
    assert set(kept({"node-1": 1})) == NAMELESS | {"own", "own, but too hot"}
    assert set(kept({"node-2": 2})) == {"node 2's", "node 2's, but too hot"}


def test_a_topics_last_number_is_its_node():
    topics = ["sensor-data-node-1", "sensor-data-node-12", "plant2-node-7", "sensor-data"]
    assert [node_of_topic(topic) for topic in topics] == [1, 12, 7, None]


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
    assert node.rejected == [
        ("some-topic", 0, 1, b"hello"),
        ("some-topic", 0, 2, reading(1000.1, 0.05)),
        ("some-topic", 0, 3, None),
    ]
    reasons = [letter.reason for letter in node.letters.letters()]
    for reason, expected in zip(reasons, ("not JSON", "temperature is 1000.1", "empty value"), strict=True):
        assert reason.startswith(expected)
    assert "Fog-1 -> 3 message(s) rejeté(s) vers dead-letter" in capsys.readouterr().out


def padded(value: bytes, size: int) -> bytes:
    """Return a reading with spaces before its end, so that it is so long."""
    return value[:-1].ljust(size - 1) + b"}"


def test_long_records_are_counted_like_others_up_to_the_longest(several, topic):
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
    assert several.rejected == [
        (mine, 0, 2, bad),
        (other, 0, 0, None),
        (mine, 0, 4, b"x" * 70_000),
        (mine, 0, 6, b"x"),
    ]


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
    with node.recorder.dies("before publish"):
        node.run()
    assert len(node.published) == 1
    node.run()
    # (150 / 2 + 100 * 0.12 / 2) / 2 = 40.5; 80 °C counted twice would give (230 / 3 + 19 / 3) / 2 = 41.5 of 3 samples
    assert node.published[1:] == [update(40.5, 2, rejected=2)]
    assert [value for *_, value in node.rejected] == [b"hello", b"world"]
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
    node.letters.path.with_suffix(".dies").touch()
    with pytest.raises(StreamingQueryException, match="the driver dies in dead_letters"):
        node.run()
    assert node.published == []
    node.run()
    assert node.published == [update(37.5, 1, rejected=1)]
    # Twice, with the same place in the topic: the letters of a repeated batch can be told.
    assert node.rejected == [("some-topic", 0, 1, b"hello")] * 2


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
    assert [(message["sums"], message["squares"]) for *_, message in node.recorder.published] == expected


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
    assert count_jobs(several.run()) == 2, "one for each micro-batch, with and without bad records"
    assert several.published == [
        update(37.5, 1),
        update(40.5, 1, node=2),
        update(45.0, 1, node=10),  # after 2: in the order of the numbers
        update(43.5, 2, rejected=1, node=2),  # (160 / 2 + 100 * 0.14 / 2) / 2 = (80 + 7) / 2
        update(45.0, 1, rejected=1, node=10),
    ], "a node without a record in the batch publishes nothing"
    assert sorted(several.rejected) == [
        ("sensor-data-node-10", 0, 1, b"world"),
        ("sensor-data-node-2", 0, 1, b"hello"),  # of partition 0: each partition counts its own
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
    assert [offset for _, _, offset, _ in driver.rejected] == [3]


# --- what the training asks of the running sums and of the cloud


def test_the_training_gets_the_weights_of_all_nodes_that_have_had_a_good_reading(several, topic):
    topic.append_records([(*place(1), reading(70, 0.05)), (*place(2), reading(75, 0.06)), (*place(3), b"hello")])
    several.run()
    node = several.node()
    published = {key: message for _, key, message in several.recorder.published}
    assert json.loads(encode(node.weights())) == published
    assert sorted(published) == ["fog-1", "fog-2"], "node 3 has had no good reading"


LAST = {"run_id": "run-1", "round": 1}


def test_the_wait_for_a_round_ends_with_the_newest_model_that_will_do(monkeypatch, capsys):
    rounds = [None, None, *(global_model("run-1", number, number - 1, {}) for number in (1, 2, 3))]
    coming = iter(rounds)
    monkeypatch.setattr("fedstream.broker.models.follow_models", lambda *_: lambda timeout_seconds: next(coming))
    opened = OpenRounds(Settings(wait_timeout_seconds=1e-9))
    assert opened.wait(LAST, list) == rounds[3]
    out = capsys.readouterr().out
    assert "Fog -> en attente de la première ronde sur global-model" in out
    assert "Fog -> en attente de la ronde après 1 sur global-model" in out
    assert opened.wait(LAST, list) == rounds[4]
    assert capsys.readouterr().out == ""


MODEL = json.loads(encode(global_model("run-1", 1, 0, make_model("mlp", {}).initial_arrays(1))))
COEFS = MODEL["arrays"][0]
MISFITS = {
    "another model": {"model": "logistic"},
    "no arrays": {"arrays": []},
    "65 dimensions": {"arrays": [COEFS | {"shape": [1] * 65, "values": [1.0]}, *MODEL["arrays"][1:]]},
    "a number beyond all": {"config": {"learning-rate-factor": 10**400}},
    "a large scaler": {"scaler": {"mean": [1.0] * 3, "std": [1.0] * 3}},
}


@pytest.mark.parametrize("changes", MISFITS.values(), ids=MISFITS)
def test_a_node_waits_behind_a_model_that_does_not_fit_and_says_why(monkeypatch, capsys, changes):
    bad = MODEL | changes
    coming = [MODEL | {"round": 1}, bad | {"round": 2}, bad | {"round": 3}, MODEL | {"round": 4}]
    offsets = itertools.count()

    def read(timeout_seconds: float) -> list[Any]:
        records = [coming.pop(0)] if coming else []
        place = {"topic": "global-model", "partition": 0}
        return [SimpleNamespace(value=json.dumps(m).encode(), offset=next(offsets), **place) for m in records]

    monkeypatch.setattr("fedstream.broker.kafka.follow_topic", lambda *_, **__: read)
    monkeypatch.setattr("fedstream.broker.kafka.read_backwards", lambda *_: iter(()))
    opened = OpenRounds(Settings())
    assert opened.wait(LAST | {"round": 0}, list).round == 1
    assert opened.wait(LAST, list).round == 4
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Fog -> modèle ignoré : ")
    assert line.endswith(" (global-model[0]@1)")


def test_settings_that_no_training_can_use_end_a_fog_node_at_its_start():
    with pytest.raises(SettingError, match=r"MODEL_OPTIONS is .*hidden_units"):
        OpenRounds(Settings(model_options="hidden_units=0"))
    with pytest.raises(SettingError, match="CLASS_WEIGHT is 'rare'"):
        OpenRounds(Settings(class_weight="rare"))
