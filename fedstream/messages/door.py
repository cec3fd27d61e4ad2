"""The one door of every message: bytes in, a typed object out, or the reason why not.

Each message is a `msgspec.Struct` whose annotations say what is allowed; behind the door nothing is checked again.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from fedstream.errors import BadMessage
from fedstream.texts import NAMED

T = TypeVar("T")

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
def _decoder(kind: Any) -> Callable[[bytes], Any]:
    return msgspec.json.Decoder(kind).decode  # made once: that takes longer than many messages


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
        found: T = _decoder(kind)(value)  # type: ignore[arg-type]  # a class can be hashed
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
            if name == "...":  # one of an object's values; which one is not told
                break
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
    if "out of range" in text:
        return "a number that fits"
    if text.startswith("Invalid"):
        return "one of the values that it may have"
    if "matching regex" in text:  # `texts.Name` or `texts.Line`
        return "a name of letters (a to z), digits, '.', '_' and '-'" if NAMED in text else "printable characters"
    text = re.sub(r", got .*", "", text).removeprefix("Expected ")
    text = re.sub(r"`([\w |]+)`", lambda kind: " or ".join(_KINDS.get(k, k) for k in kind[1].split(" | ")), text)
    text = re.sub(r"of length >= (\d+)", r"of length \1 or more", text)
    text = re.sub(r"of length <= (\d+)", r"of length \1 or less", text)
    for sign, words in ((">=", "of at least"), ("<=", "of at most"), (" > ", " above "), (" < ", " below ")):
        text = text.replace(sign, words)
    return text
