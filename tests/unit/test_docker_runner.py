"""How the Docker runner starts the sensors with a file of the host, seen by a program that stands in for Docker."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from test_contracts import DOTENV, ROOT

# Says that all is well, and keeps the Compose file and the arguments that it is given.
DOCKER = """#!/bin/sh
case $1 in
  compose) cat >"$KEPT/compose.yml"; printf %s "$JOB_ARGS" >"$KEPT/arguments" ;;
  inspect) case $* in *RestartCount*) echo "exited 0 0 2026-01-01T00:00:00Z" ;; *) echo healthy ;; esac ;;
esac
"""


@pytest.fixture
def kept(tmp_path) -> Path:
    """Return the folder with the stand-in."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(DOCKER)
    program.chmod(0o755)
    return program.parent


def start(kept: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run run-job.sh for the sensors."""
    env = os.environ | DOTENV | {"PATH": f"{kept}:{os.environ['PATH']}", "KEPT": str(kept)}
    line = [ROOT / "deploy" / "docker" / "run-job.sh", "sensors", *words]
    return subprocess.run(line, env=env, capture_output=True, text=True, check=False)


def words_and_mounts(kept: Path, *words: str) -> tuple[list[str], list[dict]]:
    """Return the arguments of the sensors and the files of the host that they see."""
    done = start(kept, *words)
    assert done.returncode == 0, done.stderr
    line = ["bash", "-c", 'eval "set -- $JOB_ARGS"; printf "%s\\n" "$@"']  # as start-job.sh reads them
    env = os.environ | {"JOB_ARGS": (kept / "arguments").read_text()}
    given = subprocess.run(line, env=env, check=True, capture_output=True, text=True).stdout.splitlines()
    services = yaml.safe_load((kept / "compose.yml").read_text())["services"]
    mounts = (services or {}).get("sensors", {}).get("volumes", [])
    return given, [{**mount, "source": mount["source"].replace("$$", "$")} for mount in mounts]


@pytest.mark.parametrize("name", ["my.csv", "mes données d'été.csv", "a [1].csv", "cost $5.csv", 'say "x".csv'])
@pytest.mark.parametrize("form", [("--csv", "{}"), ("--csv={}",)])
def test_a_file_of_the_host_alone_is_seen_at_its_path_and_cannot_be_written(kept, tmp_path, name, form):
    file = tmp_path / name
    file.touch()
    given, [mount] = words_and_mounts(kept, "--rate", "5", *(word.format(file) for word in form), "--dry-run")
    assert given == ["--rate", "5", *(word.format(f"/files{file}") for word in form), "--dry-run"]
    assert (mount["type"], mount["source"], mount["read_only"]) == ("bind", str(file), True)
    assert mount["target"].replace("$$", "$") == f"/files{file}"


def test_a_path_is_that_of_the_folder_where_make_is_called(kept):
    given, [mount] = words_and_mounts(kept, "--csv", "examples/data/excel.csv")
    assert mount["source"] == f"{ROOT}/examples/data/excel.csv"
    assert given == ["--csv", f"/files{ROOT}/examples/data/excel.csv"]


@pytest.mark.parametrize("pattern", ["examples/data/mach*/*.csv", "examples/data/m[a]chines/press-?.csv"])
def test_of_a_pattern_the_folder_is_seen_up_to_its_first_sign(kept, pattern):
    given, [mount] = words_and_mounts(kept, "--csv", pattern)
    assert mount["source"] == f"{ROOT}/examples/data"
    assert given == ["--csv", f"/files{ROOT}/{pattern}"]
    given, [mount] = words_and_mounts(kept, "--csv", f"{ROOT}/{pattern}")
    assert (mount["source"], given[1]) == (f"{ROOT}/examples/data", f"/files{ROOT}/{pattern}")


@pytest.mark.parametrize(
    "words", [(), ("--rate", "5"), ("--csv", "/data/mine.csv"), ("--csv", "/no/*.csv"), ("--csv",)]
)
def test_what_is_not_on_the_host_stays_as_it_is(kept, words):
    given, mounts = words_and_mounts(kept, *words)
    assert ([word for word in given if word], mounts) == (list(words), [])


def test_all_of_the_host_is_never_shown(kept):
    done = start(kept, "--csv", "/*")
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected one in a folder" in done.stderr
    assert not (kept / "compose.yml").exists()
