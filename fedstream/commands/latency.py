"""How long a running stack takes from a reading to the weight that counts it, to its alert, and from number to square.

It listens and sends nothing. A time is that of a record on its topic, which the program that sent it set: on one
machine all clocks are one.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

from fedstream.broker import kafka
from fedstream.commands.terminal import json_option
from fedstream.errors import BadMessage, StackError
from fedstream.learning.arrays import Matrix
from fedstream.messages.door import decode
from fedstream.messages.numbers import Number
from fedstream.messages.readings import reading_format
from fedstream.messages.rounds import read_update
from fedstream.messages.topics import ALERTS, MODEL_WEIGHTS, NUMBERS, SQUARES, sensor_topic
from fedstream.messages.weights import NodeWeight
from fedstream.settings import Settings
from fedstream.tables import make_console, make_table
from fedstream.terminal import Command

LOOK_BACK = 2000  # records of an input from before: a result that comes first is that of one of them
GRACE_SECONDS = 10.0  # longest wait, at the end, for results of what came last
POLL_SECONDS = 0.2
FIRST_COMPARED = 200  # squares that find their place among the numbers
OWN_SOURCE = r"(from .*|since .*)?$"  # of a weight: of the node's own topic, perhaps not from its first record on
FIGURES = ("p50_ms", "p95_ms", "p99_ms", "max_ms")
SUM_TOLERANCE = 1e-6, 1e-11  # absolute, and relative to the running sum, which is rounded with each addition


@dataclass
class Topic:
    """What was heard of a topic: its records, those that are not measured (from before, or too late) beside them."""

    read: Callable[[float], Iterable[Any]]
    records: list[Any]
    measured: range

    def more(self) -> None:
        """Add what has come."""
        self.records += self.read(POLL_SECONDS)

    def has_new(self) -> bool:
        """Tell whether anything has come."""
        return len(self.records) > self.measured.start

    def end(self) -> None:
        """Measure nothing that comes from now on."""
        self.measured = range(self.measured.start, len(self.records))

    def parsed(self, parse: Callable[[Any], Any]) -> tuple[list[tuple[float, Any]], range]:
        """Return time (ms) and content of what can be parsed (is not None), and which of these are measured."""
        found, bounds = [], [0, 0]
        for number, record in enumerate(self.records):
            if (content := parse(record)) is not None:
                found.append((record.timestamp, content))
                bounds[0] += number < self.measured.start
                bounds[1] += number < self.measured.stop
        return found, range(*bounds)


@dataclass(frozen=True)
class Waits:
    """The ms from each input to its first result, how many inputs have none yet, and why there is no figure at all."""

    path: str
    ms: list[float]
    without: int = 0
    remark: str = ""


def first_counted(weights: Sequence[NodeWeight], values: Matrix) -> int | None:
    """Return how many of these readings the first weight counts, or None if that cannot be told.

    What a later weight counts more is a row of readings whose number and sums are the differences of the weights'.
    There is one place where all weights find theirs, unless readings are all alike or none was counted meanwhile.

    Args:
        weights: of one node, in the order of their topic.
        values: of the node's good readings, (n, features), in the order of their topic; some may be older than the
            first weight, and all that a weight counts beyond the first one's are there.
    """
    sums = np.vstack([np.zeros(values.shape[1]), np.cumsum(values, axis=0)])
    places = np.arange(len(values) + 1)
    absolute, relative = SUM_TOLERANCE
    for later in weights[1:]:
        more = later.samples - weights[0].samples
        places = places[(places + more >= 0) & (places + more <= len(values))]
        wanted = np.subtract(later.sums, weights[0].sums)
        tolerance = absolute + relative * np.abs(later.sums)
        places = places[(np.abs(sums[places + more] - sums[places] - wanted) <= tolerance).all(axis=1)]
    return int(places[0]) if len(places) == 1 else None


def reading_to_weight(
    readings: Sequence[tuple[float, Sequence[float]]], weights: Sequence[tuple[float, NodeWeight]], measured: range
) -> Waits:
    """Return the waits of readings for the first weight that counts them.

    Args:
        readings: time (ms) and values of the good ones, in the order of their topic's only partition.
        weights: time (ms) and message, in the order of their topic.
        measured: which of the readings.
    """
    path = "reading → weight"
    if not readings:
        return Waits(path, [], remark="no reading came")
    values = np.array([each for _, each in readings], dtype=np.float64)
    # The first ones may count only readings from before those here; of the last ones too few say the same.
    for start in range((len(weights) + 1) // 2):
        place = first_counted([weight for _, weight in weights[start:]], values)
        if place is not None:
            break
    else:
        return Waits(path, [], remark="no weight came that counts just these readings, or they are all alike")
    none = weights[start][1].samples - place
    # How many of the readings here a weight counts, or one before it.
    counted = np.maximum.accumulate([weight.samples - none for _, weight in weights[start:]])
    own = range(max(measured.start, place), measured.stop)
    first = np.searchsorted(counted, own, side="right")
    pairs = zip(own, first.tolist(), strict=True)
    ms = [weights[start + at][0] - readings[number][0] for number, at in pairs if at < len(counted)]
    return Waits(path, ms, len(own) - len(ms))


def reading_to_alert(readings: Iterable[Any], alerts: Iterable[Any]) -> Waits:
    """Return the waits of readings for their first alert: its key says where its reading stands."""
    scored: dict[bytes, float] = {}
    for alert in alerts:
        scored.setdefault(alert.key, alert.timestamp)
    places = [(f"{each.topic}/{each.partition}/{each.offset}".encode(), each.timestamp) for each in readings]
    ms = [scored[place] - sent for place, sent in places if place in scored]
    return Waits("reading → alert", ms, len(places) - len(ms))


def number_to_square(
    numbers: Sequence[tuple[float, int]], squares: Sequence[tuple[float, int]], measured: range
) -> Waits:
    """Return the waits of numbers for their squares, which come in the numbers' order.

    Args:
        numbers: time (ms) and number, in the order of their topic's only partition.
        squares: time (ms) and the number that was squared; the first ones may be those of numbers from before.
        measured: which of the numbers.
    """
    path, given, done = "number → square", np.array([n for _, n in numbers]), [n for _, n in squares]
    places = np.arange(max(0, len(numbers) - len(done) + 1))
    for number, n in enumerate(done[:FIRST_COMPARED]):
        places = places[given[places + number] == n]
    if not done or len(places) != 1 or given[places[0] : places[0] + len(done)].tolist() != done:
        return Waits(path, [], remark="the squares are not those of these numbers in a row, or they are all alike")
    place = int(places[0])
    own = range(max(measured.start, place), measured.stop)
    ms = [squares[number - place][0] - numbers[number][0] for number in own if number - place < len(done)]
    return Waits(path, ms, len(own) - len(ms))


def weight_of(record: Any, node: int, features: int) -> NodeWeight | None:
    """Return the running weight of a node that a record holds, with its sums; answers to a round are none."""
    with suppress(BadMessage):
        weight = read_update(record.value)
        if type(weight) is NodeWeight and weight.node_id == f"fog-{node}" and len(weight.sums) == features:
            return weight
    return None


def number_of(record: Any) -> int | None:
    """Return the number of a record of numbers or squares."""
    with suppress(BadMessage):
        return decode(Number, record.value).n
    return None


def follow(settings: Settings, topic: str, last: int) -> Topic:
    """Begin to listen to a topic, with its last records of each partition, which are not measured."""
    read = kafka.follow_topic(settings, topic, last)
    records = list(read(0))
    return Topic(read, records, range(len(records), sys.maxsize))


def evaluate(settings: Settings, node: int, heard: Mapping[str, Topic]) -> list[Waits]:
    """Return what was measured of what was heard; what does not run is left out.

    Raises:
        StackError: the node's topic has several partitions: which of its readings a weight counts is then open.
    """
    readings = heard[sensor_topic(node)]
    if any(record.partition for record in readings.records):
        msg = f"topic {sensor_topic(node)} has several partitions, so which of its readings a weight counts is open"
        raise StackError(f"{msg}; expected one (TOPIC_PARTITIONS=1)")

    form = reading_format(settings)

    def values_of(record: Any) -> Sequence[float] | None:
        with suppress(BadMessage):  # the fog node, too, leaves it out
            return form.decode(record.value).values
        return None

    weights, _ = heard[MODEL_WEIGHTS].parsed(lambda record: weight_of(record, node, len(settings.table)))
    good, measured = readings.parsed(values_of)
    found = [reading_to_weight(good, weights, measured)]
    if others := {weight.source for _, weight in weights if not re.match(OWN_SOURCE, weight.source)}:
        found = [Waits(found[0].path, [], remark=f"fog-{node} counts {', '.join(others)}, not {sensor_topic(node)}")]
    if ALERTS in heard and heard[ALERTS].has_new():
        own = readings.records[readings.measured.start : readings.measured.stop]
        found.append(reading_to_alert((each for each in own if values_of(each) is not None), heard[ALERTS].records))
    if {NUMBERS, SQUARES} <= set(heard) and heard[SQUARES].has_new():
        numbers, measured = heard[NUMBERS].parsed(number_of)
        found.append(number_to_square(numbers, heard[SQUARES].parsed(number_of)[0], measured))
    return found


def listen(settings: Settings, node: int, seconds: float) -> list[Waits]:
    """Listen for so long, and then for the last results; return what was measured.

    Raises:
        KafkaUnavailableError: no broker answered, or the node has no topic.
        StackError: see `evaluate`.
    """
    # Results first: so the inputs hold all that they tell of.
    heard = {MODEL_WEIGHTS: follow(settings, MODEL_WEIGHTS, 1)}
    for topic, last in ((ALERTS, 1), (SQUARES, 1), (NUMBERS, LOOK_BACK)):
        with suppress(kafka.KafkaUnavailableError):  # the job that makes it was never started
            heard[topic] = follow(settings, topic, last)
    heard[sensor_topic(node)] = follow(settings, sensor_topic(node), LOOK_BACK)

    def listen_until(is_over: Callable[[], bool]) -> None:
        while True:
            for each in heard.values():
                each.more()
            if is_over():
                return

    deadline = time.monotonic() + seconds
    listen_until(lambda: time.monotonic() > deadline)
    for each in heard.values():
        each.end()
    found = evaluate(settings, node, heard)

    def has_all() -> bool:
        nonlocal found
        found = evaluate(settings, node, heard)
        return time.monotonic() > deadline + GRACE_SECONDS or not any(waits.without for waits in found)

    if any(waits.without for waits in found):
        listen_until(has_all)
    return found


def row(waits: Waits, seconds: float) -> dict[str, Any]:
    """Return what is shown of the waits of so many seconds; percentiles are values that were measured."""
    cuts = np.percentile(waits.ms, [50, 95, 99, 100], method="inverted_cdf").tolist() if waits.ms else [None] * 4
    counts = {"measured": len(waits.ms), "without_result": waits.without, "per_second": len(waits.ms) / seconds}
    figures = dict(zip(FIGURES, cuts, strict=True))
    return {"path": waits.path} | figures | counts | {"remark": waits.remark}


@click.command(cls=Command)
@click.option("--node", default=1, show_default=True, type=click.IntRange(1), help="Number of the fog node.")
@click.option("--seconds", default=20.0, show_default=True, type=click.FloatRange(0, min_open=True))
@json_option
def latency(node: int, seconds: float, is_json: bool) -> None:
    """Measure a running stack: from a reading to the first weight that counts it.

    Where they run, also to its alert (make run-alerts), and from a number to its square (make run-squares-kafka
    run-bridge).

    It listens to the topics for some seconds and sends nothing. p95 is the wait that 95 of 100 are within.

    Examples:
        fedstream latency
        fedstream latency --node 2 --seconds 60
        fedstream latency --json
    """
    found = listen(Settings.from_env(os.environ), node, seconds)
    if not any(waits.ms or waits.without for waits in found):
        topic = sensor_topic(node)
        msg = (
            f"no reading of {topic} was seen to be counted within {seconds:g} s: {found[0].remark or 'only older ones'}"
        )
        raise StackError(f"{msg}; do the sensors and fog-{node} run (make ps)?")
    rows = [row(waits, seconds) for waits in found]
    if is_json:
        click.echo(json.dumps(rows))
        return
    headings = ("p50 ms", "p95 ms", "p99 ms", "max ms", "measured", "no result", "a second")
    table = make_table(f"Latency, node {node}, {seconds:g} s", "", *headings)
    for each in rows:
        cells = ["-" if each[name] is None else f"{each[name]:,.0f}" for name in FIGURES]
        counts = [f"{each[name]:,}" for name in ("measured", "without_result")]
        table.add_row(each["path"], *cells, *counts, f"{each['per_second']:,.1f}")
    remarks = [f"{each['path']}: {each['remark']}" for each in rows if each["remark"]]
    table.caption = "\n".join([*remarks, "Table 4.1 of the report (squares from a socket): p95 830 ms, 112 a second"])
    make_console().print(table)
