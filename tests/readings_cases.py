"""Records and what is read of them: one table for both readers, `ReadingFormat.decode` and the column expressions.

They must agree which record is a reading and what it says. The words of a reason may differ, so a case of a bad record
has a regular expression that fits both: field, value and what is expected.
"""

from __future__ import annotations

from typing import NamedTuple

from fedstream.messages.readings import Reading
from fedstream.settings import Settings

LARGEST = 65_536  # bytes; the default of MAX_VALUE_BYTES
NOT_JSON = "^not (JSON|a JSON object)"


class Case(NamedTuple):
    """A record's value, the reading that it is or a telling part of the reason why it is none, and the settings."""

    value: bytes | None
    expected: Reading | str
    settings: Settings = Settings()


def reading(**fields: str | None) -> bytes:
    """Return a reading whose fields are given as they stand in JSON; a field that is None is left out."""
    texts = {"sensor_id": '"node-1"', "temperature": "72.5", "vibration": "0.0625", "label": "0"} | fields
    return ("{" + ",".join(f'"{name}":{text}' for name, text in texts.items() if text is not None) + "}").encode()


def padded(size: int) -> bytes:
    """Return a reading of that many bytes."""
    value = reading(padding='""')
    return value.replace(b'""', b'"' + b"x" * (size - len(value)) + b'"')


GOOD = reading()
READ = Reading("node-1", (72.5, 0.0625), 0, None)  # what GOOD says
SENSOR = "expected the name of a sensor: a text or a whole number"
CELSIUS = "expected a number from -100 to 1000"
G = "expected a number from 0 to 1000"
LABEL = "expected the whole number 0 or 1"
TIME = "expected a time since 1970"

