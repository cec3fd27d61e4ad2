"""What is on the topics: their names, the messages, and how a bad message is told from a good one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

SENSOR_DATA = "sensor-data"  # readings not yet assigned to a node
NODE_OF_TOPIC = r"(\d+)$"  # in the name of a topic that carries the readings of one node
MODEL_WEIGHTS = "model-weights"
GLOBAL_MODEL = "global-model"
DEAD_LETTER = "dead-letter"

ROUND_CONTROL = "round-control"  # deadlines and rollbacks: what changes the rounds beside the updates
MODEL_VERSIONS = "model-versions"  # compacted: every version of the global model, for ever
EVENTS = "events"  # drift, quarantine, failed aggregations

NUMBERS = "numbers"
SQUARES = "squares"
ALERTS = "alerts"  # each reading with the probability of trouble

GLOBAL_MODEL_KEY = "weight"  # the running global weight; a round's model has its name as key

Outgoing = tuple[str, str, dict[str, Any]]  # topic, key, message

READING_DDL = "sensor_id STRING, temperature DOUBLE, vibration DOUBLE, label INT, event_time BIGINT"
FEATURES = ("temperature", "vibration")  # what a model learns from, and what the running sums are of
READING_FIELDS = tuple(field.split()[0] for field in READING_DDL.split(", "))
# What json.dumps makes of a good reading, with or without spaces: ASCII, nothing escaped, numbers that every reader of
# JSON takes for the same.
_NUMBER = r"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,15})?"
PLAIN_READING = (
    r'^\{"sensor_id": ?"[ !#-\[\]-~]+", ?"temperature": ?'
    + _NUMBER
    + r', ?"vibration": ?'
    + _NUMBER
    + r', ?"label": ?[01]'
    r'(?:, ?"event_time": ?(?:0|[1-9]\d{0,17}))?\}\z'
)

# Far beyond any weight, and still finite when multiplied by any number of samples.
LARGEST_WEIGHT = 1e9
LONGEST_NAME = 200  # characters of a node's name

# The rule behind the simulated labels; it reproduces every labelled reading shown in the course report.
HOT_CELSIUS = 85.0
STRONG_VIBRATION_G = 0.08


class BadMessage(ValueError):
    """A message that cannot be used; the text is the reason kept beside it in `dead-letter`."""


def sensor_topic(node: int) -> str:
    """Return the topic that carries the readings of one fog node."""
    return f"{SENSOR_DATA}-node-{node}"


def node_of_topic(topic: str) -> int | None:
    """Return the node whose readings a topic carries: the number at its end (NODE_OF_TOPIC), or None without one."""
    found = re.search(NODE_OF_TOPIC, topic)
    return int(found[1]) if found and int(found[1]) < 2**31 else None


def label_of(temperature: float, vibration: float) -> int:
    """Return 1 if the reading shows trouble, else 0 (temperature in °C, vibration in g)."""
    return int(temperature > HOT_CELSIUS or vibration > STRONG_VIBRATION_G)


def to_json(message: dict[str, Any]) -> bytes:
    """Return the message as it goes onto a topic.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not have.
    """
    return json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


@dataclass(frozen=True)
class NodeUpdate:
    """What one fog node has learned: its weight and the number of readings behind it.

    `rejected` counts the node's records that went to `dead-letter` instead. `sums` and `squares` (of temperatures in
    °C and vibrations in g) are what the cloud needs of the `samples` readings to scale features alike on all nodes.
    `source` says what was counted, where that is not all of the node's own topic.
    """

    node_id: str
    weight: float
    samples: int
    rejected: int = 0
    sums: tuple[float, ...] = ()
    squares: tuple[float, ...] = ()
    source: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the message of topic `model-weights`."""
        sums = {"sums": list(self.sums), "squares": list(self.squares)} if self.sums else {}
        return self.headline() | sums | ({"source": self.source} if self.source else {})

    def headline(self) -> dict[str, Any]:
        """Return what a person wants to see of it."""
        return {
            "node_id": self.node_id,
            "weight": self.weight,
            "samples": self.samples,
            "rejected": self.rejected,
        }

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> NodeUpdate:
        """Read an update; unknown fields are ignored.

        Raises:
            BadMessage: a field is missing, of the wrong type or out of range.
        """
        sums, squares = (_numbers(message, name) for name in ("sums", "squares"))
        if len(sums) != len(squares):
            msg = f"sums has {len(sums)} numbers and squares {len(squares)}; expected one of each for every feature"
            raise BadMessage(msg)
        node_id = read_field(message, "node_id", str, "a string")
        if not (0 < len(node_id) <= LONGEST_NAME and node_id.isprintable()):
            msg = f"node_id is {node_id!r:.250}; expected a name of 1 to {LONGEST_NAME} printable characters"
            raise BadMessage(msg)
        return cls(
            node_id=node_id,
            weight=_number(message, "weight"),
            samples=read_count(message, "samples", low=1),
            rejected=read_count({"rejected": 0, **message}, "rejected", low=0),
            sums=sums,
            squares=squares,
            source=read_field({"source": "", **message}, "source", str, "a string"),
        )


