"""What would be sent, before anything is: columns taken, first values, counts, shares of the labels, limits passed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice

from rich.table import Table as Shown

from fedstream.features import Feature
from fedstream.files.readings import Replay
from fedstream.files.table import SAMPLE_ROWS
from fedstream.messages.readings import EPOCH, Reading
from fedstream.tables import make_table

FIRST = 3


@dataclass
class Range:
    """What a feature's values are like."""

    feature: Feature
    first: list[float] = field(default_factory=list)
    low: float = float("inf")
    high: float = float("-inf")
    outside: int = 0  # of its limits

    def add(self, value: float) -> None:
        """Take a value."""
        if len(self.first) < FIRST:
            self.first.append(value)
        self.low, self.high = min(self.low, value), max(self.high, value)
        self.outside += not self.feature.low <= value <= self.feature.high


@dataclass
class Preview:
    """What readings are like, all together."""

    ranges: list[Range]
    positive: str | None = None  # the label that means 1, where it was given
    count: int = 0
    first: list[Reading] = field(default_factory=list)
    labels: Counter[int | None] = field(default_factory=Counter)
    nodes: Counter[int] = field(default_factory=Counter)

    @property
    def shares(self) -> str:
        """How often each label is there."""
        counted = sorted(self.labels.items(), key=lambda item: (item[0] is None, item[0]))
        parts = [f"{'none' if label is None else label}: {n} ({n / self.count:.1%})" for label, n in counted]
        return ", ".join(parts)

    @property
    def warnings(self) -> list[str]:
        """What is to be said before anything is sent."""
        found = [
            f"{each.feature.name}: {each.outside} of {self.count} values are not {each.feature.expected}, as FEATURES "
            f"says: they lie from {each.low:g} to {each.high:g}; such readings become dead letters. "
            "Another column, another unit?"
            for each in self.ranges
            if each.outside
        ]
        if self.positive is not None and self.count and not self.labels[1]:
            found.append(f"no label is {self.positive!r} (--positive), so all are 0. Another spelling?")
        return found


def preview(replay: Replay, most: int | None = SAMPLE_ROWS) -> Preview:
    """Read a replay, as many readings of it as are asked for, and tell what they are like.

    Raises:
        BadRow: a row cannot be used, unless such rows are skipped.
    """
    meaning = replay.readers[0].meaning
    found = Preview([Range(feature) for feature in meaning.settings.table], meaning.positive)
    for node, reading in islice(replay, most):
        found.count += 1
        if len(found.first) < FIRST:
            found.first.append(reading)
        found.labels[reading.label] += 1
        found.nodes[node] += 1
        for each, value in zip(found.ranges, reading.values, strict=True):
            each.add(value)
    return found


def preview_table(replay: Replay, found: Preview) -> Shown:
    """Return a preview as a table, a line for each field."""
    reader = replay.readers[0]
    columns = {name: reader.table.columns[place] for name, place in reader.fields.items()}
    shown = make_table(f"{found.count} readings", "field", "column", "first", "lowest", "highest", "outside limits")
    for column in shown.columns[:3]:
        column.justify = "left"
    for name, values in (
        ("sensor_id", [reading.sensor_id for reading in found.first]),
        ("event_time", [_shown_time(reading.event_time) for reading in found.first[:2]]),
        ("label", [reading.label for reading in found.first]),
    ):
        shown.add_row(
            name, columns.get(name, "-"), ", ".join(map(str, values)) if any(v is not None for v in values) else "-"
        )
    for each in found.ranges:
        low, high = (f"{each.low:g}", f"{each.high:g}") if found.count else ("-", "-")
        first = ", ".join(f"{value:g}" for value in each.first)
        shown.add_row(each.feature.name, columns[each.feature.name], first, low, high, str(each.outside))
    return shown


def _shown_time(milliseconds: int | None) -> str | None:
    """Return a time so that a wrong unit is seen at once."""
    if milliseconds is None:
        return None
    return (EPOCH + timedelta(milliseconds=milliseconds)).isoformat().replace("+00:00", "Z")
