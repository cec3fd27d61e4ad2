"""Sensor producer: publishes simulated readings, or those of a CSV file, to the fog nodes' topics.

    node-1 --> sensor-data-node-1, node-2 --> sensor-data-node-2, ...   (or all --> one --topic)

Examples:
    python producer/sensor_producer.py
    python producer/sensor_producer.py --nodes 4 --rate 1000 --count 100000 --seed 7
    python producer/sensor_producer.py --shift 2:10:0.02
    python producer/sensor_producer.py --csv machines.csv --rate 50 --columns temperature=temp_c,vibration=vib_g
    python producer/sensor_producer.py --csv machines.csv --dry-run --column "temperature=Air temperature [K]"
"""

from __future__ import annotations

import itertools
import math
import os
import random
import signal
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from kafka import KafkaProducer

from fedstream.broker import kafka
from fedstream.errors import SettingError
from fedstream.features import Feature
from fedstream.files.options import FileOptions, data_files, file_options, take_file_options
from fedstream.files.preview import preview, preview_table
from fedstream.files.readings import Meaning, Replay
from fedstream.files.table import BadRow, BadRows, open_table
from fedstream.files.values import PER_SECOND
from fedstream.messages.readings import Reading, ReadingFormat, reading_format
from fedstream.messages.topics import sensor_topic
from fedstream.settings import Settings
from fedstream.simulation.sensors import digits, label_of, label_rule, simulated_ranges
from fedstream.tables import make_console
from fedstream.terminal import Command

UNACKNOWLEDGED = 10_000  # most readings on their way to the broker
SETTLE_SECONDS = 1.0  # how far a replay is, is written down as often
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


def parse_columns(text: str, single: Sequence[str], settings: Settings) -> dict[str, str]:
    """Read FIELD=COLUMN,FIELD=COLUMN, and such pairs one by one, whose column may have a comma in its name.

    Raises:
        ValueError: a part has another form or names a field that readings do not have.
    """
    pairs = [part.partition("=") for part in [*(text.split(",") if text else ()), *single]]
    if bad := next((field for field, equals, column in pairs if not equals or not column.strip()), None):
        msg = f"{bad!r}; expected FIELD=COLUMN (--column takes one pair, whose column may have a comma in its name)"
        raise ValueError(msg)
    columns = {field.strip(): column.strip() for field, _, column in pairs}
    if unknown := sorted(set(columns) - set(settings.paths)):
        msg = f"{', '.join(unknown)} is no field of a reading; expected {', '.join(settings.paths)}"
        raise ValueError(msg)
    return columns


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


@dataclass(frozen=True)
class Progress:
    """How far a replay is, and the file that remembers it."""

    replay: Replay
    place: Path

    def save(self) -> None:
        """Write down what was sent, when the broker has acknowledged it."""
        self.replay.save(self.place)

    def resume(self) -> None:
        """Go on behind what was written down, and say where that is."""
        self.replay.resume(self.place)
        for path, (line, _) in self.replay.last.items():
            click.echo(f"{path}: goes on behind line {line}", err=True)
        if not self.replay.last:
            click.echo("no replay of these files to these topics was begun: all is sent", err=True)


@dataclass
class Sender:
    """Sends readings to their nodes' topics, keyed by sensor, and counts them."""

    producer: KafkaProducer
    topics: Mapping[int, str]
    form: ReadingFormat
    quiet: bool
    progress: Progress | None = None
    sent: int = 0

    def send_all(self, readings: Iterable[tuple[int, Reading]]) -> int:
        """Send each reading, and return how many the broker acknowledged.

        Raises:
            click.ClickException: the broker did not take a reading in time.
        """
        failed: list[BaseException] = []
        settled = time.monotonic()
        try:
            for node, reading in readings:
                value = self.form.encode(reading)
                self.producer.send(self.topics[node], key=reading.sensor_id.encode(), value=value).add_errback(
                    failed.append
                )
                self.sent += 1
                if self.progress:
                    self.progress.replay.count_sent()
                self._show(node, reading)
                is_due = self.progress and time.monotonic() >= settled + SETTLE_SECONDS
                # The client buffers without limit: a slow broker would fill the memory.
                if is_due or self.sent % UNACKNOWLEDGED == 0:
                    self._settle(failed)
                    settled = time.monotonic()
                if failed:
                    break
        finally:
            self._settle(failed)
        return self.sent

    def _settle(self, failed: Sequence[BaseException]) -> None:
        self.producer.flush()
        if failed:
            raise click.ClickException(f"the broker did not take a reading: {failed[0]!r}")
        if self.progress:
            self.progress.save()

    def _show(self, node: int, reading: Reading) -> None:
        if not self.quiet:
            print(f"Node-{node}: {self.form.message(reading)}", flush=True)
        elif self.sent == 1:
            print("first reading sent", flush=True)
        elif self.sent % UNACKNOWLEDGED == 0:
            print(f"{self.sent} readings sent", flush=True)