@dataclass(frozen=True)
class GlobalModel:
    """The nodes' weights merged into one, and the number of readings behind it."""

    global_weight: float
    samples: int
    nodes: int

    def as_dict(self) -> dict[str, Any]:
        """Return the message of topic `global-model`."""
        return {"global_weight": self.global_weight, "samples": self.samples, "nodes": self.nodes}


def read_json_object(value: bytes | None) -> dict[str, Any]:
    """Return the JSON object that a record holds.

    Raises:
        BadMessage: it is empty, invalid UTF-8, not JSON, not an object, or has NaN or infinite numbers.
    """
    if not value:
        raise BadMessage("empty value; expected a JSON object")
    try:
        message = json.loads(value.decode("utf-8"), parse_constant=_refuse_constant)
        if b"\\ud" in value.lower():  # half of a character that takes two: it could not be sent on
            json.dumps(message, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadMessage("half of a surrogate pair in a text; expected whole characters") from error
    except UnicodeDecodeError as error:
        msg = f"invalid UTF-8 at byte {error.start}"
        raise BadMessage(msg) from error
    except (ValueError, RecursionError) as error:  # a ValueError of its own: a number of thousands of digits
        msg = f"not JSON: {error}"
        raise BadMessage(msg) from error
    if not isinstance(message, dict):
        msg = f"not a JSON object but a {type(message).__name__}"
        raise BadMessage(msg)
    return message


def _refuse_constant(text: str) -> NoReturn:
    msg = f"{text} is not a number; expected finite numbers"
    raise ValueError(msg)


def read_field(message: Mapping[str, Any], name: str, kind: type | tuple[type, ...], wanted: str) -> Any:
    """Return a message's field.

    Raises:
        BadMessage: it is missing, null, or not of this kind, which the text calls `wanted`.
    """
    if name not in message:
        msg = f"{name} is missing"
        raise BadMessage(msg)
    value = message[name]
    if value is None:
        msg = f"{name} is null"
        raise BadMessage(msg)
    # bool is a subclass of int, but true is no count.
    if not isinstance(value, kind) or isinstance(value, bool):
        msg = f"{name} is of the wrong type: got {value!r:.100}, expected {wanted}"
        raise BadMessage(msg)
    return value


def _number(message: Mapping[str, Any], name: str) -> float:
    value = read_field(message, name, (int, float), "a number")
    if not -LARGEST_WEIGHT <= value <= LARGEST_WEIGHT:  # refuses NaN, too
        msg = f"{name} is {value!s:.40}; expected a finite number of at most {LARGEST_WEIGHT:g}"
        raise BadMessage(msg)
    return float(value)


def read_count(message: Mapping[str, Any], name: str, low: int) -> int:
    """Return a message's whole number of at least `low`.

    Raises:
        BadMessage: it is missing, null, of another type or out of range.
    """
    value: int = read_field(message, name, int, "a whole number")
    if not low <= value < 2**63:
        msg = f"{name} is {value}; expected a whole number from {low} to 2^63 - 1"
        raise BadMessage(msg)
    return value


def _numbers(message: Mapping[str, Any], name: str) -> tuple[float, ...]:
    values = read_field({name: [], **message}, name, list, "a list of numbers")
    # Beyond this a square would not be finite.
    if not all(type(value) in (int, float) and abs(value) < 1e150 for value in values):
        msg = f"{name} is {values!s:.100}; expected finite numbers below 1e150"
        raise BadMessage(msg)
    return tuple(map(float, values))
