"""The texts that say which values a reading has: what they mean, and what is said of a bad one."""

from __future__ import annotations

import pytest

from fedstream.errors import SettingError
from fedstream.features import (
    MOST_FEATURES,
    REPORT_FEATURES,
    Condition,
    Feature,
    parse_features,
    parse_fields,
    parse_label_rule,
    parse_ranges,
)

TABLE = parse_features("speed:0:3000,heat:-40:120.5:2")


def refusal(parse, *arguments):
    """Return what is said of a text that is refused."""
    with pytest.raises(SettingError) as caught:
        parse(*arguments)
    return str(caught.value)


# --- FEATURES


def test_the_reports_table_has_temperature_and_vibration_with_the_reports_factors():
    temperature, vibration = Feature("temperature", -100, 1000, 1), Feature("vibration", 0, 1000, 100)
    assert parse_features(REPORT_FEATURES) == (temperature, vibration)
    assert (temperature.expected, vibration.expected) == ("a number from -100 to 1000", "a number from 0 to 1000")


@pytest.mark.parametrize(
    ("text", "features"),
    [
        ("humidity:0:100", [("humidity", 0, 100, 1)]),
        (" humidity : 0 : 1e2 : 0.5 ,x:-1:1", [("humidity", 0, 100, 0.5), ("x", -1, 1, 1)]),
        ("Vibration_X2:-0.5:.5:-3", [("Vibration_X2", -0.5, 0.5, -3)]),
        ("x:0:1:0", [("x", 0, 1, 0)]),
        ("x:-1e100:1e100:1e100", [("x", -1e100, 1e100, 1e100)]),
        ("a:0:1,b:0:1,c:0:1,d:0:1,e:0:1,f:0:1,g:0:1,h:0:1", [(name, 0, 1, 1) for name in "abcdefgh"]),
    ],
)
def test_a_feature_has_a_name_limits_and_a_factor(text, features):
    assert parse_features(text) == tuple(Feature(*feature) for feature in features)


@pytest.mark.parametrize("part", ["", "x", "x:0", "x:0:", "x:0:1:", "x:0:1:2:3", "x:a:1", "x:0:1:one", "x:0;1"])
def test_a_feature_of_another_form_is_refused(part):
    text = f"speed:0:3000,{part}"
    found = refusal(parse_features, text)
    assert found.startswith(f"FEATURES is {text!r}; ")
    assert repr(part) in found
    assert "; expected " in found


@pytest.mark.parametrize(
    "part", ["x:1:1", "x:2:1", "x:nan:1", "x:0:nan", "x:0:inf", "x:-inf:1", "x:0:1:nan", "x:0:1:inf", "x:0:1.1e100"]
)
def test_limits_that_no_number_lies_between_and_what_is_not_finite_are_refused(part):
    assert refusal(parse_features, part) == (
        f"FEATURES is {part!r}; got {part!r}; "
        "expected name:lowest:highest:factor with lowest below highest, such as humidity:0:100:1"
    )


@pytest.mark.parametrize(
    "name", ["", "2x", "_x", "a b", "a-b", "a.b", "température", "x=y", "class", "lambda", "sensor_id", "label"]
)
def test_a_name_that_cannot_be_a_column_is_refused(name):
    found = refusal(parse_features, f"speed:0:1,{name}:0:1")
    assert f"is named {name!r}; expected a name of letters, digits and _, and none of" in found


@pytest.mark.parametrize("name", ["Label", "EVENT_TIME", "value", "Topic", "offset", "timestampType", "reason", "node"])
def test_a_name_that_a_column_of_the_jobs_has_is_refused_whatever_its_capitals(name):
    found = refusal(parse_features, f"{name}:0:1")
    assert f"is named {name!r}; expected" in found
    assert name.lower() in found.partition("none of ")[2].split(", ")


@pytest.mark.parametrize("text", ["x:0:1,x:0:2", "x:0:1,y:0:1,X:0:2"])
def test_a_name_that_is_there_twice_is_refused(text):
    assert refusal(parse_features, text) == (
        f"FEATURES is {text!r}; feature x is there twice; expected different names"
    )


def test_there_may_be_a_thousand_features_and_no_more():
    parts = [f"x{i}:0:1" for i in range(MOST_FEATURES + 1)]
    assert len(parse_features(",".join(parts[:-1]))) == MOST_FEATURES == 1000
    assert refusal(parse_features, ",".join(parts)) == "FEATURES has 1001 features; expected at most 1000"


# --- FIELDS

