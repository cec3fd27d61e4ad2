"""Waiting for parts of the local runner: until they work, until time is up, or until one has ended for good."""

from __future__ import annotations

import os
import socket
from datetime import datetime

import pytest
from test_progress import Terminal

from fedstream.stack import parts, wait
from fedstream.stack.progress import Progress
from fedstream.stack.wait import TroubleError


@pytest.fixture
def logs(tmp_path):
    """Return the folder of the logs, with an empty one of supervisord."""
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "supervisord.log").touch()
    return folder


def process(name: str, state: str = "RUNNING", exitstatus: int = 0, uptime: int = 3) -> dict[str, object]:
    """Return what supervisord says of a process that began at 1000 s."""
    return {"name": name, "statename": state, "exitstatus": exitstatus, "start": 1000, "now": 1000 + uptime, "pid": 7}


def test_a_program_that_has_ended_at_its_end_has_worked(logs):
    assert wait.condition("sensors", process("sensors", "EXITED"), logs / "sensors.log", {}) == ""


def test_a_program_that_died_is_told_with_its_last_word(logs):
    log = logs / "sensors.log"
    log.write_text("Usage: ...\n\nError: File '/nope.csv' does not exist.\n")
    with pytest.raises(TroubleError, match=r"sensors has ended \(exit status 2\).*: File '/nope.csv' does not exist"):
        wait.condition("sensors", process("sensors", "EXITED", 2), log, {})
    log.write_text("no error at all\n\n")
    with pytest.raises(TroubleError, match="last word of its log: no error at all\n"):
        wait.condition("sensors", process("sensors", "FATAL", 1), log, {})


@pytest.mark.parametrize(
    ("spoken_at", "uptime", "works"),
    [(None, 3, False), (None, 10, True), (1000.3, 3, False), (1000.5, 3, True), (1002.5, 3, True)],
)
def test_a_program_works_once_it_has_said_something_or_lived_for_ten_seconds(logs, spoken_at, uptime, works):
    started = f"{datetime.fromtimestamp(1000):%Y-%m-%d %H:%M:%S},400 INFO spawned: 'sensors' with pid 7\n"
    (logs / "supervisord.log").write_text(started + started.replace(",400", ",999").replace("pid 7", "pid 77"))
    log = logs / "sensors.log"
    if spoken_at:
        log.touch()
        os.utime(log, (spoken_at, spoken_at))
    assert (wait.condition("sensors", process("sensors", uptime=uptime), log, {}) == "") == works


def test_a_driver_works_once_its_page_says_so(logs, closed_port):
    env = {"CLOUD_UI_PORT": str(closed_port)}
    assert "refused" in wait.condition("cloud", process("cloud"), logs / "cloud.log", env)
    with pytest.raises(TroubleError, match=r"cloud has ended \(exit status 1\)"):
        wait.condition("cloud", process("cloud", "FATAL", 1), logs / "cloud.log", env)


def test_a_driver_that_is_being_started_again_is_waited_for(logs):
    assert wait.condition("cloud", process("cloud", "EXITED", 1), logs / "cloud.log", {"CLOUD_UI_PORT": "1"})


def test_a_program_that_says_why_it_ends_does_not_work(logs, monkeypatch, tmp_path):
    (logs / "sensors.log").write_text("Error: no such file\n")
    looks = [process("sensors"), process("sensors", "EXITED", 2)]
    monkeypatch.setattr(parts, "supervised", lambda env: [looks.pop(0)])
    monkeypatch.setattr(wait.time, "sleep", lambda _: None)
    with pytest.raises(TroubleError, match=r"sensors has ended .*: no such file"):
        wait.wait_for_jobs(["sensors"], {"RUN_PATH": str(tmp_path)}, 60, Progress(Terminal(), lambda: 0.0))


def test_a_driver_that_ends_again_and_again_is_not_waited_for(logs, monkeypatch, tmp_path, closed_port):
    stream = Terminal()
    monkeypatch.setattr(parts, "supervised", lambda env: [process("cloud")])

    def ends(_: float) -> None:
        line = f"{datetime.now():%Y-%m-%d %H:%M:%S},000 WARN exited: cloud (exit status 1; not expected)\n"
        with (logs / "supervisord.log").open("a") as file:
            file.write(line)

    monkeypatch.setattr(wait.time, "sleep", ends)
    (logs / "cloud.log").write_text("Error: MODEL is 'x'; expected mean\n")
    env = {"CLOUD_UI_PORT": str(closed_port), "RUN_PATH": str(tmp_path)}
    with pytest.raises(TroubleError, match=r"cloud has ended 2 times and was started again.*: MODEL is 'x'"):
        wait.wait_for_jobs(["cloud"], env, 60, Progress(stream, lambda: 0.0))


def test_a_driver_that_ended_before_is_waited_for(logs, monkeypatch, tmp_path, closed_port):
    line = f"{datetime.now():%Y-%m-%d %H:%M:%S},000 WARN exited: cloud (exit status 1; not expected)\n"
    (logs / "supervisord.log").write_text(3 * line)
    monkeypatch.setattr(parts, "supervised", lambda env: [process("cloud")])
    monkeypatch.setattr(wait.time, "sleep", lambda _: None)
    stream = Terminal()
    env = {"CLOUD_UI_PORT": str(closed_port), "RUN_PATH": str(tmp_path)}
    with pytest.raises(TroubleError, match=r"cloud is not ready after 30 s: .*refused"):
        wait.wait_for_jobs(["cloud"], env, 30, Progress(stream, stream.clock))


def test_a_service_is_ready_as_soon_as_it_answers(monkeypatch):
    stream = Terminal()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        monkeypatch.setattr(wait.time, "sleep", lambda _: server.listen())
        env = {"NUMBERS_PORT": str(server.getsockname()[1])}
        wait.wait_for_service("producer", env, 60, Progress(stream, lambda: 0.0))
    assert stream.text == "  producer     ready (0.0 s)\n"


def test_a_service_that_does_not_answer_in_time_is_told_with_its_log(logs, monkeypatch, tmp_path, closed_port):
    (logs / "producer.log").write_text("it was me\n")
    monkeypatch.setattr(wait.time, "sleep", lambda _: None)
    stream = Terminal()
    env = {"NUMBERS_PORT": str(closed_port), "RUN_PATH": str(tmp_path)}
    with pytest.raises(TroubleError, match=r"producer is not ready after 5 s: nothing listens(.|\n)*it was me$"):
        wait.wait_for_service("producer", env, 5, Progress(stream, stream.clock))
