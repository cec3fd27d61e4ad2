"""The local runner deletes only what it has made, and says "stopped" only of a stack whose processes have all ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest
from test_contracts import ROOT, repository_files

from fedstream.stack import processes

# Lives until it is told to end, or its test is over.
LIVES = "import sys; print('ready', flush=True); sys.stdin.read()"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {LIVES}"
TELLS = """
import signal, sys
def end(*_):
    with open(sys.argv[1], "a") as file:
        print(sys.argv[2], file=file)
    sys.exit()
signal.signal(signal.SIGTERM, end)
"""
SUPERVISORD = """
[supervisord]
nodaemon=true
logfile=/dev/null
logfile_maxbytes=0
pidfile={run}/supervisord.pid
[unix_http_server]
file={run}/supervisor.sock
[program:kafka]
command=sleep 600
[program:fog]
process_name=fog-%(process_num)s
numprocs=1
numprocs_start=1
command=sh -c 'sleep 600 & wait'
stopasgroup=true
"""


def variables_of(run_path: Path, part: str) -> dict[str, str]:
    """Return what supervisord sets for a part."""
    return {"SUPERVISOR_SERVER_URL": f"unix://{run_path}/supervisor.sock", "SUPERVISOR_PROCESS_NAME": part}


def files(folder: Path) -> dict[str, object]:
    """Return what each file of a folder holds, or where it links to."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return {str(path): path.readlink() if path.is_symlink() else path.read_bytes() for path in found}


@pytest.fixture
def checkout(tmp_path):
    """Return a copy of the repository without anything installed; beside it lies the folder `neighbour`."""
    copy = tmp_path / "checkout"
    for path in repository_files():
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target, follow_symlinks=False)
    (tmp_path / "neighbour").mkdir()
    (tmp_path / "neighbour" / "thesis.txt").write_text("the only copy")
    return copy


@pytest.fixture
def ours(checkout):
    """Return the folder that an earlier `make up` has made in the copy."""
    folder = checkout / ".run"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "topic").write_text("a record")
    (folder / ".fedstream").touch()
    return folder


