"""What is on the topics: updates out and in again, and bad updates with their reason."""

from __future__ import annotations

import json

import pytest

from fedstream.errors import BadMessage
from fedstream.messages import rounds
from fedstream.messages.door import encode
from fedstream.messages.topics import node_of_topic, sensor_topic
from fedstream.messages.weights import GlobalWeight, NodeWeight


def read_update(value: bytes | None) -> NodeWeight:
    """Read an update as the cloud does."""
    found = rounds.read_update(value)
    assert type(found) is NodeWeight
    return found


def update_json(**fields: str) -> bytes:
    """Return an update whose fields are given as they stand in JSON; a field that is None is left out."""
    texts = {"node_id": '"fog-1"', "weight": "40.5", "samples": "3"} | fields
    return ("{" + ",".join(f'"{name}":{text}' for name, text in texts.items() if text is not None) + "}").encode()


def test_a_node_has_a_topic_of_its_own():
    assert [sensor_topic(1), sensor_topic(12)] == ["sensor-data-node-1", "sensor-data-node-12"]


@pytest.mark.parametrize(
    ("topic", "node"),
    [
        ("sensor-data-node-12", 12),
        ("plant2-node-7", 7),
        ("plant.7", 7),
        ("node-007", 7),
        ("sensor-data", None),
        ("plant2-node", None),
        ("node-2147483647", 2147483647),
        ("node-2147483648", None),  # Spark's int ends before
    ],
)
def test_a_topics_last_number_is_its_node(topic, node):
    assert node_of_topic(topic) == node


@pytest.mark.parametrize(
    "update",
    [
        NodeWeight("fog-1", 40.2234, 1234),
        NodeWeight("fog-2", -50.0, 1, rejected=7),
        NodeWeight("noeud_3.b-1", 1e-300, 10**14, rejected=2**63 - 1, source='le « "topic" »'),
        NodeWeight("fog-1", 40.0, 3, 0, (1.5, 2.5), (3.5, 4.5), source="sensor-data from 2026-11-22T10:00:00Z"),
    ],
)
def test_an_update_comes_back_as_it_was_sent(update):
    assert read_update(encode(update)) == update


def test_an_update_names_its_source_only_where_it_is_not_all_of_the_nodes_own_topic():
    assert encode(NodeWeight("fog-1", 40.2234, 1234)) == (
        b'{"node_id":"fog-1","weight":40.2234,"samples":1234,"rejected":0}'
    )
    assert json.loads(encode(NodeWeight("fog-1", 40.2234, 1234, source="from 17")))["source"] == "from 17"


def test_the_messages_have_the_fields_of_the_contract():
    # The documented contract.
    assert (
        json.loads(encode(NodeWeight("fog-1", 40.2234, 1234))).items()
        >= {
            "node_id": "fog-1",
            "weight": 40.2234,
            "samples": 1234,
        }.items()
    )
    assert (
        json.loads(encode(GlobalWeight(40.2234, 2468, 2))).items()
        >= {
            "global_weight": 40.2234,
            "samples": 2468,
        }.items()
    )


def test_a_message_is_utf8_without_escapes_and_without_spaces():
    assert encode({"sensor_id": "é", "label": 0}) == b'{"sensor_id":"\xc3\xa9","label":0}'


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_no_message_is_written_with_a_number_that_json_does_not_have(number):
    with pytest.raises(ValueError, match="NaN or infinite"):
        encode({"weight": number})


