"""Unit tests: no Spark, no broker, and a warning is an error."""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KAFKA_PYTHON_ITSELF = r"ignore:(open|read)_text is deprecated:DeprecationWarning"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of test_fuzz.py."""
    group = parser.getgroup("fuzz")
    group.addoption("--fuzz-seconds", type=float, default=20.0, help="how long all parts of test_fuzz.py take together")
    group.addoption("--fuzz-seed", type=int, default=1, help="the same seed sends the same messages")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Turn warnings into errors in this folder, before a test's own filters."""
    for item in items:
        if HERE in item.path.parents:
            item.own_markers.insert(0, pytest.mark.filterwarnings("error", KAFKA_PYTHON_ITSELF).mark)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Return a port that nobody listens on and nobody else can take."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))  # bound, but not listening: connections are refused
        yield holder.getsockname()[1]


@pytest.fixture(autouse=True)
def own_garbage(request: pytest.FixtureRequest) -> Iterator[None]:
    """Collect the files that a test may leave open, before a later test is blamed for them."""
    yield
    if any("unclosed file" in mark.args[0] for mark in request.node.iter_markers("filterwarnings")):
        gc.collect()
