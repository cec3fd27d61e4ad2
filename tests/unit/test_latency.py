"""`fedstream latency`: which weight counts a reading first, worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from fedstream.commands import latency
from fedstream.commands.cli import main
from fedstream.commands.latency import first_counted, number_to_square, reading_to_weight, row
from fedstream.messages.weights import NodeWeight
from tests.unit.fake_topics import Topics

# Halves and quarters: their sums have no rounding. Temperature (°C) and vibration (g) of five readings.
VALUES = [(70.5, 0.25), (60.0, 0.5), (80.25, 0.25), (90.0, 0.75), (65.5, 0.5)]


def weight(*counted: int, older: int = 0) -> NodeWeight:
    """Return the weight of these of VALUES, and of so many older readings of 70 °C and 0.5 g."""
    temperature = 70.0 * older + sum(VALUES[number][0] for number in counted)
    vibration = 0.5 * older + sum(VALUES[number][1] for number in counted)
    samples = older + len(counted)
    return NodeWeight("fog-1", 1.0, samples, sums=(temperature, vibration), squares=(0.0, 0.0))


# --- where a weight stands among the readings


def test_the_place_of_a_weight_is_found_by_what_later_ones_add():
    # The first weight counts 1,000 readings from before and the first of the five; the next ones two and one more.
    weights = [weight(0, older=1000), weight(0, 1, 2, older=1000), weight(0, 1, 2, 3, older=1000)]
    assert first_counted(weights, np.array(VALUES)) == 1


def test_a_weight_that_counts_none_of_the_readings_stands_before_the_first():
    assert first_counted([weight(older=7), weight(0, 1, older=7)], np.array(VALUES)) == 0


def test_two_readings_alike_are_told_apart_by_the_next_weight():
    # 60 °C and 0.5 g come twice: one more reading may be the first or the third of these four, two more only the third.
    values = np.array([(60.0, 0.5), (80.0, 0.25), (60.0, 0.5), (90.0, 0.75)])

    def counted(number: int) -> NodeWeight:
        sums = values[2 : 2 + number].sum(axis=0)
        return NodeWeight("fog-1", 1.0, 100 + number, sums=(7000 + sums[0], 50 + sums[1]), squares=(0.0, 0.0))

    assert first_counted([counted(0), counted(1)], values) is None
    assert first_counted([counted(0), counted(1), counted(2)], values) == 2


@pytest.mark.parametrize(
    ("weights", "values"),
    [
        ([weight(0), weight(0)], VALUES),  # nothing more was counted meanwhile
        ([weight(0), weight(0, older=3)], VALUES),  # three readings that are not among these
        ([weight(0), weight(0, 1, 2, 3, 4, older=9)], VALUES),  # more than there are
        ([weight(0, older=3), weight(0)], VALUES),  # a node that began anew
        ([weight(older=1), weight(older=2)], [(70.0, 0.5)] * 4),  # all alike
    ],
)
def test_a_place_that_is_open_is_not_guessed(weights, values):
    assert first_counted(weights, np.array(values)) is None


# --- waits


def at(*times: float) -> list[tuple[float, tuple[float, float]]]:
    return list(zip(times, VALUES, strict=False))


def test_a_reading_waits_for_the_first_weight_that_counts_it():
    # Sent at 0, 10, 20, 30, 40 ms. At 50 ms a weight of the first two, at 70 ms one of all five; three are older.
    weights = [(5.0, weight(older=3)), (50.0, weight(0, 1, older=3)), (70.0, weight(0, 1, 2, 3, 4, older=3))]
    found = reading_to_weight(at(0, 10, 20, 30, 40), weights, range(5))
    assert (found.ms, found.without) == ([50, 40, 50, 40, 30], 0)


def test_readings_from_before_are_not_measured_and_the_last_may_have_no_weight_yet():
    weights = [(5.0, weight(older=3)), (50.0, weight(0, 1, older=3)), (70.0, weight(0, 1, 2, older=3))]
    found = reading_to_weight(at(0, 10, 20, 30, 40), weights, range(1, 4))
    assert (found.ms, found.without) == ([40, 50], 1)  # of 10 and 20 ms; that of 30 ms waits; that of 40 ms is too late


def test_a_weight_said_again_after_a_crash_counts_once():
    again = (60.0, weight(0, older=3))
    weights = [(5.0, weight(older=3)), (50.0, weight(0, 1, older=3)), again, (70.0, weight(0, 1, 2, older=3))]
    assert reading_to_weight(at(0, 10, 20), weights, range(3)).ms == [50, 40, 50]


def test_a_first_weight_of_older_readings_is_passed_over():
    # It counts three fewer than the next one: these are not among the readings here.
    weights = [
        (1.0, weight(older=4)),
        (5.0, weight(older=7)),
        (50.0, weight(0, older=7)),
        (60.0, weight(0, 1, older=7)),
    ]
    assert reading_to_weight(at(0, 10), weights, range(2)).ms == [50, 50]


def test_without_weights_it_is_told_that_none_came():
    found = reading_to_weight(at(0, 10), [], range(2))
    assert (found.ms, found.without) == ([], 0)
    assert "no weight came" in found.remark


def test_a_square_is_that_of_the_number_at_its_place_in_the_row():
    # 7 comes twice: the squares 7, 3 are those of the third and fourth number.
    numbers = [(0.0, 7), (10.0, 5), (20.0, 7), (30.0, 3), (40.0, 9)]
    found = number_to_square(numbers, [(21.0, 7), (33.0, 3)], range(1, 5))
    assert (found.ms, found.without) == ([1, 3], 1)


@pytest.mark.parametrize("squares", [[(21.0, 7)], [(21.0, 8)], [(21.0, 7), (22.0, 9)], []])
def test_squares_whose_numbers_are_open_are_not_guessed(squares):
    found = number_to_square([(0.0, 7), (10.0, 5), (20.0, 7), (30.0, 3)], squares, range(4))
    assert found.remark
    assert not found.ms


def test_percentiles_are_waits_that_were_measured():
    # Of 1 to 200 ms, the nearest ranks: 0.5, 0.95 and 0.99 times 200 are the 100th, 190th and 198th.
    found = row(latency.Waits("x", [float(each) for each in range(200, 0, -1)], 3), 20)
    assert [found[name] for name in latency.FIGURES] == [100, 190, 198, 200]
    assert (found["measured"], found["without_result"], found["per_second"]) == (200, 3, 10)
    assert row(latency.Waits("x", []), 20)["p95_ms"] is None


# --- the command


def reading(temperature: float, vibration: float) -> dict:
    return {"sensor_id": "s", "temperature": temperature, "vibration": vibration, "label": 0}


class Stack(Topics):
    """Topics on which a reading comes with each look, and a fog node's weight and an alert of the one before."""

    def __init__(self, monkeypatch, source: str = "") -> None:
        """Start with one reading that is counted."""
        super().__init__()
        self.install(monkeypatch)
        monkeypatch.setattr(latency, "GRACE_SECONDS", 0.0)
        self.sums, self.count, self.source = [0.0, 0.0], 0, source
        self.random = np.random.RandomState(1)
        self.waiting = [(71.5, 0.25)]
        self.read_in(0)
        self.count_all()
        self.on_read = self.go_on

    def read_in(self, bad: int) -> None:
        """Put what waits on the readings' topic, and so many bad ones behind it."""
        for each in self.waiting:
            self.add("sensor-data-node-1", b"s", reading(*each))
        for _ in range(bad):
            self.add("sensor-data-node-1", b"s", b"no reading")

    def count_all(self) -> None:
        """Let the node count what waits, and send its weight."""
        for each in self.waiting:
            self.sums = [total + value for total, value in zip(self.sums, each, strict=True)]
            self.count += 1
        sums = {"sums": self.sums, "squares": [0, 0]} | ({"source": self.source} if self.source else {})
        for node in ("fog-1", "fog-2"):
            self.add("model-weights", b"", {"node_id": node, "weight": 1.0, "samples": self.count} | sums)

    def go_on(self, topic: str) -> None:
        """Go on by a reading whenever the weights are read."""
        if topic == "model-weights":
            self.waiting = [(70 + self.random.randint(80) / 4, self.random.randint(40) / 8)]
            place = len(self.records["sensor-data-node-1"])
            self.read_in(bad=1)
            self.add("alerts", b"sensor-data-node-1/0/%d" % place, {"probability": 0.5})
            self.count_all()
            self.add("model-weights", b"", b"no weight")


