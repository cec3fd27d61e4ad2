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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from kafka import KafkaProducer

from fedstream.broker import kafka
from fedstream.messages import door, readings, topics
from fedstream.messages.readings import READING_FIELDS
from fedstream.settings import Settings, command_help
from fedstream.simulation.rows import read_number, read_rows

TEMPERATURE_CELSIUS = (60.0, 90.0)
VIBRATION_G = (0.02, 0.1)
UNACKNOWLEDGED = 10_000  # most readings on their way to the broker
QUIET_ABOVE_RATE = 20.0  # readings a second; above it a terminal shows a count, not every reading

Reading = dict[str, Any]
Shifts = dict[int, tuple[float, float]]


def simulate_readings(nodes: int, seed: int | None, shifts: Shifts | None = None) -> Iterator[tuple[int, Reading]]:
    """Yield (node, reading) for ever, node after node; `shifts` moves a node's ranges by (°C, g).

    Temperature is uniform on 60-90 °C and vibration on 0.02-0.1 g; the label follows `readings.label_of`.
    """
    shifts = shifts or {}
    source = random.Random(seed)
    for node in itertools.cycle(range(1, nodes + 1)):
        warmer, stronger = shifts.get(node, (0.0, 0.0))
        temperature = round(source.uniform(*TEMPERATURE_CELSIUS) + warmer, 2)
        vibration = round(source.uniform(*VIBRATION_G) + stronger, 3)
        label = readings.label_of(temperature, vibration)
        yield node, {"sensor_id": f"node-{node}", "temperature": temperature, "vibration": vibration, "label": label}


def csv_readings(lines: Iterable[str], columns: dict[str, str], nodes: int) -> Iterator[tuple[int, Reading]]:
    """Yield (node, reading) for each row of a CSV file.

    `columns` maps a field to its column. Without a column for `sensor_id` the rows are dealt out to the nodes in turn;
    with one, each sensor belongs to a node, in the order in which the sensors appear. Without a column for `label` the
    label follows `readings.label_of`.

    Raises:
        ValueError: a column is missing, or a line cannot be read (`read_rows`), has no sensor, or a value that is no
            finite number; the text names line, column and value.
    """
    header, rows = read_rows(lines)
    column_of = {field: columns.get(field, field).strip() for field in READING_FIELDS}
    for field, column in column_of.items():
        if column not in header and (field in columns or field in ("temperature", "vibration")):
            msg = f"no column {column!r} for {field}; the file has {', '.join(header)}. Map it: --columns {field}=NAME"
            raise ValueError(msg)

    def number(line: int, row: dict[str, str], field: str, kind: type[int] | type[float]) -> Any:
        text = row[column_of[field]]
        try:
            return read_number(text, kind)
        except ValueError as error:
            expected = f"expected a {'whole ' if kind is int else ''}number: correct it, or leave out this row"
            msg = f"line {line}: {column_of[field]} is {text!r:.100}; {expected}"
            raise ValueError(msg) from error

    node_of: dict[str, int] = {}
    for index, (line, row) in enumerate(rows):
        if column_of["sensor_id"] in header:
            sensor_id = row[column_of["sensor_id"]]
            if not sensor_id:
                remedy = "fill it in, or leave out this row or the whole column"
                msg = f"line {line}: {column_of['sensor_id']} is ''; expected the name of a sensor: {remedy}"
                raise ValueError(msg)
            node = node_of.setdefault(sensor_id, len(node_of) % nodes + 1)
        else:
            node = index % nodes + 1
            sensor_id = f"node-{node}"
        temperature, vibration = number(line, row, "temperature", float), number(line, row, "vibration", float)
        reading = {"sensor_id": sensor_id, "temperature": temperature, "vibration": vibration}
        has_label = column_of["label"] in header
        reading["label"] = number(line, row, "label", int) if has_label else readings.label_of(temperature, vibration)
        if column_of["event_time"] in header:
            reading["event_time"] = number(line, row, "event_time", int)
        yield node, reading


