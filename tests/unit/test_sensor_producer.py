"""The edge: simulated readings, readings from CSV files, their pace, their delivery, the command line."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from fedstream.errors import StackError
from fedstream.files.dialect import Given
from fedstream.files.readings import Meaning, Replay
from fedstream.files.table import BadRow, BadRows, open_table
from fedstream.messages.readings import Reading, reading_format
from fedstream.messages.topics import sensor_topic
from fedstream.settings import Settings
from fedstream.simulation.sensors import label_of, label_rule

SETTINGS = Settings()
FORM = reading_format(SETTINGS)


@pytest.fixture(scope="module")
def producer(script):
    """Return the job script."""
    return script("producer/sensor_producer.py")


@pytest.fixture
def signals() -> Iterator[None]:
    """Put the signal handlers back that the program replaces."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def as_dict(reading: Reading) -> dict:
    """Return a reading of temperature and vibration with a name for each value, without what it does not have."""
    temperature, vibration = reading.values
    named = {"sensor_id": reading.sensor_id, "temperature": temperature, "vibration": vibration}
    optional = {"label": reading.label, "event_time": reading.event_time}
    return named | {name: value for name, value in optional.items() if value is not None}


def simulated(producer, count: int, nodes: int = 2, seed: int | None = 7, shifts=None) -> list[tuple[int, dict]]:
    """Return the first simulated readings."""
    readings = itertools.islice(producer.simulate_readings(Settings(), nodes, seed, shifts), count)
    return [(node, as_dict(reading)) for node, reading in readings]


# --- simulated readings


def test_simulated_readings_fill_the_ranges_of_the_contract(producer):
    readings = [reading for _, reading in simulated(producer, 10_000)]
    temperatures = [reading["temperature"] for reading in readings]
    vibrations = [reading["vibration"] for reading in readings]
    # Of 10,000 uniform draws, one is nearer than a hundredth of the range to either end: all but surely.
    assert 60.0 <= min(temperatures) < 60.3
    assert 89.7 < max(temperatures) <= 90.0
    assert 0.02 <= min(vibrations) < 0.0208
    assert 0.0992 < max(vibrations) <= 0.1
    # The mean is that of the ends, its standard error 30 / sqrt(12 * 10,000) = 0.087 °C, five of which are allowed.
    assert sum(temperatures) / 10_000 == pytest.approx(75, abs=0.44)
    assert sum(vibrations) / 10_000 == pytest.approx(0.06, abs=0.0012)


def test_simulated_readings_have_two_and_three_decimals(producer):
    for _, reading in simulated(producer, 1000):
        assert reading["temperature"] == round(reading["temperature"], 2)
        assert reading["vibration"] == round(reading["vibration"], 3)
    assert any(reading["temperature"] != round(reading["temperature"], 1) for _, reading in simulated(producer, 100))
    assert any(reading["vibration"] != round(reading["vibration"], 2) for _, reading in simulated(producer, 100))


def test_simulated_labels_follow_the_rule_and_both_occur(producer):
    readings = [reading for _, reading in simulated(producer, 1000)]
    for reading in readings:
        assert reading["label"] == (1 if reading["temperature"] > 85 or reading["vibration"] > 0.08 else 0)
    assert {reading["label"] for reading in readings} == {0, 1}


def test_a_simulated_reading_has_the_fields_of_the_contract_and_no_other(producer):
    (_, reading), *_ = simulated(producer, 1)
    assert list(reading) == ["sensor_id", "temperature", "vibration", "label"]
    assert [type(value) for value in reading.values()] == [str, float, float, int]


def test_the_nodes_take_turns_and_the_sensor_is_named_after_its_node(producer):
    readings = simulated(producer, 7, nodes=3)
    assert [node for node, _ in readings] == [1, 2, 3, 1, 2, 3, 1]
    assert all(reading["sensor_id"] == f"node-{node}" for node, reading in readings)