@pytest.mark.parametrize(
    ("value", "update"),
    [
        (update_json(), NodeWeight("fog-1", 40.5, 3)),
        (update_json(rejected="2"), NodeWeight("fog-1", 40.5, 3, 2)),
        (update_json(weight="40"), NodeWeight("fog-1", 40.0, 3)),
        (update_json(weight="-4.05e1"), NodeWeight("fog-1", -40.5, 3)),
        (update_json(samples="100000000000000"), NodeWeight("fog-1", 40.5, 10**14)),
        (update_json(more="[1,{}]", event_time="null", global_weight='"x"'), NodeWeight("fog-1", 40.5, 3)),
        (b' \r\n{ "samples" : 3 , "weight" : 40.5 , "node_id" : "fog-1" }\t', NodeWeight("fog-1", 40.5, 3)),
        (update_json(node_id=r'"7.N\u006fde_1-b"'), NodeWeight("7.Node_1-b", 40.5, 3)),
    ],
)
def test_a_good_update_is_read_and_unknown_fields_are_ignored(value, update):
    read = read_update(value)
    assert read == update
    assert isinstance(read.weight, float)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty value"),
        (b"", "empty value"),
        (b" ", "not JSON"),
        (b"hello", "not JSON"),
        (b"{'node_id':'fog-1','weight':40.5,'samples':3}", "not JSON"),
        (update_json()[:-1], "not JSON"),
        (update_json() + b"}", "not JSON"),
        (update_json() + update_json(), "not JSON"),
        (b"\xff\xfe", "invalid UTF-8 at byte 0"),
        (update_json(node_id='"fog-1').replace(b"fog-1", b"fog-\xe9"), "invalid UTF-8 at byte 16"),
        (b"[" + update_json() + b"]", "not a JSON object but a list"),
        (b"[]", "not a JSON object but a list"),
        (b'"text"', "not a JSON object but a text"),
        (b"40.5", "not a JSON object but a number"),
        (b"null", "not a JSON object but null"),
        (b"true", "not a JSON object but true or false"),
        (b"{}", "node_id is missing"),
        (update_json(node_id=None), "node_id is missing"),
        (update_json(weight=None), "weight is missing"),
        (update_json(samples=None), "samples is missing"),
        (update_json(node_id="null"), "node_id is null; expected a text"),
        (update_json(weight="null"), "weight is null; expected a number"),
        (update_json(samples="null"), "samples is null; expected a whole number"),
        (update_json(rejected="null"), "rejected is null; expected a whole number"),
        (update_json(node_id="1"), "node_id is 1; expected a"),
        (update_json(node_id='["fog-1"]'), 'node_id is ["fog-1"]; expected a'),
        (update_json(node_id='""'), "node_id is \"\"; expected a name of letters (a to z), digits, '.', '_' and '-'"),
        (update_json(node_id='"f\u043eg-1"'), 'node_id is "f\u043eg-1"; expected a name'),  # a Cyrillic o
        (update_json(node_id='"fog-\u0661"'), "expected a name of letters"),  # an Arabic 1
        (update_json(node_id='"fog\u20111"'), "expected a name of letters"),  # a hyphen that does not break
        (update_json(node_id='"fog-1 "'), 'node_id is "fog-1 "; expected a name of letters'),
        (update_json(node_id='".."'), 'node_id is ".."; expected a name of letters'),
        (update_json(node_id='"fog-[/x]"'), 'node_id is "fog-[/x]"; expected a name of letters'),
        (update_json(node_id='"' + "x" * 201 + '"'), "expected a text of length 200 or less"),
        (update_json(node_id=r'"fog-1\n"'), r'node_id is "fog-1\n"; expected a name of letters'),
        (update_json(weight='"40.5"'), 'weight is "40.5"; expected a'),
        (update_json(weight="true"), "weight is true; expected a"),
        (update_json(weight="{}"), "weight is {}; expected a"),
        (update_json(samples='"3"'), 'samples is "3"; expected a'),
        (update_json(source="17"), "source is 17; expected a"),
        (update_json(samples="3.0"), "samples is 3.0; expected a"),
        (update_json(samples="true"), "samples is true; expected a"),
        (update_json(rejected="false"), "rejected is false; expected a"),
        (update_json(weight="NaN"), "not JSON"),
        (update_json(weight="Infinity"), "not JSON"),
        (update_json(weight="-Infinity"), "not JSON"),
        (update_json(other="NaN"), "not JSON"),
        (update_json(weight='"NaN"'), 'weight is "NaN"; expected a'),
        (update_json(weight="1e999"), "weight is Infinity; expected a number that fits"),
        (update_json(weight="-1e999"), "weight is -Infinity; expected a number that fits"),
        (update_json(samples="0"), "samples is 0; expected a whole number of at least 1"),
        (update_json(samples="-3"), "samples is -3; expected a whole number of at least 1"),
        (update_json(rejected="-1"), "rejected is -1; expected a whole number of at least 0"),
        (update_json(samples="9223372036854775808"), "samples is 9223372036854775808; expected"),
        (update_json(rejected="9223372036854775808"), "rejected is 9223372036854775808; expected"),
        (b'{"node_id":' + b"[" * 60_000, "not JSON"),
        (update_json(other="[" * 5_000 + "]" * 5_000), "not JSON"),
    ],
    ids=lambda given: repr(given)[:60],
)
def test_a_bad_update_is_refused_with_the_reason(value, reason):
    with pytest.raises(BadMessage) as caught:
        read_update(value)
    assert reason in str(caught.value)


@pytest.mark.parametrize("field", ["weight", "samples", "rejected"])
@pytest.mark.parametrize(
    "digits",
    [
        pytest.param(401, id="more than a float holds"),
        pytest.param(5_000, id="more than Python's int() takes"),
    ],
)
def test_a_whole_number_of_any_length_is_refused_and_never_fatal(field, digits):
    with pytest.raises(BadMessage):
        read_update(update_json(**{field: "1" + "0" * (digits - 1)}))


def test_a_reason_shows_the_beginning_of_a_long_value_only():
    with pytest.raises(BadMessage) as caught:
        read_update(update_json(samples='"' + "9" * 50_000 + '"'))
    assert len(str(caught.value)) < 300
