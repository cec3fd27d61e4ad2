"""Readings: which records are some, what they say, and what is said of the others."""

from __future__ import annotations

import json
import math
import re

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as trials
from hypothesis import strategies as st

from fedstream.errors import BadMessage
from fedstream.features import Feature
from fedstream.messages.readings import Reading, ReadingFormat, reading_format, time_ms
from fedstream.settings import Settings
from tests import readings_cases
from tests.readings_cases import CASES, GOOD

LONGEST_REASON = 400  # characters


@pytest.mark.parametrize("name", CASES)
def test_a_record_is_the_reading_that_it_says_or_its_reason_tells_why_not(name):
    value, expected, settings = CASES[name]
    form = reading_format(settings)
    if isinstance(expected, Reading):
        assert form.decode(value) == expected
    else:
        with pytest.raises(BadMessage) as caught:
            form.decode(value)
        assert re.search(expected, str(caught.value))
        assert len(str(caught.value)) < LONGEST_REASON


@pytest.mark.parametrize("name", [name for name in CASES if isinstance(CASES[name].expected, Reading)])
def test_a_reading_is_written_so_that_it_is_read_again(name):
    _, expected, settings = CASES[name]
    form = reading_format(settings)
    assert form.decode(form.encode(expected)) == expected


def test_the_types_of_a_reading_do_not_depend_on_how_it_is_written():
    found = reading_format(Settings()).decode(
        b'{"sensor_id":5,"temperature":72,"vibration":0,"label":1,"event_time":5}'
    )
    assert found == Reading("5", (72.0, 0.0), 1, 5000)
    assert [type(value) for value in found.values] == [float, float]
    assert (type(found.sensor_id), type(found.label), type(found.event_time)) == (str, int, int)


def test_a_reading_is_written_under_the_names_of_the_report_in_its_order():
    form = reading_format(Settings())
    assert form.encode(Reading("node-1", (72.48, 0.071), 0)) == (
        b'{"sensor_id":"node-1","temperature":72.48,"vibration":0.071,"label":0}'
    )
    assert json.loads(form.encode(Reading("é", (72.48, 0.071), None, 1_768_636_493_100))) == {
        "sensor_id": "é",
        "temperature": 72.48,
        "vibration": 0.071,
        "event_time": 1_768_636_493_100,
    }


def test_a_reading_is_written_under_the_names_of_the_settings():
    message = json.loads(reading_format(readings_cases.NESTED).encode(readings_cases.NESTED_READING))
    expected = json.loads(readings_cases.NESTED_MESSAGE) | {"timestamp": 1_768_636_493_993}
    del expected["node_id"]  # unknown to the settings
    assert message == expected


def test_a_value_that_no_json_has_is_not_written():
    with pytest.raises(ValueError, match="NaN or infinite"):
        reading_format(Settings()).encode(Reading("a", (math.nan, 0.0), 0))


def test_of_a_field_that_is_there_twice_each_must_be_good_and_the_last_one_counts():
    form = reading_format(Settings())
    assert form.decode(GOOD.replace(b'"label":0', b'"label":0,"label":1')).label == 1
    for twice in (b'"label":7,"label":1', b'"label":1,"label":7'):
        with pytest.raises(BadMessage, match=r"^label is [17]; expected the whole number 0 or 1"):
            form.decode(GOOD.replace(b'"label":0', twice))


def test_where_label_and_time_are_optional_so_is_the_object_that_holds_both():
    form = reading_format(Settings(fields="label=more.l,event_time=more.t", labels="optional"))
    start = b'{"sensor_id":"node-1","temperature":72.5,"vibration":0.0625'
    assert form.decode(start + b"}") == Reading("node-1", (72.5, 0.0625), None, None)
    assert form.decode(start + b',"more":{}}') == Reading("node-1", (72.5, 0.0625), None, None)
    assert form.decode(start + b',"more":{"l":1,"t":5}}') == Reading("node-1", (72.5, 0.0625), 1, 5000)
    form = reading_format(Settings(fields="label=more.l,event_time=more.t"))
    with pytest.raises(BadMessage, match=r"^more(\.l)? is missing"):
        form.decode(start + b"}")