BAD = {
    "empty": (b"", "^empty value; expected a JSON object"),
    "null": (None, "^empty value; expected a JSON object"),
    "spaces only": (b" \n", NOT_JSON),
    "a word": (b"hello", NOT_JSON),
    "a number": (b"72.5", NOT_JSON),
    "a string": (b'"node-1"', NOT_JSON),
    "true": (b"true", NOT_JSON),
    "the word null": (b"null", NOT_JSON),
    "an empty array": (b"[]", NOT_JSON),
    "an array of a reading": (b"[" + GOOD + b"]", NOT_JSON),
    "two objects": (GOOD + GOOD, NOT_JSON),
    "two objects on two lines": (GOOD + b"\n" + GOOD, NOT_JSON),
    "two objects and a comma": (GOOD + b"," + GOOD, NOT_JSON),
    "trailing garbage": (GOOD + b" garbage", NOT_JSON),
    "a trailing brace": (GOOD + b"}", NOT_JSON),
    "a trailing comma": (GOOD + b",", NOT_JSON),
    "a trailing field": (GOOD + b',"more":1', NOT_JSON),
    "a trailing reading": (GOOD + b',"reading":' + GOOD, NOT_JSON),
    "a reading behind a null": (b'null,"reading":' + GOOD, NOT_JSON),
    "leading garbage": (b"garbage " + GOOD, NOT_JSON),
    "single quotes": (GOOD.replace(b'"', b"'"), NOT_JSON),
    "names without quotes": (b'{sensor_id:"node-1",temperature:72.5,vibration:0.0625,label:0}', NOT_JSON),
    "a comment": (b"/* ok */" + GOOD, NOT_JSON),
    "a missing comma": (GOOD.replace(b",", b" ", 1), NOT_JSON),
    "a comma too many": (GOOD.replace(b"}", b",}"), NOT_JSON),
    "truncated at the end": (GOOD[:-1], NOT_JSON),
    "truncated in a number": (b'{"sensor_id":"node-1","temperature":72.', NOT_JSON),
    "truncated in the id": (b'{"sensor_id":"nod', NOT_JSON),
    "truncated at once": (b"{", NOT_JSON),
    "no field": (b"{}", f"^sensor_id is missing.*; {SENSOR}"),
    "nothing but unknown fields": (b'{"reading":{"sensor_id":"node-1"}}', f"^sensor_id is missing.*; {SENSOR}"),
    "deeply nested": (b"[" * 30_000, NOT_JSON),
    "deeply nested in an unknown field": (reading(more="[" * 5_000 + "]" * 5_000), NOT_JSON),
    "deeply nested beside a field of the wrong type": (
        reading(sensor_id="true", more="[" * 5_000 + "]" * 5_000),
        f"{NOT_JSON}|^sensor_id is .*; {SENSOR}",
    ),
    "not UTF-8 in the id": (GOOD.replace(b"node", b"n\xf8de"), "^invalid UTF-8"),
    "not UTF-8 in an unknown field": (reading(more='"x"').replace(b'"x"', b'"\xff\xfe"'), "^invalid UTF-8"),
    "bytes of no text": (bytes(range(128, 256)), "^invalid UTF-8"),
    "UTF-8 of too many bytes": (GOOD.replace(b"node", b"\xc0\xaf"), "^invalid UTF-8"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "^invalid UTF-8"),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD, NOT_JSON),
    "a NUL byte": (GOOD + b"\0", NOT_JSON),
    "a byte too long": (padded(LARGEST + 1), "^value of 65537 bytes; expected at most MAX_VALUE_BYTES=65536"),
    "900 kB": (padded(900_000), "^value of 900000 bytes; expected at most MAX_VALUE_BYTES=65536"),
    "900 kB of no JSON": (b"x" * 900_000, "^value of 900000 bytes; expected at most MAX_VALUE_BYTES=65536"),
    "sensor_id missing": (reading(sensor_id=None), f"^sensor_id is missing.*; {SENSOR}"),
    "sensor_id null": (reading(sensor_id="null"), f"^sensor_id is (null|missing or null); {SENSOR}"),
    "sensor_id empty": (reading(sensor_id='""'), f'^sensor_id is ("")?; {SENSOR}'),
    "sensor_id with a fraction": (reading(sensor_id="5.5"), rf"^sensor_id is 5\.5; {SENSOR}"),
    "sensor_id an object": (reading(sensor_id='{"a":"b"}'), rf"^sensor_id is \{{.*; {SENSOR}"),
    "sensor_id an array": (reading(sensor_id='["a"]'), rf"^sensor_id is \[.*; {SENSOR}"),
    "sensor_id true": (reading(sensor_id="true"), f"^sensor_id is [Tt]rue; {SENSOR}"),
    "sensor_id true beside a nested one that is text": (
        reading(sensor_id="true", meta='{"sensor_id":"x"}'),
        f"^sensor_id is [Tt]rue; {SENSOR}",
    ),
    "sensor_id of 1000 letters in an array": (reading(sensor_id=f'["{"x" * 1000}"]'), rf"^sensor_id is \[.*; {SENSOR}"),
    "temperature missing": (reading(temperature=None), f"^temperature is missing.*; {CELSIUS}"),
    "temperature null": (reading(temperature="null"), f"^temperature is (null|missing or null); {CELSIUS}"),
    "temperature a string": (reading(temperature='"72.5"'), rf"^temperature is .?72\.5.?; {CELSIUS}"),
    "temperature true": (reading(temperature="true"), f"^temperature is [Tt]rue; {CELSIUS}"),
    "temperature an object": (reading(temperature="{}"), rf"^temperature is \{{\}}; {CELSIUS}"),
    "temperature an array": (reading(temperature="[72.5]"), rf"^temperature is \[72\.5\]; {CELSIUS}"),
    "temperature an empty string": (reading(temperature='""'), f'^temperature is ("")?; {CELSIUS}'),
    "temperature NaN": (reading(temperature="NaN"), f"{NOT_JSON}|^temperature is .*; {CELSIUS}"),
    "temperature NaN in quotes": (reading(temperature='"NaN"'), f"^temperature is .?NaN.?; {CELSIUS}"),
    "temperature Infinity": (reading(temperature="Infinity"), f"{NOT_JSON}|^temperature is .*; {CELSIUS}"),
    "temperature -Infinity": (reading(temperature="-Infinity"), f"{NOT_JSON}|^temperature is .*; {CELSIUS}"),
    "temperature Infinity in quotes": (reading(temperature='"Infinity"'), f"^temperature is .?Infinity.?; {CELSIUS}"),
    "temperature 1e999": (reading(temperature="1e999"), f"^temperature is (inf|1[eE]999|.?Infinity.?); {CELSIUS}"),
    "temperature -1e999": (reading(temperature="-1e999"), f"^temperature is (-inf|-1[eE]999|.?-Inf.*); {CELSIUS}"),
    "temperature of 400 digits": (reading(temperature="1" + "0" * 399), f"^temperature is (10000|.?Inf).*; {CELSIUS}"),
    "temperature of 5000 digits": (reading(temperature="1" * 5_000), f"{NOT_JSON}|^temperature is .*; {CELSIUS}"),
    "temperature with a zero before it": (reading(temperature="072.5"), f"{NOT_JSON}|^temperature is .*; {CELSIUS}"),
    "temperature without a digit behind the point": (
        reading(temperature="72."),
        f"{NOT_JSON}|^temperature is .*; {CELSIUS}",
    ),
    "temperature just too low": (reading(temperature="-100.1"), rf"^temperature is -100\.1; {CELSIUS}"),
    "temperature just too high": (reading(temperature="1000.1"), rf"^temperature is 1000\.1; {CELSIUS}"),
    "temperature twice as high": (reading(temperature="2000"), rf"^temperature is (2000|2000\.0); {CELSIUS}"),
    "temperature far too high": (reading(temperature="1e300"), rf"^temperature is 1(\.0)?[eE]\+?300; {CELSIUS}"),
    "vibration missing": (reading(vibration=None), f"^vibration is missing.*; {G}"),
    "vibration null": (reading(vibration="null"), f"^vibration is (null|missing or null); {G}"),
    "vibration a string": (reading(vibration='"0.05"'), rf"^vibration is .?0\.05.?; {G}"),
    "vibration false": (reading(vibration="false"), f"^vibration is [Ff]alse; {G}"),
    "vibration an array": (reading(vibration="[]"), rf"^vibration is \[\]; {G}"),
    "vibration NaN": (reading(vibration="NaN"), f"{NOT_JSON}|^vibration is .*; {G}"),
    "vibration NaN in quotes": (reading(vibration='"NaN"'), f"^vibration is .?NaN.?; {G}"),
    "vibration Infinity": (reading(vibration="Infinity"), f"{NOT_JSON}|^vibration is .*; {G}"),
    "vibration 1e999": (reading(vibration="1e999"), f"^vibration is (inf|1[eE]999|.?Infinity.?); {G}"),
    "vibration -Infinity": (reading(vibration="-Infinity"), f"{NOT_JSON}|^vibration is .*; {G}"),
    "vibration negative": (reading(vibration="-0.25"), rf"^vibration is -0\.25; {G}"),
    "vibration just too strong": (reading(vibration="1000.1"), rf"^vibration is 1000\.1; {G}"),
    "label missing": (reading(label=None), f"^label is missing.*; {LABEL}"),
    "label null": (reading(label="null"), f"^label is (null|missing or null); {LABEL}"),
    "label 2": (reading(label="2"), f"^label is 2; {LABEL}"),
    "label -1": (reading(label="-1"), f"^label is -1; {LABEL}"),
    "label 1.0": (reading(label="1.0"), rf"^label is 1\.0; {LABEL}"),
    "label 0.5": (reading(label="0.5"), rf"^label is 0\.5; {LABEL}"),
    "label true": (reading(label="true"), f"^label is [Tt]rue; {LABEL}"),
    "label a string": (reading(label='"1"'), f"^label is .?1.?; {LABEL}"),
    "label an array": (reading(label="[1]"), rf"^label is \[1\]; {LABEL}"),
    "label NaN": (reading(label="NaN"), f"{NOT_JSON}|^label is .*; {LABEL}"),
    "label 2^32": (reading(label="4294967296"), f"^label is 4294967296; {LABEL}"),
    "label 2^32 + 1": (reading(label="4294967297"), f"^label is 4294967297; {LABEL}"),
    "event_time a word": (reading(event_time='"today"'), f"^event_time is .?today.?; {TIME}"),
    "event_time an empty string": (reading(event_time='""'), f'^event_time is ("")?; {TIME}'),
    "event_time of no day": (reading(event_time='"2026-02-30"'), f"^event_time is .?2026-02-30.?; {TIME}"),
    "event_time of no hour": (reading(event_time='"2026-02-03T24:00"'), f"^event_time is .?2026-02-03T24:00.?; {TIME}"),
    "event_time of another form": (reading(event_time='"03/02/2026"'), f"^event_time is .?03/02/2026.?; {TIME}"),
    "event_time true": (reading(event_time="true"), f"^event_time is [Tt]rue; {TIME}"),
    "event_time an object": (reading(event_time="{}"), rf"^event_time is \{{\}}; {TIME}"),
    "event_time an array": (reading(event_time="[1]"), rf"^event_time is \[1\]; {TIME}"),
    "event_time NaN in quotes": (reading(event_time='"NaN"'), f"^event_time is .?NaN.?; {TIME}"),
    "event_time 1e999": (reading(event_time="1e999"), f"^event_time is .*; {TIME}"),
    "event_time 2^63": (reading(event_time="9223372036854775808"), f"^event_time is 9223372036854775808; {TIME}"),
    "event_time in ns": (reading(event_time="1768636493100000000"), f"^event_time is 1768636493100000000; {TIME}"),
    "event_time before 1970": (reading(event_time="-1"), f"^event_time is -1; {TIME}"),
    "event_time before 1970 in ISO 8601": (
        reading(event_time='"1969-12-31"'),
        f"^event_time is .*1969-12-31.*; {TIME}",
    ),
    "event_time before 1970 by its zone": (
        reading(event_time='"1970-01-01T00:59:59+01:00"'),
        f"^event_time is .*1970-01-01.*; {TIME}",
    ),
    "event_time after 5000": (reading(event_time='"9999-12-31"'), f"^event_time is .*9999-12-31.*; {TIME}"),
}

