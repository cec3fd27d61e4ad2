"""What one cell of a data file says: a number, a label, a time; or why it says none.

A cell of a CSV file is a text. Parquet and JSON Lines have numbers, too, and times; None is a missing value.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

from fedstream.messages.readings import EPOCH, ISO_TIME, LAST_TIME, time_ms

Cell = Any  # str, int, float, bool, date, datetime or None

MISSING = ("", "na", "n/a", "#n/a", "nan", "null", "none", "?", "-")  # as programs write a value that is missing
NUMBER = r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?"  # with either decimal mark
LABELS = {word: 1 for word in ("true", "yes", "vrai", "oui")} | {word: 0 for word in ("false", "no", "faux", "non")}
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
# Where the unit of a time is not given, one of them alone must make it a time of these years.
FIRST_YEAR, LAST_YEAR = 1990, 2100
_FIRST, _LAST = (datetime(year, 1, 1, tzinfo=UTC).timestamp() for year in (FIRST_YEAR, LAST_YEAR))


def is_missing(cell: Cell) -> bool:
    """Tell whether a cell holds no value, however that is written."""
    if isinstance(cell, str):
        return cell.lower() in MISSING
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def spelled(cell: Cell) -> str:
    """Return a cell as a text; a whole number has no decimals.

    >>> spelled(3.0), spelled("3.0"), spelled(None)
    ('3', '3.0', '')
    """
    if isinstance(cell, str):
        return cell
    if cell is None:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def read_number(cell: Cell) -> float:
    """Return the number that a cell says.

    Raises:
        ValueError: it says none, or none that is finite, or as only Python reads it (1_000, digits of other scripts).
    """
    if type(cell) is not str:
        msg = f"{cell!r:.100} is no finite number"
        if cell is None or isinstance(cell, (bool, datetime)):
            raise ValueError(msg)
        try:
            value = float(cell)
        except OverflowError:  # a whole number of JSON has no limit
            value = math.inf
        if not math.isfinite(value):
            raise ValueError(msg)
        return value
    value = float(cell)
    if not math.isfinite(value) or "_" in cell or not cell.isascii():
        msg = f"{cell!r:.100} is no finite number in plain digits"
        raise ValueError(msg)
    return value


def read_comma_number(cell: Cell) -> float:
    """Return the number that a cell with a decimal comma says.

    Raises:
        ValueError: as `read_number`; a text with a point says none.
    """
    if type(cell) is str:
        if "." in cell:
            msg = f"{cell!r:.100} has a point; expected a decimal comma"
            raise ValueError(msg)
        cell = cell.replace(",", ".", 1)
    return read_number(cell)


@functools.lru_cache(maxsize=1000, typed=True)
def read_label(cell: Cell, classes: int, positive: str | None = None) -> int | None:
    """Return the class of a label, from 0 to classes - 1, or None where it is missing.

    Args:
        cell: 0, 1.0, true, yes, oui …; with more than two classes a whole number.
        classes: how many there are.
        positive: with two classes, the label that means 1; any other one means 0.

    Raises:
        ValueError: it is none of them.
    """
    if is_missing(cell):
        return None
    text = spelled(cell).lower()
    if positive is not None:
        return int(_same(text, positive.lower()))
    number = float(text) if re.fullmatch(NUMBER, text, re.ASCII) and "," not in text else math.nan
    if number.is_integer() and 0 <= number < classes:
        return int(number)
    if classes > 2 or text not in LABELS:
        raise ValueError(text)
    return LABELS[text]


def _same(text: str, other: str) -> bool:
    try:
        return text == other or float(text) == float(other)
    except ValueError:
        return False


def read_time(cell: Cell, number: Callable[[Cell], float] = read_number, unit: str | None = None) -> int:
    """Return a time in ms since 1970.

    Args:
        cell: a number since 1970, or ISO 8601 (UTC if it has no zone).
        number: how this file's numbers are read.
        unit: of a number, one of PER_SECOND; or the form of a text, such as %d/%m/%Y %H:%M (UTC if it has no %z).

    Raises:
        ValueError: it is no time; or the unit is not given, and could be one or the other.

    Example:
        >>> read_time("1768636493"), read_time("2026-01-17T07:54:53Z"), read_time("17/01/2026", unit="%d/%m/%Y")
        (1768636493000, 1768636493000, 1768608000000)
    """
    if isinstance(cell, datetime):
        return _since_1970(cell)
    if isinstance(cell, date):
        cell = cell.isoformat()
    if unit and "%" in unit:
        return _since_1970(datetime.strptime(spelled(cell), unit))
    if isinstance(cell, str) and re.fullmatch(ISO_TIME, cell, re.ASCII):
        return time_ms(cell)
    value = number(cell)
    units = [unit] if unit else [name for name, per in PER_SECOND.items() if _FIRST <= value / per < _LAST]
    time = round(value * 1000 / PER_SECOND[units[0]]) if units else -1
    if not 0 <= time <= LAST_TIME:
        raise ValueError(cell)
    return time


def _since_1970(moment: datetime) -> int:
    time = ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // timedelta(milliseconds=1)
    if not 0 <= time <= LAST_TIME:
        raise ValueError(moment)
    return time
