"""The one door of every message: bytes in, a typed object out, or the reason why not.

Each message is a `msgspec.Struct` whose annotations say what is allowed; behind the door nothing is checked again.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TypeVar, cast

import msgspec

from fedstream.errors import BadMessage

T = TypeVar("T")

LARGEST_NUMBER = 1e9  # far beyond any weight, and still finite when multiplied by any number of samples
LONGEST_SHOWN = 100  # characters of a value in a reason

# msgspec's words for what it expected -> those of a reason.
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def encode(message: Any) -> bytes:
    """Return a message as it goes onto a topic: JSON in UTF-8.

    Example:
        >>> encode({"n": 59, "square": 3481})
        b'{"n":59,"square":3481}'

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not have.
    """
    text = msgspec.json.encode(message)
    if isinstance(message, msgspec.Raw):  # encoded before
        return text
    if b"null" in text and has_not_finite(msgspec.to_builtins(message)):  # msgspec writes null for them
        msg = f"a number of the message is NaN or infinite: {text!r:.200}"
        raise ValueError(msg)
    return text


def has_not_finite(value: Any) -> bool:
    """Tell whether a value of dicts, lists and numbers holds NaN or infinity."""
    if isinstance(value, float):
        return value != value or value in (float("inf"), float("-inf"))
    if isinstance(value, dict):
        return any(map(has_not_finite, value.values()))
    return isinstance(value, (list, tuple)) and any(map(has_not_finite, value))


@functools.cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)  # made once: that takes longer than many messages


def decode(kind: type[T], value: bytes | None, expected: Mapping[str, str] | None = None) -> T:
    """Return the message that a record holds; fields that the kind does not have are ignored.

    Args:
        kind: a Struct, or a union of tagged ones.
        value: the record's value.
        expected: for some fields (`features.x` for one inside another) what a reason says is expected of them.

    Raises:
        BadMessage: it is no such message; the text names field, value and what is expected.
    """
    if not value:
        raise BadMessage("empty value; expected a JSON object")
    try:
        if not value.isascii():
            value.decode()  # msgspec does not look into the fields that it skips
        found: T = _decoder(cast(Any, kind)).decode(value)
        return found
    except UnicodeDecodeError as error:
        msg = f"invalid UTF-8 at byte {error.start}; expected JSON in UTF-8"
        raise BadMessage(msg) from error
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, BadMessage):  # a message's own rule, with its own words
            raise BadMessage(str(error.__cause__)) from error
        raise BadMessage(reason(str(error), value, expected or {})) from error
    except (msgspec.DecodeError, RecursionError) as error:
        msg = f"not JSON: {error}"
        raise BadMessage(msg) from error


def reason(text: str, value: bytes, expected: Mapping[str, str]) -> str:
    """Return what is wrong with a message, from msgspec's text: field, value and what is expected.

    Example:
        >>> reason("Expected `int`, got `str` - at `$.n`", b'{"n":"x"}', {})
        'n is "x"; expected a whole number'
    """
    what, _, path = text.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    if missing := re.match(r"Object missing required field `(.*)`", what):
        name = f"{path}.{missing[1]}" if path else missing[1]
        return f"{name} is missing" + (f"; expected {expected[name]}" if name in expected else "")
    if not path:
        got = re.search(r"got `(\w+)`", what)
        return f"not a JSON object but {_KINDS.get(got[1], got[1]) if got else what}"
    names = path.split(".") if path in expected else re.findall(r"[^.\[\]]+", path)  # a name may have brackets itself
    places = path, re.sub(r"\[[^]]*\]", "", path), path.partition("[")[0]
    wanted = next((expected[place] for place in places if place in expected), None) or _in_words(what)
    try:
        return f"{path} is {_shown(value, names):.{LONGEST_SHOWN}}; expected {wanted}"
    except json.JSONDecodeError as error:  # msgspec stops at the wrong type before it
        return f"not JSON: {error}"


def _shown(value: bytes, names: Iterable[str]) -> str:
    """Return what stands at a place in a message, as JSON."""
    try:
        found: Any = json.loads(value)
        for name in names:
            if isinstance(found, dict):
                found = found.get(name)
            elif isinstance(found, list):  # a field that is there twice may have another list at its end
                found = found[int(name)] if name.isdecimal() and int(name) < len(found) else None
        return json.dumps(found, ensure_ascii=False)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError):  # a number of thousands of digits, or as many brackets in each other
        return "too long to be shown"


def _in_words(text: str) -> str:
    """Return msgspec's expectation in plain words: "Expected `int` >= 1" -> a whole number of at least 1."""
    if text.startswith("Number out of range"):
        return "a number that fits"
    if text.startswith("Invalid"):
        return "one of the values that it may have"
    text = re.sub(r", got .*", "", text).removeprefix("Expected ")
    text = re.sub(r"`([\w |]+)`", lambda kind: " or ".join(_KINDS.get(k, k) for k in kind[1].split(" | ")), text)
    text = re.sub(r"of length >= (\d+)", r"of length \1 or more", text)
    text = re.sub(r"of length <= (\d+)", r"of length \1 or less", text)
    for sign, words in ((">=", "of at least"), ("<=", "of at most"), (" > ", " above "), (" < ", " below ")):
        text = text.replace(sign, words)
    return text


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
