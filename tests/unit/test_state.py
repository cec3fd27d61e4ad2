"""What a job remembers: each micro-batch counted once, however and whenever the driver ends."""

from __future__ import annotations

import json
import os
import random
import re
import stat
from pathlib import Path

import pytest

from fedstream.errors import StateError
from fedstream.spark import state as state_module
from fedstream.spark.state import BatchState

# By design the lock stays open until the process ends; here it ends with the object, which Python remarks on.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

KILLS = 15
KEPT_NUMBERS = 10_000  # about 50 kB a state: writing it takes long enough to be killed in the middle


def add(number: int):
    """Return a step that adds to the number of the value."""
    return lambda value: {"n": value["n"] + number}


def never(value: dict) -> dict:
    """Stand for a step that must not run."""
    raise AssertionError(f"computed again from {value}")


def test_a_fresh_state_has_the_initial_value_and_no_batch(tmp_path):
    state = BatchState(tmp_path / "new" / "folder", {"n": 7})
    assert (state.batch_id, state.value) == (-1, {"n": 7})


def test_a_batch_gives_the_value_computed_from_the_one_before(tmp_path):
    state = BatchState(tmp_path, {"n": 0})
    assert state.advance(0, add(3)) == {"n": 3}
    assert state.advance(1, add(4)) == {"n": 7}
    assert (state.batch_id, state.value) == (1, {"n": 7})


def test_a_repeated_batch_gives_the_first_result_and_computes_nothing(tmp_path):
    state = BatchState(tmp_path, {"n": 0})
    state.advance(0, add(3))
    assert state.advance(0, never) == {"n": 3}
    assert state.advance(1, add(4)) == {"n": 7}


def test_a_reopened_state_goes_on_where_it_was(tmp_path):
    BatchState(tmp_path, {"n": 0}).advance(0, add(3))
    state = BatchState(tmp_path, {"n": 99})
    assert (state.batch_id, state.value) == (0, {"n": 3})
    assert state.advance(0, never) == {"n": 3}
    assert state.advance(1, add(4)) == {"n": 7}


def test_a_batch_that_is_not_to_count_changes_nothing(tmp_path):
    def refuse():
        raise StateError("topic t was made anew")

    BatchState(tmp_path, {"n": 0}).advance(0, add(3))
    state = BatchState(tmp_path, {"n": 0}, refuse)
    with pytest.raises(StateError, match="made anew"):
        state.advance(1, add(4))
    assert (state.batch_id, state.value) == (0, {"n": 3})
    stored = json.loads((tmp_path / "state.json").read_text())
    assert stored == {"batch_id": 0, "offsets": None, "features": [], "value": {"n": 3}}


@pytest.mark.parametrize("batch_id", [0, 1, 4, 100], ids=lambda batch_id: f"batch {batch_id} after batch 2")
def test_a_batch_that_is_neither_the_next_nor_the_last_is_refused(tmp_path, batch_id):
    state = BatchState(tmp_path, {"n": 0})
    for done in (0, 1, 2):
        state.advance(done, add(1))
    with pytest.raises(StateError) as caught:
        state.advance(batch_id, never)
    text = str(caught.value)
    assert f"is at micro-batch 2 but Spark's checkpoint runs micro-batch {batch_id}" in text
    assert f"Begin anew: remove {tmp_path}" in text
    assert (state.batch_id, state.value) == (2, {"n": 3})


def plan(folder: Path, batch_id: int, offset: int) -> None:
    """Write down where Spark ends a micro-batch, as it does before it runs."""
    offsets = folder / "spark" / "offsets"
    offsets.mkdir(parents=True, exist_ok=True)
    (offsets / str(batch_id)).write_text(f'v1\n{{"batchTimestampMs":{offset}}}\n{{"t":{{"0":{offset}}}}}')


def test_a_checkpoint_that_plans_the_last_batch_with_other_offsets_is_refused(tmp_path):
    plan(tmp_path, 0, 100)
    BatchState(tmp_path, {"n": 0}).advance(0, add(100))
    state = BatchState(tmp_path, {"n": 0})
    assert state.advance(0, never) == {"n": 100}  # repeated as it was
    plan(tmp_path, 0, 150)  # the checkpoint was lost, and Spark planned the batch anew, with more records
    with pytest.raises(StateError) as caught:
        state.advance(0, never)
    text = str(caught.value)
    assert """was counted up to ['{"t":{"0":100}}'], and the checkpoint plans ['{"t":{"0":150}}']""" in text
    assert f"begin anew: remove {tmp_path}" in text
    assert (state.batch_id, state.value) == (0, {"n": 100})


def test_a_value_is_on_the_disk_with_its_name_before_it_counts(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, Path.replace
    kind = {True: "folder", False: "file"}
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(kind[stat.S_ISDIR(os.fstat(fd).st_mode)]), sync(fd)))
    monkeypatch.setattr(Path, "replace", lambda old, new: (done.append("new name"), replace(old, new)))
    BatchState(tmp_path, {"n": 0}).advance(0, add(3))
    assert done == ["file", "new name", "folder"]  # in another order a power cut could leave an empty or an old file


def test_a_state_that_was_removed_alone_is_noticed(tmp_path):
    with pytest.raises(StateError, match="is at micro-batch -1 but Spark's checkpoint runs micro-batch 5"):
        BatchState(tmp_path, {"n": 0}).advance(5, never)


def test_a_state_of_other_features_is_not_added_to(tmp_path):
    BatchState(tmp_path, {"n": 0}, features=["temperature", "humidity"]).advance(0, add(3))
    text = "state.json was made with the features temperature, humidity; FEATURES names temperature, vibration"
    anew = f"Set FEATURES as it was, or begin anew: remove {tmp_path}, or start the program with --from"
    with pytest.raises(StateError, match=re.escape(f"{text}. {anew}")):
        BatchState(tmp_path, {"n": 0}, features=["temperature", "vibration"])
    assert BatchState(tmp_path, {"n": 0}, features=["temperature", "humidity"]).value == {"n": 3}