def test_a_seed_gives_the_same_readings_each_time_and_another_seed_gives_others(producer):
    assert simulated(producer, 100, seed=7) == simulated(producer, 100, seed=7)
    assert simulated(producer, 100, seed=7) != simulated(producer, 100, seed=8)
    assert simulated(producer, 100, seed=None) != simulated(producer, 100, seed=None)


def test_a_shift_moves_one_nodes_readings_and_their_labels_follow(producer):
    plain, shifted = simulated(producer, 400), simulated(producer, 400, shifts={2: (10.0, -0.01)})
    for (node, before), (_, after) in zip(plain, shifted, strict=True):
        warmer, stronger = (10.0, -0.01) if node == 2 else (0.0, 0.0)
        assert after["temperature"] == pytest.approx(before["temperature"] + warmer, abs=0.0051)
        assert after["vibration"] == pytest.approx(before["vibration"] + stronger, abs=0.00051)
        assert after["label"] == (1 if after["temperature"] > 85 or after["vibration"] > 0.08 else 0)
    assert max(reading["temperature"] for node, reading in shifted if node == 2) > 95


def test_more_features_are_simulated_each_in_its_range_with_its_decimals_and_shift(producer):
    settings = Settings(
        features="speed:0:3000,heat:-40:120,load:0:0.01,temperature:0:200",
        simulated_ranges="speed:1200:1800",
        label_rule="speed>1700 or heat<0 or load>=0.005",
        classes=3,
    )
    shifts = {2: (1000.0, 0.0, -0.001, 0.0)}
    readings = list(itertools.islice(producer.simulate_readings(settings, 2, 7, shifts), 1000))
    ranges = {
        1: [(1200, 1800), (-40, 120), (0, 0.01), (0, 200)],
        2: [(2200, 2800), (-40, 120), (-0.001, 0.009), (0, 200)],
    }
    for node, reading in readings:
        assert len(reading.values) == 4
        for value, (low, high), decimals in zip(reading.values, ranges[node], (2, 2, 3, 2), strict=True):
            assert low <= value <= high
            assert value == round(value, decimals)
        speed, heat, load, _ = reading.values
        assert reading.label == min(2, (speed > 1700) + (heat < 0) + (load >= 0.005))
    assert {reading.label for _, reading in readings} == {0, 1, 2}


# --- readings from a CSV file


MACHINE = {"sensor_id": "machine"}


@pytest.fixture
def replay(producer, tmp_path):
    """Return what makes a replay of a file with this text."""

    def made(text: str, columns: dict[str, str] | None = None, nodes: int = 2, settings=SETTINGS, **more) -> Replay:
        path: Path = tmp_path / "machines.csv"
        path.write_text(text, newline="", encoding="utf-8")
        rule = label_rule(settings)
        bad = BadRows(more.pop("skip", False))
        meaning = Meaning(settings, lambda values: label_of(values, rule, settings.classes), columns or {}, **more)
        return Replay([open_table(path, Given())], meaning, nodes, bad)

    return made


@pytest.fixture
def replayed(replay):
    """Return what gives the readings of a file with this text."""

    def readings(text: str, columns: dict[str, str] | None = None, nodes: int = 2, **more) -> list[tuple[int, dict]]:
        return [(node, as_dict(reading)) for node, reading in replay(text, columns, nodes, **more)]

    return readings


def test_a_csv_file_with_the_fields_as_columns_needs_no_mapping(replayed):
    text = "sensor_id,temperature,vibration,label,event_time\ns1,72.48,0.071,1,1700000000000\n"
    reading = {"sensor_id": "s1", "temperature": 72.48, "vibration": 0.071, "label": 1, "event_time": 1700000000000}
    assert replayed(text) == [(1, reading)]


def test_columns_of_other_names_are_mapped_and_the_rest_is_ignored(replayed):
    text = "machine,temp_c,vib_g,alarm,ms,colour\nm1,72.48,0.071,1,1768636493100,red\n"
    columns = {
        "sensor_id": "machine",
        "temperature": "temp_c",
        "vibration": "vib_g",
        "label": "alarm",
        "event_time": "ms",
    }
    reading = {"sensor_id": "m1", "temperature": 72.48, "vibration": 0.071, "label": 1, "event_time": 1768636493100}
    assert replayed(text, columns) == [(1, reading)]


