"""Files as odd as people's: each is read as Python's own reader of the same dialect gives it, or refused.

ODD_FILES=10000 tries as many; without it 200.
"""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from fedstream.errors import StackError
from fedstream.files.dialect import Given
from fedstream.files.table import BadRows, open_table

FILES = int(os.environ.get("ODD_FILES", "200"))
NAMES = (
    "temperature",
    "Air temperature [K]",
    "vibration",
    "Pièce",
    "remark",
    "a,b",
    "x;y",
    "id",
    "ts",
    'say "g"',
    "é|ù",
)
TEXTS = ("ok", "", "NA", "belt 5 slipping", 'inch" pipe', "à voir", "a,b", "x;y", "two\nlines", "1|2", " padded ", "-")


@dataclass(frozen=True)
class OddFile:
    """A file, and what it was written with."""

    content: bytes
    text: str
    delimiter: str
    decimal: str
    numbers: dict[str, float]  # each number by its spelling


@st.composite
def odd_files(draw) -> OddFile:
    """Return a file in some dialect, with some of the faults that files have."""
    delimiter = draw(st.sampled_from([",", ";", "\t", "|"]))
    decimal = draw(st.sampled_from([".", ","]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "cp1252", "utf-16"]))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=6, unique=draw(st.integers(0, 9)) > 0))
    are_numbers = [draw(st.integers(0, 3)) > 0 for _ in names]
    are_numbers[draw(st.integers(0, len(names) - 1))] = True
    numbers: dict[str, float] = {}
    table = [list(names)]
    for _ in range(draw(st.integers(1, 12))):
        row = []
        for is_number in are_numbers:
            if is_number and draw(st.integers(0, 19)):
                text = draw(st.sampled_from(["{:.1f}", "{:.3f}", "{:.0f}", "{:g}"])).format(draw(st.floats(-99, 3000)))
                numbers[text.replace(".", decimal)] = float(text)
                row.append(text.replace(".", decimal))
            else:
                row.append(draw(st.sampled_from(TEXTS)))
        if draw(st.integers(0, 29)) == 0:
            row = row[:-1] if draw(st.booleans()) else [*row, "surplus"]
        table.append(row)
    if draw(st.integers(0, 5)) == 0:
        table = [[*row, ""] for row in table]  # a delimiter at the end of each row
    written = io.StringIO()
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
    csv.writer(written, delimiter=delimiter, quoting=quoting, lineterminator="\n").writerows(table)
    text = written.getvalue()
    if draw(st.integers(0, 9)) == 0:
        place = draw(st.integers(0, len(text)))
        text = text[:place] + '"' + text[place:]  # a stray quote
    if draw(st.integers(0, 9)) == 0:
        text = text[: draw(st.integers(1, len(text)))]  # cut off
    if draw(st.integers(0, 9)) == 0:
        text = text.replace(delimiter, f"{delimiter} ")
    text = text.replace("\n", end)
    return OddFile(text.encode(encoding), text, delimiter, decimal, numbers)


def oracle(odd: OddFile) -> list[list[str]]:
    """Return what Python's reader makes of a file: rows of values without blanks around them."""
    lines = io.StringIO(odd.text, newline="")
    rows = csv.reader(lines, delimiter=odd.delimiter, skipinitialspace=True)
    return [[value.strip() for value in row] for row in rows if any(value.strip() for value in row) or len(row) > 1]


@settings(max_examples=FILES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=FILES == 200)
@given(odd=odd_files())
def test_a_file_is_read_as_pythons_own_reader_of_its_dialect_does_or_refused(odd, tmp_path_factory):
    path: Path = tmp_path_factory.getbasetemp() / "odd.csv"
    path.write_bytes(odd.content)
    try:
        table = open_table(path, Given())
        rows = [list(cells) for _, cells in table.read(BadRows())]
    except StackError:
        event("refused")
        return
    event("read")
    header, *expected = oracle(odd) or [[]]
    if not (rows or expected):
        return  # a header alone, of which nothing is read: no row shows what stands between its names
    # An empty name at the end of the header, and an empty value at the end of each row, are no column.
    width = len(table.columns)
    assert list(table.columns) == header[:width]
    assert not any(header[width:])
    assert [row[:width] for row in rows] == [row[:width] for row in expected]
    assert not any(value for row in expected for value in row[width:])
    for spelling in (value for row in rows for value in row if value in odd.numbers):
        assert table.number(spelling) == odd.numbers[spelling]
