"""Every message by properties: whatever comes is a message or a BadMessage, and what goes out comes in again."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from types import NoneType
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from fedstream.errors import BadMessage
from fedstream.learning.arrays import NamedArray
from fedstream.learning.scores import Score
from fedstream.learning.training import Scaler
from fedstream.messages.alerts import Alert
from fedstream.messages.dead_letters import DeadLetter, dead_letter
from fedstream.messages.door import decode, encode
from fedstream.messages.rounds import (
    Deadline,
    Event,
    GlobalModel,
    ModelUpdate,
    Rollback,
    answering_node,
    read_command,
    read_global,
    read_round_model,
    read_update,
)
from fedstream.messages.weights import GlobalWeight, NodeWeight, RunningSums

MESSAGES = {
    NodeWeight: read_update,
    ModelUpdate: read_update,
    GlobalWeight: read_global,
    GlobalModel: read_global,
    Deadline: read_command,
    Rollback: read_command,
    Event: lambda value: decode(Event, value),
    DeadLetter: lambda value: decode(DeadLetter, value),
    Alert: lambda value: decode(Alert, value),
    RunningSums: lambda value: decode(RunningSums, value),
}
READERS = [*MESSAGES.values(), read_round_model, answering_node]

FINITE = {"allow_nan": False, "allow_infinity": False}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(**FINITE) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
SEEN = st.characters(exclude_categories=["C", "Zl", "Zp"])
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True)


@st.composite
def named_arrays(draw: st.DrawFn) -> NamedArray:
    """Return an array that holds what it says."""
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    values = draw(st.lists(st.floats(**FINITE), min_size=math.prod(shape), max_size=math.prod(shape)))
    return NamedArray(
        draw(st.text(SEEN, max_size=5)), shape, draw(st.sampled_from(["float64", "float32"])), tuple(values)
    )


@st.composite
def scores(draw: st.DrawFn) -> Score:
    """Return a score with a square confusion."""
    size = draw(st.integers(0, 3))
    row = st.tuples(*[st.integers(0, 10**12)] * size)
    return Score(draw(st.floats(0, 1e300)), tuple(draw(row) for _ in range(size)))


@st.composite
def scalers(draw: st.DrawFn) -> Scaler:
    """Return a scaler with a mean and a std for each feature."""
    size = draw(st.integers(0, 3))
    mean = draw(st.lists(st.floats(-1e300, 1e300), min_size=size, max_size=size))
    return Scaler(tuple(mean), tuple(draw(st.lists(st.floats(1e-300, 1e300), min_size=size, max_size=size))))


OWN = {NamedArray: named_arrays(), Score: scores(), Scaler: scalers()}  # those with rules between their fields


def from_type(kind: Any) -> st.SearchStrategy[Any]:
    """Return the values that a type of a message's field may have, from what msgspec knows of it."""
    match kind:
        case inspect.Metadata():
            return from_type(kind.type)
        case inspect.IntType():
            return st.integers(-(2**63) if kind.ge is None else kind.ge, 2**63 - 1 if kind.le is None else kind.le)
        case inspect.FloatType():
            return st.floats(kind.ge, kind.le, **FINITE)
        case inspect.StrType():
            signs = SEEN if kind.pattern else st.characters(codec="utf-8")
            return st.text(signs, min_size=kind.min_length or 0, max_size=min(kind.max_length or 20, 20))
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
        case inspect.AnyType():
            return JSON
        case inspect.UnionType():
            return st.one_of(*map(from_type, kind.types))
        case inspect.TupleType():
            return st.tuples(*map(from_type, kind.item_types))
        case inspect.VarTupleType():
            return st.lists(from_type(kind.item_type), max_size=3).map(tuple)
        case inspect.DictType():
            return st.dictionaries(from_type(kind.key_type), from_type(kind.value_type), max_size=3)
        case inspect.StructType():
            return OWN[kind.cls] if kind.cls in OWN else structs(kind.cls)
    raise NotImplementedError(kind)


