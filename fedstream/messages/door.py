"""How a message is read and written: JSON, and one field after the other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from fedstream.errors import BadMessage

LARGEST_NUMBER = 1e9  # far beyond any weight, and still finite when multiplied by any number of samples


def to_json(message: dict[str, Any]) -> bytes:
    """Return the message as it goes onto a topic.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not have.
    """
    return json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


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


def read_number(message: Mapping[str, Any], name: str) -> float:
    """Return a message's finite number.

    Raises:
        BadMessage: it is missing, null, of another type or too large.
    """
    value = read_field(message, name, (int, float), "a number")
    if not -LARGEST_NUMBER <= value <= LARGEST_NUMBER:  # refuses NaN, too
        msg = f"{name} is {value!s:.40}; expected a finite number of at most {LARGEST_NUMBER:g}"
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


def read_numbers(message: Mapping[str, Any], name: str) -> tuple[float, ...]:
    """Return a message's list of finite numbers; one that is missing is empty.

    Raises:
        BadMessage: it is null, of another type, or has a number that is too large.
    """
    values = read_field({name: [], **message}, name, list, "a list of numbers")
    # Beyond this a square would not be finite.
    if not all(type(value) in (int, float) and abs(value) < 1e150 for value in values):
        msg = f"{name} is {values!s:.100}; expected finite numbers below 1e150"
        raise BadMessage(msg)
    return tuple(map(float, values))