def test_columns_may_have_the_names_of_the_settings_and_more_signals(replay):
    settings = Settings(
        features="speed:0:3000,heat:-40:120",
        fields="sensor_id=Machine ID,speed=Rotational speed [rpm],label=Machine failure",
        label_rule="speed>2000",
    )
    text = "Machine ID,Rotational speed [rpm],heat,Machine failure,note\nm1,1551,30.5,1,x\n"
    assert list(replay(text, settings=settings)) == [(1, Reading("m1", (1551.0, 30.5), 1, None))]
    # An option goes before a setting; without a column of labels the rule of the settings holds.
    text = "m,rpm,heat\nm1,1551,30.5\nm2,2001,20\n"
    columns = {"sensor_id": "m", "speed": "rpm"}
    assert list(replay(text, columns, settings=settings)) == [
        (1, Reading("m1", (1551.0, 30.5), 0, None)),
        (2, Reading("m2", (2001.0, 20.0), 1, None)),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1768636493", 1768636493000),
        ("1768636493.1", 1768636493100),
        ("1768636493100", 1768636493100),
        ("1768636493100999", 1768636493101),
        ("2026-01-17T07:54:53.100999", 1768636493100),  # 20,470 days, 7 h 54 min 53.1 s; the rest is cut off
        ("2026-01-17 08:54:53+01:00", 1768636493000),
        ("2026-01-17", 1768608000000),  # 20,470 days of 86,400 s
    ],
)
def test_a_time_may_be_in_s_ms_or_us_or_iso_8601(replayed, text, expected):
    (_, reading), *_ = replayed(f"temperature,vibration,event_time\n70,0.05,{text}\n")
    assert reading["event_time"] == expected


def test_without_a_sensor_column_the_rows_are_dealt_out_to_the_nodes(replayed):
    readings = replayed("temperature,vibration\n" + "70,0.05\n" * 5, nodes=3)
    assert [(node, reading["sensor_id"]) for node, reading in readings] == [
        (1, "node-1"),
        (2, "node-2"),
        (3, "node-3"),
        (1, "node-1"),
        (2, "node-2"),
    ]


def test_a_sensor_stays_with_its_node_and_new_sensors_go_to_the_nodes_in_turn(replayed):
    rows = "".join(f"{sensor},70,0.05\n" for sensor in ("s9", "s4", "s9", "s7", "s4", "s7"))
    readings = replayed("sensor_id,temperature,vibration\n" + rows)
    # s9 is the first sensor to appear, s4 the second, s7 the third: nodes 1, 2 and 1 again.
    assert [(reading["sensor_id"], node) for node, reading in readings] == [
        ("s9", 1),
        ("s4", 2),
        ("s9", 1),
        ("s7", 1),
        ("s4", 2),
        ("s7", 1),
    ]


def test_without_a_label_column_the_label_follows_the_rule(replayed):
    readings = replayed("temperature,vibration\n85,0.08\n85.01,0.02\n60,0.081\n")
    assert [reading["label"] for _, reading in readings] == [0, 1, 1]
    assert all("event_time" not in reading for _, reading in readings)


def test_a_missing_column_is_named_with_those_there_are_and_how_to_map_it(replayed):
    with pytest.raises(StackError, match=r"no column 'temperature'") as caught:
        replayed("temp_c,vibration\n70,0.05\n")
    assert "machines.csv has 'temp_c', 'vibration'" in str(caught.value)
    assert "--column temperature=COLUMN" in str(caught.value)


def test_a_mapped_column_that_is_missing_is_named_as_it_was_given(replayed):
    with pytest.raises(StackError, match=r"no column 'vib' for vibration .*; .* has 'temperature', 'vibration'"):
        replayed("temperature,vibration\n70,0.05\n", {"vibration": "vib"})