def test_the_command_measures_what_flows(monkeypatch):
    Stack(monkeypatch)
    result = CliRunner().invoke(main, ["latency", "--seconds", "0.05", "--json"])
    weights, alerts = json.loads(result.output)
    # A record's time is the number of records before it: behind each reading come a bad one, its alert, and its weight.
    assert [weights[name] for name in ("path", "p50_ms", "max_ms")] == ["reading → weight", 3, 3]
    assert [alerts[name] for name in ("path", "p50_ms", "max_ms")] == ["reading → alert", 2, 2]
    assert weights["measured"] == alerts["measured"] > 1
    assert (weights["without_result"], alerts["without_result"]) == (0, 0)


def test_the_command_prints_a_table(monkeypatch):
    Stack(monkeypatch)
    result = CliRunner().invoke(main, ["latency", "--seconds", "0.05"])
    assert result.exit_code == 0, result.output
    (line,) = [line.split() for line in result.output.splitlines() if "→ weight" in line]
    assert line[3:7] == ["3", "3", "3", "3"]
    assert "p95 830 ms" in result.output


@pytest.mark.parametrize("source", ["since 2026-11-22T10:00:00Z", "from 2026-11-22T10:00:00Z"])
def test_a_node_that_began_later_is_measured_as_well(monkeypatch, source):
    Stack(monkeypatch, source)
    result = CliRunner().invoke(main, ["latency", "--seconds", "0.05", "--json"])
    assert json.loads(result.output)[0]["p50_ms"] == 3


def test_a_node_that_counts_another_topic_is_told(monkeypatch):
    Stack(monkeypatch, "sensor-data")
    rows = json.loads(CliRunner().invoke(main, ["latency", "--seconds", "0.05", "--json"]).output)
    assert rows[0]["remark"] == "fog-1 counts sensor-data, not sensor-data-node-1"
    assert rows[0]["p50_ms"] is None


def test_a_stack_in_which_nothing_flows_is_told_with_what_to_do(monkeypatch):
    Topics().install(monkeypatch)
    result = CliRunner().invoke(main, ["latency", "--seconds", "0.01"])
    assert result.exit_code == 1
    for words in ("no reading of sensor-data-node-1", "no reading came", "do the sensors and fog-1 run (make ps)?"):
        assert words in result.output


def test_several_partitions_are_refused(monkeypatch):
    stack = Stack(monkeypatch)
    stack.records["sensor-data-node-1"][0].partition = 1
    result = CliRunner().invoke(main, ["latency", "--seconds", "0.01"])
    assert "topic sensor-data-node-1 has several partitions" in result.output
    assert "expected one (TOPIC_PARTITIONS=1)" in result.output
