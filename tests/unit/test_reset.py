"""A fresh start for one job, and for no other."""

from __future__ import annotations

import re

import pytest

from fedstream.commands import reset
from fedstream.errors import StackError
from fedstream.spark.state import BatchState, reset_at

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

NOON = 1_795_953_600_000  # 2026-11-29T12:00:00Z


@pytest.mark.parametrize(
    ("job", "nodes_per_driver", "name"),
    [
        ("fog-2", 1, "fog-2"),
        ("fog-1", 10, "fog-1-10"),
        ("fog-3", 10, "fog-21-30"),
        ("cloud", 1, "cloud"),
        ("squares-kafka", 1, "squares-kafka"),
        ("alerts", 1, "alerts"),
    ],
)
def test_a_job_has_the_folder_that_its_program_uses(job, nodes_per_driver, name):
    assert reset.folder_name(job, nodes_per_driver) == name


@pytest.mark.parametrize("job", ["squares", "sensors", "kafka", "fog", "fog-", "fog-0", "fog-x", "2", "", "../fog-2"])
def test_a_part_that_keeps_no_checkpoint_is_refused_with_those_that_do(job):
    expected = f"S is {job!r}; expected a job that keeps a checkpoint: fog-N, cloud, squares-kafka, alerts"
    with pytest.raises(StackError, match=f"^{re.escape(expected)}$"):
        reset.folder_name(job, 1)


def test_a_job_that_is_reset_has_forgotten_all_and_knows_since_when(tmp_path):
    (tmp_path / "fog-2" / "sensor-data-node-2" / "spark").mkdir(parents=True)
    (tmp_path / "fog-2" / "sensor-data-node-2" / "state.json").write_text("{}")
    (tmp_path / "fog-1").mkdir()
    assert reset_at(tmp_path / "fog-2") == ""
    reset.reset(tmp_path / "fog-2", NOON)
    assert [path.name for path in (tmp_path / "fog-2").rglob("*")] == ["reset-at"]
    assert reset_at(tmp_path / "fog-2") == "2026-11-29T12:00:00Z"
    assert (tmp_path / "fog-1").exists()


def test_a_job_that_has_never_run_can_be_reset(tmp_path):
    reset.reset(tmp_path / "cloud", NOON)
    assert reset_at(tmp_path / "cloud") == "2026-11-29T12:00:00Z"


def test_a_running_driver_keeps_its_state(tmp_path):
    folder = tmp_path / "fog-2" / "sensor-data-node-2"
    state = BatchState(folder, {"n": 0})
    state.advance(0, lambda value: {"n": 7})
    with pytest.raises(StackError, match=f"a running driver uses {folder}: stop it first"):
        reset.reset(tmp_path / "fog-2", NOON)
    assert (folder / "state.json").exists()
