"""A real stack of its own for these tests, on the runner that `make` chooses, beside whatever else runs.

STACK=docker: testcontainers starts docker-compose.yml. STACK=local: the local runner. No test needs another one before
it: each says by its fixture whether it wants an empty stack, which jobs are to run, or only that the services are up.
Jobs that already run with the same settings go on, so neighbours that want the same ones share their start.
Logs of a failed run are kept in the folder test-logs/.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.stack.stack import Stack

# Modules that want the same jobs stand together: to start a job takes most of the time of these tests.
ORDER = ("jobs", "recovery", "rounds", "monitoring", "readings", "replay", "topics", "restart", "realtime")

# Processes live a minute here. To compile for a long run, and to check bytecode of jars whose checksums were checked,
# takes the CPU from their starts.
QUICK_STARTS = "-XX:TieredStopAtLevel=1 -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the modules; those within one stay as they are."""
    own = [item for item in items if item.path.parent == Path(__file__).parent]
    own.sort(key=lambda item: (*ORDER, item.path.stem[5:]).index(item.path.stem[5:]))
    items[:] = [item for item in items if item not in own] + own


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show beside a failure what ran, and how well."""
    report = yield
    stack = item.funcargs.get("one_stack")
    if report.failed and stack:
        report.sections.append(("make ps", stack.make("ps", check=False)))
    return report


@pytest.fixture(scope="session")
def one_stack() -> Iterator[Stack]:
    """Return the stack of all these tests, keep the logs of its parts, and remove it."""
    stack = Stack(QUICK_STARTS)
    stack.make("clean")
    try:
        yield stack
    finally:
        stack.make("clean")


@pytest.fixture
def stack(one_stack: Stack) -> Stack:
    """Return the stack with its services up, whatever ran on it before."""
    one_stack.use()
    return one_stack


@pytest.fixture
def empty_stack(one_stack: Stack) -> Stack:
    """Return a stack to which nothing was sent yet."""
    one_stack.empty()
    return one_stack


@pytest.fixture
def fog_and_cloud(stack: Stack) -> Stack:
    """Return a stack whose fog nodes and cloud run with the settings of ENV."""
    stack.make("-j2", "run-fog", "run-cloud")
    return stack


@pytest.fixture
def run_sensors(stack: Stack) -> Iterator[Callable[..., object]]:
    """Return a function that starts the sensors of some nodes at a rate for each; they end with the test."""
    yield lambda per_second, nodes=2: stack.make("run-producer", f"ARGS=--rate {per_second} --nodes {nodes}")
    stack.stop("sensors")
