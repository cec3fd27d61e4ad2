"""What every layer of tests shares: the repository's root, the job scripts, programs in processes of their own."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PROGRAM_SECONDS = 60.0  # a program that a test forgot or that hangs is killed after this


@functools.cache
def load_script(path: str) -> ModuleType:
    """Import a job script, which is part of no package, from its path below the repository's root."""
    name = Path(path).with_suffix("").as_posix().replace("/", "_")
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def run_program(*arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Run Python with these arguments, its streams in pipes; when the block ends, or time is up, it is killed."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | variables,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
    ) as process:
        alarm = threading.Timer(PROGRAM_SECONDS, process.kill)
        alarm.start()
        try:
            yield process
        finally:
            alarm.cancel()
            process.kill()


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """Return the function that loads a job script: `script("fog/fog_node.py")`."""
    return load_script


@pytest.fixture(scope="session")
def program() -> Callable[..., AbstractContextManager[subprocess.Popen[str]]]:
    """Return the function that runs Python in a process of its own, which ends with its `with` block."""
    return run_program
