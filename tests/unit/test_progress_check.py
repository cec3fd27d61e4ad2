"""How far a driver's queries have come, by their checkpoints and the ends of their topics."""

from __future__ import annotations

import json
import os
import re
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import msgspec
import pytest
from click.testing import CliRunner
from pyspark import SparkContext

from fedstream.commands.cli import main
from fedstream.settings import Settings
from fedstream.spark import progress as progress_module
from fedstream.spark.progress import DriverProgress, ProgressCheck, StalledError, check_of, last_done
from fedstream.spark.session import failures_told
from fedstream.spark.state import write_json
from fedstream.stack import jobs


def finish(checkpoint: Path, number: int, at: float, *sources: object) -> None:
    """Write down a finished micro-batch as Spark does: where it ends, and that it is done."""
    for name, lines in (("offsets", ["v1", "{}", *map(json.dumps, sources)]), ("commits", ["v1", "{}"])):
        (checkpoint / name).mkdir(parents=True, exist_ok=True)
        (checkpoint / name / str(number)).write_text("\n".join(lines))
    os.utime(checkpoint / "offsets" / str(number), (at - 0.25, at - 0.25))
    os.utime(checkpoint / "commits" / str(number), (at, at))


class Driver:
    """A driver with one query, or two, its topic's end, and a clock."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.now, self.end, self.folders = 1000.0, 0, {name: folder / name for name in names}
        self.ahead = 0.0  # of the wall clock
        progress = DriverProgress("fog-1", 0.0, 0.0, [])
        clocks = (lambda: self.now + self.ahead, lambda: self.now)
        self.check = ProgressCheck(progress, self.folders, self.ends_of, 120.0, clocks)

    def ends_of(self, offsets):
        return None if self.end is None else {"t": {"0": self.end}}

    def look(self, at: float) -> dict:
        self.now = at
        return msgspec.to_builtins(self.check.look())


def test_the_last_finished_micro_batch_tells_where_its_sources_end(tmp_path):
    assert last_done(tmp_path) is None
    finish(tmp_path, 9, 500.0, {"t": {"0": 3}})
    finish(tmp_path, 10, 501.0, {"t": {"0": 5, "1": 7}}, {"u": {"0": 1}}, 44)  # a socket's offset is a number
    (tmp_path / "commits" / ".10.crc").write_text("")
    (tmp_path / "offsets" / "11").write_text("v1\n{}\n{}")  # planned, not finished
    # 0.25 s from plan to end; a socket's lines are counted from 0, so number 44 is the 45th
    assert last_done(tmp_path) == (10, 501.0, {"t": {"0": 5, "1": 7}, "u": {"0": 1}}, 0.25, 45)
    (tmp_path / "offsets" / "10").unlink()  # Spark has just deleted it
    assert last_done(tmp_path) is None


def test_what_waits_is_the_topics_end_less_what_is_finished(tmp_path):
    driver = Driver(tmp_path, "fog-1")
    finish(driver.folders["fog-1"], 4, 990.0, {"t": {"0": 100}})
    driver.end = 130
    (query,) = driver.look(1001)["queries"]
    assert query == {
        "name": "fog-1", "may_wait": False, "micro_batch": 4, "finished_at": 990.0, "behind": 30, "moved_at": 1001.0,
        "offsets": {"t": {"0": 100}}, "seconds": 0.25, "lines": 0,
    }  # fmt: skip


def test_a_query_that_stands_still_while_records_wait_ends_its_driver_and_shows_where_it_is(tmp_path, capsys):
    driver = Driver(tmp_path, "fog-1")
    finish(driver.folders["fog-1"], 4, 990.0, {"t": {"0": 100}})
    driver.end = 100
    driver.look(2000)  # it has had nothing to do for 1000 s
    driver.end = 101
    driver.look(2010)
    driver.look(2120)  # the time counts from when it was last seen without work
    with pytest.raises(
        StalledError, match=r"query fog-1 has finished no micro-batch for 120 s, though it has work \(1 records\)"
    ):
        driver.look(2121)
    assert "driver.look(2121)" in capsys.readouterr().err  # of this thread, as of all others


def test_of_the_driver_and_its_executors_the_threads_are_shown_that_have_to_do_with_spark(monkeypatch, capsys):
    answers = {
        "/api/v1/applications/app-1/executors": [{"id": "driver"}, {"id": "0"}],
        "/api/v1/applications/app-1/executors/driver/threads": [
            thread("idle", "java.lang.Thread.run(Thread.java:840)")
        ],
        "/api/v1/applications/app-1/executors/0/threads": [
            thread(
                "task 7", "sun.nio.ch.EPoll.wait(Native Method)\n\t-  locked sun.nio.ch.Util", "org.apache.kafka.poll()"
            )
        ],
    }

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answers[self.path]).encode())

        def log_message(self, *_):
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        context = SimpleNamespace(uiWebUrl=f"http://127.0.0.1:{server.server_port}", applicationId="app-1")
        monkeypatch.setattr(SparkContext, "_active_spark_context", context)
        progress_module._print_stacks()
        server.shutdown()
    said = capsys.readouterr().err
    assert "0: task 7\n  sun.nio.ch.EPoll.wait(Native Method)" in said
    assert "  org.apache.kafka.poll()\n" in said
    assert "idle" not in said


def test_a_page_of_spark_that_is_gone_keeps_no_driver_from_its_end(monkeypatch, tmp_path, capsys):
    context = SimpleNamespace(uiWebUrl="no page", applicationId="app-1")
    monkeypatch.setattr(SparkContext, "_active_spark_context", context)
    test_a_first_micro_batch_that_never_ends_ends_its_driver(tmp_path)
    assert "no stacks of an executor: ValueError: unknown url type" in capsys.readouterr().err


def thread(name: str, *frames: str) -> dict:
    """Return a thread as Spark's page describes it."""
    return {"threadName": name, "stackTrace": {"elems": [f"{frame}\n" for frame in frames]}}


