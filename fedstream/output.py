"""Rows as files that people open: CSV, Parquet or JSON lines, as the file's name ends."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedstream.errors import StackError

Row = Mapping[str, Any]
# Where a spreadsheet begins a cell, also one that has another delimiter than ours, it takes these for a formula.
FORMULA = re.compile(r"(^|[;,|\t\r\n])(?=[=+\-@＝＋－＠])")
Columns = Mapping[str, type]  # name -> int, float, str, bool, or datetime, which rows hold in ms since 1970


def check_name(path: Path) -> None:
    """Refuse a file whose name says no kind of file, before anything is read for it.

    Raises:
        StackError: it ends otherwise.
    """
    if path.suffix not in _WRITERS:
        raise StackError(f"--output is {path}; expected a name that ends in {' or '.join(_WRITERS)}")


def write_rows(rows: Sequence[Row], columns: Columns, path: Path) -> None:
    """Replace a file at once by one with these rows: whoever opens it finds the old one or the new one, and no half.

    Args:
        rows: each with a value, or None, for every column; what else a row has is left out.
        columns: names and kinds, in order. A time is written in ISO 8601, in Parquet as a timestamp in ms. In CSV a
            text that a spreadsheet would take for a formula gets a ' before it (OWASP, CSV injection).
        path: its ending says how it is written; its folder is made if it is missing.

    Raises:
        StackError: its name ends otherwise, or it cannot be written.
    """
    check_name(path)
    unfinished = path.with_name(f".{path.name}.unfinished")  # hidden from *.csv
    content = _WRITERS[path.suffix](rows, columns)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise StackError(f"cannot write {path}: {error.strerror or error}") from error


def _readable(rows: Sequence[Row], columns: Columns) -> list[dict[str, Any]]:
    return [
        {name: _time(row[name]) if kind is datetime else row[name] for name, kind in columns.items()} for row in rows
    ]


def _time(milliseconds: int | None) -> Any:
    if milliseconds is None:
        return None
    with suppress(ValueError, OverflowError, OSError):  # beyond the year 9999
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
    return milliseconds


def _csv(rows: Sequence[Row], columns: Columns) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    for row in _readable(rows, columns):
        writer.writerow({name: _harmless(cell) if isinstance(cell, str) else cell for name, cell in row.items()})
    return text.getvalue().encode()


def _harmless(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula; a number is none.

    >>> _harmless("=1+1"), _harmless("-1.5"), _harmless("node-1"), _harmless("a;@b")
    ("'=1+1", '-1.5', 'node-1', "a;'@b")
    """
    with suppress(ValueError):
        float(text)
        return text
    return FORMULA.sub(r"\1'", text)


def _json_lines(rows: Sequence[Row], columns: Columns) -> bytes:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in _readable(rows, columns)).encode()


def _parquet(rows: Sequence[Row], columns: Columns) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}
    kinds[datetime] = pa.timestamp("ms", tz="UTC")
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), file)
    return file.getvalue()


_WRITERS: dict[str, Callable[[Sequence[Row], Columns], bytes]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".jsonl": _json_lines,
}
