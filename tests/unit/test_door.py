"""The one door of every message: what comes in, and the reason why something does not."""

from __future__ import annotations

import base64
import json
import math
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from fedstream.errors import BadMessage
from fedstream.messages import door
from fedstream.messages.dead_letters import DeadLetter, dead_letter


class Part(msgspec.Struct):
    """Something inside a message."""

    name: Annotated[str, Meta(min_length=1)]
    values: list[float] = []


class Message(msgspec.Struct):
    """A message with a field of each kind."""

    n: Annotated[int, Meta(ge=1, le=9)] = 1
    x: float = 0.0
    text: str = ""
    good: bool = True
    parts: list[Part] = []
    note: str | None = None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"{}", Message()),
        (b'{"n":9,"x":2,"text":"\xc3\xa9","good":false,"note":null}', Message(9, 2.0, "é", False)),
        (b' {"parts":[{"name":"a","values":[1,2.5]}],"more":{"n":"x"}}\n', Message(parts=[Part("a", [1.0, 2.5])])),
    ],
)
def test_a_message_comes_in_without_the_fields_that_its_kind_does_not_have(value, message):
    assert door.decode(Message, value) == message
    assert door.decode(Message, door.encode(message)) == message


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty value; expected a JSON object"),
        (b"", "empty value; expected a JSON object"),
        (b"[1]", "not a JSON object but a list"),
        (b'"x"', "not a JSON object but a text"),
        (b"7", "not a JSON object but a whole number"),
        (b"null", "not a JSON object but null"),
        (b'{"n":"x"}', 'n is "x"; expected a whole number'),
        (b'{"n":0}', "n is 0; expected a whole number of at least 1"),
        (b'{"n":10}', "n is 10; expected a whole number of at most 9"),
        (b'{"x":true}', "x is true; expected a number"),
        (b'{"x":null}', "x is null; expected a number"),
        (b'{"text":5}', "text is 5; expected a text"),
        (b'{"good":1}', "good is 1; expected true or false"),
        (b'{"note":1}', "note is 1; expected a text or null"),
        (b'{"parts":{}}', "parts is {}; expected a list"),
        (b'{"parts":[{}]}', "parts[0].name is missing"),
        (b'{"parts":[{"name":"a"},{"name":""}]}', 'parts[1].name is ""; expected a text of length 1 or more'),
        (b'{"text":"\xff"}', "invalid UTF-8 at byte 9; expected JSON in UTF-8"),
        (b'{"more":"\xff"}', "invalid UTF-8 at byte 9; expected JSON in UTF-8"),
    ],
)
def test_a_reason_names_field_value_and_what_is_expected(value, reason):
    with pytest.raises(BadMessage) as caught:
        door.decode(Message, value)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    "value", [b"{", b"{} {}", b"{'n':1}", b'{"x":NaN}', b"hello", b'{"more":' + b"[" * 30_000, b'{"n":"x",}']
)
def test_what_is_no_json_is_told(value):
    with pytest.raises(BadMessage, match=r"^not JSON: "):
        door.decode(Message, value)


def test_what_is_expected_of_a_field_may_be_said_in_other_words():
    expected = {"n": "a digit above 0", "text": "a name", "parts": "parts with names"}
    for value, reason in (
        (b'{"n":0}', "n is 0; expected a digit above 0"),
        (b'{"text":1}', "text is 1; expected a name"),
        (b'{"x":"1"}', 'x is "1"; expected a number'),
    ):
        with pytest.raises(BadMessage) as caught:
            door.decode(Message, value, expected)
        assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"n":%b}' % (b"1" * 5000), "n is too long to be shown; expected"),
        (b'{"n":"x","more":%b%b}' % (b"[" * 20_000, b"]" * 20_000), "n is too long to be shown; expected"),
        (b'{"n":"%b"}' % (b"x" * 1000), 'n is "' + "x" * 99 + "; expected a whole number"),
        (b'{"parts":[1],"parts":[]}', "parts"),
        (b'{"parts":[{"name":1}],"parts":[]}', "parts"),
        (b'{"parts":[{"name":1}],"parts":{"name":2}}', "parts"),
    ],
)
def test_a_reason_is_found_and_short_however_odd_the_message(value, reason):
    with pytest.raises(BadMessage) as caught:
        door.decode(Message, value)
    assert str(caught.value).startswith(reason)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_does_not_have_does_not_go_out(value):
    for message in (Message(x=value), Message(parts=[Part("a", [1.0, value])]), {"x": [{"y": value}]}):
        with pytest.raises(ValueError, match="NaN or infinite"):
            door.encode(message)
    assert door.encode({"x": None, "y": "null"}) == b'{"x":null,"y":"null"}'


@pytest.mark.parametrize("value", [None, b"", b"\xff\x00", b'{"a":1}'])
def test_a_dead_letter_keeps_the_bytes_of_the_record_and_where_it_stands(value):
    letter = dead_letter(value, "why", ("sensor-data-node-1", 2, 30), 4000, "fog-2")
    message = json.loads(door.encode(letter))
    kept = message.pop("value")
    assert (None if kept is None else base64.b64decode(kept)) == value
    place = {"topic": "sensor-data-node-1", "partition": 2, "offset": 30}
    assert message == {"reason": "why", **place, "time": 4000, "by": "fog-2"}
    assert door.decode(DeadLetter, door.encode(letter)) == letter
