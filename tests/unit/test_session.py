"""What a driver says when one of its queries fails: one readable paragraph."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import pytest
from pyspark.errors import StreamingQueryException
from pyspark.sql import SparkSession

from fedstream import last_word
from fedstream.errors import StackError
from fedstream.settings import Settings
from fedstream.spark import progress, session
from fedstream.spark.session import cause_of, end_for_good
from fedstream.spark.skips import Skip
from fedstream.spark.state import write_json
from fedstream.stack import health

BEGIN = "[STREAM_FAILED] Query [id = 1, runId = 2] terminated with exception: "
PYTHON = (
    BEGIN
    + """An exception was raised by the Python Proxy. Return Message: Traceback (most recent call last):
  File "pyspark/sql/utils.py", line 1, in call
    raise e
fedstream.errors.BadMessage: samples is 0; expected at least 1

=== Streaming Query ===
"""
)

JAVA = (
    BEGIN
    + """An exception was raised by the Python Proxy. Return Message: Traceback (most recent call last):
  File "fog/fog_node.py", line 71, in handle_batch
py4j.protocol.Py4JJavaError: An error occurred while calling o248.collectToPython.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 failed 4 times: \
java.lang.OutOfMemoryError: Java heap space
	at java.base/java.util.Arrays.copyOf(Arrays.java:3537)

=== Streaming Query ===
"""
)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (BEGIN + "Topic t was lost\n=== Streaming Query ===\nJava trace", "Topic t was lost"),
        (PYTHON, "BadMessage: samples is 0; expected at least 1"),
        ("something else", "something else"),
        (JAVA, "Job aborted due to stage failure: Task 0 failed 4 times: java.lang.OutOfMemoryError: Java heap space"),
    ],
)
def test_the_cause_is_the_first_line_or_the_end_of_a_python_trace(text, cause):
    assert cause_of(text) == cause


@pytest.mark.parametrize(
    ("job", "found", "told"),
    [
        (
            "fog-1",
            Skip("t", 0, 310, 366),
            "no job can read t:0:310-366 .*: it unpacks to .*: make skip S=fog-1 AT=t:0:310-366",
        ),
        ("fog-1", None, r"a task needs more than an executor's memory \(EXECUTOR_HEAP\); .* Raise EXECUTOR_HEAP$"),
        ("alerts", None, "Raise EXECUTOR_HEAP, or go on behind what it reads: make reset S=alerts FROM=end"),
    ],
)
def test_a_query_that_has_died_of_memory_tells_what_goes_on(job, found, told, monkeypatch):
    monkeypatch.setenv("JOB", job)
    monkeypatch.setattr(session.oversized, "find", lambda *_: found)
    with pytest.raises(StackError, match=told) as raised, session.failures_told(Settings()):
        raise StreamingQueryException(JAVA)
    assert "Task 0 failed 4 times: java.lang.OutOfMemoryError: Java heap space" in raised.value.message
    with pytest.raises(StackError, match=r"^Topic t was lost$"), session.failures_told(Settings()):
        raise StreamingQueryException(BEGIN + "Topic t was lost\n=== Streaming Query ===")


def test_a_driver_that_is_not_to_be_started_anew_holds_its_place_and_is_red(tmp_path, monkeypatch, capsys):
    steps = []
    monkeypatch.setattr(SparkSession, "active", lambda: SimpleNamespace(stop=lambda: steps.append("stopped")))
    monkeypatch.setattr(os, "execvp", lambda file, words: steps.append(words))
    error = StackError("another cloud has been started")
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path))
    monkeypatch.delenv("JOB", raising=False)
    end_for_good(error)
    assert steps == [], "by hand: it ends"
    monkeypatch.setenv("JOB", "cloud")
    end_for_good(error)
    assert steps == ["stopped", ["sleep", "infinity"]]
    assert capsys.readouterr().err == "Error: another cloud has been started\n"
    # Its page is gone, and a driver started by hand says that it is well: the cause is told all the same.
    write_json(tmp_path / "running" / "cloud.json", {"at": time.time(), "queries": []})
    with pytest.raises(health.NotReadyError, match=r"^another cloud has been started$"):
        health.check("cloud", {"CHECKPOINT_DIR": str(tmp_path), "CLOUD_UI_PORT": "1"})
    progress.forget(Settings(checkpoint_dir=tmp_path))  # it is started on purpose
    last_word.forget()
    assert list((tmp_path / "running").iterdir()) == []