def test_a_missing_column_is_named_even_if_the_row_has_more_cells_than_the_header(replayed):
    with pytest.raises(StackError, match=r"no column 'vibration' for vibration .*; .* has 'temperature', 'label'"):
        replayed("temperature,label\n70,0,surplus\n")


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        (
            "temperature,vibration\n70,0.05\nwarm,0.05\n",
            "line 3: temperature is 'warm'; expected a number",
        ),
        (
            "temperature,vibration\n70,\n",
            "line 2: vibration is ''; expected a number",
        ),
        (
            "temperature,vibration\n1_000,0.05\n",
            "line 2: temperature is '1_000'; expected a number",
        ),
        (
            "temperature;vibration\n72,5;0,05\n1\u00a0234,5;0,05\n",
            "line 3: temperature is '1\\xa0234,5'; expected a number without marks between its thousands",
        ),
        (
            "temperature;vibration\n72,5;0,05\n7,5,1;0,05\n",
            "line 3: temperature is '7,5,1'; expected a number",
        ),
        (
            "temperature;vibration\n1 234.5;0.05\n",
            "line 2: temperature is '1 234.5'; expected a number without marks between its thousands",
        ),
        (
            "temperature;vibration\n72.5;0.05\n" + "72.5;0.05\n" * 1000 + "72,5;0.05\n",
            "line 1003: temperature is '72,5'; expected a number with a decimal point; --decimal , reads commas",
        ),
        (
            "temperature,vibration\n70,\u0660\n",
            "line 2: vibration is '\u0660'; expected a number",
        ),
        (
            "temperature,vibration,label\n70,0.05,1.5\n",
            "line 2: label is '1.5'; "
            "expected 0 or 1, or true, yes, vrai, oui, false, no, faux, non, or what --positive says",
        ),
        (
            "temperature,vibration,event_time\n70,0.05,22.11.2026\n",
            "line 2: event_time is '22.11.2026'; "
            "expected ISO 8601 (2026-11-22T10:00:00Z), or a number in s, ms, µs or ns between 1990 and 2100; "
            "another one: --time-unit; another form: --time-unit '%d/%m/%Y %H:%M'",
        ),
    ],
)
def test_a_value_that_is_no_number_is_named_with_line_and_column(replayed, text, finding):
    with pytest.raises(BadRow) as caught:
        replayed(text)
    assert str(caught.value).endswith(f"machines.csv, {finding}: correct it, or leave out this row (--on-bad-row skip)")


@pytest.mark.parametrize("value", ["nan", "inf", "-Infinity", "1e999"])
def test_a_value_that_json_does_not_have_is_named_with_line_and_column(replayed, value):
    with pytest.raises(StackError, match=f"line 2: temperature is '{value}'; expected a"):
        replayed(f"temperature,vibration\n{value},0.05\n")


@pytest.mark.parametrize("end", ["71,5,0,06\n", "71.5\n", "71.5,0.06,\n"])
def test_a_row_of_another_length_than_the_header_ends_the_readings(replay, end):
    text = "temperature,vibration\n70.5,0.05\n" + end + "72,0.07\n"
    readings = iter(replay(text, nodes=1))
    assert next(readings)[1].values == (70.5, 0.05)
    with pytest.raises(StackError, match=r"machines\.csv, line 3: \d values; expected 2 as in the header"):
        next(readings)


def test_a_row_short_of_a_value_is_not_read_one_column_to_the_left(replayed):
    text = "ms,temperature,vibration,rssi,samples\n0,66.48,0.029,42,4000\n12000,0.053,5,4012\n"
    with pytest.raises(StackError, match="line 3: 4 values; expected 5"):
        replayed(text)


@pytest.mark.parametrize("end", ["", '80,0.05,inch"\n81,0.05,\n'])
def test_a_stray_quote_is_named_with_the_line_it_opens_on(replayed, end):
    text = 'temperature,vibration,remark\n77.4,0.067,\n62.3,0.038,"belt 5 slipping\n' + "79.3,0.036,ok\n" * 190 + end
    with pytest.raises(StackError, match=r"line 3: .*expected a quote at both ends"):
        replayed(text)


