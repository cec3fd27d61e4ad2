"""A data file as a table: its columns by name, its rows one after the other, and what becomes of bad ones.

CSV is cut by Python's csv, line by line, so that a stray quote cannot swallow rows; pyarrow reads Parquet, msgspec
JSON Lines. Whatever the size of a file, a few rows of it are in memory.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from fedstream.errors import SettingError, StackError
from fedstream.files.dialect import Dialect, Given, cannot_be_cut, recognise
from fedstream.files.values import Cell, read_comma_number, read_number

BEGIN_BYTES = 64
LONGEST_LINE = 131_072
BATCH_ROWS = 4096
SAMPLE_ROWS = 1000
REASONS_KEPT = 3

Row = tuple[int, Sequence[Cell]]  # the number of its line, and its values in the order of the columns


class BadRow(StackError):
    """A row that cannot be used; the text names file, line, column and value, what is expected and what to do."""


@dataclass
class BadRows:
    """What becomes of bad rows: the first one stops, or all are left out and counted."""

    skip: bool = False
    count: int = 0
    reasons: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return how many were left out, and why the first ones."""
        return "\n".join([f"{self.count} bad rows left out, such as", *(f"  {reason}" for reason in self.reasons)])

    def add(self, where: str, what: str) -> None:
        """Take a bad row.

        Raises:
            BadRow: the first one stops.
        """
        if not self.skip:
            raise BadRow(f"{where}: {what}")
        self.count += 1
        if self.count <= REASONS_KEPT:
            self.reasons.append(f"{where}: {what}")


@dataclass(frozen=True)
class Table:
    """A data file that was opened: nothing but its beginning has been read."""

    path: Path
    columns: tuple[str, ...]
    said: str  # how it is read, in one line
    number: Callable[[Cell], float]  # what reads its numbers
    read: Callable[[BadRows], Iterator[Row]]  # from the first row, each time it is called
    unit: str = "line"

    def where(self, line: int) -> str:
        """Return the place of a row as it is told."""
        return f"{self.path}, {self.unit} {line}"

    def place(self, column: str, option: str) -> int:
        """Return which of the columns has this name.

        Raises:
            SettingError: none has.
        """
        if column not in self.columns:
            has = ", ".join(map(repr, self.columns))
            raise SettingError(f"no column {column!r} {option}; {self.path} has {has}")
        return self.columns.index(column)

    def sample(self) -> list[Row]:
        """Return the first good rows."""
        return list(islice(self.read(BadRows(skip=True)), SAMPLE_ROWS))


def open_table(path: Path, given: Given, names: str = "") -> Table:
    """Open a CSV, Parquet or JSON Lines file.

    Args:
        path: the file.
        given: what is said of a CSV file.
        names: of its columns, as a line of CSV; they replace those of the file.

    Raises:
        SettingError: it cannot be opened, its columns have no names of their own, or an option has to decide.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(BEGIN_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {error.strerror}; expected a file of data") from error
    if begin.startswith((b"PAR1", b"{")):
        if names or given != Given():
            expected = (
                "expected CSV, which alone has --delimiter, --decimal, --encoding, --header, --skip-rows and --names"
            )
            raise SettingError(f"{path} is {'Parquet' if begin[:1] == b'P' else 'JSON Lines'}; {expected}")
        return _parquet(path) if begin[:1] == b"P" else _json_lines(path)
    for magic, what, remedy in (
        (b"PK\x03\x04", "a zip file, such as an Excel workbook", "save it as CSV UTF-8"),
        (b"\x1f\x8b", "compressed", "gunzip it"),
        (b"[", "a list", "write one object a line: jq -c '.[]' in.json > out.jsonl"),
    ):
        if begin.startswith(magic):
            raise SettingError(f"{path} is {what}; expected CSV, Parquet or JSON Lines: {remedy}")
    return _csv(path, given, names)


# --- CSV


def _csv(path: Path, given: Given, names: str) -> Table:
    dialect = recognise(path, given)
    columns = next(csv.reader([names], skipinitialspace=True), []) if names else _names(path, dialect)
    columns = [name.strip() for name in columns]
    if len(columns) > 1 and columns[-1] == "" and not names and _ends_empty(path, dialect, len(columns)):
        columns.pop()  # each line ends in a delimiter
    where = f"{path}, line {dialect.header or dialect.first_row}"
    _expect_different(columns, where, "; give all of them: --names NAME,NAME,…")
    number = read_comma_number if dialect.decimal == "," else read_number

    def read(bad: BadRows) -> Iterator[Row]:
        return _csv_rows(path, dialect, len(columns), bad)

    said = dialect.words if _ends(path) else f"{dialect.words}; the last line does not end: is the file complete?"
    return Table(path, tuple(columns), f"{path.name}: {said}", number, read)


def _ends(path: Path) -> bool:
    """Tell whether the last line has an end: without one, its last number may be cut off and yet be a number."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2))  # a character of UTF-16
        return file.read().strip(b"\0").endswith((b"\n", b"\r"))


def _expect_different(columns: Sequence[str], where: str, remedy: str = "") -> None:
    for name in columns:
        if columns.count(name) > 1:
            raise SettingError(f"{where}: column {name or repr(name)} is there twice; expected different names{remedy}")


