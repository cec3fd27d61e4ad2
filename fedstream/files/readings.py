"""Rows of data files as readings: which column is which field, which node gets a row, how far a replay is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from fedstream.errors import SettingError
from fedstream.files.table import BadRows, Row, Table
from fedstream.files.values import FIRST_YEAR, LABELS, LAST_YEAR, Cell, read_label, read_number, read_time, spelled
from fedstream.messages.readings import Reading
from fedstream.settings import Settings

SKIP = "correct it, or leave out this row (--on-bad-row skip)"
NAMES_SHOWN = 12


@dataclass(frozen=True)
class Meaning:
    """What the columns of a file mean, as the settings and options say."""

    settings: Settings
    label_of: Callable[[Sequence[float]], int]  # what labels values where the file has no labels
    columns: Mapping[str, str] = field(default_factory=dict)  # field: column, where FIELDS does not say it
    leave_out: tuple[str, ...] = ()
    positive: str | None = None  # the label that means 1
    time_unit: str | None = None

    def fields(self, table: Table) -> dict[str, int]:
        """Return the place of each field's column among the columns of a file.

        Raises:
            SettingError: a feature or a field that was mapped has no column.
        """
        for name in self.leave_out:
            table.place(name, "to leave out")
        found = {}
        for name, column in (self.settings.paths | dict(self.columns)).items():
            is_there = column in table.columns and column not in self.leave_out
            if is_there or name in self.columns or name in self.settings.feature_names:
                place = table.place(column, f"for {name} (--column {name}=COLUMN maps it)")
                if not is_there:
                    raise SettingError(f"--leave-out {column!r}; expected another column, since {name} is read from it")
                found[name] = place
        if self.positive is not None and "label" not in found:
            raise SettingError(f"--positive is {self.positive!r}; expected a column of labels: --column label=COLUMN")
        return found


class RowReader:
    """What makes the rows of one file into readings."""

    def __init__(self, table: Table, meaning: Meaning, sensor_id: str | None = None) -> None:
        """Find the columns.

        Args:
            table: the file.
            meaning: of its columns.
            sensor_id: of each row, where the file has no column for it.

        Raises:
            SettingError: one is missing.
        """
        self.table = table
        self.meaning = meaning
        self.fields = meaning.fields(table)
        self.sensor_id = sensor_id
        self.features = [self.fields[name] for name in meaning.settings.feature_names]
        self._label = self.fields.get("label")
        self._time = self.fields.get("event_time")
        self._sensor = self.fields.get("sensor_id")

    @property
    def said(self) -> str:
        """Which columns are taken, in one line."""
        taken = {place: name for name, place in self.fields.items()}
        pairs = [
            name if name == self.table.columns[i] else f"{name} = {self.table.columns[i]}" for i, name in taken.items()
        ]
        rest = [name or "a column without a name" for i, name in enumerate(self.table.columns) if i not in taken]
        more = [f"and {len(rest) - NAMES_SHOWN} more"] if len(rest) > NAMES_SHOWN else []
        left = f"; left out: {', '.join(rest[:NAMES_SHOWN] + more)}" if rest else ""
        rule = "" if "label" in self.fields else "; label by LABEL_RULE"
        return f"taken: {', '.join(pairs)}{rule}{left}"

    def reading(self, cells: Sequence[Cell], sensor_id: str) -> Reading:
        """Return the reading of a row; `sensor_id` is taken where the file has no column for it.

        Raises:
            ValueError: a value cannot be used; the text names column and value.
        """
        number, settings = self.table.number, self.meaning.settings
        try:
            values = tuple([number(cells[i]) for i in self.features])
        except (ValueError, TypeError) as error:
            raise self._bad_number(cells) from error
        if self._label is None:
            label: int | None = self.meaning.label_of(values)
        else:
            try:
                label = read_label(cells[self._label], settings.classes, self.meaning.positive)
            except (ValueError, TypeError) as error:
                raise self._bad(cells, self._label, self._expected_label()) from error
            if label is None and settings.labels != "optional":
                raise self._bad(cells, self._label, "a label (LABELS=optional takes readings without)")
        if self._sensor is not None:
            sensor_id = spelled(cells[self._sensor])
            if not sensor_id:
                raise self._bad(cells, self._sensor, "the name of a sensor; --leave-out leaves out the whole column")
        return Reading(sensor_id, values, label, None if self._time is None else self._event_time(cells, self._time))

    def _event_time(self, cells: Sequence[Cell], place: int) -> int:
        try:
            return read_time(cells[place], self.table.number, self.meaning.time_unit)
        except (ValueError, TypeError) as error:
            unit = self.meaning.time_unit
            expected = (
                f"a time in {unit} (--time-unit)"
                if unit
                else f"ISO 8601 (2026-11-22T10:00:00Z), or a number in s, ms, µs or ns between {FIRST_YEAR} and "
                f"{LAST_YEAR}; another one: --time-unit; another form: --time-unit '%d/%m/%Y %H:%M'"
            )
            raise self._bad(cells, place, expected) from error

    def _expected_label(self) -> str:
        classes = self.meaning.settings.classes
        if classes > 2:
            return f"a whole number from 0 to {classes - 1}"
        return f"0 or 1, or {', '.join(LABELS)}, or what --positive says"

    def _bad_number(self, cells: Sequence[Cell]) -> ValueError:
        for i in self.features:
            try:
                self.table.number(cells[i])
            except (ValueError, TypeError):
                return self._bad(cells, i, f"a number{self._hint(spelled(cells[i]))}")
        raise AssertionError(cells)

    def _hint(self, text: str) -> str:
        if re.fullmatch(r"[+-]?\d+([\s'’]\d{3})+([.,]\d+)?", text):
            return " without marks between its thousands"
        if "," in text and self.table.number is read_number:
            return " with a decimal point; --decimal , reads commas"
        return ""

    def _bad(self, cells: Sequence[Cell], place: int, expected: str) -> ValueError:
        shown = cells[place] if isinstance(cells[place], str) else spelled(cells[place])
        return ValueError(f"{self.table.columns[place]} is {shown!r:.100}; expected {expected}: {SKIP}")


class Replay:
    """The readings of data files, a row of each in turn, each with its node; and how far each file is.

    A sensor's rows go to one node; the nodes are dealt out in the order in which the sensors appear. Without a column
    of sensors the rows of a single file are dealt out to the nodes, and each of several files is a sensor.
    """

    def __init__(self, tables: Sequence[Table], meaning: Meaning, nodes: int, bad: BadRows) -> None:
        """Find the columns of each file.

        Raises:
            SettingError: one is missing.
        """
        is_one = len(tables) == 1
        self.readers = [RowReader(table, meaning, None if is_one else table.path.stem) for table in tables]
        self.nodes = nodes
        self.bad = bad
        self.last: dict[str, Row] = {}  # the row of each file that was sent last
        self._newest: tuple[str, Row] | None = None  # the row that was passed on last, with its file
        self._done: dict[str, tuple[int, list[str]]] = {}  # to go on behind

    def count_sent(self) -> None:
        """Take it that the reading that was passed on last is sent: it need not be, if it is time to stop."""
        if self._newest:
            path, row = self._newest
            self.last[path] = row

    def save(self, path: Path) -> None:
        """Write down how far each file is."""
        found = {name: (line, list(map(spelled, cells))) for name, (line, cells) in self.last.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(found))
        new.replace(path)

    def resume(self, path: Path) -> None:
        """Pass on only what comes behind the rows that were written down; all of it where none were."""
        if path.exists():
            self._done = msgspec.json.decode(path.read_bytes(), type=dict[str, tuple[int, list[str]]])
        self.last = dict(self._done)

    def __iter__(self) -> Iterator[tuple[int, Reading]]:
        """Yield (node, reading).

        Raises:
            BadRow: a row cannot be used, unless such rows are skipped.
            SettingError: a row behind which to go on is another one now.
        """
        node_of: dict[str, int] = {}
        turns = [(reader, str(reader.table.path.resolve()), reader.table.read(self.bad)) for reader in self.readers]
        dealt = 0
        while turns:
            for turn in list(turns):
                reader, path, rows = turn
                row = next(rows, None)
                if row is None:
                    self._expect_passed(path)
                    turns.remove(turn)
                    continue
                line, cells = row
                try:
                    reading = reader.reading(cells, reader.sensor_id or f"node-{dealt % self.nodes + 1}")
                except ValueError as error:
                    self.bad.add(reader.table.where(line), str(error))
                    continue
                node = node_of.setdefault(reading.sensor_id, len(node_of) % self.nodes + 1)
                dealt += 1
                if path in self._done:
                    self._pass(path, line, cells)
                    continue
                self._newest = path, row
                yield node, reading

    def _pass(self, path: str, line: int, cells: Sequence[Cell]) -> None:
        if line == self._done[path][0] and list(map(spelled, cells)) == self._done[path][1]:
            del self._done[path]
        elif line >= self._done[path][0]:
            self._expect_passed(path)

    def _expect_passed(self, path: str) -> None:
        if path in self._done:
            line, cells = self._done[path]
            row = ", ".join(cells)
            msg = f"{path}: line {line} was sent last, {row!r:.100}, and is another one now; expected the same file: "
            raise SettingError(msg + "send it from its beginning (without --resume)")