SECOND = 1_768_636_493_000  # 2026-01-17T07:54:53Z: 20,470 days, 7 h, 54 min and 53 s since 1970, in ms


def read(**changes: object) -> Reading:
    """Return READ with another sensor_id, values, label or event_time."""
    return Reading(**({"sensor_id": "node-1", "values": (72.5, 0.0625), "label": 0} | changes))  # type: ignore[arg-type]


TAKEN = {
    "plain": (GOOD, READ),
    "with label 1": (reading(label="1"), read(label=1)),
    "with an event_time of null": (reading(event_time="null"), READ),
    "with unknown fields": (
        reading(unit='"°C"', tags='["a",{"label":7}]', meta='{"temperature":"x"}', nothing="null"),
        READ,
    ),
    "in another order": (
        b'{"label":1,"vibration":0.0625,"meta":{},"temperature":72.5,"sensor_id":"s1"}',
        read(sensor_id="s1", label=1),
    ),
    "with white space everywhere": (
        b' \t\r\n{ "sensor_id" : "node-1" ,\n"temperature":\t72.5 , "vibration" : 0.0625 , "label" : 0 }\n ',
        READ,
    ),
    "with whole numbers for temperature and vibration": (
        reading(temperature="72", vibration="0"),
        read(values=(72.0, 0.0)),
    ),
    "with exponents": (reading(temperature="7.25E1", vibration="625e-4"), READ),
    "with an id in Unicode": (reading(sensor_id='"nœud-1"'), read(sensor_id="nœud-1")),
    "with an id in escaped Unicode": (reading(sensor_id=r'"n\u0153ud-\ud83d\ude00"'), read(sensor_id="nœud-😀")),
    "with a field name in escaped Unicode": (GOOD.replace(b"sensor_id", rb"sensor\u005fid"), READ),
    "with an id of quotes and braces": (reading(sensor_id=r'"\"}{\\"'), read(sensor_id='"}{\\')),
    "with an id that is a digit": (reading(sensor_id='"5"'), read(sensor_id="5")),
    "with an id that is a number": (reading(sensor_id="5"), read(sensor_id="5")),
    "with an id that is a negative number": (reading(sensor_id="-12"), read(sensor_id="-12")),
    "with an id that is a number beside a nested one that is text": (
        reading(sensor_id="5", meta='{"sensor_id":"x"}'),
        read(sensor_id="5"),
    ),
    "at the lower limit": (reading(temperature="-100"), read(values=(-100.0, 0.0625))),
    "at the upper limit": (reading(temperature="1000.0"), read(values=(1000.0, 0.0625))),
    "at the lower limit of vibration": (reading(vibration="0"), read(values=(72.5, 0.0))),
    "at the upper limit of vibration": (reading(vibration="1000"), read(values=(72.5, 1000.0))),
    "of the largest size": (padded(LARGEST), READ),
    "with event_time in ms": (reading(event_time="1768636493000"), read(event_time=SECOND)),
    "with event_time in ms with a fraction": (reading(event_time="1768636493000.25"), read(event_time=SECOND)),
    "with event_time in s": (reading(event_time="1768636493"), read(event_time=SECOND)),
    "with event_time in s with a fraction": (reading(event_time="1768636493.125"), read(event_time=SECOND + 125)),
    "with event_time in s with an exponent": (reading(event_time="1.768636493125e9"), read(event_time=SECOND + 125)),
    "with event_time in µs": (reading(event_time="1768636493125400"), read(event_time=SECOND + 125)),
    "with event_time in a text": (reading(event_time='"1768636493000"'), read(event_time=SECOND)),
    "with event_time in s in a text": (reading(event_time='"1768636493.125"'), read(event_time=SECOND + 125)),
    "with event_time 0": (reading(event_time="0"), read(event_time=0)),
    "with the last event_time in s": (reading(event_time="99999999999"), read(event_time=99_999_999_999_000)),
    "with the first event_time in ms": (reading(event_time="100000000000"), read(event_time=100_000_000_000)),
    "with the last event_time in ms": (reading(event_time="99999999999999"), read(event_time=99_999_999_999_999)),
    "with the first event_time in µs": (reading(event_time="100000000000000"), read(event_time=100_000_000_000)),
    "with event_time in ISO 8601": (reading(event_time='"2026-01-17T07:54:53Z"'), read(event_time=SECOND)),
    "with event_time without a zone": (reading(event_time='"2026-01-17T07:54:53"'), read(event_time=SECOND)),
    "with event_time of another zone": (reading(event_time='"2026-01-17T13:24:53+05:30"'), read(event_time=SECOND)),
    "with event_time west of UTC": (reading(event_time='"2026-01-17T02:54:53-05:00"'), read(event_time=SECOND)),
    "with event_time with a blank": (reading(event_time='"2026-01-17 07:54:53"'), read(event_time=SECOND)),
    "with event_time without seconds": (reading(event_time='"2026-01-17T07:54"'), read(event_time=SECOND - 53_000)),
    "with event_time of a day": (reading(event_time='"2026-01-17"'), read(event_time=20_470 * 86_400_000)),
    "with event_time with µs": (reading(event_time='"2026-01-17T07:54:53.125999"'), read(event_time=SECOND + 125)),
    "with event_time with ns": (reading(event_time='"2026-01-17T07:54:53.125999999Z"'), read(event_time=SECOND + 125)),
}