def test_a_clock_that_is_set_ahead_is_no_time_in_which_a_query_stood_still(tmp_path):
    driver = Driver(tmp_path, "fog-1")
    finish(driver.folders["fog-1"], 4, 990.0, {"t": {"0": 100}})
    driver.end = 101
    driver.look(1001)
    driver.ahead = 3600
    driver.look(1121)
    with pytest.raises(StalledError, match="no micro-batch for 120 s"):
        driver.look(1122)


def test_a_first_micro_batch_that_never_ends_ends_its_driver(tmp_path):
    driver = Driver(tmp_path, "fog-1")
    driver.look(5000)  # nothing is planned: no record has come
    offsets = driver.folders["fog-1"] / "offsets"
    offsets.mkdir(parents=True)
    (offsets / "0").write_text("v1\n{}\n{}")
    driver.look(5100)
    with pytest.raises(StalledError, match="the last one was number -1"):
        driver.look(5121)


@pytest.mark.parametrize("what", ["it goes on", "nothing waits", "the broker is away", "it may wait"])
def test_a_driver_does_not_end_while(tmp_path, what):
    names = ("fog-1", "training") if what == "it may wait" else ("fog-1",)
    driver = Driver(tmp_path, *names)
    finish(driver.folders[names[-1]], 4, 990.0, {"t": {"0": 100}})
    driver.end = {"nothing waits": 100, "the broker is away": None}.get(what, 500)
    for number in range(5, 15):
        if what == "it goes on":
            finish(driver.folders["fog-1"], number, 990.0, {"t": {"0": 100 + number}})
        driver.look(1000 + 100 * number)


def progress(**query: object) -> dict:
    common = {"name": "fog-1", "micro_batch": 7, "finished_at": 990.0, "behind": 1234, "moved_at": 999.0}
    return {"job": "fog-1", "at": 1000.0, "pause_seconds": 0.0, "queries": [common | {"offsets": {"t": {}}} | query]}