@st.composite
def structs(draw: st.DrawFn, kind: type[msgspec.Struct]) -> msgspec.Struct:
    """Return a message of a kind."""
    fields = {each.name: from_type(each.type) for each in inspect.type_info(kind).fields}
    if issubclass(kind, NodeWeight):
        fields["node_id"] = NAMES
    found = {name: draw(strategy) for name, strategy in fields.items()}
    if "squares" in found:
        length = min(len(found["sums"]), len(found["squares"]))
        found |= {"sums": found["sums"][:length], "squares": found["squares"][:length]}
    if "named_arrays" in found:
        names = [each.name for each in found["named_arrays"]]
        assume(len(set(names)) == len(names))
    return kind(**found)


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_what_is_encoded_decodes_to_the_same_message(kind, data):
    message = data.draw(structs(kind))
    found = MESSAGES[kind](encode(message))
    assert type(found) is kind
    assert found == message
    assert encode(found) == encode(message), "bit by bit"


@settings(deadline=None, max_examples=50)
@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_message_or_a_bad_message(value):
    for read in READERS:
        with suppress(BadMessage):
            assert isinstance(read(value), (msgspec.Struct, str, NoneType))


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_a_message_with_an_odd_field_is_read_or_refused_by_this_fields_name(kind, data):
    fields = json.loads(encode(data.draw(structs(kind))))
    name = data.draw(st.sampled_from(sorted(fields)))
    odd = data.draw(JSON | st.just(...))
    changed = {key: value for key, value in fields.items() if key != name} | ({} if odd is ... else {name: odd})
    text = name
    try:
        MESSAGES[kind](json.dumps(changed).encode())
    except BadMessage as error:
        text = str(error)
    # A rule between fields names either; without `round` an answer is no answer.
    assert name in text or {name, text.split()[0]} <= {"sums", "squares"} or name == "round"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"run_id":"r","round":"x","command":"deadline"}', 'round is "x"; expected a whole number'),
        (b'{"run_id":"r","round":0,"command":"deadline"}', "round is 0; expected a whole number of at least 1"),
        (b'{"run_id":"r","command":"deadline"}', "round is missing"),
        (b'{"run_id":"r","round":1,"command":"stop"}', 'command is "stop"; expected deadline or rollback'),
        (b"[]", "not a JSON object but a list"),
        (b"", "empty value; expected a JSON object"),
        (b'{"run_id":"\xff"}', "invalid UTF-8 at byte 11; expected JSON in UTF-8"),
        (b"{", "not JSON: Input data was truncated"),
    ],
)
def test_a_reason_names_field_value_and_expectation(value, reason):
    with pytest.raises(BadMessage) as caught:
        read_command(value)
    assert str(caught.value) == reason


def test_a_rule_of_a_message_inside_another_is_told_in_its_own_words():
    array = {"name": "w", "shape": [2], "dtype": "float64", "values": [1.0]}
    value = {"command": "rollback", "run_id": "r", "sent_at": 1, "model": {"schema_version": 1, "arrays": [array]}}
    value["model"] |= {"run_id": "r", "round": 1, "version": 0, "model": "m", "mode": "sync"}
    with pytest.raises(BadMessage) as caught:
        read_command(json.dumps(value).encode())
    assert str(caught.value) == "array w has shape [2] and 1 values; expected as many numbers as the shape holds"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_no_message_goes_out_with_a_number_that_json_does_not_have(number):
    with pytest.raises(ValueError, match="NaN or infinite"):
        encode(NodeWeight("fog-1", number, 1))
    with pytest.raises(BadMessage, match="array w has a NaN or infinite value"):
        NamedArray("w", (1,), "float64", (number,))


def test_a_float_keeps_every_bit_on_its_way():
    values = tuple(np.random.default_rng(3).integers(0, 2**62, 1000).view(np.float64).tolist())
    sent = NamedArray("w", (1000,), "float64", values)
    assert decode(NamedArray, encode(sent)).array.tobytes() == np.array(values).tobytes()


def test_a_dead_letter_holds_the_bytes_as_they_came():
    assert dead_letter(b"\xff\x00", "odd", ("t", 1, 2), 3, "fog-1") == DeadLetter("/wA=", "odd", "t", 1, 2, 3, "fog-1")
    assert json.loads(encode(dead_letter(None, "empty", ("t", 1, 2), 3, "cloud")))["value"] is None