def make(checkout: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run make in the copy, with no other variable of this shell than PATH."""
    return subprocess.run(
        ["make", *words, "STACK=local"],
        cwd=checkout,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )


# --- the folder


@pytest.mark.parametrize(
    ("target", "value"),
    [
        ("clean", ""),
        ("clean", "{parent}/neighbour"),
        ("clean", "../neighbour"),
        ("clean", "docs/../../neighbour"),
        ("clean", "docs"),
        ("clean", "."),
        ("up", "../neighbour"),
        ("up", "docs"),
    ],
)
def test_a_folder_that_is_not_the_stacks_is_refused_untouched(checkout, target, value):
    value = value.format(parent=checkout.parent)
    before = files(checkout.parent)
    done = make(checkout, target, f"RUN_DIR={value}")
    assert files(checkout.parent) == before
    assert done.returncode != 0
    assert f"RUN_DIR is '{value}'" in done.stderr
    assert "expected" in done.stderr


def test_an_empty_variable_of_the_shell_is_refused_too(checkout):
    before = files(checkout)
    done = make(checkout, "clean", RUN_DIR="")
    assert files(checkout) == before
    assert done.returncode != 0
    assert "RUN_DIR is ''" in done.stderr


@pytest.mark.parametrize(
    ("folder", "words"),
    [("My Projects", "expected a path without blanks"), ("x" * 80, "characters; expected at most 80")],
)
def test_a_path_that_its_programs_cannot_use_is_refused_before_anything_is_installed(checkout, folder, words):
    moved = checkout.parent / folder / "fed"
    moved.parent.mkdir()
    shutil.move(checkout, moved)
    before = files(moved)
    done = make(moved, "up")
    assert files(moved) == before
    assert done.returncode != 0
    assert words in done.stderr


def test_a_shell_that_sources_the_environment_outlives_a_bad_folder(checkout):
    line = "source deploy/local/env.sh || echo refused; echo goes on"
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=checkout,
        env={"PATH": os.environ["PATH"], "RUN_DIR": "/"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "refused\ngoes on\n"
    assert "RUN_DIR is '/'" in done.stderr


@pytest.mark.parametrize("name", [".run", "x" * 55])
def test_temporary_files_lie_in_the_stacks_folder_unless_a_sockets_path_would_be_too_long(checkout, name):
    with tempfile.TemporaryDirectory(prefix="fed") as short:
        (Path(short) / "c").symlink_to(checkout)
        line = 'source deploy/local/env.sh; echo "$SPARK_LOCAL_DIRS"; printf "%s\n" $SPARK_SUBMIT_OPTS'
        env = {"PATH": os.environ["PATH"], "RUN_DIR": name, "PWD": f"{short}/c"}
        done = subprocess.run(["bash", "-c", line], cwd=f"{short}/c", env=env, capture_output=True, text=True)
    folder, *options = done.stdout.splitlines()
    assert folder == f"{short}/c/{name}/tmp"
    assert f"-Djava.io.tmpdir={folder}" in options
    sockets = [each.partition("=")[2] for each in options if "socket.dir" in each] or [folder]
    assert sockets == (["/tmp"] if name != ".run" else [folder])
    assert len(f"{sockets[-1]}/.{uuid.uuid4()}.sock") <= 107


def test_clean_deletes_the_folder_that_up_has_made(checkout, ours):
    before = files(checkout.parent).keys()
    done = make(checkout, "clean")
    assert done.returncode == 0, done
    assert "deleted .run" in done.stdout
    assert not ours.exists()
    assert before - files(checkout.parent).keys() == {f"{ours}/.fedstream", f"{ours}/data/topic"}


def test_a_folder_of_an_older_version_is_deleted_once_it_is_marked(checkout, ours):
    (ours / ".fedstream").unlink()
    refused = make(checkout, "clean")
    assert refused.returncode != 0
    assert "RUN_DIR is '.run'" in refused.stderr
    assert (ours / "data" / "topic").exists()
    command = "touch .run/.fedstream"
    assert command in refused.stderr
    subprocess.run(command.split(), cwd=checkout, check=True)
    assert make(checkout, "clean").returncode == 0
    assert not ours.exists()


def test_checkpoints_of_a_program_that_ran_before_the_first_up_are_kept_and_do_not_stop_it(checkout):
    kept = checkout / ".run" / "checkpoints" / "sensors"
    kept.mkdir(parents=True)
    assert make(checkout, "clean").stdout == "nothing runs, and there is nothing to delete in .run\n"
    assert kept.exists()
    checked = subprocess.run(["deploy/local/stack.sh", "check"], cwd=checkout, capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")  # what make up asks first


@pytest.mark.parametrize("target", ["topics", "plot", "report", "run-sum", "submit", "run-fog", "history"])
def test_what_needs_the_stack_says_so_before_anything_is_installed(checkout, target):
    done = make(checkout, target)
    assert done.returncode == 2, done
    said, end = done.stderr.splitlines()
    assert said == "the stack is not up (local runner); start it with: make up STACK=local"
    assert end.startswith("make: ***")


def test_nothing_to_delete_is_said_and_no_error(checkout):
    done = make(checkout, "clean")
    assert done.returncode == 0, done
    assert "nothing to delete in .run" in done.stdout
    assert "deleted" not in done.stdout


def test_checkpoints_elsewhere_are_kept_and_named(checkout, ours):
    elsewhere = checkout.parent / "neighbour"
    done = make(checkout, "clean", CHECKPOINT_DIR=str(elsewhere))
    assert done.returncode == 0, done
    assert not ours.exists()
    assert (elsewhere / "thesis.txt").exists()
    assert f"kept: the checkpoints in {elsewhere}" in done.stdout


# --- the processes


def test_a_process_and_what_it_starts_belong_to_the_part(program, tmp_path):
    starts = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LIVES!r}])"
    with program("-c", starts, **variables_of(tmp_path, "fog-1")) as parent:
        assert parent.stdout.readline() == "ready\n"
        found = processes.running(tmp_path)
        assert set(found.values()) == {"fog-1"}
        assert len(found) == 2
        assert parent.pid in found
        assert processes.left_over(tmp_path) == found  # no supervisord is above them
        parent.stdin.close()
        parent.wait()
    assert processes.running(tmp_path) == {}


def test_what_is_left_over_is_ended_and_nothing_else(program, tmp_path):
    run, other = tmp_path / ".run", tmp_path / ".run-test"
    with (
        program("-c", LIVES, **variables_of(run, "cloud")) as ours,
        program("-c", LIVES, **variables_of(other, "cloud")) as theirs,
        program("-c", LIVES, RUN_PATH=str(run)) as typed_by_hand,
    ):
        for process in (ours, theirs, typed_by_hand):
            assert process.stdout.readline() == "ready\n"
        assert processes.stop(run) == {ours.pid: "cloud"}
        assert ours.wait() == -signal.SIGTERM
        for process in (theirs, typed_by_hand):
            out, _ = process.communicate("")  # its own end, at the end of its input
            assert (process.returncode, out) == (0, "")


def test_a_process_that_ignores_sigterm_is_killed_and_named(program, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.1)
    with program("-c", DEAF, **variables_of(tmp_path, "fog-2")) as deaf:
        assert deaf.stdout.readline() == "ready\n"
        assert processes.stop(tmp_path) == {deaf.pid: "fog-2"}
        assert deaf.wait() == -signal.SIGKILL
    assert f"fog-2 (process {deaf.pid})" in capsys.readouterr().out


def test_jobs_end_before_kafka_and_kafka_before_zookeeper(program, tmp_path):
    log = tmp_path / "ends"

    def started(part):
        return program("-c", TELLS + LIVES, str(log), part, **variables_of(tmp_path, part))

    with started("zookeeper") as zookeeper, started("kafka") as kafka, started("cloud") as cloud:
        for process in (zookeeper, kafka, cloud):
            assert process.stdout.readline() == "ready\n"
        processes.stop(tmp_path)
    assert log.read_text().split() == ["cloud", "kafka", "zookeeper"]


@pytest.fixture
def supervisord(program, tmp_path):
    """Start the real supervisord with two parts, one of which has a child; return it and its run path."""
    run = tmp_path / "run"
    run.mkdir()
    conf = tmp_path / "supervisord.conf"
    conf.write_text(SUPERVISORD.format(run=run))
    with program(str(Path(sys.executable).parent / "supervisord"), "-c", str(conf), RUN_PATH=str(run)) as process:
        deadline = time.monotonic() + 30
        while sorted(processes.running(run).values()) != ["fog-1", "fog-1", "kafka"]:
            assert time.monotonic() < deadline, process.poll()
        yield process, run
        processes.stop(run)


def test_parts_are_left_over_once_their_supervisord_is_killed(supervisord):
    process, run = supervisord
    assert processes.left_over(run) == {}
    process.kill()
    process.wait()
    assert sorted(processes.left_over(run).values()) == ["fog-1", "fog-1", "kafka"]
    assert sorted(processes.stop_left_over(run).values()) == ["fog-1", "fog-1", "kafka"]
    assert processes.running(run) == {}


def test_what_supervisord_still_holds_is_not_left_over(supervisord, program):
    process, run = supervisord
    before = processes.running(run)
    with program("-c", LIVES, **variables_of(run, "sensors")) as old:  # of a supervisord that was killed earlier
        assert old.stdout.readline() == "ready\n"
        assert processes.stop_left_over(run) == {old.pid: "sensors"}
    assert process.poll() is None
    assert processes.running(run) == before


def test_a_living_supervisord_is_ended_with_its_parts(supervisord):
    process, run = supervisord
    assert processes.stop(run) == {}  # nothing was left over
    assert process.wait() == 0
    assert processes.running(run) == {}


def test_what_is_deleted_anyway_is_killed_at_once_with_its_supervisord(supervisord):
    process, run = supervisord
    (kafka,) = (pid for pid, part in processes.running(run).items() if part == "kafka")
    os.kill(kafka, signal.SIGSTOP)  # it hears no SIGTERM
    assert processes.kill(run) == {}  # nothing was left over
    assert process.wait() == -signal.SIGKILL
    assert processes.running(run) == {}


def test_a_supervisord_whose_folder_is_gone_is_found(supervisord):
    process, run = supervisord
    shutil.rmtree(run)
    processes.stop(run)
    assert process.wait() == 0
    assert processes.running(run) == {}


def test_down_ends_what_is_left_over_and_says_how_many(program, checkout, ours):
    with program("-c", LIVES, **variables_of(ours, "kafka")) as process:
        assert process.stdout.readline() == "ready\n"
        done = make(checkout, "down")
        assert process.wait() == -signal.SIGTERM
    assert done.returncode == 0, done
    assert "(1): kafka" in done.stdout
    assert "stopped; data kept in .run" in done.stdout
    assert (ours / "data" / "topic").exists()


@pytest.mark.parametrize("target", ["down", "clean"])
def test_nothing_is_deleted_or_called_stopped_while_a_process_runs(checkout, ours, target):
    # The shell that asks is of the stack itself, so it is not ended.
    done = subprocess.run(
        ["bash", "-c", f'make {target} STACK=local; echo "exit $?, $$"'],
        cwd=checkout,
        env={"PATH": os.environ["PATH"], **variables_of(ours, "fog-1")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "exit 2" in done.stdout
    shell = done.stdout.split()[-1]
    assert f"fog-1 (process {shell})" in done.stderr
    assert "stopped" not in done.stdout
    assert (ours / "data" / "topic").exists()