def test_a_quote_inside_a_remark_changes_no_reading(replayed):
    text = 'temperature,vibration,remark\n70,0.05,5" pipe\n71,0.06,the "old" one\n72,0.07,\n'
    assert [reading["temperature"] for _, reading in replayed(text)] == [70, 71, 72]


def test_a_column_that_is_there_twice_is_refused_before_any_reading(replayed):
    text = "sensor_id,temperature,vibration, temperature,label\nm1,70,0.05,20,0\n"
    with pytest.raises(StackError, match="line 1: column temperature is there twice"):
        replayed(text)


def test_blanks_around_names_and_values_do_not_count(producer, replayed):
    reading = {"sensor_id": "m1", "temperature": 70.5, "vibration": 0.05, "label": 0}
    assert replayed("sensor_id, temperature, vibration\nm1 , 70.5, 0.05\n") == [(1, reading)]
    columns = producer.parse_columns("temperature= temp,vibration=vib ", (), Settings())
    assert replayed("sensor_id, temp ,vib\nm1,70.5,0.05\n", columns) == [(1, reading)]


@pytest.mark.parametrize("value", ["", "  ", '""'])
def test_a_sensor_without_a_name_is_refused_with_its_line(replay, value):
    lines = ["machine,temperature,vibration", "m1,70,0.05", f"{value},71,0.05"]
    readings = iter(replay("\n".join(lines), MACHINE))
    assert next(readings)[1].sensor_id == "m1"
    with pytest.raises(StackError, match="expected") as caught:
        next(readings)
    assert "line 3: machine is ''; expected the name of a sensor; --leave-out leaves out the whole" in str(caught.value)


def test_a_last_row_that_is_cut_off_is_refused_with_its_line(replayed):
    text = "event_time,temperature,vibration,label,sensor_id\n1700000000000,60,0.020,0,press-1\n1700000001000,70,0.03"
    with pytest.raises(StackError, match="line 3: 3 values; expected 5"):
        replayed(text)


def test_a_file_without_a_line_is_refused(replayed):
    with pytest.raises(StackError, match="line 1: the file is empty; expected a header"):
        replayed("")


def test_the_line_named_is_the_files_line_even_after_an_empty_one(replayed):
    with pytest.raises(StackError, match="line 4: temperature is 'warm'"):
        replayed("temperature,vibration\n70,0.05\n\nwarm,0.05\n")


def test_the_readings_before_a_bad_line_are_passed_on(replay):
    readings = iter(replay("temperature,vibration\n70,0.05\nx,0.05", nodes=1))
    assert next(readings)[1].values == (70.0, 0.05)
    with pytest.raises(StackError, match="line 3"):
        next(readings)


# --- options


@pytest.mark.parametrize(
    ("text", "shift"), [("2:10:0.02", (2, (10.0, 0.02))), ("1:-5.5:-0.01", (1, (-5.5, -0.01))), ("3:0:0", (3, (0, 0)))]
)
def test_a_shift_is_read(producer, text, shift):
    assert producer.parse_shift(text, Settings().table) == shift


@pytest.mark.parametrize("text", ["", "2", "2:10", "2:10:0.02:1", "two:10:0.02", "2:warm:0.02", "2:10:", "2,10,0.02"])
def test_a_shift_of_another_form_is_refused(producer, text):
    with pytest.raises(ValueError, match=r".+"):
        producer.parse_shift(text, Settings().table)


@pytest.mark.parametrize("text", ["2:nan:0", "2:0:inf"])
def test_a_shift_to_where_no_reading_can_be_is_refused(producer, text):
    with pytest.raises(ValueError, match=r".+"):
        producer.parse_shift(text, Settings().table)


def test_a_shift_has_an_amount_for_each_feature_and_is_refused_with_their_names(producer):
    table = Settings(features="speed:0:3000,heat:-40:120,load:0:1").table
    assert producer.parse_shift("2:1:-2:0.5", table) == (2, (1.0, -2.0, 0.5))
    with pytest.raises(ValueError, match=r"'2:1:2'; expected NODE:SPEED:HEAT:LOAD, with finite numbers"):
        producer.parse_shift("2:1:2", table)


