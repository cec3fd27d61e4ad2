"""Parts that run on after their supervisord was killed are found again: `make` ends them before it says or deletes."""

from __future__ import annotations

import os
import re
import signal

import psutil
import pytest

from tests.stack.stack import ENV, ROOT, Stack, eventually

RUN_PATH = ROOT / ENV["RUN_DIR"]
SERVICES = {"zookeeper", "kafka", "spark-master", "spark-worker-1", "spark-worker-2"}


@pytest.fixture(autouse=True)
def local_runner(one_stack: Stack) -> None:
    """Skip where no supervisord runs."""
    if one_stack.runner != "local":
        pytest.skip("supervisord belongs to the local runner; the Docker engine keeps its containers itself")


def alive() -> dict[int, str]:
    """Return the command of this stack's supervisord and of each process below one: nothing that was typed by hand."""
    found = {}
    for process in psutil.process_iter(["pid", "cmdline", "environ", "status"]):
        variables, line = process.info["environ"] or {}, " ".join(process.info["cmdline"] or [])
        supervised = "SUPERVISOR_ENABLED" in variables or "bin/supervisord" in line
        if supervised and variables.get("RUN_PATH") == str(RUN_PATH) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found[process.info["pid"]] = line
    return found


def kill_supervisord(stack: Stack) -> set[str]:
    """Kill -9 supervisord and return the parts that run on, as `make ps` shows them."""
    pid = int((RUN_PATH / "supervisord.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    lost = r"FAIL  (\S+): runs on, though supervisord has ended"
    return eventually(
        "the parts left over", lambda: set(re.findall(lost, stack.make("ps"))), lambda seen: "kafka" in seen
    )


def test_up_ends_them_and_goes_on_with_the_data_and_down_ends_them(stack: Stack) -> None:
    stack.make("-j2", "run-fog", "run-cloud", "NODES=1")
    before = stack.end_offset("sensor-data-node-1")
    stack.send_readings(7, "--nodes", "1")
    assert kill_supervisord(stack) >= SERVICES | {"fog-1", "cloud"}
    old = alive().keys()
    assert len(old) >= len(SERVICES)
    assert "stopped what ran on without supervisord" in stack.make("up")
    assert not old & alive().keys()
    assert stack.end_offset("sensor-data-node-1") == before + 7

    kill_supervisord(stack)
    said = stack.make("down")
    assert alive() == {}
    assert "stopped what ran on without supervisord" in said
    assert f"stopped; data kept in {ENV['RUN_DIR']}" in said
    for part in SERVICES:
        assert part in said


def test_clean_ends_them_before_it_deletes_their_data(stack: Stack) -> None:
    kill_supervisord(stack)
    kafka = next(pid for pid, line in alive().items() if "kafka.Kafka" in line)
    os.kill(kafka, signal.SIGSTOP)  # it hears no SIGTERM, and could write again later
    said = stack.make("clean")
    assert alive() == {}
    assert "stopped what ran on without supervisord" in said
    assert f"deleted {ENV['RUN_DIR']}" in said
    assert not RUN_PATH.exists()
    stack.make("up")
    assert stack.end_offset("sensor-data-node-1") == 0
