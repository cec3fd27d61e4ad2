"""The squares: numbers in lines, what is shown of a batch, the files, and the relay that outlives the producer."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import socket
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest
from pyspark.sql import Row

from fedstream.spark.lines import complete_lines

LINES_DDL = "value STRING, timestamp TIMESTAMP"
SECONDS = 30.0  # longest wait for a line


@pytest.fixture(scope="module")
def squares(script) -> ModuleType:
    """Return the job script."""
    return script("socket_stream/consumer.py")


# --- lines and squares

# Line, number, square; None where there is none of 64 bits.
LINES = [
    ("59", 59, 3481),
    ("0", 0, 0),
    ("-7", -7, 49),
    ("+5", 5, 25),
    ("  12  ", 12, 144),
    ("007", 7, 49),
    ("1.5", None, None),
    ("1.0", None, None),
    ("1e3", None, None),
    ("hello", None, None),
    ("12 13", None, None),
    ("0x10", None, None),
    ("NaN", None, None),
    ("true", None, None),
    ("--5", None, None),
    ("5-", None, None),
    ("", None, None),
    ("   ", None, None),
    (None, None, None),
    # sqrt(2^63 - 1) is 3037000499.97: 3037000499^2 = 9223372030926249001 is the last square below 2^63.
    ("3037000499", 3_037_000_499, 9_223_372_030_926_249_001),
    ("-3037000499", -3_037_000_499, 9_223_372_030_926_249_001),
    ("3037000500", 3_037_000_500, None),
    ("9223372036854775807", 2**63 - 1, None),
    ("-9223372036854775808", -(2**63), None),
    ("9223372036854775808", None, None),
    ("-9223372036854775809", None, None),
    ("9" * 4000, None, None),
]


@pytest.fixture(scope="module")
def squared(squares, spark) -> dict[str, Row]:
    """Return the squares of all LINES, computed in one job."""
    frame = spark.createDataFrame([(line, datetime(2026, 1, 1)) for line, _, _ in LINES], LINES_DDL)
    return {row.line: row for row in squares.square_lines(frame).collect()}


@pytest.mark.parametrize(("line", "number", "square"), LINES, ids=[f"{line!s:.25}" for line, _, _ in LINES])
def test_a_line_gives_its_number_and_square_or_none(squared, line, number, square):
    assert (squared[line].n, squared[line].square) == (number, square)


def test_the_oracle_agrees_with_python():
    assert all(square == number**2 for _, number, square in LINES if square is not None)
    assert all(number is None or number**2 >= 2**63 for _, number, square in LINES if square is None)


def test_lines_of_text_files_are_squared(squares, spark, tmp_path):
    (tmp_path / "numbers.txt").write_text("3\r\n-4\n\nfive\n")
    lines = spark.read.text(str(tmp_path / "numbers.txt")).selectExpr("value", "current_timestamp() AS timestamp")
    rows = squares.square_lines(lines).collect()
    assert sorted((row.n, row.square) for row in rows if row.square is not None) == [(-4, 16), (3, 9)]
    assert sum(row.square is None for row in rows) == 2


# --- what is shown

BEGIN = datetime(2026, 11, 22, 6, 0, 0)


def row(number: int | None, square: int | None, line: str, milliseconds: int = 0) -> Row:
    """Return a row that came in so many milliseconds after the first."""
    return Row(n=number, square=square, line=line, timestamp=BEGIN + timedelta(milliseconds=milliseconds))


def test_a_report_shows_the_time_and_the_pairs_in_order_of_arrival(squares):
    rows = [row(7, 49, "7", 2), row(-59, 3481, "-59", 0), row(5, 25, "5", 1)]
    assert squares.report(rows, "2026-11-22 06:00:01") == (
        "-------------------------------------------\n"
        "Time: 2026-11-22 06:00:01\n"
        "-------------------------------------------\n"
        "(-59, 3481)\n"
        "(5, 25)\n"
        "(7, 49)\n"
    )


def test_of_more_than_ten_pairs_the_first_ten_are_shown_and_all_are_counted(squares):
    rows = [row(number, number**2, str(number), number) for number in range(1, 13)]
    lines = squares.report(rows, "t").splitlines()
    assert lines[3:] == [f"({number}, {number**2})" for number in range(1, 11)] + ["... (12 nombres)"]


def test_of_ten_pairs_all_are_shown_and_none_is_left_to_count(squares):
    rows = [row(number, number**2, str(number), number) for number in range(1, 11)]
    assert squares.report(rows, "t").splitlines()[3:] == [f"({number}, {number**2})" for number in range(1, 11)]


def test_lines_without_a_square_are_counted_and_shown_below(squares):
    rows = [row(None, None, "hello\t", 1), row(2, 4, "2", 2), row(2**32, None, "4294967296", 3), row(None, None, "", 4)]
    assert squares.report(rows, "t").splitlines()[3:] == [
        "(2, 4)",
        r"3 ligne(s) sans entier de 64 bits, ignorée(s) : 'hello\t', '4294967296', ''",
    ]


def test_many_and_long_bad_lines_are_counted_in_full_and_shown_in_part(squares):
    rows = [row(None, None, "x" * 4096, number) for number in range(25)]
    (line,) = squares.report(rows, "t").splitlines()[3:]
    assert line.startswith("25 ligne(s) sans entier")
    assert line.count("'" + "x" * 100 + "'") == 10
    assert len(line) < 1200


# --- the query


def arrive(topic, *lines: str) -> None:
    """Let lines arrive in this order, as one micro-batch."""
    begin = BEGIN + timedelta(minutes=topic.files)
    topic.append_lines(
        json.dumps({"value": line, "timestamp": f"{begin + timedelta(milliseconds=number):%Y-%m-%dT%H:%M:%S.%fZ}"})
        for number, line in enumerate(lines)
    )


@pytest.fixture
def run(squares, spark, topic, run_driver, tmp_path) -> Callable[..., list[str]]:
    """Return a function that processes all lines and gives what was shown of each batch."""

    def run(output: str | None = None, output_format: str = "parquet") -> list[str]:
        shown: list[str] = []
        writer = squares.build_query(topic.read(spark, LINES_DDL), shown.append, output, output_format)
        query = run_driver(writer.option("checkpointLocation", str(tmp_path / "checkpoint")), tmp_path)
        assert query.name == "squares"
        return shown

    return run


def test_each_batch_is_shown_with_its_time(run, topic):
    arrive(topic, "59", "hello", "-7")
    arrive(topic, "8")
    first, second = run()
    rule, time, rule_again, *pairs = first.splitlines()
    assert rule == rule_again == "-" * 43
    assert re.fullmatch(r"Time: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", time)
    assert abs(datetime.now() - datetime.fromisoformat(time.removeprefix("Time: "))) < timedelta(minutes=2)
    assert pairs == ["(59, 3481)", "(-7, 49)", "1 ligne(s) sans entier de 64 bits, ignorée(s) : 'hello'"]
    assert second.splitlines()[3:] == ["(8, 64)"]


def test_a_batch_of_bad_lines_only_is_shown_and_the_stream_goes_on(run, topic):
    arrive(topic, "hello", "9223372036854775807")
    arrive(topic, "3")
    bad, good = run()
    assert "2 ligne(s) sans entier de 64 bits, ignorée(s) : 'hello', '9223372036854775807'" in bad
    assert "(3, 9)" in good


@pytest.mark.parametrize("output_format", ["parquet", "csv"])
def test_the_pairs_of_all_batches_are_in_files_with_a_header_in_order_of_arrival(run, topic, tmp_path, output_format):
    arrive(topic, "59", "hello", "3037000499")
    arrive(topic, "-7")
    arrive(topic, "bad", "lines", "only")
    run(str(tmp_path / "output"), output_format)
    files = sorted((tmp_path / "output").iterdir())
    assert len(files) in (1, 2)  # two if a minute ended in between
    read = {"csv": read_csv, "parquet": lambda path: pq.read_table(path).to_pylist()}[output_format]
    pairs = [(row["n"], row["square"]) for path in files for row in read(path)]
    assert pairs == [(59, 3481), (3_037_000_499, 9_223_372_030_926_249_001), (-7, 49)]


def read_csv(path: Path) -> list[dict[str, int]]:
    """Return the rows of a file as Python's own reader gives them."""
    with path.open(newline="") as file:
        return [{name: int(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_parquet_files_hold_two_columns_of_64_bits(run, topic, tmp_path):
    arrive(topic, "59")
    run(str(tmp_path / "output"))
    [path] = (tmp_path / "output").iterdir()
    assert [(field.name, str(field.type)) for field in pq.read_schema(path)] == [("n", "int64"), ("square", "int64")]


def test_each_minute_has_a_file_of_its_own_and_a_crowded_one_several(squares, tmp_path, monkeypatch):
    monkeypatch.setattr(squares, "MOST_PAIRS", 3)
    files = squares.MinuteFiles(tmp_path, "csv")
    for second, numbers in ((0, [1]), (59, [2, 3]), (59.5, [4]), (60, [5])):
        files.add([{"n": n, "square": n * n} for n in numbers], BEGIN + timedelta(seconds=second))
    found = {path.name: [row["n"] for row in read_csv(path)] for path in sorted(tmp_path.iterdir())}
    assert found == {
        "squares-20261122T060000.000000Z.csv": [1, 2, 3],
        "squares-20261122T060059.500000Z.csv": [4],
        "squares-20261122T060100.000000Z.csv": [5],
    }


WRITER = """
import importlib.util, sys
from datetime import UTC, datetime
from pathlib import Path
spec = importlib.util.spec_from_file_location("consumer", "socket_stream/consumer.py")
consumer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(consumer)
files = consumer.MinuteFiles(Path(sys.argv[1]), "csv")
for n in range(int(sys.argv[2]), 10**9):
    files.add([{"n": n, "square": n * n}], datetime.now(UTC))
    print(n, flush=True)  # as the job shows a micro-batch, after its file
"""


def test_after_a_kill_each_pair_that_was_shown_is_in_one_whole_file_once(program, tmp_path):
    next_number = 0
    for _ in range(3):
        with program("-c", WRITER, str(tmp_path), str(next_number)) as process:
            for _ in range(20):
                last = int(process.stdout.readline())
            process.kill()
            rest, _ = process.communicate()
        next_number = int((rest.split() or [last])[-1]) + 1
        # The one that it was about to show may be in the file already, and is not sent again.
        written = max(row["n"] for path in tmp_path.glob("*.csv") for row in read_csv(path))
        assert written in (next_number - 1, next_number)
        next_number = written + 1
    rows = [row for path in sorted(tmp_path.glob("*.csv")) for row in read_csv(path)]
    assert [row["n"] for row in rows] == list(range(next_number))
    assert all(row["square"] == row["n"] ** 2 for row in rows)


def test_without_output_no_file_is_written(run, topic, tmp_path):
    arrive(topic, "59")
    run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "topic"]


# --- the relay

RELAY = """
import importlib.util, sys, threading
from fedstream.spark import lines
spec = importlib.util.spec_from_file_location("consumer", "socket_stream/consumer.py")
consumer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(consumer)
lines.RECONNECT_SECONDS = 0.02
print(consumer.relay_lines("127.0.0.1", int(sys.argv[1])), flush=True)
threading.Event().wait()
"""


@contextlib.contextmanager
def relay(program, port: int) -> Iterator[io.BufferedReader]:
    """Run a relay of a producer's port in a process of its own and connect to it, as Spark's source does."""
    with program("-c", RELAY, str(port)) as process:
        local_port = process.stdout.readline()
        assert local_port, process.stderr.read()
        with (
            socket.create_connection(("127.0.0.1", int(local_port)), timeout=SECONDS) as connection,
            connection.makefile("rb") as lines,
        ):
            yield lines


def listen(port: int = 0) -> socket.socket:
    """Return a producer's socket; a port that was in use a moment ago can be used again."""
    server = socket.create_server(("127.0.0.1", port))
    server.settimeout(SECONDS)
    return server


def test_the_relay_passes_on_complete_lines_only_and_outlives_the_producer(program):
    with listen() as server:
        port = server.getsockname()[1]
        with relay(program, port) as lines:
            producer, _ = server.accept()
            with producer:
                producer.sendall(b"1\n2")
                assert lines.readline() == b"1\n"
                producer.sendall(b"2\n33")
                assert lines.readline() == b"22\n"
            # It died in the middle of a number: 33 might have become 3345. It comes back, at once, then anew.
            producer, _ = server.accept()
            with producer:
                producer.sendall(b"4\n")
                assert lines.readline() == b"4\n"
            server.close()
            with listen(port) as restarted:
                producer, _ = restarted.accept()
                with producer:
                    producer.sendall(b"5\nlast\n")
                    assert [lines.readline(), lines.readline()] == [b"5\n", b"last\n"]


def test_the_relay_waits_for_a_producer_that_is_not_there_yet(program):
    with listen() as server:
        port = server.getsockname()[1]
    with relay(program, port) as lines, listen(port) as server:
        producer, _ = server.accept()
        with producer:
            producer.sendall(b"1\n")
            assert lines.readline() == b"1\n"


def test_a_line_without_an_end_is_passed_on_in_bounded_pieces_that_are_no_numbers(program):
    with listen() as server, relay(program, server.getsockname()[1]) as lines:
        producer, _ = server.accept()
        with producer:
            producer.sendall(b"x" * 3 * 4096)
            pieces = [lines.readline(10_000)]  # it comes although the line has not ended
            producer.sendall(b"\n7\n")
            pieces += iter(lambda: lines.readline(10_000), b"7\n")
    assert pieces[0].startswith(b"x" * 1000)
    assert all(len(piece) <= 4097 and piece.endswith(b"\n") for piece in pieces)
    assert not any(piece.strip().isdigit() for piece in pieces)


def test_the_end_of_an_over_long_line_is_no_number_of_its_own():
    chunks = [b"x" * 4096, b"42\n" + b"y" * 8192 + b"43\n7", b"\n" + b"1" * 5000 + b"\n8\n"]
    numbers = [int(line) for line in complete_lines(chunks) if line.strip().isdigit() and len(line) < 100]
    assert numbers == [7, 8]


def test_a_line_of_exactly_the_longest_length_stays_whole():
    line = b"x" * 4095 + b"\n"
    assert list(complete_lines([line + b"7\n"])) == [line, b"7\n"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CR LF", "CR"])
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_lines_end_as_their_producer_ends_them_however_they_arrive(end, size):
    sent = end.join([b"1", b"22", b"333", b""]) + b"4"  # the last one is cut off
    chunks = [sent[at : at + size] for at in range(0, len(sent), size)]
    assert list(complete_lines(chunks)) == [b"1\n", b"22\n", b"333\n"]