OWN = {name: name for name in ("sensor_id", "speed", "heat", "label", "event_time")}


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("", {}),
        (" , ", {}),
        ("label=anomaly", {"label": "anomaly"}),
        (" sensor_id = node id ,event_time=ts,", {"sensor_id": "node id", "event_time": "ts"}),
        ("speed=features.v,heat=features.t", {"speed": "features.v", "heat": "features.t"}),
        ("speed=a.x,heat=b.x", {"speed": "a.x", "heat": "b.x"}),
        ("speed=heat,heat=speed", {"speed": "heat", "heat": "speed"}),
        ("heat=label.t,label=heat", {"heat": "label.t", "label": "heat"}),
        ("speed=é-1 [rpm]", {"speed": "é-1 [rpm]"}),
        ("speed=a,speed=b", {"speed": "b"}),  # the last one counts
    ],
)
def test_a_field_stands_under_its_own_name_or_where_the_text_says(text, paths):
    assert parse_fields(text, TABLE) == OWN | paths


@pytest.mark.parametrize(
    "part",
    ["humidity=h", "speed", "speed=", "=v", "Speed=v", "speed=a.b.c", "speed=.v", "speed=v.", "speed=."]
    + [f"speed=a{sign}b" for sign in "'\"`\\\n"],
)
def test_a_field_that_is_none_or_has_no_place_is_refused(part):
    text = f"label=anomaly,{part}"
    assert refusal(parse_fields, text, TABLE) == (
        f"FIELDS is {text!r}; got {part!r}; expected FIELD=NAME or FIELD=OBJECT.NAME, "
        "with FIELD one of sensor_id, speed, heat, label, event_time"
    )


@pytest.mark.parametrize(
    ("text", "names", "place"),
    [
        ("speed=heat", "speed, heat", "heat"),
        ("speed=v,heat=v", "speed, heat", "v"),
        ("speed=features.v,heat=features.v", "speed, heat", "features.v"),
        ("sensor_id=label.sensor", "sensor_id, label", "label"),
        ("heat=x.t,speed=x", "speed, heat", "x"),
    ],
)
def test_two_fields_in_one_place_are_refused_with_their_names(text, names, place):
    assert refusal(parse_fields, text, TABLE) == (
        f"FIELDS is {text!r}; {names} stand in {place}; expected a place of its own for each"
    )


# --- LABEL_RULE


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("speed>2000", [(0, ">", 2000)]),
        ("heat>=1e2 or speed < -.5", [(1, ">=", 100), (0, "<", -0.5)]),
        (" heat<=0,heat>100\nor\tspeed>1 ", [(1, "<=", 0), (1, ">", 100), (0, ">", 1)]),
    ],
)
def test_a_rule_is_one_condition_or_several(text, conditions):
    assert parse_label_rule(text, TABLE) == tuple(Condition(*condition) for condition in conditions)


@pytest.mark.parametrize(
    ("sign", "holding"),
    [
        (">", [False, False, True]),
        (">=", [False, True, True]),
        ("<", [True, False, False]),
        ("<=", [True, True, False]),
    ],
)
def test_a_condition_compares_its_own_feature(sign, holding):
    condition = Condition(1, sign, 10.0)
    assert [condition.holds((99.0, value)) for value in (9.5, 10.0, 10.5)] == holding


@pytest.mark.parametrize(
    "part",
    [
        *("speed", "speed>", "speed>fast", "speed=1", "speed==1", "speed!=1", "humidity>1", "Speed>1", ">1", "1<speed"),
        *("speed>nan", "speed>inf", "speed>1 and heat>1", "speed>1orheat>1"),
    ],
)
def test_a_condition_of_another_form_is_refused(part):
    text = f"heat>1 or {part}"
    assert refusal(parse_label_rule, text, TABLE) == (
        f"LABEL_RULE is {text!r}; got {part!r}; "
        "expected FEATURE>NUMBER or FEATURE<NUMBER, joined by `or`, with FEATURE one of speed, heat"
    )


@pytest.mark.parametrize("text", ["", " ", "heat>1,", "heat>1 or"])
def test_a_rule_that_lacks_a_condition_is_refused(text):
    assert "; expected FEATURE>NUMBER" in refusal(parse_label_rule, text, TABLE)


# --- SIMULATED_RANGES


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("", {}),
        ("speed:1200:1800", {"speed": (1200, 1800)}),
        (" heat : -5 : 1e2 , speed:0:0,", {"heat": (-5, 100), "speed": (0, 0)}),
        ("speed:-10:5000", {"speed": (-10, 5000)}),  # beyond its limits: bad readings can be simulated, too
    ],
)
def test_a_range_has_two_ends(text, ranges):
    assert parse_ranges(text, TABLE) == ranges


@pytest.mark.parametrize(
    "part",
    [
        *("speed", "speed:1", "speed:1:", "speed:1:2:3", "speed:2:1", "speed:a:2", "humidity:0:1", ":0:1"),
        *("speed:nan:1", "speed:0:inf", "speed:-1.1e100:0"),
    ],
)
def test_a_range_of_another_form_is_refused(part):
    text = f"heat:0:1,{part}"
    assert refusal(parse_ranges, text, TABLE) == (
        f"SIMULATED_RANGES is {text!r}; got {part!r}; expected FEATURE:FROM:TO with FEATURE one of speed, heat"
    )
