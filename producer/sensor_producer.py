"""Sensor producer: publishes simulated readings, or those of a CSV file, to the fog nodes' topics.

    node-1 --> sensor-data-node-1, node-2 --> sensor-data-node-2, ...   (or all --> one --topic)

Examples:
    python producer/sensor_producer.py
    python producer/sensor_producer.py --nodes 4 --rate 1000 --count 100000 --seed 7
    python producer/sensor_producer.py --shift 2:10:0.02
    python producer/sensor_producer.py --csv machines.csv --rate 50 --columns temperature=temp_c,vibration=vib_g
"""

from __future__ import annotations

import itertools
import math
import os
import random
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from kafka import KafkaProducer

from fedstream.broker import kafka
from fedstream.features import Feature
from fedstream.messages.readings import TIME, Reading, ReadingFormat, reading_format, time_ms
from fedstream.messages.topics import sensor_topic
from fedstream.settings import Settings
from fedstream.simulation.rows import read_number, read_rows
from fedstream.simulation.sensors import digits, label_of, label_rule, simulated_ranges
from fedstream.terminal import Command

UNACKNOWLEDGED = 10_000  # most readings on their way to the broker
QUIET_ABOVE_RATE = 20.0  # readings a second; above it a terminal shows a count, not every reading

Readings = Iterator[tuple[int, Reading]]  # each with its node
Shifts = dict[int, tuple[float, ...]]  # how much more a node's sensors measure of each feature


def simulate_readings(settings: Settings, nodes: int, seed: int | None, shifts: Shifts | None = None) -> Readings:
    """Yield (node, reading) for ever, node after node; `shifts` moves a node's ranges.

    Each feature is uniform in its range (SIMULATED_RANGES), and the label follows LABEL_RULE.
    """
    source, rule, ranges = random.Random(seed), label_rule(settings), simulated_ranges(settings)
    unmoved = (0.0,) * len(ranges)
    for node in itertools.cycle(range(1, nodes + 1)):
        moved = zip(ranges, (shifts or {}).get(node, unmoved), strict=True)
        values = tuple(round(source.uniform(*edges) + more, digits(*edges)) for edges, more in moved)
        yield node, Reading(f"node-{node}", values, label_of(values, rule, settings.classes))


def csv_readings(lines: Iterable[str], columns: Mapping[str, str], nodes: int, settings: Settings) -> Readings:
    """Yield (node, reading) for each row of a CSV file.

    `columns` maps a field to its column; the others stand under the names of FIELDS. Without a column for `sensor_id`
    the rows are dealt out to the nodes in turn; with one, each sensor belongs to a node, in the order in which the
    sensors appear. Without a column for `label` it follows LABEL_RULE.

    Raises:
        ValueError: a column is missing, or a line cannot be read (`read_rows`), has no sensor, or a value that is no
            finite number; the text names line, column and value.
    """
    header, rows = read_rows(lines)
    names = settings.feature_names
    column_of = settings.paths | dict(columns)
    for field, column in column_of.items():
        if column not in header and (field in columns or field in names):
            msg = f"no column {column!r} for {field}; the file has {', '.join(header)}. Map it: --columns {field}=NAME"
            raise ValueError(msg)
    fields = {field: column for field, column in column_of.items() if column in header}
    rule, node_of = label_rule(settings), dict[str, int]()
    for index, (line, row) in enumerate(rows):
        cells = Cells(line, row, fields)
        sensor_id = cells.sensor_id()
        if sensor_id is None:
            node = index % nodes + 1
            sensor_id = f"node-{node}"
        else:
            node = node_of.setdefault(sensor_id, len(node_of) % nodes + 1)
        values = tuple(cells.number(name, float) for name in names)
        label = cells.number("label", int) if "label" in fields else label_of(values, rule, settings.classes)
        yield node, Reading(sensor_id, values, label, cells.event_time())


@dataclass(frozen=True)
class Cells:
    """A row of a CSV file: the fields of a reading that it has."""

    line: int
    row: Mapping[str, str]
    fields: Mapping[str, str]  # field: column

    def number(self, field: str, kind: type[int] | type[float]) -> Any:
        """Return a field's number.

        Raises:
            ValueError: it is none.
        """
        try:
            return read_number(self.row[self.fields[field]], kind)
        except ValueError as error:
            number = f"a {'whole ' if kind is int else ''}number"
            raise self._bad(field, f"{number}: correct it, or leave out this row") from error

    def sensor_id(self) -> str | None:
        """Return the sensor, or None where the file has no column for it.

        Raises:
            ValueError: the cell is empty.
        """
        if "sensor_id" not in self.fields:
            return None
        if not self.row[self.fields["sensor_id"]]:
            remedy = "fill it in, or leave out this row or the whole column"
            raise self._bad("sensor_id", f"the name of a sensor: {remedy}")
        return self.row[self.fields["sensor_id"]]

    def event_time(self) -> int | None:
        """Return the time in ms since 1970, or None where the file has no column for it.

        Raises:
            ValueError: it is no time.
        """
        if "event_time" not in self.fields:
            return None
        try:
            return time_ms(self.row[self.fields["event_time"]])
        except ValueError as error:
            raise self._bad("event_time", f"{TIME}: correct it, or leave out this row") from error

    def _bad(self, field: str, expected: str) -> ValueError:
        column = self.fields[field]
        return ValueError(f"line {self.line}: {column} is {self.row[column]!r:.100}; expected {expected}")


