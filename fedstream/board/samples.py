"""What a look at the newest records of the data topics tells: readings, squares and alerts are only sampled."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from fedstream.board.streams import durations
from fedstream.errors import BadMessage
from fedstream.messages.alerts import Alert
from fedstream.messages.door import decode
from fedstream.messages.numbers import Square
from fedstream.messages.topics import ALERTS, SENSOR_DATA, SQUARES, place_of

MOST_KEPT = 200  # of each kind
MOST_SHOWN = 10
MOST_CHARACTERS = 1000  # of a record that is shown

Row = dict[str, Any]


class Samples:
    """The newest records that were looked at, and what they say."""

    def __init__(self) -> None:
        """Begin before any look."""
        self._next: dict[tuple[str, int], int] = {}  # the first offset of each partition not looked at yet
        self._reading_sizes: deque[int] = deque(maxlen=MOST_KEPT)
        self._last: dict[str, tuple[str, str]] = {}  # place and text of the newest record
        self._squares: deque[Square] = deque(maxlen=MOST_KEPT)
        self._alerts: deque[Row] = deque(maxlen=MOST_KEPT)
        self.squares_checked = self.squares_wrong = 0

    def take(self, records: Sequence[Any]) -> None:
        """Take records; those that were looked at before change nothing."""
        for record in records:
            place = record.topic, record.partition
            if record.offset < self._next.get(place, 0):
                continue
            self._next[place] = record.offset + 1
            value = record.value or b""
            self._last[record.topic] = place_of(record), shown(value)
            if record.topic.startswith(SENSOR_DATA):
                self._reading_sizes.append(len(value))
            with suppress(BadMessage):
                if record.topic == SQUARES:
                    self._take_square(decode(Square, value))
                elif record.topic == ALERTS:
                    self._take_alert(decode(Alert, value), record)

    def _take_square(self, square: Square) -> None:
        self._squares.append(square)
        self.squares_checked += 1
        self.squares_wrong += square.square != square.n * square.n

    def _take_alert(self, alert: Alert, record: Any) -> None:
        kept = ("sensor_id", "probability", "alert", "model_version", "run_id", "scored_at")
        row: Row = {name: getattr(alert, name) for name in kept}
        self._alerts.append(
            row
            | {"delay_seconds": (alert.scored_at - alert.event_time) / 1000, "place": place_of(record)}
            | {"reading": (record.key or b"").decode(errors="replace")}  # topic/partition/offset
        )

    @property
    def reading_bytes(self) -> float:
        """The mean size of the newest readings, in bytes; 0 before the first."""
        return sum(self._reading_sizes) / len(self._reading_sizes) if self._reading_sizes else 0.0

    def last(self, topic: str) -> dict[str, str]:
        """Return the newest record of a topic that was looked at, and its place."""
        place, text = self._last.get(topic, ("", ""))
        return {"last": text, "last_place": place}

    def squares_row(self) -> Row:
        """Return what is to be said of the squares."""
        newest = [[each.n, each.square] for each in list(self._squares)[-MOST_SHOWN:]]
        return {"newest": newest, "checked": self.squares_checked, "wrong": self.squares_wrong}

    def alerts_row(self) -> Row | None:
        """Return what is to be said of the alerts; None before the first."""
        if not self._alerts:
            return None
        newest = list(self._alerts)
        return {
            "newest": newest[-MOST_SHOWN:][::-1],
            "sampled": len(newest),
            "share": sum(each["alert"] for each in newest) / len(newest),
            "delay_seconds": durations([each["delay_seconds"] for each in newest]),
            "version": newest[-1]["model_version"],
            "run_id": newest[-1]["run_id"],
        }


def shown(value: bytes) -> str:
    """Return a record as text, cut to a bearable length."""
    return value[: 4 * MOST_CHARACTERS].decode(errors="replace")[:MOST_CHARACTERS]