@pytest.mark.parametrize(
    "place", ["Air temperature [K]", "my group.Air temperature [K]", "in.class", "é-1", "a:b.c[0]"]
)
def test_a_field_may_have_any_name_and_a_reason_speaks_of_it(place):
    form = reading_format(Settings(fields=f"temperature={place}"))
    reading = Reading("node-1", (72.5, 0.0625), 0)
    value = form.encode(reading)
    assert form.decode(value) == reading
    with pytest.raises(BadMessage) as caught:
        form.decode(value.replace(b"72.5", b"2000"))
    assert str(caught.value) == f"{place} is 2000; expected a number from -100 to 1000"


@pytest.mark.parametrize(
    ("value", "sensor"),
    [
        (GOOD, "node-1"),
        (b'{"temperature":"x","sensor_id":"a"}', "a"),
        (b'{"sensor_id":7,"label":9}', "7"),
        (b'{"sensor_id":""}', None),
        (b'{"sensor_id":null}', None),
        (b'{"sensor_id":1.5}', None),
        (b'{"sensor_id":["a"]}', None),
        (b'{"id":"a"}', None),
        (b'{"sensor_id":"a"', None),
        (b"[" * 30_000, None),
        (b"\xff", None),
        (b"", None),
        (None, None),
    ],
)
def test_the_sensor_of_a_record_that_is_no_reading_is_told_if_it_names_one(value, sensor):
    assert reading_format(Settings()).sensor_of(value) == sensor
    if value is not None:
        nested = reading_format(Settings(fields="sensor_id=about.sensor_id"))
        assert nested.sensor_of(b'{"about":' + value + b"}") == sensor
        assert nested.sensor_of(value) is None


def test_a_table_of_readings_has_a_row_for_each_and_a_column_for_each_feature():
    form = reading_format(readings_cases.NARROW)
    table = form.table([Reading("a", (1.5, 0.25)), Reading("b", (-2.0, 0.5))])
    assert (table.tolist(), table.dtype) == ([[1.5, 0.25], [-2.0, 0.5]], float)
    assert form.table([]).shape == (0, 2)


@pytest.mark.parametrize("time", [-1, 1e17, math.inf, math.nan, "", " 5", "5 ", "1e", "0x5", "٥", "2026-1-7"])
def test_what_is_no_time_is_refused(time):
    with pytest.raises(ValueError, match=r".+"):
        time_ms(time)


# --- properties

