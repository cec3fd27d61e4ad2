"""Squares consumer: reads numbers from a socket and prints each with its square, in micro-batches of one second.

    socket producer --> [n, n²] --> console (with --output also a file for each minute)

Examples:
    spark-submit socket_stream/consumer.py
    spark-submit socket_stream/consumer.py --host producer --port 9999 --output /data/output/squares --format csv

A file of --output is whole at any moment, also after a kill: each micro-batch replaces it by one with its pairs behind
those before. A driver that starts again begins a file of its own; what the producer sends meanwhile is in none.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql.streaming.readwriter import DataStreamWriter

from fedstream.output import write_rows
from fedstream.settings import Settings
from fedstream.spark import session
from fedstream.spark.lines import follow_lines
from fedstream.terminal import Command

SHOWN = 10  # as many rows of a micro-batch are printed, as pprint(num=10) does in the report
MOST_PAIRS = 100_000  # after which a file ends within its minute: its pairs are in memory until then


def square_lines(lines: DataFrame) -> DataFrame:
    """Turn lines (value, timestamp) into (n, square, line); n or square is null where there is no 64-bit result."""
    number = F.expr("try_cast(trim(value) AS BIGINT)")
    return lines.select(
        number.alias("n"), F.try_multiply(number, number).alias("square"), F.col("value").alias("line"), "timestamp"
    )


def by_arrival(rows: list[Row]) -> list[Row]:
    """Return rows in order of arrival."""
    return sorted(rows, key=lambda row: row.timestamp)


def report(rows: list[Row], time_text: str) -> str:
    """Return what is printed of a micro-batch: its time, the first pairs in order of arrival, and the bad lines."""
    ordered = by_arrival(rows)
    good = [f"({row.n}, {row.square})" for row in ordered if row.square is not None]
    bad = [repr(row.line[: SHOWN * 10]) for row in ordered if row.square is None]
    rule = "-------------------------------------------"
    text = [rule, f"Time: {time_text}", rule, *good[:SHOWN]]
    if len(good) > SHOWN:
        text.append(f"... ({len(good)} nombres)")
    if bad:
        text.append(f"{len(bad)} ligne(s) sans entier de 64 bits, ignorée(s) : {', '.join(bad[:SHOWN])}")
    return "\n".join([*text, ""])


class MinuteFiles:
    """The pairs of each minute in a file of its own: `squares-20261122T060000.123456Z.csv`, by its first micro-batch.

    The socket source never gives a micro-batch a second time, so no pair comes twice.
    """

    def __init__(self, folder: Path, ending: str) -> None:
        """Begin without a file."""
        self._folder, self._ending = folder, ending
        self._minute, self._path = datetime.min, folder
        self._pairs: list[dict[str, int]] = []

    def add(self, pairs: list[dict[str, int]], now: datetime) -> None:
        """Add a micro-batch's pairs to the file of its minute.

        Raises:
            StackError: the file cannot be written.
        """
        minute = now.replace(second=0, microsecond=0)
        if minute != self._minute or len(self._pairs) >= MOST_PAIRS:
            self._minute, self._pairs = minute, []
            self._path = self._folder / f"squares-{now:%Y%m%dT%H%M%S.%f}Z.{self._ending}"
        self._pairs += pairs
        write_rows(self._pairs, {"n": int, "square": int}, self._path)


def build_query(
    lines: DataFrame, show: Callable[[str], None], output: str | None = None, output_format: str = "parquet"
) -> DataStreamWriter:
    """Return the unstarted query: lines (value, timestamp) in, one report a second to `show`, pairs to files."""
    files = MinuteFiles(Path(output), output_format) if output else None

    def handle_batch(batch: DataFrame, batch_id: int) -> None:
        # The socket source holds a batch's lines on the driver anyway, so collecting them bounds nothing further.
        rows = batch.collect()
        pairs = [{"n": row.n, "square": row.square} for row in by_arrival(rows) if row.square is not None]
        if files and pairs:
            files.add(pairs, datetime.now(UTC))
        if rows:
            show(report(rows, f"{datetime.now():%Y-%m-%d %H:%M:%S}"))

    return (
        square_lines(lines)
        .writeStream.queryName("squares")
        .foreachBatch(handle_batch)
        .trigger(processingTime="1 second")
    )


def relay_lines(host: str, port: int) -> int:
    """Pass the producer's lines on at a local port, connecting again whenever the producer comes back.

    Spark's socket source reads on after its peer has gone and never connects again; this peer never goes.

    Returns:
        The local port, which serves one client: the source.
    """
    server = socket.create_server(("127.0.0.1", 0))

    def pump() -> None:
        client, _ = server.accept()
        for line in follow_lines(host, port):
            client.sendall(line)

    threading.Thread(target=pump, daemon=True).start()
    return int(server.getsockname()[1])


@click.command(cls=Command, help=__doc__)
@click.option("--host", help="Host of the producer. [default: setting NUMBERS_HOST]")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the producer. [default: setting NUMBERS_PORT]")
@click.option("--output", help="Folder for files with the pairs, one a minute.")
@click.option("--format", "output_format", type=click.Choice(["parquet", "csv"]), default="parquet", show_default=True)
def main(host: str | None, port: int | None, output: str | None, output_format: str) -> None:
    """Print squares until it is stopped."""
    settings = Settings.from_env(os.environ)
    spark = session.start_session("RealTimeSquareCalculator", settings)
    local_port = relay_lines(host or settings.numbers_host, port or settings.numbers_port)
    lines = (
        spark.readStream.format("socket")
        .option("host", "127.0.0.1")
        .option("port", local_port)
        .option("includeTimestamp", "true")
        .option("numPartitions", 2)  # one task for each worker
        .load()
    )
    query = build_query(lines, partial(print, flush=True), output and os.path.abspath(output), output_format)
    session.run_query(settings, query, ready="Consommateur prêt à traiter les données...")


if __name__ == "__main__":
    main()