OPTIONAL = Settings(labels="optional")
THREE = Settings(classes=3)
THREE_LABELS = "expected a whole number from 0 to 2"
NARROW = Settings(features="temperature:-10:50.5:1,vibration:0:0.5:100", max_value_bytes=100)
# What the fog nodes of others are sent (three public solutions of the same assignment), and what it takes to read it.
POWER = Settings(
    features="temperature:-100:1000:1,vibration:0:1000:100,pressure:0:100:1",
    fields="sensor_id=node_id,event_time=timestamp",
    labels="optional",
)
ANOMALY = Settings(features=POWER.features, fields="sensor_id=node_id,event_time=timestamp,label=anomaly")
NESTED = Settings(
    features="vibration_x:0:10:1,vibration_y:0:10:1,vibration_z:0:10:1,temperature:-50:150:1,pressure:0:500:1",
    fields="event_time=timestamp,"
    + ",".join(f"{n}=features.{n}" for n in ("vibration_x", "vibration_y", "vibration_z", "temperature", "pressure")),
)
NESTED_MESSAGE = (
    b'{"timestamp":"2026-01-17T07:54:53.993385","node_id":1,"sensor_id":"sensor_1_3","features":'
    b'{"vibration_x":0.51,"vibration_y":0.49,"vibration_z":0.62,"temperature":66.1,"pressure":101.2},"label":0}'
)
NESTED_READING = Reading("sensor_1_3", (0.51, 0.49, 0.62, 66.1, 101.2), 0, SECOND + 993)