def parse_shift(text: str, features: Sequence[Feature]) -> tuple[int, tuple[float, ...]]:
    """Read NODE:AMOUNT:AMOUNT:..., one amount for each feature, such as 2:10:0.02.

    Raises:
        ValueError: the text has another form.
    """
    node, *amounts = text.split(":")
    shift = tuple(map(float, amounts))
    if len(shift) != len(features) or not all(map(math.isfinite, shift)):
        form = ":".join(["NODE", *(feature.name.upper() for feature in features)])
        msg = f"{text!r}; expected {form}, with finite numbers"
        raise ValueError(msg)
    return int(node), shift


def parse_columns(text: str, settings: Settings) -> dict[str, str]:
    """Read FIELD=COLUMN,FIELD=COLUMN.

    Raises:
        ValueError: the text has another form or names a field that readings do not have.
    """
    columns = dict(part.split("=", 1) for part in text.split(",")) if text else {}
    if unknown := sorted(set(columns) - set(settings.paths)):
        msg = f"{', '.join(unknown)} is no field of a reading; expected {', '.join(settings.paths)}"
        raise ValueError(msg)
    return {field: column.strip() for field, column in columns.items()}


def paced(readings: Iterable[tuple[int, Reading]], per_second: float, stopping: threading.Event) -> Readings:
    """Pass readings on at a steady rate (0 = as fast as possible) until `stopping` is set.

    A late reading does not delay those behind it.
    """
    begin = time.monotonic()
    for index, reading in enumerate(readings):
        # Sleeping for each of many readings would limit the rate to what the clock of a sleep can do.
        if per_second and (ahead := begin + index / per_second - time.monotonic()) > 0.001:
            stopping.wait(ahead)
        if stopping.is_set():
            return
        yield reading


def publish_readings(
    producer: KafkaProducer,
    readings: Iterable[tuple[int, Reading]],
    topics: Mapping[int, str],
    form: ReadingFormat,
    quiet: bool,
) -> int:
    """Send each reading to its node's topic, keyed by sensor, and return how many the broker acknowledged.

    Raises:
        click.ClickException: the broker did not take a reading in time.
    """
    sent = 0
    failed: list[BaseException] = []
    for node, reading in readings:
        delivery = producer.send(topics[node], key=reading.sensor_id.encode(), value=form.encode(reading))
        delivery.add_errback(failed.append)
        sent += 1
        if not quiet:
            print(f"Node-{node}: {form.message(reading)}", flush=True)
        elif sent == 1:
            print("first reading sent", flush=True)
        if sent % UNACKNOWLEDGED == 0:
            producer.flush()  # the client buffers without limit: a slow broker would fill the memory
            if quiet:
                print(f"{sent} readings sent", flush=True)
        if failed:
            break
    producer.flush()
    if failed:
        raise click.ClickException(f"the broker did not take a reading: {failed[0]!r}")
    return sent


@dataclass(frozen=True)
class Wanted:
    """How many readings go where, and how fast: the options of these names."""

    nodes: int
    rate: float  # readings per second and node, 0 = as fast as possible
    count: int | None
    seed: int | None
    topic: str | None


@click.command(cls=Command, help=__doc__)
@click.option("--nodes", default=2, show_default=True, type=click.IntRange(1), help="Nodes 1..N get readings.")
@click.option(
    "--rate",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0),
    help="Readings per second and node; 0 = as fast as possible.",
)
@click.option("--count", type=click.IntRange(1), help="Stop after this many readings in all. [default: never]")
@click.option("--seed", type=int, help="Send the same readings in each run.")
@click.option(
    "--shift",
    multiple=True,
    metavar="NODE:AMOUNT:...",
    help="Move a node's ranges by an amount for each feature (°C, g); repeatable.",
)
@click.option(
    "--csv", "csv_file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Replay this file."
)
@click.option("--columns", default="", metavar="FIELD=COLUMN,...", help="Columns of the CSV file, where they differ.")
@click.option("--topic", help="Send all to this topic, such as sensor-data. [default: sensor-data-node-N]")
@click.option(
    "--quiet/--no-quiet", default=None, help=f"Show a count only. [default: above {QUIET_ABOVE_RATE:g} a second]"
)
def main(shift: tuple[str, ...], csv_file: Path | None, columns: str, quiet: bool | None, **given: Any) -> None:
    """Publish readings until the count is reached, the file ends, or SIGTERM or Ctrl-C comes."""
    settings, wanted = Settings.from_env(os.environ), Wanted(**given)
    try:
        shifts = dict(parse_shift(each, settings.table) for each in shift)
        column_of = parse_columns(columns, settings)
    except ValueError as error:
        raise click.UsageError(f"--shift {' '.join(shift)} --columns {columns}: {error}") from error

    topic_of = {node: wanted.topic or sensor_topic(node) for node in range(1, wanted.nodes + 1)}
    per_second = wanted.rate * wanted.nodes
    if quiet is None:
        quiet = per_second == 0 or per_second > QUIET_ABOVE_RATE
    stopping = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopping.set())
    kafka.ensure_topics(settings, sorted(set(topic_of.values())))
    producer = kafka.connect_producer(settings, linger_ms=5 if quiet else 0)
    with producer, open(csv_file or os.devnull, newline="", encoding="utf-8-sig") as file:
        readings = (
            csv_readings(file, column_of, wanted.nodes, settings)
            if csv_file
            else simulate_readings(settings, wanted.nodes, wanted.seed, shifts)
        )
        try:
            ready = paced(itertools.islice(readings, wanted.count), per_second, stopping)
            sent = publish_readings(producer, ready, topic_of, reading_format(settings), quiet)
        except ValueError as error:
            raise click.ClickException(f"{csv_file}: {error}") from error
    print(f"{sent} readings sent, all acknowledged", flush=True)


if __name__ == "__main__":
    main()
