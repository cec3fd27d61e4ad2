"""What `make ps` and `make doctor` say of parts that are not well."""

from __future__ import annotations

import socket
import threading
from datetime import datetime

import pytest

from fedstream.stack import parts

TRACE = """\
Traceback (most recent call last):
  File "fog_node.py", line 5, in <module>
    raise
pyspark.errors.exceptions.captured.StreamingQueryException: Topic sensor-data-node-2 was lost
\tat org.apache.spark.Foo(Foo.scala:1)
"""


# What Spark says of the other query of a driver whose Python part has ended.
GONE = """2026-11-30 04:42:30,701 [ERROR] Query training terminated with error (MicroBatchExecution)
org.apache.spark.sql.execution.streaming.sources.ForeachBatchUserFuncException: [FOREACH_BATCH_USER_FUNCTION_ERROR] An \
error occurred in the user provided function in foreach batch sink. Reason: Error while sending a command. SQLSTATE: 3
Caused by: py4j.Py4JException: Error while sending a command.
"""


@pytest.mark.parametrize(
    ("log", "word"),
    [
        ("", ""),
        ("ready\nall is well\n", ""),
        ("Error: topic t was made anew: a, b\n", "topic t was made anew: a, b"),
        (TRACE, "pyspark.errors.exceptions.captured.StreamingQueryException: Topic sensor-data-node-2 was lost"),
        (TRACE + "WARNING: again\nError: MODEL is 'x'; expected mean\nWARNING: again\n", "MODEL is 'x'; expected mean"),
        ("Error: an old one\n" + TRACE, TRACE.splitlines()[3]),
        ("Error: the cause\n" + GONE, "the cause"),
    ],
)
def test_the_last_word_is_the_newest_paragraph_or_the_end_of_a_trace(log, word):
    assert parts.last_word(log) == word


def test_the_ends_of_a_process_are_counted_for_three_minutes():
    log = """\
2026-11-29 13:50:00,123 WARN exited: fog-2 (exit status 1; not expected)
2026-11-29 14:00:58,800 INFO spawned: 'fog-2' with pid 12
2026-11-29 14:01:00,123 WARN exited: fog-2 (exit status 1; not expected)
2026-11-29 14:01:05,999 WARN exited: spark-master (terminated by SIGKILL; not expected)
2026-11-29 14:02:00,500 WARN exited: fog-2 (exit status 1; not expected)
2026-11-29 14:02:09,000 INFO stopped: cloud (exit status 143)
"""
    ends = {"fog-2": 2, "spark-master": 1, "cloud": 0}
    assert parts.count_ends(log, datetime(2026, 11, 29, 14, 3, 30)) == ends
    stopped = log + "2026-11-29 14:02:30,000 INFO stopped: fog-2 (exit status 143)\n"
    assert parts.count_ends(stopped, datetime(2026, 11, 29, 14, 3, 30)) == ends | {"fog-2": 0}


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (
            "fog-1 is not ready: no executor any more at http://x: lost\n",
            "no executor any more at http://x: lost",
        ),
        ("Health check exceeded timeout (15s)", "Health check exceeded timeout (15s)"),
        ("", "its health check fails without a word"),
    ],
)
def test_whatever_a_health_check_has_printed_a_reason_is_told(output, reason):
    assert parts.unhealthy(output) == reason


def test_a_part_that_ended_without_a_word_is_told_so():
    assert parts.ended("exited", "") == "exited; its log does not say why"
    assert parts.ended("exited", "Error: no room\n") == "exited; its last error: no room"


def engine_says(monkeypatch, said):
    """Have Docker answer the commands that begin with these words."""
    monkeypatch.setattr(
        parts, "_output", lambda _, *words: next((said[key] for key in said if " ".join(words).startswith(key)), "")
    )


@pytest.mark.parametrize(("status", "found"), [("running", ["fog-1"]), ("exited", [])])
def test_a_container_that_was_stopped_is_well_whatever_its_last_health_check_said(monkeypatch, status, found):
    said = {
        "ps": "0a1b\n",
        "inspect --format {{.Name": f"/fog-1\t{status}\t143\t0\t2026-01-01T00:00:00Z\tunhealthy\n",
        "inspect --format {{json": '[{"Output": "fog-1 is not ready: no executor yet"}]',
    }
    engine_says(monkeypatch, said)
    env = {"STACK": "docker", "COMPOSE_PROJECT_NAME": "fedstream", "CONTAINER_PREFIX": ""}
    assert list(parts.troubles(env)) == found


@pytest.mark.parametrize(("status", "found"), [(0, {}), (1, {"topics": "ended 2 times and was started again; "})])
def test_what_make_up_starts_anew_each_time_is_well_when_its_work_is_done(monkeypatch, tmp_path, status, found):
    (tmp_path / "logs").mkdir()
    at = datetime.now().isoformat(" ", "seconds")
    (tmp_path / "logs" / "supervisord.log").write_text(f"{at},1 INFO exited: topics (exit status {status}; x)\n" * 2)
    process = {"name": "topics", "statename": "EXITED", "exitstatus": status, "start": 0, "now": 9}
    monkeypatch.setattr(parts.processes, "supervisords", lambda _: [1])
    monkeypatch.setattr(parts, "supervised", lambda _: [process])
    monkeypatch.setattr(parts.health, "check", lambda *_: None)
    troubles = parts.troubles({"STACK": "local", "RUN_PATH": str(tmp_path)})
    assert troubles.keys() == found.keys()
    assert all(troubles[name].startswith(text) for name, text in found.items())


@pytest.mark.parametrize(
    ("condition", "is_silent", "is_red"),
    [("healthy", True, True), ("", True, True), ("", False, False), ("starting", True, False)],
)
def test_a_container_whose_network_is_cut_is_red_though_all_is_well_inside(
    monkeypatch, closed_port, condition, is_silent, is_red
):
    lines = f"/my-spark-worker-1\trunning\t0\t0\t2026-01-01T00:00:00Z\t{condition}\n"
    said = {"ps": "0a1b\n", "inspect --format {{.Name": lines}
    engine_says(monkeypatch, said)
    env = {
        "STACK": "docker",
        "COMPOSE_PROJECT_NAME": "fedstream",
        "CONTAINER_PREFIX": "my-",
        "BIND_ADDRESS": "127.0.0.1",
    }
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer_once, args=(server,), daemon=True).start()
        port = closed_port if is_silent else server.getsockname()[1]
        found = parts.troubles(env | {"SPARK_WORKER_1_UI_PORT": str(port)})
    assert list(found) == ["my-spark-worker-1"] * is_red
    assert all("refused>, though all is well inside: its network is cut" in trouble for trouble in found.values())


def answer_once(server):
    """Answer one question as a web server does."""
    peer, _ = server.accept()
    with peer:
        peer.recv(1000)
        peer.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
