"""What `make doctor` finds on this machine."""

from __future__ import annotations

import shutil

import pytest

from fedstream.stack import doctor


@pytest.fixture
def stack(monkeypatch, tmp_path):
    """Return the folder of a local stack that has topics."""
    monkeypatch.setenv("STACK", "local")
    monkeypatch.setenv("RUN_PATH", str(tmp_path))
    (tmp_path / "data").mkdir()
    return tmp_path


def test_the_room_for_topics_is_that_of_their_disk(stack):
    free = shutil.disk_usage(stack).free / 2**30
    assert float(doctor.check_topics_disk().split(" GB of disk free for the topics")[0]) == pytest.approx(free, abs=1)


def test_a_disk_that_is_nearly_full_is_red_with_the_remedy(stack, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "MIN_TOPICS_GB", 10**9)
    assert doctor.check_topics_disk in doctor.checks_for("docker")
    assert [check for check in doctor.checks_for("local") if check is doctor.check_topics_disk]
    assert doctor.run([doctor.check_topics_disk]) == 1
    shown = capsys.readouterr().out
    assert "GB of disk free for the topics; expected 1000000000: on a full disk the broker ends" in shown
    assert "remedy: free some, or have it keep less: a smaller TOPIC_BYTES in .env, then make down up" in shown


def test_before_there_is_a_broker_there_is_nothing_to_find(stack):
    (stack / "data").rmdir()
    assert doctor.check_topics_disk() == "no broker that keeps topics yet"


@pytest.mark.parametrize(("runner", "shown"), [("local", "19092, 29192, 29404"), ("docker", "19092")])
def test_ports_that_are_set_and_reached_from_this_machine_are_looked_at(monkeypatch, runner, shown):
    for name in [name for name in doctor.os.environ if name.endswith("_PORT")]:
        monkeypatch.delenv(name)
    ports = {"KAFKA_PORT": "19092", "KAFKA_NETWORK_PORT": "29192", "KAFKA_METRICS_PORT": "29404", "BOARD_PORT": ""}
    for name, port in {"STACK": runner, **ports}.items():
        monkeypatch.setenv(name, port)
    monkeypatch.setattr(doctor.health, "listening_ports", dict)
    assert doctor.check_ports() == f"ports {shown} are free or the stack's own"


@pytest.mark.parametrize(
    ("second", "found"), [({}, "ports 19092 are free"), ({19092: "1"}, "held by a process of another user")]
)
def test_a_process_that_ends_while_its_port_is_looked_at_is_nobody_elses(monkeypatch, second, found):
    for name in [name for name in doctor.os.environ if name.endswith("_PORT")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STACK", "local")
    monkeypatch.setenv("KAFKA_PORT", "19092")
    looks = iter([{19092: "1"}, second])  # no process has a socket with this number
    monkeypatch.setattr(doctor.health, "listening_ports", lambda: next(looks))
    try:
        said = doctor.check_ports()
    except doctor.Trouble as trouble:
        said = str(trouble)
    assert found in said