def advance_and_crash(folder: Path, error: type[Exception]) -> None:
    """Run a third micro-batch that ends with the error, and drop the state as a dying driver does."""
    state = BatchState(folder, {"n": 0})
    state.advance(0, add(3))
    state.advance(1, add(4))
    with pytest.raises(error):
        state.advance(2, add(100))
    assert (state.batch_id, state.value) == (1, {"n": 7})


def crash(*_: object, **__: object) -> None:
    """Stand for a call that ends with the disk full."""
    raise OSError("No space left on device")


def test_a_crash_while_the_value_is_written_leaves_the_old_one(tmp_path, monkeypatch):
    def write_half(value: object, file, **_: object) -> None:
        text = json.dumps(value)
        if value["batch_id"] == 2:
            file.write(text[: len(text) // 2])
            crash()
        file.write(text)

    monkeypatch.setattr(state_module.json, "dump", write_half)
    advance_and_crash(tmp_path, OSError)
    state = BatchState(tmp_path, {"n": 0})
    assert (state.batch_id, state.value) == (1, {"n": 7})
    monkeypatch.undo()
    assert state.advance(2, add(5)) == {"n": 12}


def test_a_crash_before_the_new_file_takes_the_old_ones_place_leaves_the_old_value(tmp_path, monkeypatch):
    replace = Path.replace

    def refuse_the_third(path: Path, target: Path) -> Path:
        if json.loads(path.read_text())["batch_id"] == 2:
            crash()
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refuse_the_third)
    advance_and_crash(tmp_path, OSError)
    state = BatchState(tmp_path, {"n": 0})
    assert (state.batch_id, state.value) == (1, {"n": 7})


def test_a_step_that_fails_leaves_the_old_value_and_can_be_repeated(tmp_path):
    state = BatchState(tmp_path, {"n": 0})
    state.advance(0, add(3))
    with pytest.raises(OSError, match="No space"):
        state.advance(1, crash)
    assert (state.batch_id, state.value) == (0, {"n": 3})
    assert state.advance(1, add(4)) == {"n": 7}


def test_a_value_that_json_does_not_have_is_refused_and_the_old_one_stays(tmp_path):
    state = BatchState(tmp_path, {"n": 0})
    state.advance(0, add(3))
    with pytest.raises(ValueError, match="JSON compliant"):
        state.advance(1, lambda value: {"n": float("nan")})
    assert state.advance(1, add(4)) == {"n": 7}


def test_a_second_driver_is_refused_with_a_hint(tmp_path):
    holder = BatchState(tmp_path, {"n": 0})
    with pytest.raises(StateError) as caught:
        BatchState(tmp_path, {"n": 0})
    text = str(caught.value)
    assert f"another running driver uses {tmp_path}" in text
    assert "stop it first, or set CHECKPOINT_DIR to another folder" in text
    assert holder.advance(0, add(3)) == {"n": 3}


def test_a_driver_in_another_process_is_noticed_and_its_end_by_kill_frees_the_state(tmp_path, program):
    code = "import sys, pathlib, fedstream.spark.state as s; s = s.BatchState(pathlib.Path(sys.argv[1]), {})"
    with program("-u", "-c", code + "; print('open'); sys.stdin.read()", str(tmp_path)) as driver:
        assert driver.stdout.readline() == "open\n"
        with pytest.raises(StateError, match="another running driver"):
            BatchState(tmp_path, {})
        driver.kill()
        driver.wait()
    assert BatchState(tmp_path, {"n": 1}).value == {"n": 1}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"batch_id": 3, "value": {"n": 7', b"[]", b"{}", b'{"batch_id": 3}', b'{"value": {}}', b"7", b"\xff"],
)
def test_a_file_that_is_no_saved_state_is_refused_and_left_alone(tmp_path, content):
    file = tmp_path / "state.json"
    file.write_bytes(content)
    with pytest.raises(StateError) as caught:
        BatchState(tmp_path, {"n": 0})
    assert f"{file} is not a saved state" in str(caught.value)
    assert f"restore it, or begin anew: remove {tmp_path}" in str(caught.value)
    assert file.read_bytes() == content


DRIVER = f"""
import sys
from pathlib import Path
from fedstream.spark.state import BatchState

state = BatchState(Path(sys.argv[1]), {{"batches": 0, "numbers": []}})
while True:
    batch_id = state.batch_id + 1
    state.advance(
        batch_id, lambda value: {{"batches": value["batches"] + 1, "numbers": [batch_id] * {KEPT_NUMBERS}}}
    )
    print(batch_id, flush=True)
"""


def test_a_driver_killed_at_any_moment_leaves_a_whole_state_that_lost_no_finished_batch(tmp_path, program):
    source = random.Random(11)
    last = -1
    for _ in range(KILLS):
        with program("-c", DRIVER, str(tmp_path)) as driver:
            for _ in range(source.randint(1, 5)):
                last = int(driver.stdout.readline())
            # It is in one of the next batches now, at a point that nothing here decides.
            driver.kill()
            last = max([last, *map(int, driver.stdout.read().split())])
        stored = json.loads((tmp_path / "state.json").read_text())
        batch_id, value = stored["batch_id"], stored["value"]
        assert batch_id in (last, last + 1), "a finished batch is missing, or one was made up"
        assert value == {"batches": batch_id + 1, "numbers": [batch_id] * KEPT_NUMBERS}
        last = batch_id
    assert last >= KILLS - 1, "each driver finished at least one batch before its end"
