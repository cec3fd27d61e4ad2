"""A file that is replayed: what is shown and warned of before, where it stops, and how it goes on."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from test_sensor_producer import Broker, run
from test_sensor_producer import producer as producer
from test_sensor_producer import signals as signals

pytestmark = pytest.mark.usefixtures("signals")
HEADER = "machine,temperature,vibration,failed\n"
ROWS = [f"press-{i % 3},{60 + i}.5,0.05,{int(i > 7)}\n" for i in range(10)]


class Stopping(Broker):
    """A broker that tells the program to stop when it has sent so many readings."""

    stops_at: int | None = None

    def send(self, topic: str, key: bytes, value: bytes):
        """Take a record."""
        delivery = super().send(topic, key, value)
        if len(self.sent) == self.stops_at:
            signal.raise_signal(signal.SIGTERM)
        return delivery

    @property
    def temperatures(self) -> list[float]:
        """What was sent, by its temperature."""
        return [json.loads(value)["temperature"] for _, _, value in self.sent]


@pytest.fixture
def broker(producer, monkeypatch) -> Stopping:
    """Return the broker that the program finds."""
    broker = Stopping()
    monkeypatch.setattr(producer.kafka, "ensure_topics", lambda *_: [])
    monkeypatch.setattr(producer.kafka, "connect_producer", lambda *_, **__: broker)
    return broker


@pytest.fixture
def sensors(producer, tmp_path, broker) -> Callable[..., Result]:
    """Return what runs the program on a file as fast as it can, with these options more."""

    def started(file: Path | str, *options: str, **env: str) -> Result:
        columns = ("--columns", "sensor_id=machine,label=failed", "--rate", "0", "--no-quiet")
        return run(producer, "--csv", str(file), *columns, *options, CHECKPOINT_DIR=str(tmp_path / "run"), **env)

    return started


@pytest.fixture
def file(tmp_path) -> Path:
    """Return a file of ten rows."""
    path = tmp_path / "machines.csv"
    path.write_text(HEADER + "".join(ROWS))
    return path


TEN = [60.5, 61.5, 62.5, 63.5, 64.5, 65.5, 66.5, 67.5, 68.5, 69.5]


# --- going on


@pytest.mark.parametrize("stops_at", [1, 4, 10])
def test_a_replay_that_was_stopped_goes_on_with_the_next_row(sensors, broker, file, stops_at):
    broker.stops_at = stops_at
    stopped = sensors(file)
    assert (stopped.exit_code, broker.temperatures) == (0, TEN[:stops_at])
    assert "--resume goes on there" in stopped.output
    resumed = sensors(file, "--resume")
    assert (resumed.exit_code, broker.temperatures) == (0, TEN)
    assert f"machines.csv: goes on behind line {stops_at + 1}\n" in resumed.output
    assert f"{10 - stops_at} readings sent, all acknowledged" in resumed.output


def test_a_replay_with_a_count_goes_on_behind_it_and_each_sensor_stays_with_its_node(sensors, broker, file):
    for _ in range(3):
        assert sensors(file, "--resume", "--count", "4").exit_code == 0
    assert broker.temperatures == TEN
    # The first and third machine are node 1's, the second one is node 2's, as in one go.
    assert [topic[-1] for topic, _, _ in broker.sent] == ["1", "2", "1", "1", "2", "1", "1", "2", "1", "1"]
    assert "0 readings sent" in sensors(file, "--resume").output


def test_a_bad_row_stops_with_how_many_were_sent_and_once_corrected_the_rest_follows(sensors, broker, file):
    file.write_text(HEADER + "".join(ROWS).replace("64.5", "warm"))
    stopped = sensors(file)
    assert stopped.exit_code == 1
    assert "line 6: temperature is 'warm'; expected a number" in stopped.output
    assert "4 readings were sent before it, all acknowledged: --resume goes on behind them" in stopped.output
    again = sensors(file, "--resume")
    assert (again.exit_code, len(broker.sent)) == (1, 4)
    file.write_text(HEADER + "".join(ROWS))
    assert sensors(file, "--resume").exit_code == 0
    assert broker.temperatures == TEN


def test_bad_rows_are_skipped_and_counted_where_that_is_asked_for(sensors, broker, file):
    file.write_text(HEADER + "".join(ROWS).replace("64.5", "warm").replace("66.5,0.05", "66.5").replace(",1\n", ",?\n"))
    result = sensors(file, "--on-bad-row", "skip")
    assert (result.exit_code, broker.temperatures) == (0, [60.5, 61.5, 62.5, 63.5, 65.5, 67.5])
    assert "6 readings sent, all acknowledged\n4 bad rows left out, such as\n" in result.output
    for line in ("line 6: temperature is 'warm'", "line 8: 3 values; expected 4", "line 10: failed is '?'"):
        assert line in result.output
    assert "line 11" not in result.output  # three tell enough


@pytest.fixture
def files(tmp_path) -> str:
    """Return a pattern of three files of four, two and three rows, whose names are the sensors."""
    header = HEADER.removeprefix("machine,")
    for name, first, count in (("a", 10, 4), ("b", 20, 2), ("c", 30, 3)):
        rows = "".join(f"{first + i},0.05,0\n" for i in range(count))
        (tmp_path / f"{name}.csv").write_text(header + rows)
    return f"{tmp_path}/?.csv"


LABELS = ("--columns", "label=failed")


def test_several_files_go_on_each_where_it_was(sensors, broker, files):
    sensors(files, *LABELS, "--count", "5")
    assert broker.temperatures == [10, 20, 30, 11, 21]
    result = sensors(files, *LABELS, "--resume")
    assert broker.temperatures[5:] == [31, 12, 32, 13]
    for name, line in (("a", 3), ("b", 3), ("c", 2)):
        assert f"{name}.csv: goes on behind line {line}\n" in result.output


def test_of_several_files_nothing_more_is_sent_if_one_is_another_one_now(sensors, broker, files, tmp_path):
    sensors(files, *LABELS, "--count", "5")
    (tmp_path / "b.csv").write_text((tmp_path / "b.csv").read_text().replace("21,", "22,"))
    result = sensors(files, *LABELS, "--resume")
    assert "b.csv: line 3 was sent last, '21, 0.05, 0', and is another one now" in result.output
    assert (result.exit_code, len(broker.sent)) == (1, 5)


def test_the_same_file_by_another_path_goes_on_too(sensors, broker, file, monkeypatch):
    sensors(file, "--count", "7")
    monkeypatch.chdir(file.parent)
    assert sensors(file.name, "--resume").exit_code == 0
    assert broker.temperatures == TEN


def test_rows_that_were_added_since_are_sent_alone(sensors, broker, file):
    sensors(file)
    with file.open("a") as more:
        more.write("press-1,99.5,0.05,1\n")
    sensors(file, "--resume")
    assert broker.temperatures == [*TEN, 99.5]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("63.5", "63.4"),
        lambda text: text.replace(ROWS[1], ""),
        lambda text: HEADER + ROWS[0],
        lambda text: HEADER,
    ],
    ids=["another value", "a row less before", "shorter", "empty"],
)
def test_a_file_that_is_another_one_now_is_refused_before_anything_is_sent(sensors, broker, file, change):
    sensors(file, "--count", "4")
    file.write_text(change(file.read_text()))
    result = sensors(file, "--resume")
    assert (result.exit_code, len(broker.sent)) == (1, 4)
    assert "machines.csv: line 5 was sent last, 'press-0, 63.5, 0.05, 0', and is another one now" in result.output
    assert "(without --resume)" in result.output


def test_what_the_broker_did_not_take_is_sent_again(sensors, broker, file):
    sensors(file, "--count", "2")
    broker.fails_at = 5
    assert sensors(file, "--resume").exit_code == 1
    broker.fails_at, broker.sent[2:] = None, []
    assert sensors(file, "--resume").exit_code == 0
    assert broker.temperatures == TEN


def test_to_go_on_with_what_was_never_begun_sends_all_and_says_so(sensors, broker, file):
    assert "no replay of these files to these topics was begun: all is sent" in sensors(file, "--resume").output
    assert broker.temperatures == TEN
    # Other topics are another replay.
    assert "all is sent" in sensors(file, "--resume", "--topic", "sensor-data").output


def test_without_a_file_there_is_nothing_to_show_or_to_go_on_with(producer, broker):
    for option in ("--dry-run", "--resume"):
        result = run(producer, option)
        assert (result.exit_code, broker.sent) == (2, [])
        assert "expected --csv FILE" in result.output


# --- before anything is sent


def cells(output: str, field: str) -> list[str]:
    """Return what the table of a dry run says of a field."""
    [line] = [line for line in output.splitlines() if line.split()[:1] == [field]]
    return [cell.strip(" │") for cell in line.split("  ") if cell.strip(" │")]


def test_a_dry_run_shows_columns_first_values_counts_and_labels_and_sends_nothing(sensors, broker, file):
    rows = "".join(f"{row.strip()},{1700000000 + i},x\n" for i, row in enumerate(ROWS))
    file.write_text(HEADER.replace("\n", ",at,room\n") + rows)
    result = sensors(file, "--columns", "sensor_id=machine,label=failed,event_time=at", "--dry-run", "--nodes", "2")
    assert (result.exit_code, broker.sent) == (0, [])
    taken = "sensor_id = machine, temperature, vibration, label = failed, event_time = at; left out: room"
    assert f"taken: {taken}\n" in result.output
    assert "10 readings" in result.output
    assert cells(result.output, "sensor_id") == ["sensor_id", "machine", "press-0, press-1, press-2"]
    assert cells(result.output, "label") == ["label", "failed", "0, 0, 0"]
    # 1,700,000,000 s after the begin of 1970.
    assert cells(result.output, "event_time") == ["event_time", "at", "2023-11-14T22:13:20Z, 2023-11-14T22:13:21Z"]
    assert cells(result.output, "temperature") == [
        "temperature",
        "temperature",
        "60.5, 61.5, 62.5",
        "60.5",
        "69.5",
        "0",
    ]
    assert cells(result.output, "vibration") == ["vibration", "vibration", "0.05, 0.05, 0.05", "0.05", "0.05", "0"]
    # Machines 0 and 2 are node 1's; rows 8 and 9 failed.
    assert "labels: 0: 8 (80.0%), 1: 2 (20.0%)\nnode 1: 7, node 2: 3\nnothing was sent (--dry-run)\n" in result.output
    assert not (file.parent / "run").exists()


def test_a_dry_run_counts_every_bad_row_and_is_no_success(sensors, broker, file):
    file.write_text(HEADER + "".join(ROWS).replace("64.5", "warm").replace(",1\n", ",?\n"))
    result = sensors(file, "--dry-run")
    assert (result.exit_code, broker.sent) == (1, [])
    assert "7 readings" in result.output
    assert "3 bad rows left out, such as\n" in result.output
    assert "line 6: temperature is 'warm'" in result.output
    assert "Error: bad rows: 3; the first stops a replay: correct them, or --on-bad-row skip" in result.output
    assert sensors(file, "--dry-run", "--on-bad-row", "skip").exit_code == 0


def test_a_dry_run_of_no_rows_says_so(sensors, file):
    file.write_text(HEADER)
    assert "labels: -\nno readings\nnothing was sent" in sensors(file, "--dry-run").output


def test_a_dry_run_counts_readings_without_a_label_where_they_are_allowed(sensors, file):
    file.write_text(HEADER + "".join(ROWS).replace(",1\n", ",NA\n"))
    assert "labels: 0: 8 (80.0%), none: 2 (20.0%)" in sensors(file, "--dry-run", LABELS="optional").output


def test_values_outside_their_limits_are_warned_of_before_anything_is_sent(sensors, broker, file):
    # FEATURES allows 0 to 1000 g.
    file.write_text(HEADER + "".join(ROWS).replace("0.05", "50").replace("66.5,50", "66.5,1500"))
    warning = "vibration: 1 of 10 values are not a number from 0 to 1000, as FEATURES says: they lie from 50 to 1500; "
    result = sensors(file, "--dry-run")
    assert cells(result.output, "vibration")[-3:] == ["50", "1500", "1"]
    assert f"Warning: {warning}" in result.output
    sent = sensors(file).output
    assert (
        f"Warning: in the first rows {warning}such readings become dead letters. Another column, another unit?" in sent
    )
    assert sent.index(warning) < sent.index("Node-1: ")
    assert len(broker.sent) == 10  # the fog's door counts them, and says so


# --- what the options say


TWO = "temperature,vibration"


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("temperature/vibration\n72.5/0.05\n", ("--delimiter", "/")),
        (f"{TWO},a;b\n72.5,0.05,1;2\n", ("--delimiter", ",")),
        ("temperature vibration a;b\n72.5  0.05 1;2\n", ("--delimiter", "blanks")),
        ("temperature\tvibration\ta;b\n72.5\t0.05\t1;2\n", ("--delimiter", "tab")),
        ("temperature;vibration;room\n72,5;0,05;1.5\n", ("--decimal", ",")),
        ("temperature;vibration;room\n72.5;0.05;1,5\n", ("--decimal", ".")),
        ("temperature,vibration,pièce\n72.5,0.05,\x81\n".encode("latin-1"), ("--encoding", "latin-1")),
        (f"{TWO}\n72.5,0.05\n".encode("utf-16-le"), ("--encoding", "utf-16-le")),
        ("72.5,0.05\n", ("--header", "none", "--names", TWO)),
        (f"old,names\n{TWO}\n72.5,0.05\n", ("--header", "2")),
        (f"1,2\n{TWO}\n72.5,0.05\n", ("--header", "2")),
        (f"{TWO}\n1,1\n72.5,0.05\n", ("--header", "1", "--skip-rows", "1")),
        (f"{TWO}\ndegC,g\n1,1\n72.5,0.05\n", ("--header", "1", "--skip-rows", "2")),
        ("a,a\n72.5,0.05\n", ("--names", TWO)),
        ("a,b\n72.5,0.05\n", ("--names", 'temperature,"v, g"', "--column", "vibration=v, g")),
        ("temp,vib\n72.5,0.05\n", ("--columns", "temperature=temp,vibration=vib")),
        (f"sensor_id,{TWO}\n,72.5,0.05\n", ("--leave-out", "sensor_id")),
        (f"{TWO},label\n72.5,0.05,ok\n", ("--leave-out", "label")),
        (f"{TWO},label\n72.5,0.05,ok\n", ("--positive", "panne")),
        (f"{TWO}\nwarm,0.05\n72.5,0.05\n72.5\n", ("--on-bad-row", "skip")),
    ],
)
def test_each_option_reads_a_file_that_is_not_read_so_without_it(producer, broker, tmp_path, content, options):
    path = tmp_path / "machines.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    expected = {"sensor_id": "node-1", "temperature": 72.5, "vibration": 0.05, "label": 0}
    for more in ((), options):
        broker.sent.clear()
        given = ("--csv", str(path), "--rate", "0", "--nodes", "1", *more)
        result = run(producer, *given, CHECKPOINT_DIR=str(tmp_path))
        is_read = (result.exit_code, [json.loads(value) for _, _, value in broker.sent]) == (0, [expected])
        assert is_read == bool(more), result.output


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--delimiter", "comma", "'comma'; expected ,, ;, tab, |, blanks or another sign"),
        ("--delimiter", ".", "another sign"),
        ("--decimal", ";", "'.', ','"),
        ("--header", "0", "expected the number of a line, or none"),
        ("--skip-rows", "-1", "x>=0"),
        ("--on-bad-row", "ignore", "'stop', 'skip'"),
        ("--time-unit", "min", "'min'; expected s, ms, us, ns, or a form such as '%d/%m/%Y %H:%M'"),
    ],
)
def test_an_option_of_another_value_is_refused_with_what_is_expected(sensors, broker, file, option, value, words):
    result = sensors(file, option, value)
    assert (result.exit_code, broker.sent) == (2, [])
    assert words in " ".join(result.output.replace("│", " ").split())


def test_an_encoding_that_there_is_not_is_refused(sensors, file):
    result = sensors(file, "--encoding", "utf-9")
    assert result.exit_code == 1
    assert "Error: --encoding is 'utf-9'; expected utf-8, cp1252, utf-16" in result.output


def test_a_time_unit_in_the_sign_of_micro_is_one(sensors, broker, file):
    file.write_text(HEADER.replace("\n", ",event_time\n") + "press-1,72.5,0.05,0,700000\n")
    assert sensors(file, "--time-unit", "µs").exit_code == 0
    assert json.loads(broker.sent[0][2])["event_time"] == 0.7  # 700 would be taken for seconds


def test_a_positive_label_that_no_row_has_is_warned_of(sensors, file):
    file.write_text(HEADER + "".join(ROWS).replace(",1\n", ",panne\n"))
    assert "labels: 0: 8 (80.0%), 1: 2 (20.0%)" in sensors(file, "--positive", "Panne", "--dry-run").output
    output = sensors(file, "--positive", "pane").output
    assert "no label is 'pane' (--positive), so all are 0. Another spelling?" in output
    assert output.index("'pane'") < output.index("Node-1: ")
