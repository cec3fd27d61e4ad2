"""A reading of a sensor: the features of FEATURES, who measured them, their label, and when.

    {"sensor_id":"node-1","temperature":72.48,"vibration":0.071,"label":0}         optional: "event_time"

Which values there are, and under which names a producer has them, say the settings FEATURES, FIELDS, LABELS and
CLASSES. From them follows the type of the message, and from that everything that is checked.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from operator import attrgetter
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from fedstream.errors import BadMessage
from fedstream.learning.arrays import Matrix
from fedstream.messages import door
from fedstream.settings import Settings

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Below the first a time is in seconds, below the second in ms, below the third in µs since 1970: until the year 5138.
SECONDS_BELOW, MILLISECONDS_BELOW, MICROSECONDS_BELOW = 1e11, 1e14, 1e17
LAST_TIME = 99_999_999_999_999  # in ms
ISO_TIME = r"(19[7-9]\d|[2-4]\d{3})-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.]\d{1,9})?)?(Z|[+-](0\d|1[0-4]):[0-5]\d)?)?"
NUMERIC_TIME = r"\d{1,17}([.]\d*)?([eE][+]?\d{1,3})?"
TIME = "a time since 1970 in s, ms or µs, or in ISO 8601 (2026-11-22T10:00:00Z)"


class Reading(msgspec.Struct, frozen=True, gc=False):
    """One reading: its values in the order of FEATURES, its label (None: it has none), its time in ms since 1970."""

    sensor_id: str
    values: tuple[float, ...]
    label: int | None = None
    event_time: int | None = None


class ReadingFormat:
    """How readings are written and read, as the settings say."""

    def __init__(self, settings: Settings) -> None:
        """Build the type of the message."""
        self.features = settings.table
        self.names = tuple(feature.name for feature in self.features)
        self.paths = settings.paths
        self.max_value_bytes = settings.max_value_bytes
        classes = settings.classes
        is_optional = settings.labels == "optional"
        label = "the whole number 0 or 1" if classes == 2 else f"a whole number from 0 to {classes - 1}"
        expected = {feature.name: feature.expected for feature in self.features}
        expected |= {"sensor_id": "the name of a sensor: a text or a whole number", "label": label, "event_time": TIME}
        self.expected = {self.paths[name]: words for name, words in expected.items()}
        sensor: Any = Annotated[str, Meta(min_length=1)] | int
        number: Any = Annotated[int, Meta(ge=0, le=classes - 1)]
        kinds: dict[str, Any] = {"sensor_id": sensor}
        kinds |= {each.name: Annotated[float, Meta(ge=each.low, le=each.high)] for each in self.features}
        kinds |= {"label": number | None if is_optional else number, "event_time": int | float | str | None}
        kinds = {name: Annotated[kind, Meta(description=f"expected: {expected[name]}")] for name, kind in kinds.items()}
        defaults = {"event_time": None} | ({"label": None} if is_optional else {})
        self.kind = _message_type(kinds, defaults, self.paths)
        self._sensor = msgspec.json.Decoder(_message_type({"sensor_id": kinds["sensor_id"]}, {}, self.paths))
        places = {name: _attribute(self.paths[name], name) for name in kinds}
        self._values = attrgetter(*(places[name] for name in self.names))
        self._rest = attrgetter(*(places[name] for name in ("sensor_id", "label", "event_time")))

    def decode(self, value: bytes | None) -> Reading:
        """Return the reading that a record holds.

        Raises:
            BadMessage: it holds none; the text names field, value and what is expected.
        """
        if value and len(value) > self.max_value_bytes:
            msg = f"value of {len(value)} bytes; expected at most MAX_VALUE_BYTES={self.max_value_bytes}"
            raise BadMessage(msg)
        found = door.decode(self.kind, value, self.expected)
        values = self._values(found) if len(self.names) > 1 else (self._values(found),)
        sensor_id, label, event_time = self._rest(found)
        if event_time is not None:
            try:
                event_time = time_ms(event_time)
            except ValueError as error:
                shown = f"{door.encode(event_time).decode():.{door.LONGEST_SHOWN}}"
                msg = f"{self.paths['event_time']} is {shown}; expected {TIME}"
                raise BadMessage(msg) from error
        return Reading(sensor_id if type(sensor_id) is str else str(sensor_id), values, label, event_time)

    def sensor_of(self, value: bytes | None) -> str | None:
        """Return the name of the sensor in a record that is no reading, or None if it names none."""
        try:
            found = self._sensor.decode(value or b"")
        except (ValueError, RecursionError):
            return None
        for name in _attribute(self.paths["sensor_id"], "sensor_id").split("."):
            found = getattr(found, name)
        return str(found)

    def message(self, reading: Reading) -> dict[str, Any]:
        """Return a reading with the names of FIELDS."""
        parts = {"sensor_id": reading.sensor_id, **dict(zip(self.names, reading.values, strict=True))}
        parts |= {"label": reading.label} if reading.label is not None else {}
        time = reading.event_time
        if time is not None:  # before 1973 a time in ms would be taken for one in seconds
            parts["event_time"] = time if time >= SECONDS_BELOW else time / 1000
        message: dict[str, Any] = {}
        for name, value in parts.items():
            group, _, inner = self.paths[name].rpartition(".")
            (message.setdefault(group, {}) if group else message)[inner] = value
        return message

    def encode(self, reading: Reading) -> bytes:
        """Return the record's value for a reading."""
        return door.encode(self.message(reading))

    def table(self, readings: Sequence[Reading]) -> Matrix:
        """Return the values of readings, (n, features)."""
        values = chain.from_iterable(reading.values for reading in readings)
        return np.fromiter(values, np.float64, len(readings) * len(self.features)).reshape(-1, len(self.features))