@dataclass(frozen=True)
class Wanted:
    """How many readings go where, and how fast: the options of these names."""

    nodes: int
    rate: float  # readings per second and node, 0 = as fast as possible
    count: int | None
    seed: int | None
    topic: str | None

    @property
    def per_second(self) -> float:
        """Readings a second of all nodes together."""
        return self.rate * self.nodes

    @property
    def topics(self) -> dict[int, str]:
        """The topic of each node."""
        return {node: self.topic or sensor_topic(node) for node in range(1, self.nodes + 1)}


def _files(_: click.Context, __: click.Parameter, text: str | None) -> list[Path]:
    try:
        return data_files(text) if text is not None else []
    except SettingError as error:
        raise click.BadParameter(error.message) from error


def _time_unit(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    unit = text.replace("µ", "u") if text else None
    if unit and unit not in PER_SECOND and "%" not in unit:
        raise click.BadParameter(f"{text!r}; expected {', '.join(PER_SECOND)}, or a form such as '%d/%m/%Y %H:%M'")
    return unit


def open_replay(files: Sequence[Path], options: FileOptions, meaning: Meaning, nodes: int) -> Replay:
    """Open data files for a replay, and say how they are read, which columns are taken, and what is odd about them.

    Raises:
        SettingError: one cannot be read.
    """
    tables = [open_table(path, options.given, options.names) for path in files]
    replay = Replay(tables, meaning, nodes, BadRows(options.on_bad_row == "skip"))
    for reader in replay.readers:
        click.echo(f"{reader.table.said}; {reader.said}", err=True)
    # The first rows by a replay of their own: bad rows are told where they stand in the one that is sent.
    for warning in preview(Replay(tables, meaning, nodes, BadRows(skip=True))).warnings:
        click.echo(f"Warning: in the first rows {warning}", err=True)
    return replay


def show_preview(replay: Replay) -> None:
    """Show what would be sent.

    Raises:
        BadRow: a row cannot be used, and such rows are not to be skipped; told when all is shown.
    """
    stops, replay.bad.skip = not replay.bad.skip, True
    found = preview(replay, most=None)
    make_console().print(preview_table(replay, found))
    nodes = ", ".join(f"node {node}: {count}" for node, count in sorted(found.nodes.items()))
    click.echo(f"labels: {found.shares or '-'}\n{nodes or 'no readings'}")
    if replay.bad.count:
        click.echo(f"{replay.bad}")
    for warning in found.warnings:
        click.echo(f"Warning: {warning}", err=True)
    click.echo("nothing was sent (--dry-run)")
    if stops and replay.bad.count:
        raise BadRow(f"bad rows: {replay.bad.count}; the first stops a replay: correct them, or --on-bad-row skip")


def place_of(replay: Replay, topics: Mapping[int, str], settings: Settings) -> Path:
    """Return where it is kept how far a replay is: beside the checkpoints, so that `make clean` deletes it, too."""
    files = [reader.table.path.resolve() for reader in replay.readers]
    names = "\n".join([*map(str, files), *sorted(set(topics.values()))])
    return settings.checkpoint_dir / "sensors" / f"{files[0].stem}-{zlib.crc32(names.encode()):08x}.json"


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
@click.option("--topic", help="Send all to this topic, such as sensor-data. [default: sensor-data-node-N]")
@click.option(
    "--quiet/--no-quiet", default=None, help=f"Show a count only. [default: above {QUIET_ABOVE_RATE:g} a second]"
)
@click.option(
    "--csv",
    "files",
    metavar="FILE",
    callback=_files,
    help="Replay this file, or those of a 'pattern*': CSV, Parquet, JSON Lines.",
)
@click.option("--columns", default="", metavar="FIELD=COLUMN,...", help="Columns of the file, where they differ.")
@click.option("--column", multiple=True, metavar="FIELD=COLUMN", help="One of them, with any name; repeatable.")
@click.option("--positive", metavar="LABEL", help="The label that means 1; any other means 0.")
@click.option(
    "--time-unit",
    metavar="UNIT",
    callback=_time_unit,
    help=f"Of event_time: {', '.join(PER_SECOND)}, or a form such as '%d/%m/%Y %H:%M'.",
)
@file_options
@click.option("--dry-run", is_flag=True, help="Show what would be sent.")
@click.option("--resume", is_flag=True, help="Go on where a replay of this file stopped.")
def main(shift: tuple[str, ...], quiet: bool | None, dry_run: bool, resume: bool, **given: Any) -> None:
    """Publish readings until the count is reached, the file ends, or SIGTERM or Ctrl-C comes."""
    settings = Settings.from_env(os.environ)
    replay = _replay(settings, given)
    wanted = Wanted(**given)
    try:
        shifts = dict(parse_shift(each, settings.table) for each in shift)
    except ValueError as error:
        raise click.UsageError(f"--shift {' '.join(shift)}: {error}") from error
    if replay is None and (dry_run or resume):
        raise click.UsageError("--dry-run and --resume are for a file; expected --csv FILE")
    if quiet is None:
        quiet = wanted.per_second == 0 or wanted.per_second > QUIET_ABOVE_RATE
    if replay is None:
        send(simulate_readings(settings, wanted.nodes, wanted.seed, shifts), wanted, quiet, settings)
        return
    if dry_run:
        show_preview(replay)
        return
    progress = Progress(replay, place_of(replay, wanted.topics, settings))
    if resume:
        progress.resume()
    send(replay, wanted, quiet, settings, progress)
    if replay.bad.count:
        print(replay.bad)


def send(
    readings: Iterable[tuple[int, Reading]],
    wanted: Wanted,
    quiet: bool,
    settings: Settings,
    progress: Progress | None = None,
) -> None:
    """Send readings at the wanted rate, until they end or it is time to stop, and say how many were sent.

    Raises:
        click.ClickException: a row cannot be used, or the broker did not take a reading in time.
    """
    stopping = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopping.set())
    kafka.ensure_topics(settings, sorted(set(wanted.topics.values())))
    with kafka.connect_producer(settings, linger_ms=5 if quiet else 0) as producer:
        sender = Sender(producer, wanted.topics, reading_format(settings), quiet, progress)
        try:
            sender.send_all(paced(itertools.islice(readings, wanted.count), wanted.per_second, stopping))
        except BadRow as error:
            before = f"{sender.sent} readings were sent before it, all acknowledged"
            msg = f"{error.message}. {before}: --resume goes on behind them, --on-bad-row skip leaves such rows out"
            raise click.ClickException(msg) from error
    print(f"{sender.sent} readings sent, all acknowledged", flush=True)
    if progress and stopping.is_set():
        print("stopped before the end of the file: --resume goes on there", flush=True)


def _replay(settings: Settings, given: dict[str, Any]) -> Replay | None:
    """Return the replay that is asked for, and take its options out of what was given."""
    options, rule = take_file_options(given), label_rule(settings)
    files, text, single, positive, unit = map(given.pop, ("files", "columns", "column", "positive", "time_unit"))
    try:
        columns = parse_columns(text, single, settings)
    except ValueError as error:
        raise click.UsageError(f"--columns {text}: {error}") from error
    meaning = Meaning(
        settings, lambda values: label_of(values, rule, settings.classes), columns, options.leave_out, positive, unit
    )
    return open_replay(files, options, meaning, given["nodes"]) if files else None


if __name__ == "__main__":
    main()