@pytest.mark.parametrize(
    ("said", "now", "trouble"),
    [
        (progress(), 1001.0, ""),
        (progress(), 1021.0, "its driver has said nothing for 21 s"),
        (
            progress(moved_at=970.0),
            1001.0,
            "query fog-1 has finished no micro-batch for 31 s, and 1,234 records wait: ",
        ),
        (progress(moved_at=970.0) | {"pause_seconds": 30.0}, 1001.0, ""),  # of real-time mode
    ],
)
def test_a_driver_that_is_silent_or_stands_still_is_red_before_it_ends(said, now, trouble):
    assert jobs.trouble_of(said, now).startswith(trouble)
    assert bool(jobs.trouble_of(said, now)) == bool(trouble)


def test_the_table_shows_each_query_beside_its_jobs_restarts(tmp_path):
    rows = jobs.rows([progress(), progress(micro_batch=-1, behind=None)], {"fog-1": 3}, 1002.4)
    assert rows == [
        ["fog-1", "fog-1", "7", "12 s", "1,234", "3"],
        ["fog-1", "fog-1", "none yet", "-", "-", "3"],
    ]
    lines = jobs.table([progress()], {}).splitlines()
    assert lines[0].split() == ["JOB", "QUERY", "LAST", "MICRO-BATCH", "AGO", "RECORDS", "BEHIND", "RESTARTS"]
    assert lines[0].index("RECORDS") == lines[1].index("1,234")
    assert jobs.table([], {}) == ""


def test_what_a_driver_has_said_is_read_from_its_file(tmp_path):
    assert jobs.read_progress(tmp_path, "fog-1") is None
    (tmp_path / "running").mkdir()
    (tmp_path / "running" / "fog-1.json").write_text(json.dumps(progress()))
    assert jobs.read_progress(tmp_path, "fog-1") == progress()


def test_the_command_shows_each_job_and_fails_where_one_is_not_well(tmp_path, monkeypatch):
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path))
    call = partial(CliRunner().invoke, main, catch_exceptions=False)
    assert "no job has said anything in" in call(["jobs"]).output
    now = time.time()
    write_json(tmp_path / "running" / "cloud.json", progress(moved_at=now) | {"job": "cloud", "at": now})
    shown = call(["jobs"])
    assert (shown.exit_code, shown.output.splitlines()[0].split()[0]) == (0, "JOB")
    assert re.search(r"^cloud +fog-1 +7 +\d+ s +1,234$", shown.output, re.MULTILINE)
    write_json(tmp_path / "running" / "fog-1.json", progress())  # which was in 1970
    shown = call(["jobs"])
    assert shown.exit_code == 1
    assert "fog-1: its driver has said nothing for" in shown.output
    found = json.loads(call(["jobs", "--json"]).output)
    assert [(each["job"], bool(each["trouble"])) for each in found] == [("cloud", False), ("fog-1", True)]


def test_a_driver_that_somebody_stops_by_hand_is_marked_until_it_begins_anew(tmp_path, monkeypatch):
    monkeypatch.delenv("JOB", raising=False)
    java = SimpleNamespace(streamingQuery=lambda: SimpleNamespace(resolvedCheckpointRoot=lambda: f"file:{tmp_path}/c"))
    query, settings = SimpleNamespace(name="squares", isActive=True, _jsq=java), Settings(checkpoint_dir=tmp_path)
    check_of([query], settings, 0.0)()
    assert [each["job"] for each in jobs.read_all(tmp_path)] == ["squares"]
    with pytest.raises(KeyboardInterrupt), failures_told(settings):
        raise KeyboardInterrupt
    assert (jobs.read_stopped(tmp_path), jobs.read_all(tmp_path)) == ({"squares"}, [])
    check_of([query], settings, 0.0)()
    assert jobs.read_stopped(tmp_path) == set()
