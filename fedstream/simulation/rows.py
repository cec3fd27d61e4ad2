"""CSV files, line by line: a row is read as it is meant, or refused with its line."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator
from typing import TypeVar

Number = TypeVar("Number", int, float)


class BadRow(ValueError):
    """A line of a CSV file that cannot be used; the text names the line, what is expected and what to do."""


def read_rows(lines: Iterable[str]) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """Return a CSV file's header, and its rows: the number of the line, and each column's value.

    Blanks around names and values do not count, and empty lines are left out. A quote inside a value that does not
    begin with one is a character like any other.

    Raises:
        BadRow: there is no header, or a column is there twice. The rows raise it for a line of another number of values
            than the header, and for a quote that is not closed on its line.
    """
    cut = _cut(lines)
    line, _, header = next(cut, (0, "", []))
    if not header:
        raise BadRow("line 1: the file is empty; expected a header with the names of the columns")
    for name in header:
        if header.count(name) > 1:
            expected = "expected different names: rename one, or leave the column out"
            msg = f"line {line}: column {name or repr(name)} is there twice; {expected}"
            raise BadRow(msg)

    def rows() -> Iterator[tuple[int, dict[str, str]]]:
        for line, text, values in cut:
            if len(values) != len(header):
                more = (
                    "write 71.5 for 71,5, and quotes around a value that has a comma (a decimal comma makes two values)"
                )
                less = "leave the place of a missing value empty, between its commas, or leave out this row"
                remedy = more if len(values) > len(header) else less
                expected = f"expected {len(header)} as in the header"
                msg = f"line {line}: {len(values)} values; {expected}, got {text!r:.100}: {remedy}"
                raise BadRow(msg)
            yield line, dict(zip(header, values, strict=True))

    return header, rows()


def _cut(lines: Iterable[str]) -> Iterator[tuple[int, str, list[str]]]:
    """Yield the number, the text and the values of each line that is not empty."""
    for line, text in enumerate(lines, start=1):
        try:
            # Each line by itself: with one reader for all, a quote that is not closed would swallow the next lines.
            values = next(csv.reader([text], strict=True, skipinitialspace=True), [])
        except csv.Error as error:
            expected = "expected a quote at both ends of a value or at neither, and no line break inside"
            msg = f"line {line}: {text.rstrip()!r:.100} cannot be cut into values ({error}); {expected}"
            raise BadRow(msg) from error
        if values:
            yield line, text.rstrip(), [value.strip() for value in values]


def read_number(text: str, kind: type[Number]) -> Number:
    """Return the number of this kind that a value says.

    Raises:
        ValueError: it says none, or none that is finite, or as only Python reads it (1_000, digits of other scripts).
    """
    if "_" in text or not text.isascii() or not math.isfinite(float(text)):
        msg = f"{text!r:.100} is no finite number in plain digits"
        raise ValueError(msg)
    return kind(text)