def test_columns_are_read(producer):
    settings = Settings()
    assert producer.parse_columns("", (), settings) == {}
    assert producer.parse_columns("temperature=temp_c", (), settings) == {"temperature": "temp_c"}
    assert producer.parse_columns("sensor_id=a b,label=x=y", (), settings) == {"sensor_id": "a b", "label": "x=y"}
    assert producer.parse_columns("speed= v", (), Settings(features="speed:0:1")) == {"speed": "v"}


def test_a_column_for_a_field_that_readings_do_not_have_is_refused_with_those_they_have(producer):
    with pytest.raises(ValueError, match="heat, noise is no field of a reading") as caught:
        producer.parse_columns("noise=n,heat=h,label=l", (), Settings())
    assert "expected sensor_id, temperature, vibration, label, event_time" in str(caught.value)


@pytest.mark.parametrize("text", ["temperature", "temperature=t,", ","])
def test_columns_of_another_form_are_refused(producer, text):
    with pytest.raises(ValueError, match=r".+"):
        producer.parse_columns(text, (), Settings())


# --- pace


class Clock:
    """A clock that only moves when somebody waits for it or says so; also the event that is waited on."""

    def __init__(self) -> None:
        """Start at an odd time, so that only differences can be right."""
        self.now = 1234.5
        self.waits = 0
        self.stop_at = float("inf")

    def monotonic(self) -> float:
        """Return the time."""
        return self.now

    def wait(self, seconds: float) -> bool:
        """Let the time pass."""
        assert seconds > 0
        self.waits += 1
        self.now += seconds
        return self.is_set()

    def is_set(self) -> bool:
        """Tell whether it is time to stop."""
        return self.now >= self.stop_at


@pytest.fixture
def clock(producer, monkeypatch) -> Clock:
    """Return the clock that `paced` goes by."""
    clock = Clock()
    monkeypatch.setattr(producer, "time", clock)
    return clock


def numbered(count: int) -> list[tuple[int, dict]]:
    """Return readings that can be told apart."""
    return [(1, {"index": index}) for index in range(count)]


def test_readings_come_at_the_rate(producer, clock):
    begin = clock.now
    times = [clock.now - begin for _ in producer.paced(numbered(5), 4.0, clock)]
    # Four a second: every 250 ms, the first at once.
    assert times == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])


def test_all_readings_come_in_their_order(producer, clock):
    assert list(producer.paced(numbered(100), 1000.0, clock)) == numbered(100)


def test_a_late_reading_does_not_delay_those_behind_it(producer, clock):
    begin = clock.now
    times = []
    for _, reading in producer.paced(numbered(6), 4.0, clock):
        times.append(clock.now - begin)
        if reading["index"] == 1:
            clock.now += 0.6  # the broker was slow with the second one
    # Due at 0, 0.25, 0.5, 0.75, 1.0, 1.25; the third and the fourth are late because of the second.
    assert times == pytest.approx([0, 0.25, 0.85, 0.85, 1.0, 1.25])


def test_a_high_rate_is_kept_although_no_wait_is_shorter_than_a_millisecond(producer, clock):
    begin = clock.now
    count = sum(1 for _ in producer.paced(numbered(10_001), 5000.0, clock))
    assert count == 10_001
    assert clock.now - begin == pytest.approx(2.0, abs=0.002)
    assert clock.waits < 10_001 / 2


def test_a_rate_of_0_never_waits(producer, clock):
    assert len(list(producer.paced(numbered(1000), 0, clock))) == 1000
    assert clock.waits == 0


def test_stopping_ends_the_readings_even_while_one_is_waited_for(producer, clock):
    clock.stop_at = clock.now + 0.6
    # Due at 0, 0.25, 0.5; while the one due at 0.75 is waited for, it is time to stop.
    assert len(list(producer.paced(numbered(100), 4.0, clock))) == 3


def test_a_program_told_to_stop_before_it_began_sends_nothing(producer, clock):
    clock.stop_at = clock.now
    assert list(producer.paced(numbered(3), 0, clock)) == []


# --- delivery