@functools.cache
def reading_format(settings: Settings) -> ReadingFormat:
    """Return how readings look with these settings; it is built once in a process."""
    return ReadingFormat(settings)


def _attribute(path: str, name: str) -> str:
    group, dot, _ = path.partition(".")
    return f"{_in(group)}.{name}" if dot else name


def _in(group: str) -> str:
    return f"in_{group.encode().hex()}"  # an attribute may not have blanks, as a name in a message may


def _message_type(kinds: Mapping[str, Any], defaults: Mapping[str, Any], paths: Mapping[str, str]) -> Any:
    """Return the Struct of messages with these fields; those of one object inside make a Struct of their own."""
    outer: list[tuple[Any, ...]] = []
    inner: dict[str, list[tuple[Any, ...]]] = {}
    rename = {}
    for name, kind in kinds.items():
        group, dot, _ = paths[name].partition(".")
        entry = (name, kind, defaults[name]) if name in defaults else (name, kind)
        (inner.setdefault(group, []) if dot else outer).append(entry)
        rename[name] = paths[name].rpartition(".")[2]
    for group, entries in inner.items():
        struct = msgspec.defstruct("Inner", entries, rename=rename, frozen=True, gc=False, kw_only=True)
        is_optional = all(len(entry) == 3 for entry in entries)
        default = (msgspec.field(default_factory=struct),) if is_optional else ()
        outer.append((_in(group), struct, *default))
        rename[_in(group)] = group
    return msgspec.defstruct("Reading", outer, rename=rename, frozen=True, gc=False, kw_only=True)


def time_ms(time: float | str) -> int:
    """Return a time in ms since 1970, from a number (s, ms or µs since 1970) or ISO 8601 (UTC if it has no zone).

    Example:
        >>> time_ms(1768636493.1), time_ms(1768636493100), time_ms("2026-01-17T07:54:53.1")
        (1768636493100, 1768636493100, 1768636493100)

    Raises:
        ValueError: it is no such time.
    """
    if isinstance(time, str):
        if re.fullmatch(ISO_TIME, time, re.ASCII):
            moment = datetime.fromisoformat(time)
            since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH
            time = since // timedelta(milliseconds=1) / 1000
        else:
            time = float(time) if re.fullmatch(NUMERIC_TIME, time, re.ASCII) else math.nan
    for limit, factor in ((SECONDS_BELOW, 1000), (MILLISECONDS_BELOW, 1), (MICROSECONDS_BELOW, 0.001)):
        if 0 <= time < limit:
            return min(round(time * factor), LAST_TIME)
    msg = f"{time} is no time since 1970"
    raise ValueError(msg)
