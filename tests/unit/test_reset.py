"""A fresh start for one job, and for no other."""

from __future__ import annotations

import re

import pytest

from fedstream.broker.position import Position
from fedstream.commands import reset
from fedstream.errors import StackError
from fedstream.spark.state import BatchState, Reset

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
    assert Reset.of(tmp_path / "fog-2") == Reset("", None)
    reset.reset(tmp_path / "fog-2", Reset("2026-11-29T12:00:00Z", Position(time_ms=NOON)))
    assert [path.name for path in (tmp_path / "fog-2").rglob("*")] == ["reset.json"]
    assert Reset.of(tmp_path / "fog-2") == Reset("2026-11-29T12:00:00Z", Position(time_ms=NOON))
    assert (tmp_path / "fog-1").exists()


def test_a_job_that_has_never_run_can_be_reset(tmp_path):
    reset.main("cloud", "", {"CHECKPOINT_DIR": str(tmp_path)})
    assert Reset.of(tmp_path / "cloud").at > "2026-11-29"
    assert Reset.of(tmp_path / "cloud").start is None


@pytest.mark.parametrize(
    ("text", "start", "words"),
    [
        ("", None, "the first records of its topics, and counts from 0"),
        ("end", Position(time_ms=NOON), "the records from 2026-11-29T12:00:00Z on, and counts from 0; earlier records"),
        ("15m", Position(time_ms=NOON - 900_000), "the records from 2026-11-29T11:45:00Z on"),
        ("2026-11-28", Position(time_ms=NOON - 36 * 3_600_000), "the records from 2026-11-28T00:00:00Z on"),
        ("1000", Position(offset=1000), "offset 1000 of each partition"),
    ],
)
def test_a_reset_tells_what_it_means_for_the_counts(text, start, words):
    assert reset.start_of(text, NOON) == start
    assert f"fog-2: begins anew with {words}" in reset.told("fog-2", start)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("soon", "FROM is 'soon'; expected a time"),
        ("2999-01-01", "FROM is 2999-01-01T00:00:00Z, which lies in the future"),
    ],
)
def test_a_reset_to_no_position_is_refused_and_forgets_nothing(text, reason, tmp_path):
    (tmp_path / "fog-2").mkdir()
    (tmp_path / "fog-2" / "state.json").write_text("{}")
    with pytest.raises(StackError, match=reason):
        reset.main("fog-2", text, {"CHECKPOINT_DIR": str(tmp_path)})
    assert (tmp_path / "fog-2" / "state.json").exists()


def test_a_running_driver_keeps_its_state(tmp_path):
    folder = tmp_path / "fog-2" / "sensor-data-node-2"
    state = BatchState(folder, {"n": 0})
    state.advance(0, lambda value: {"n": 7})
    with pytest.raises(StackError, match=f"a running driver uses {folder}: stop it first"):
        reset.reset(tmp_path / "fog-2", Reset("2026-11-29T12:00:00Z"))
    assert (folder / "state.json").exists()
