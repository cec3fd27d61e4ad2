"""What a job leaves behind when it ends with an error, run as a start script runs it: as a program of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from fedstream import last_word

PROGRAM = """
import sys
import click
from py4j.protocol import Py4JNetworkError
from fedstream.errors import StackError
from fedstream.terminal import Command

@click.command(cls=Command)
@click.option("--node", type=int)
def main(node):
    errors = [StackError("topic t was made anew"), KeyError("sums"), Py4JNetworkError("gone"), OSError("no\\nspace")]
    if node:
        raise errors[node - 1]

main()
"""


def run(folder, node, job="fog-1"):
    env = os.environ | {"CHECKPOINT_DIR": str(folder), "JOB": job}
    return subprocess.run([sys.executable, "-c", PROGRAM, "--node", node], env=env, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("node", "text"),
    [
        ("1", "topic t was made anew"),
        ("2", "KeyError: 'sums'"),
        ("4", "OSError: no"),
        ("x", "Invalid value for '--node': 'x' is not a valid integer."),
    ],
)
def test_a_job_that_ends_with_an_error_leaves_what_it_said(tmp_path, node, text):
    done = run(tmp_path, node)
    assert done.returncode != 0
    assert text in done.stderr  # the same stands in its log
    found = last_word.read_all(tmp_path)
    assert found["fog-1"].text == text
    assert abs(time.time() - found["fog-1"].at) < 60
    assert [path.name for path in (tmp_path / "running").iterdir()] == ["fog-1.error"]


def test_a_job_that_begins_anew_forgets_it(tmp_path):
    run(tmp_path, "1")
    run(tmp_path, "1", job="fog-2")
    assert run(tmp_path, "0").returncode == 0
    assert last_word.read_all(tmp_path).keys() == {"fog-2"}


def test_that_sparks_jvm_has_ended_is_nobodys_last_word(tmp_path):
    assert run(tmp_path, "3").returncode != 0
    assert last_word.read_all(tmp_path) == {}


def test_a_program_that_is_no_job_of_the_stack_leaves_nothing(tmp_path):
    assert run(tmp_path, "1", job="").returncode == 1
    assert list(tmp_path.iterdir()) == []
