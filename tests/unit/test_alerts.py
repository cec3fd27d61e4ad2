"""What `fedstream alerts` makes of the topic, with figures worked out by hand."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from fedstream.commands.alerts import alert_rows, delays
from fedstream.commands.cli import main
from fedstream.messages.alerts import Alert
from fedstream.messages.rounds import global_model
from tests.unit.fake_topics import Topics


def score(version: int, event_time: int, scored_at: int, alert: bool = False) -> Alert:
    return Alert("s", 0.5, alert, version, "run-a", event_time, scored_at)


def test_the_delays_are_those_from_event_to_score():
    found = delays([score(1, 0, delay) for delay in (10, 20, 30, 40, 1000)])
    # Linear between neighbours: 95 % lies 0.8 of the way from the 4th to the 5th of five.
    assert found == {"p50": 30.0, "p95": pytest.approx(808.0), "p99": pytest.approx(961.6), "p100": 1000.0}
    assert delays([]) == {}


def test_a_reading_scored_again_is_counted_under_the_version_that_did_it():
    keys = [b"t/0/1", b"t/0/2", b"t/0/1", b"t/0/3", b"t/0/3", b"t/0/3"]
    messages = [score(1, 0, 5, True), score(1, 0, 6), *(score(2, 0, at, True) for at in (7, 8, 9, 10))]
    rows = alert_rows(keys, messages, {("run-a", 2): 3})
    assert [(row["version"], row["scored"], row["repeated"], row["alerts"]) for row in rows] == [
        (1, 2, 0, 1),
        (2, 4, 3, 4),
    ]
    assert [row["took_over_ms"] for row in rows] == [None, 4]  # of version 1 it is not known when it was made


@pytest.fixture
def topics(monkeypatch) -> Topics:
    topics = Topics().install(monkeypatch)
    topics.add("model-versions", b"run-a/7", global_model("run-a", 8, 7, {}))  # at 1000
    for offset in range(3):
        topics.add("alerts", b"t/0/%d" % (offset // 2), score(7, 2000, 2100 + offset))
    return topics


def test_the_command_prints_a_row_for_each_version_as_json(topics):
    result = CliRunner().invoke(main, ["alerts", "--json"])
    (row,) = json.loads(result.output)
    assert (row["version"], row["scored"], row["repeated"], row["took_over_ms"]) == (7, 3, 1, 1100)


def test_the_command_prints_a_table(topics):
    result = CliRunner().invoke(main, ["alerts"])
    assert result.exit_code == 0
    assert result.output.splitlines()[-2].split() == ["7", "3", "1", "0", "101", "102", "102", "102", "1.1"]


def test_the_scored_readings_go_to_a_file_with_those_of_a_crash_marked(topics, tmp_path):
    result = CliRunner().invoke(main, ["alerts", "--output", str(tmp_path / "alerts.csv")])
    assert result.output == f"3 scored readings are in {tmp_path}/alerts.csv.\n"
    # 2000 ms after the begin of 1970, scored 100 to 102 ms later.
    assert (tmp_path / "alerts.csv").read_text().splitlines() == [
        "reading,repeated,sensor_id,probability,alert,model_version,run_id,event_time,scored_at",
        "t/0/0,False,s,0.5,False,7,run-a,1970-01-01T00:00:02.000+00:00,1970-01-01T00:00:02.100+00:00",
        "t/0/0,True,s,0.5,False,7,run-a,1970-01-01T00:00:02.000+00:00,1970-01-01T00:00:02.101+00:00",
        "t/0/1,False,s,0.5,False,7,run-a,1970-01-01T00:00:02.000+00:00,1970-01-01T00:00:02.102+00:00",
    ]


def test_the_last_ones_only(topics):
    result = CliRunner().invoke(main, ["alerts", "--last", "1", "--json"])
    assert [row["scored"] for row in json.loads(result.output)] == [1]


def test_an_empty_topic_is_told_with_what_to_do(monkeypatch):
    Topics().install(monkeypatch)
    result = CliRunner().invoke(main, ["alerts"])
    assert result.exit_code == 1
    assert "topic alerts has no scored reading; start the job first: make run-alerts" in result.output