hurried = trials(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a type is built for each table
few = trials(hurried, max_examples=50)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
FORMS = [
    ReadingFormat(each)
    for each in (
        *(Settings(), readings_cases.OPTIONAL, readings_cases.THREE),
        *(readings_cases.POWER, readings_cases.ANOMALY, readings_cases.NESTED),
    )
]
NAMES = sorted({name for form in FORMS for path in form.paths.values() for name in path.split(".")})
NUMBERS = st.sampled_from([0, 1, 2, -1, 70, 0.05, 1.0, 1e999, -0.0, 1768636493, 1768636493100, 1e17, 2**63, 10**400])
TIMES = st.sampled_from(["2026-01-17", "2026-01-17T07:54:53Z", "2026-99-99", "9999-12-31T23:59:59-14:59", "1e16", "7"])
VALUES = NUMBERS | TIMES | JSON | st.dictionaries(st.sampled_from(NAMES), NUMBERS | TIMES | JSON)
OBJECTS = st.dictionaries(st.sampled_from(NAMES), VALUES)


def check(form: ReadingFormat, value: bytes) -> None:
    """Decode a value; it is a reading within the limits that can be written again, or its reason is short."""
    reading, reason = None, ""
    try:
        reading = form.decode(value)
    except BadMessage as error:
        reason = str(error)
    if reading is None:
        assert 0 < len(reason) < LONGEST_REASON
        return
    assert reading.sensor_id != ""
    assert len(reading.values) == len(form.features)
    assert all(each.low <= x <= each.high for each, x in zip(form.features, reading.values, strict=True))
    assert reading.event_time is None or 0 <= reading.event_time < 1e14
    assert form.decode(form.encode(reading)) == reading


@hurried
@given(st.sampled_from(FORMS), st.binary() | st.text().map(str.encode))
def test_any_bytes_are_a_reading_or_have_a_reason(form, value):
    check(form, value)


@hurried
@given(st.sampled_from(FORMS), JSON)
def test_any_json_is_a_reading_or_has_a_reason(form, value):
    check(form, json.dumps(value).encode())


@hurried
@given(st.sampled_from(FORMS), OBJECTS, st.booleans())
def test_any_object_like_a_reading_is_one_or_has_a_reason(form, message, ascii_only):
    text = json.dumps(message, ensure_ascii=ascii_only)
    check(form, text.encode("utf-8", "surrogatepass"))


@hurried
@given(st.sampled_from(FORMS), st.sampled_from(sorted(CASES)), st.data())
def test_a_reading_with_a_byte_of_another_kind_is_one_or_has_a_reason(form, name, data):
    value = bytearray((CASES[name].value or b"{}")[:2000])
    place = data.draw(st.integers(0, max(0, len(value) - 1)))
    value[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    check(form, bytes(value))


WORD = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).map(lambda word: "f_" + word)
PLACE = st.text(st.characters(exclude_characters=".'\"`\\,=", exclude_categories=("C", "Z")), min_size=1, max_size=8)


@st.composite
def tables(draw) -> tuple[Settings, Reading]:
    """Return settings with a random table and mapping, and a reading of them."""
    names = draw(st.lists(WORD, min_size=1, max_size=8, unique=True))
    bounds = st.floats(-1e100, 1e100)
    limits = [sorted(draw(st.tuples(bounds, bounds).filter(lambda pair: pair[0] < pair[1]))) for _ in names]
    features = [Feature(name, low, high) for name, (low, high) in zip(names, limits, strict=True)]
    fields = ["sensor_id", *names, "label", "event_time"]
    mapped = draw(st.lists(st.sampled_from(fields), unique=True))
    places = draw(st.lists(PLACE, min_size=len(mapped), max_size=len(mapped), unique=True))
    groups = [draw(st.sampled_from(["", "in one.", "in two."])) for _ in mapped]
    paths = [f"{name}={group}<{place}>" for name, group, place in zip(mapped, groups, places, strict=True)]
    is_optional = draw(st.booleans())
    settings = Settings(
        features=",".join(f"{each.name}:{each.low!r}:{each.high!r}" for each in features),
        fields=",".join(paths),
        labels="optional" if is_optional else "required",
        classes=draw(st.integers(2, 5)),
    )
    labels = st.integers(0, settings.classes - 1)
    sensors = st.text(st.characters(exclude_categories=("Cs",)), min_size=1)
    reading = Reading(
        draw(sensors),
        tuple(draw(st.floats(each.low, each.high)) for each in features),
        draw(labels | st.none() if is_optional else labels),
        draw(st.none() | st.integers(0, 99_999_999_999_999)),
    )
    return settings, reading


@few
@given(tables())
def test_a_reading_of_any_table_and_mapping_is_read_as_it_was_written(table):
    settings, reading = table
    form = ReadingFormat(settings)
    found = form.decode(form.encode(reading))
    assert found == reading
    assert [type(value) for value in found.values] == [float] * len(form.features)


@few
@given(tables(), st.data())
def test_each_value_beyond_its_limits_is_refused_by_name(table, data):
    settings, reading = table
    form = ReadingFormat(settings)
    place = data.draw(st.integers(0, len(form.features) - 1))
    feature = form.features[place]
    beyond = data.draw(
        st.floats(min_value=feature.high, exclude_min=True, allow_infinity=False)
        | st.floats(max_value=feature.low, exclude_max=True, allow_infinity=False)
    )
    values = (*reading.values[:place], beyond, *reading.values[place + 1 :])
    value = form.encode(Reading(reading.sensor_id, values, reading.label, reading.event_time))
    with pytest.raises(BadMessage) as caught:
        form.decode(value)
    assert str(caught.value).startswith(f"{form.paths[feature.name]} is {beyond!r}; expected a number from ")