def parse_shift(text: str) -> tuple[int, tuple[float, float]]:
    """Read NODE:CELSIUS:G, such as 2:10:0.02.

    Raises:
        ValueError: the text has another form.
    """
    node, warmer, stronger = text.split(":")
    shift = float(warmer), float(stronger)
    if not all(map(math.isfinite, shift)):
        msg = f"{text} is not finite"
        raise ValueError(msg)
    return int(node), shift


def parse_columns(text: str) -> dict[str, str]:
    """Read FIELD=COLUMN,FIELD=COLUMN.

    Raises:
        ValueError: the text has another form or names a field that readings do not have.
    """
    columns = dict(part.split("=", 1) for part in text.split(",")) if text else {}
    if unknown := sorted(set(columns) - set(READING_FIELDS)):
        msg = f"{', '.join(unknown)} is no field of a reading; expected {', '.join(READING_FIELDS)}"
        raise ValueError(msg)
    return columns


def paced(
    readings: Iterable[tuple[int, Reading]], per_second: float, stopping: threading.Event
) -> Iterator[tuple[int, Reading]]:
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
    producer: KafkaProducer, readings: Iterable[tuple[int, Reading]], topics: dict[int, str], quiet: bool
) -> int:
    """Send each reading to its node's topic, keyed by sensor, and return how many the broker acknowledged.

    Raises:
        click.ClickException: the broker did not take a reading in time.
    """
    sent = 0
    failed: list[BaseException] = []
    for node, reading in readings:
        delivery = producer.send(topics[node], key=reading["sensor_id"].encode(), value=door.encode(reading))
        delivery.add_errback(failed.append)
        sent += 1
        if not quiet:
            print(f"Node-{node}: {reading}", flush=True)
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


@click.command(help=command_help(__doc__), context_settings={"help_option_names": ["-h", "--help"]})
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
@click.option("--shift", multiple=True, metavar="NODE:CELSIUS:G", help="Move a node's ranges; repeatable.")
@click.option(
    "--csv", "csv_file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Replay this file."
)
@click.option("--columns", default="", metavar="FIELD=COLUMN,...", help="Columns of the CSV file, where they differ.")
@click.option("--topic", help="Send all to this topic, such as sensor-data. [default: sensor-data-node-N]")
@click.option(
    "--quiet/--no-quiet", default=None, help=f"Show a count only. [default: above {QUIET_ABOVE_RATE:g} a second]"
)
def main(
    nodes: int,
    rate: float,
    count: int | None,
    seed: int | None,
    shift: tuple[str, ...],
    csv_file: Path | None,
    columns: str,
    topic: str | None,
    quiet: bool | None,
) -> None:
    """Publish readings until the count is reached, the file ends, or SIGTERM or Ctrl-C comes."""
    settings = Settings.from_env(os.environ)
    try:
        shifts = dict(map(parse_shift, shift))
        column_of = parse_columns(columns)
    except ValueError as error:
        raise click.UsageError(f"--shift {' '.join(shift)} --columns {columns}: {error}") from error

    topics = {node: topic or topics.sensor_topic(node) for node in range(1, nodes + 1)}
    per_second = rate * nodes
    if quiet is None:
        quiet = per_second == 0 or per_second > QUIET_ABOVE_RATE
    stopping = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopping.set())
    kafka.ensure_topics(settings, sorted(set(topics.values())))
    producer = kafka.connect_producer(settings, linger_ms=5 if quiet else 0)
    with producer, open(csv_file or os.devnull, newline="", encoding="utf-8-sig") as file:
        readings = csv_readings(file, column_of, nodes) if csv_file else simulate_readings(nodes, seed, shifts)
        try:
            sent = publish_readings(
                producer, paced(itertools.islice(readings, count), per_second, stopping), topics, quiet
            )
        except ValueError as error:
            raise click.ClickException(f"{csv_file}: {error}") from error
    print(f"{sent} readings sent, all acknowledged", flush=True)


if __name__ == "__main__":
    main()