class Delivery:
    """What kafka-python returns of `send`, as far as it is used."""

    def __init__(self, error: Exception | None) -> None:
        """Fail with the error, if there is one."""
        self.error = error

    def add_errback(self, call) -> None:
        """Call back at once, as kafka-python does for a delivery that has already failed."""
        if self.error:
            call(self.error)


class Broker:
    """A producer that keeps what it is given, and fails from a certain record on."""

    def __init__(self, fails_at: int | None = None) -> None:
        """Take everything, or everything up to a record."""
        self.sent: list[tuple[str, bytes, bytes]] = []
        self.flushed = 0
        self.fails_at = fails_at

    def __enter__(self) -> Broker:
        """Stand in for a connection."""
        return self

    def __exit__(self, *_: object) -> None:
        """Keep what was sent."""

    def send(self, topic: str, key: bytes, value: bytes) -> Delivery:
        """Take a record."""
        self.sent.append((topic, key, value))
        return Delivery(TimeoutError("no answer") if len(self.sent) == self.fails_at else None)

    def flush(self) -> None:
        """Remember how much had been sent."""
        self.flushed = len(self.sent)


TOPICS = {1: sensor_topic(1), 2: sensor_topic(2)}


def some_readings(count: int) -> list[tuple[int, Reading]]:
    """Return so many readings of node 1."""
    return [(1, Reading("node-1", (72.5, 0.05), 0))] * count


def test_a_reading_is_sent_and_shown_under_the_names_of_the_settings(producer, capsys):
    broker = Broker()
    names = "sensor_id=node_id,label=anomaly,event_time=timestamp,temperature=features.t,vibration=features.v"
    readings = [(2, Reading("7", (72.5, 0.05), 1, 1768636493100))]
    assert producer.Sender(broker, TOPICS, reading_format(Settings(fields=names)), False).send_all(readings) == 1
    sent = {"node_id": "7", "features": {"t": 72.5, "v": 0.05}, "anomaly": 1, "timestamp": 1768636493100}
    assert [(topic, key, json.loads(value)) for topic, key, value in broker.sent] == [
        ("sensor-data-node-2", b"7", sent)
    ]
    assert capsys.readouterr().out == f"Node-2: {sent}\n"


def test_each_reading_goes_to_its_nodes_topic_under_its_sensors_name(producer, capsys):
    broker = Broker()
    first = {"sensor_id": "node-1", "temperature": 72.48, "vibration": 0.071, "label": 0}
    second = {"sensor_id": "é2", "temperature": 78.0, "vibration": 0.033, "label": 0}
    readings = [(1, Reading("node-1", (72.48, 0.071), 0)), (2, Reading("é2", (78.0, 0.033), 0))]
    assert producer.Sender(broker, TOPICS, FORM, False).send_all(readings) == 2
    assert [(topic, key) for topic, key, _ in broker.sent] == [
        ("sensor-data-node-1", b"node-1"),
        ("sensor-data-node-2", "é2".encode()),
    ]
    assert [json.loads(value) for _, _, value in broker.sent] == [first, second]
    assert broker.flushed == 2
    # The lines of the report's section 8.1.1.
    assert capsys.readouterr().out == (
        "Node-1: {'sensor_id': 'node-1', 'temperature': 72.48, 'vibration': 0.071, 'label': 0}\n"
        "Node-2: {'sensor_id': 'é2', 'temperature': 78.0, 'vibration': 0.033, 'label': 0}\n"
    )


def test_in_quiet_mode_the_first_reading_and_every_ten_thousand_are_told(producer, capsys):
    readings = some_readings(20_001)
    assert producer.Sender(Broker(), TOPICS, FORM, True).send_all(readings) == 20_001
    assert capsys.readouterr().out == "first reading sent\n10000 readings sent\n20000 readings sent\n"


def test_nothing_to_send_is_no_failure(producer):
    broker = Broker()
    assert producer.Sender(broker, TOPICS, FORM, False).send_all([]) == 0
    assert broker.sent == []