OTHERS = {
    "no label where it is optional": Case(reading(label=None), read(label=None), OPTIONAL),
    "a null label where it is optional": Case(reading(label="null"), read(label=None), OPTIONAL),
    "a label where it is optional": Case(reading(label="1"), read(label=1), OPTIONAL),
    "a bad label where it is optional": Case(reading(label="2"), f"^label is 2; {LABEL}", OPTIONAL),
    "a label in quotes where it is optional": Case(reading(label='"1"'), f"^label is .?1.?; {LABEL}", OPTIONAL),
    "label 2 of three": Case(reading(label="2"), read(label=2), THREE),
    "label 3 of three": Case(reading(label="3"), f"^label is 3; {THREE_LABELS}", THREE),
    "label -1 of three": Case(reading(label="-1"), f"^label is -1; {THREE_LABELS}", THREE),
    "no label of three": Case(reading(label=None), f"^label is missing.*; {THREE_LABELS}", THREE),
    "a number and a time in seconds": Case(
        b'{"timestamp":1768636493.1,"node_id":1,"temperature":41.2,"vibration":3.1,"pressure":2.2}',
        Reading("1", (41.2, 3.1, 2.2), None, SECOND + 100),
        POWER,
    ),
    "a name, a time in ISO 8601 and an anomaly": Case(
        b'{"timestamp":"2026-01-17T07:54:53","node_id":"node-1","temperature":41.2,"vibration":3.1,"pressure":2.2,'
        b'"anomaly":1}',
        Reading("node-1", (41.2, 3.1, 2.2), 1, SECOND),
        ANOMALY,
    ),
    "no anomaly": Case(
        b'{"timestamp":1768636493.1,"node_id":1,"temperature":41.2,"vibration":3.1,"pressure":2.2,"label":1}',
        f"^anomaly is missing.*; {LABEL}",
        ANOMALY,
    ),
    "a bad time under its own name": Case(
        b'{"timestamp":"now","node_id":1,"temperature":41.2,"vibration":3.1,"pressure":2.2}',
        f"^timestamp is .?now.?; {TIME}",
        POWER,
    ),
    "five signals in an object": Case(NESTED_MESSAGE, NESTED_READING, NESTED),
    "a signal out of its range in an object": Case(
        NESTED_MESSAGE.replace(b"0.49", b"10.5"),
        r"^features\.vibration_y is 10\.5; expected a number from 0 to 10",
        NESTED,
    ),
    "a signal missing in an object": Case(
        NESTED_MESSAGE.replace(b'"vibration_z":0.62,', b""),
        r"^features\.vibration_z is missing.*; expected a number from 0 to 10",
        NESTED,
    ),
    "a signal in quotes in an object": Case(
        NESTED_MESSAGE.replace(b"66.1", b'"66.1"'),
        r"^features\.temperature is .?66\.1.?; expected a number from -50 to 150",
        NESTED,
    ),
    "signals beside the object": Case(
        NESTED_MESSAGE.replace(b'"features":{', b"").replace(b"},", b","), r"^features.* is missing", NESTED
    ),
    "the lower limit of the settings": Case(reading(temperature="-10"), read(values=(-10.0, 0.0625)), NARROW),
    "the upper limit of the settings": Case(reading(temperature="50.5"), read(values=(50.5, 0.0625)), NARROW),
    "below the limit of the settings": Case(
        reading(temperature="-10.01"), r"^temperature is -10\.01; expected a number from -10 to 50\.5", NARROW
    ),
    "above the limit of the settings": Case(
        reading(temperature="72.5"), r"^temperature is 72\.5; expected a number from -10 to 50\.5", NARROW
    ),
    "the other limit of the settings": Case(reading(temperature="0", vibration="0.5"), read(values=(0.0, 0.5)), NARROW),
    "above the other limit of the settings": Case(
        reading(temperature="0", vibration="0.51"), r"^vibration is 0\.51; expected a number from 0 to 0\.5", NARROW
    ),
    "as long as the settings allow": Case(padded(100).replace(b"72.5", b"42.5"), read(values=(42.5, 0.0625)), NARROW),
    "longer than the settings allow": Case(
        padded(101).replace(b"72.5", b"42.5"),
        "^value of 101 bytes; expected at most MAX_VALUE_BYTES=100",
        NARROW,
    ),
}

CASES = {name: Case(*case) for table in (BAD, TAKEN) for name, case in table.items()} | OTHERS
assert len(CASES) == len(BAD) + len(TAKEN) + len(OTHERS)
