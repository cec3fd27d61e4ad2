"""How a job is started: its arguments, settings and port, seen by programs that stand in for Python and Spark."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from test_contracts import DOTENV, ROOT


@pytest.fixture
def programs(tmp_path):
    """Return a folder with a `python` and a `spark-submit` that print their arguments, one a line."""
    for name in ("python", "spark-submit"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        program.chmod(0o755)
    return tmp_path / "bin"


def start(programs: Path, *words: str, **variables: str) -> list[str]:
    """Start a job with the variables of .env and return the arguments of its program."""
    path = f"{programs}:{os.environ['PATH']}"
    env = DOTENV | {"PATH": path, "CHECKPOINT_DIR": "none"} | variables
    line = [str(ROOT / "spark_cluster" / "start-job.sh"), *words]
    return subprocess.run(line, env=env, check=True, capture_output=True, text=True).stdout.splitlines()


def quoted(*words: str) -> str:
    """Return words as run-job.sh hands them on."""
    line = ["bash", "-c", 'source deploy/jobs.sh; quoted "$@"', "bash", *words]
    return subprocess.run(line, cwd=ROOT, check=True, capture_output=True, text=True).stdout


ODD = ["--csv", "x y.csv", "--columns", "temperature=Air temperature [K],label=a'b\"c", "$HOME `id` *", ""]


def test_an_argument_may_hold_anything(programs):
    assert start(programs, "sensors", JOB_ARGS=quoted(*ODD)) == ["producer/sensor_producer.py", *ODD]


def test_arguments_typed_without_quotes_are_words(programs):
    assert start(programs, "sensors", "--nodes", "2", JOB_ARGS="--rate 100")[1:] == ["--nodes", "2", "--rate", "100"]


def test_no_arguments_are_none(programs):
    assert start(programs, "sensors", JOB_ARGS=quoted()) == ["producer/sensor_producer.py"]


def test_the_file_of_the_local_runner_wins_over_what_it_was_started_with(programs, tmp_path):
    (tmp_path / "alerts.env").write_text("export NODES=3 NODES_PER_DRIVER=1\nJOB_ARGS=--sure\n")
    words = start(programs, "alerts", RUN_PATH=str(tmp_path), NODES="2", TOPIC_PARTITIONS="4")
    assert "spark.cores.max=12" in words  # 3 nodes of 4 partitions each
    assert words[-1] == "--sure"


@pytest.mark.parametrize(
    ("number", "per_driver", "port", "nodes"),
    [("1", "1", "4051", "1"), ("12", "1", "4062", "12"), ("2", "50", "4052", "51-100")],
)
def test_a_fog_driver_has_a_port_and_nodes_by_its_number(programs, number, per_driver, port, nodes):
    words = start(programs, "fog", number, NODES_PER_DRIVER=per_driver, JOB_ARGS="--topic sensor-data")
    assert f"spark.ui.port={port}" in words
    assert words[-5:] == ["fog/fog_node.py", "--node", nodes, "--topic", "sensor-data"]


def a_running_driver(programs: Path, checkpoints: Path) -> tuple[subprocess.Popen[str], int]:
    """Return the start of a driver that has said how far it is and does not end by itself, and the driver's id."""
    (checkpoints / "running").mkdir()
    script = f"#!/bin/sh\necho far >{checkpoints}/running/alerts.json\necho $$\nexec sleep 60\n"
    (programs / "spark-submit").write_text(script)
    env = DOTENV | {"PATH": f"{programs}:{os.environ['PATH']}", "CHECKPOINT_DIR": str(checkpoints)}
    line = [str(ROOT / "spark_cluster" / "start-job.sh"), "alerts"]
    started = subprocess.Popen(line, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert started.stdout is not None
    return started, int(started.stdout.readline())


def test_a_driver_that_is_stopped_on_purpose_is_marked_so(programs, tmp_path):
    started, _ = a_running_driver(programs, tmp_path)
    with started:
        started.terminate()
        assert started.wait(timeout=10) == 128 + signal.SIGTERM
    assert [path.name for path in (tmp_path / "running").iterdir()] == ["alerts.stopped"]


def test_a_driver_that_dies_is_not_and_its_exit_code_is_that_of_its_start(programs, tmp_path):
    started, driver = a_running_driver(programs, tmp_path)
    with started:
        os.kill(driver, signal.SIGKILL)
        assert started.wait(timeout=10) == 128 + signal.SIGKILL
    assert [path.name for path in (tmp_path / "running").iterdir()] == ["alerts.json"]


@pytest.mark.parametrize(
    ("job", "variables", "names"),
    [
        ("cloud", {}, "cloud"),
        ("fog", {"NODES": "3"}, "fog-1 fog-2 fog-3"),
        ("fog", {"NODES": "101", "NODES_PER_DRIVER": "50"}, "fog-1 fog-2 fog-3"),
    ],
)
def test_a_job_has_a_process_for_each_driver(job, variables, names):
    line = ["bash", "-c", f"source deploy/jobs.sh; names_of {job}"]
    done = subprocess.run(
        line, cwd=ROOT, env=DOTENV | os.environ | variables, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == names.split()


def test_more_drivers_than_there_is_room_for_are_refused():
    line = ["bash", "-c", "source deploy/jobs.sh; names_of fog"]
    done = subprocess.run(line, cwd=ROOT, env=DOTENV | os.environ | {"NODES": "21"}, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("NODES is 21; expected at most FOG_NODES_MAX=20 drivers")
