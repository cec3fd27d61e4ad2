"""The bench's stack runs beside the user's: it has ports and names of its own for everything in .env."""

from __future__ import annotations

import json
import os
import re
import signal
from contextlib import nullcontext

import pytest

from bench.lab import stack


def test_every_port_and_name_of_the_stack_is_another_one(root):
    dotenv = dict(re.findall(r"(?m)^([A-Z][A-Z0-9_]*)=(.*)$", (root / ".env").read_text()))
    own = {name for name in dotenv if re.search(r"_PORT$|_PORT_BASE$|^RUN_DIR$|PROJECT_NAME$|CONTAINER_PREFIX$", name)}
    own -= {name for name in own if name.endswith("_PORT") and not dotenv[name]}  # nothing listens there
    assert len(own) > 15
    assert own <= set(stack.ENV)
    assert [name for name in own if stack.ENV[name] == dotenv[name]] == []


def test_no_two_parts_share_a_port():
    pages = [int(stack.ENV["FOG_UI_PORT_BASE"]) + number for number in stack.FOG_NUMBERS]
    spark_drivers = range(stack.PORTS["SPARK_DRIVER_UI_PORT"], stack.PORTS["SPARK_DRIVER_UI_LAST_PORT"] + 1)
    others = [port for name, port in stack.PORTS.items() if not name.startswith("SPARK_DRIVER_UI")]
    ports = [*pages, *spark_drivers, *others]
    assert len(ports) == len(set(ports))
    assert all(stack.BASE <= port < stack.BASE + 100 for port in ports)


def test_a_make_around_the_bench_hands_nothing_on(monkeypatch):
    monkeypatch.setenv("MAKEFLAGS", "KAFKA_PORT=1")
    monkeypatch.setenv("KAFKA_PORT", "9092")
    environment = stack.environment()
    assert "MAKEFLAGS" not in environment
    assert environment["KAFKA_PORT"] == str(stack.PORTS["KAFKA_PORT"])


ENDS = {
    "by itself": (lambda: None, nullcontext()),
    "an error": (lambda: json.loads("no JSON"), pytest.raises(json.JSONDecodeError)),
    "SIGTERM": (lambda: os.kill(os.getpid(), signal.SIGTERM), pytest.raises(SystemExit, match="SIGTERM")),
}


@pytest.mark.parametrize("end", ENDS)
def test_however_a_bench_ends_its_contestants_are_ended_and_then_its_stack(monkeypatch, end):
    done = []
    monkeypatch.setattr(stack, "make", done.append)
    before = signal.getsignal(signal.SIGTERM)
    how, expected = ENDS[end]
    try:
        with expected, stack.standing():
            done.append("contestant")
            try:
                how()
            finally:
                done.append("its end")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done == ["clean", "up", "contestant", "its end", "clean"]