def test_a_reading_that_the_broker_does_not_take_ends_the_program_with_an_error(producer):
    broker = Broker(fails_at=3)
    with pytest.raises(click.ClickException) as caught:
        producer.Sender(broker, TOPICS, FORM, True).send_all(some_readings(100))
    assert "the broker did not take a reading: TimeoutError('no answer')" in caught.value.message
    assert len(broker.sent) == 3, "readings were sent after the failure"


def test_a_last_reading_that_fails_only_when_flushed_is_noticed(producer):
    class LateBroker(Broker):
        def send(self, topic: str, key: bytes, value: bytes) -> Delivery:
            self.delivery = super().send(topic, key, value)
            self.delivery.add_errback = lambda call: setattr(self, "call", call)
            return self.delivery

        def flush(self) -> None:
            self.call(TimeoutError("too late"))

    with pytest.raises(click.ClickException, match="too late"):
        producer.Sender(LateBroker(), TOPICS, FORM, True).send_all(some_readings(1))


# --- command line


def run(producer, *arguments: str, **env: str) -> Result:
    """Run the program with these arguments and variables."""
    return CliRunner().invoke(producer.main, arguments, env=env)


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_shows_each_example_on_a_line_of_its_own(producer, option):
    result = run(producer, option)
    assert result.exit_code == 0
    examples = [line.strip() for line in producer.__doc__.splitlines() if "python producer/" in line]
    assert len(examples) == 5
    assert set(examples) <= {line.strip() for line in result.output.splitlines()}


@pytest.mark.parametrize(
    ("arguments", "finding"),
    [
        (["--nodes", "0"], "--nodes"),
        (["--nodes", "two"], "--nodes"),
        (["--rate", "-1"], "--rate"),
        (["--rate", "fast"], "--rate"),
        (["--count", "0"], "--count"),
        (["--seed", "x"], "--seed"),
        (["--csv", "no/such/file.csv"], "no/such/file.csv"),
        (["--csv", "."], "--csv"),
        (["--shift", "2:10"], "--shift 2:10"),
        (["--shift", "2:warm:0"], "'warm'"),
        (["--columns", "heat=h"], "heat is no field of a reading"),
        (["--columns", "temperature"], "--columns temperature"),
        (["--speed", "3"], "--speed"),
        (["surplus"], "surplus"),
    ],
)
def test_a_bad_option_ends_the_program_with_code_2_and_is_named(producer, arguments, finding):
    result = run(producer, *arguments)
    assert result.exit_code == 2
    assert finding in result.output


def test_a_bad_setting_ends_the_program_with_code_1_and_is_named_without_a_traceback(producer):
    result = run(producer, NUMBERS_PORT="ninety")
    assert result.exit_code == 1
    assert result.output.startswith("Error: NUMBERS_PORT is 'ninety'; expected a whole number")


def test_no_broker_ends_the_program_within_the_bounded_time_and_is_named(program, closed_port):
    broker = f"127.0.0.1:{closed_port}"
    with program("producer/sensor_producer.py", KAFKA_BOOTSTRAP_SERVERS=broker, WAIT_TIMEOUT_SECONDS="0.3") as process:
        out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert err.startswith(f"Error: no Kafka broker answered at {broker} within 0.3 s")


@pytest.mark.usefixtures("signals")
def test_a_bad_line_of_a_file_is_named_with_the_file(producer, monkeypatch, tmp_path):
    broker = Broker()
    monkeypatch.setattr(producer.kafka, "ensure_topics", lambda *_: [])
    monkeypatch.setattr(producer.kafka, "connect_producer", lambda *_, **__: broker)
    file: Path = tmp_path / "machines.csv"
    file.write_text("\ufefftemp,vibration\n70.5,0.05\nwarm,0.05\n", encoding="utf-8")
    result = run(producer, "--csv", str(file), "--columns", "temperature=temp", "--rate", "0", "--no-quiet")
    assert result.exit_code == 1
    assert f"Error: {file}, line 3: temp is 'warm'; expected a number" in result.output
    assert [json.loads(value)["temperature"] for _, _, value in broker.sent] == [70.5]
