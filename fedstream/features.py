"""Which values a reading has: one table, from a setting. Messages, sums, models and simulation follow from it.

FEATURES=temperature:-100:1000:1,vibration:0:1000:100     name : lowest : highest : factor in the weight
"""

from __future__ import annotations

import functools
import keyword
import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedstream.errors import SettingError

REPORT_FEATURES = "temperature:-100:1000:1,vibration:0:1000:100"  # °C and g
REPORT_RULE = "temperature>85 or vibration>0.08"  # reproduces every labelled reading shown in the course report
REPORT_RANGES = "temperature:60:90,vibration:0.02:0.1"

OTHER_FIELDS = ("sensor_id", "label", "event_time")  # of a reading, beside the features
LARGEST_LIMIT = 1e100  # beyond it the square of a sum is not finite
MOST_FEATURES = 1000

# Names of columns that the jobs use beside those of the readings.
_RESERVED = {*OTHER_FIELDS, "value", "key", "topic", "partition", "offset", "timestamp", "timestamptype"} | {
    *("reason", "node", "served", "probability", "layer", "parsed")
}
_NAME = r"""[^.'"`\\\x00-\x1f]+"""  # of a field in a message, as JSON and Spark can be asked for it
_SIGNS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Feature:
    """One value of a reading: its name, the limits within which it is good, and its factor in a node's weight."""

    name: str
    low: float
    high: float
    factor: float = 1.0

    @property
    def expected(self) -> str:
        """What a reading must have here, in words."""
        return f"a number from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Condition:
    """A feature, by its place in the table, compared with a number."""

    place: int
    sign: str
    limit: float

    def holds(self, values: Sequence[float]) -> bool:
        """Tell whether a reading's values fulfil it."""
        return _SIGNS[self.sign](values[self.place], self.limit)


@functools.cache
def parse_features(text: str) -> tuple[Feature, ...]:
    """Return the table of `name:lowest:highest:factor,...`; without a factor it is 1.

    Example:
        >>> parse_features("humidity:0:100")
        (Feature(name='humidity', low=0.0, high=100.0, factor=1.0),)

    Raises:
        SettingError: a part has another form, a name is there twice or is taken, or lowest is not below highest.
    """
    features = tuple(_feature(part.strip(), text) for part in text.split(","))
    names = [feature.name.lower() for feature in features]  # Spark's columns do not know capitals
    for name in names:
        if names.count(name) > 1:
            raise SettingError(f"FEATURES is {text!r}; feature {name} is there twice; expected different names")
    if len(features) > MOST_FEATURES:
        raise SettingError(f"FEATURES has {len(features)} features; expected at most {MOST_FEATURES}")
    return features


def _feature(part: str, text: str) -> Feature:
    name, *numbers = (piece.strip() for piece in part.split(":"))
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or name.lower() in _RESERVED or keyword.iskeyword(name):
        expected = f"a name of letters, digits and _, and none of {', '.join(sorted(_RESERVED))}"
        raise SettingError(f"FEATURES is {text!r}; the feature in {part!r} is named {name!r}; expected {expected}")
    try:
        low, high, factor = map(float, [*numbers, "1"][:3] if len(numbers) < 3 else numbers)
        good = all(abs(number) <= LARGEST_LIMIT for number in (low, high, factor)) and low < high
    except ValueError:
        good = False
    if not good:
        expected = "name:lowest:highest:factor with lowest below highest, such as humidity:0:100:1"
        raise SettingError(f"FEATURES is {text!r}; got {part!r}; expected {expected}")
    return Feature(name, low, high, factor)


def parse_fields(text: str, features: Sequence[Feature]) -> dict[str, str]:
    """Return where each field of a reading stands in a message: its own name, or what `own=theirs,...` says.

    `theirs` may lie in one object inside: `vibration_x=features.vibration_x`.

    Raises:
        SettingError: a part has another form, a name is no field, or two fields stand in the same place.
    """
    own = ["sensor_id", *(feature.name for feature in features), "label", "event_time"]
    paths = {name: name for name in own}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, path = (piece.strip() for piece in part.partition("="))
        if name not in paths or not equals or not re.fullmatch(rf"{_NAME}(\.{_NAME})?", path):
            expected = f"FIELD=NAME or FIELD=OBJECT.NAME, with FIELD one of {', '.join(own)}"
            raise SettingError(f"FIELDS is {text!r}; got {part!r}; expected {expected}")
        paths[name] = path
    for path in paths.values():
        found = [name for name, place in paths.items() if path in (place, place.partition(".")[0])]
        if len(found) > 1:
            msg = f"FIELDS is {text!r}; {', '.join(found)} stand in {path}; expected a place of its own for each"
            raise SettingError(msg)
    return paths


def parse_label_rule(text: str, features: Sequence[Feature]) -> tuple[Condition, ...]:
    """Return the conditions of `temperature>85 or vibration>0.08`.

    Raises:
        SettingError: a part is no condition, or speaks of no feature.
    """
    names = [feature.name for feature in features]
    conditions = []
    for part in re.split(r"\s+or\s+|,", text.strip()):
        found = re.fullmatch(r"\s*(\w+)\s*(>=|<=|>|<)\s*(\S+)\s*", part)
        try:
            if not found or found[1] not in names or not math.isfinite(float(found[3])):
                raise ValueError(part)
            conditions.append(Condition(names.index(found[1]), found[2], float(found[3])))
        except ValueError as error:
            expected = f"FEATURE>NUMBER or FEATURE<NUMBER, joined by `or`, with FEATURE one of {', '.join(names)}"
            raise SettingError(f"LABEL_RULE is {text!r}; got {part!r}; expected {expected}") from error
    return tuple(conditions)


def parse_ranges(text: str, features: Sequence[Feature]) -> dict[str, tuple[float, float]]:
    """Return the ranges of `name:from:to,...`, in which simulated sensors measure.

    Raises:
        SettingError: a part has another form, or speaks of no feature.
    """
    names = [feature.name for feature in features]
    ranges = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, *numbers = (piece.strip() for piece in part.split(":"))
        try:
            low, high = map(float, numbers)
            if name not in names or not -LARGEST_LIMIT <= low <= high <= LARGEST_LIMIT:
                raise ValueError(part)
        except ValueError as error:
            expected = f"FEATURE:FROM:TO with FEATURE one of {', '.join(names)}"
            raise SettingError(f"SIMULATED_RANGES is {text!r}; got {part!r}; expected {expected}") from error
        ranges[name] = low, high
    return ranges