def _names(path: Path, dialect: Dialect) -> list[str]:
    if dialect.header is None:
        expected = "expected a line of names: give them with --names NAME,NAME,…, or say which it is, --header LINE"
        raise SettingError(f"{path}, line {dialect.first_row}: a row without names above it; {expected}")
    for line, text in _lines(path, dialect):
        if line == dialect.header:
            try:
                if names := dialect.cut(text):
                    return names
            except csv.Error as error:
                raise SettingError(f"{path}, line {line}: {cannot_be_cut(text, error)}") from error
    expected = "expected a header with the names of the columns"
    raise SettingError(f"{path}, line {dialect.header}: the file is empty; {expected}")


def _ends_empty(path: Path, dialect: Dialect, width: int) -> bool:
    rows = (values for _, values in islice(_csv_rows(path, dialect, width, BadRows(skip=True)), SAMPLE_ROWS))
    return all(values[-1] == "" for values in rows if len(values) == width)


def _csv_rows(path: Path, dialect: Dialect, width: int, bad: BadRows) -> Iterator[Row]:
    more = 0  # an empty value after the last one, in each row
    is_first = True
    cut = dialect.cut
    for line, text in _lines(path, dialect):
        if line < dialect.first_row:
            continue
        where = f"{path}, line {line}"
        if len(text) > LONGEST_LINE:
            bad.add(where, f"more than {LONGEST_LINE} characters, {text!r:.100}; expected a row of values")
            continue
        try:
            values = cut(text)
        except csv.Error as error:
            bad.add(where, cannot_be_cut(text, error))
            continue
        if not values:
            continue
        if is_first:
            more = int(len(values) == width + 1 and values[-1] == "")
            is_first = False
        if len(values) != width + more or (more and values[-1]):
            bad.add(where, _wrong_length(text, len(values), width, dialect))
        elif not text.isascii() and (odd := _undecoded(text)):
            bad.add(where, f"byte 0x{odd:02x} is not {dialect.encoding}; say in which encoding: --encoding")
        else:
            yield line, values


def _lines(path: Path, dialect: Dialect) -> Iterator[tuple[int, str]]:
    """Yield each line with its number; of one that is too long, its beginning."""
    # Bytes that are no characters are kept for the message that tells them.
    with path.open(encoding=dialect.encoding, errors="surrogateescape") as file:
        line = 0
        try:
            while text := file.readline(LONGEST_LINE + 1):
                line += 1
                yield line, text
                while len(text) > LONGEST_LINE and not text.endswith("\n"):
                    text = file.readline(LONGEST_LINE + 1)
        except UnicodeError as error:
            msg = f"{path}, after line {line}: not {dialect.encoding} ({error}); say in which: --encoding"
            raise BadRow(msg) from error


def _undecoded(text: str) -> int | None:
    return next((ord(char) - 0xDC00 for char in text if 0xDC80 <= ord(char) <= 0xDCFF), None)


def _wrong_length(text: str, length: int, width: int, dialect: Dialect) -> str:
    remedy = "leave the place of a missing value empty, or leave out this row (--on-bad-row skip)"
    if length > width:
        remedy = "write quotes around a value that has a delimiter, or name the delimiter: --delimiter"
        if dialect.delimiter == ",":
            remedy = "write 71.5 for 71,5 or quotes around it (a decimal comma makes two values)"
    return f"{length} values; expected {width} as in the header, got {text.rstrip()!r:.100}: {remedy}"


# --- Parquet and JSON Lines


def _parquet(path: Path) -> Table:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            columns, count = tuple(file.schema_arrow.names), file.metadata.num_rows
    except (ArrowException, OSError) as error:
        raise SettingError(f"{path} cannot be read as Parquet: {error}") from error
    _expect_different(columns, str(path))

    def read(bad: BadRows) -> Iterator[Row]:
        with parquet.ParquetFile(path) as file:
            batches = file.iter_batches(BATCH_ROWS)
            rows = (row for batch in batches for row in zip(*(column.to_pylist() for column in batch), strict=True))
            yield from enumerate(rows, start=1)

    return Table(path, columns, f"{path.name}: Parquet, {count} rows", read_number, read, "row")


def _json_lines(path: Path) -> Table:
    columns: dict[str, None] = {}  # in the order in which they appear
    plain = Dialect(",", ".", "utf-8-sig", None, 1)
    for _, found in islice(_objects(path, plain, BadRows(skip=True)), SAMPLE_ROWS):
        columns |= dict.fromkeys(found)

    def read(bad: BadRows) -> Iterator[Row]:
        for line, found in _objects(path, plain, bad):
            yield line, [found.get(column) for column in columns]

    return Table(path, tuple(columns), f"{path.name}: JSON Lines", read_number, read)


def _objects(path: Path, plain: Dialect, bad: BadRows) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each object with its line; those of an object inside are named `outer.inner`."""
    decoder = msgspec.json.Decoder(dict[str, Any])
    for line, text in _lines(path, plain):
        if not text.strip():
            continue
        try:
            found = decoder.decode(text)
        except (ValueError, RecursionError) as error:  # also of bytes that are no characters
            bad.add(f"{path}, line {line}", f"{text.strip()!r:.100} is no JSON object ({error}); expected one a line")
            continue
        flat: dict[str, Any] = {}
        for name, value in found.items():
            flat |= (
                {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
            )
        yield line, flat
