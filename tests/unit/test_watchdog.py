"""What ends a driver that would wait for ever, or mix the counts of two topics of one name."""

from __future__ import annotations

import json
import threading

import pytest
from kafka.errors import KafkaConnectionError

from fedstream import last_word
from fedstream.errors import StackError, StateError
from fedstream.settings import Settings
from fedstream.spark import watchdog
from fedstream.spark.watchdog import (
    FIRST_EXECUTOR_SECONDS,
    NO_EXECUTOR_SECONDS,
    SET_BACK_SECONDS,
    ClockCheck,
    ExecutorCheck,
    NoExecutorError,
    SetBackError,
    TopicCheck,
)


class Driver:
    """A driver's executors, and its clock."""

    def __init__(self):
        """Start without executors, at an odd time."""
        self.executors, self.seconds = 0, 1000.0
        self.check = ExecutorCheck(lambda: self.executors, lambda: self.seconds)

    def look_after(self, seconds: float) -> None:
        """Let time pass, and look."""
        self.seconds += seconds
        self.check()


@pytest.fixture
def driver():
    return Driver()


def test_a_driver_may_wait_long_for_its_first_executor_but_not_for_ever(driver):
    driver.look_after(FIRST_EXECUTOR_SECONDS)
    with pytest.raises(NoExecutorError, match=f"no executor for {FIRST_EXECUTOR_SECONDS:g} s.*make ps"):
        driver.look_after(1)


def test_a_driver_that_has_lost_its_executors_ends_soon(driver):
    driver.executors = 2
    driver.look_after(500)
    driver.executors = 0
    driver.look_after(NO_EXECUTOR_SECONDS)
    with pytest.raises(NoExecutorError, match=f"no executor for {NO_EXECUTOR_SECONDS:g} s"):
        driver.look_after(1)


def test_an_executor_that_is_replaced_in_time_ends_nothing(driver):
    driver.executors = 1
    driver.look_after(0)
    for _ in range(3):
        driver.executors = 0
        driver.look_after(NO_EXECUTOR_SECONDS - 1)
        driver.executors = 1
        driver.look_after(1)


def test_a_clock_that_is_set_back_ends_the_driver_and_one_that_is_set_ahead_does_not():
    now = {"wall": 5000.0, "steady": 10.0}
    check = ClockCheck(lambda: now["wall"], lambda: now["steady"])
    now = {"wall": 8600.0, "steady": 12.0}  # also after a machine was asleep
    check()
    now = {"wall": 8602.0 - SET_BACK_SECONDS, "steady": 14.0}
    check()
    now = {"wall": 5002.0, "steady": 16.0}
    with pytest.raises(SetBackError, match="set back by 3592 s"):
        check()


def test_the_first_error_is_told_in_one_line_and_ends_the_process(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("JOB", "fog-1")
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path))
    looks, ends = [], []

    def check():
        looks.append(1)
        if len(looks) == 3:
            raise StackError("topic t is odd")

    watchdog.watch(check, end=lambda: ends.append(1), pause=lambda _: None)
    assert (len(looks), len(ends)) == (3, 1)
    assert capsys.readouterr().err == "Error: topic t is odd\n"
    assert last_word.read_all(tmp_path)["fog-1"].text == "topic t is odd"


def test_a_full_disk_does_not_end_the_looks(caplog):
    looks, ends = [], []

    def check():
        looks.append(1)
        if len(looks) == 1:
            raise OSError(28, "No space left on device")
        raise StackError("the query stands still")

    watchdog.watch(check, end=lambda: ends.append(1), pause=lambda _: None)
    assert (len(looks), len(ends)) == (2, 1)
    assert "could not be made: [Errno 28] No space left on device" in caplog.text


# --- topics


def test_a_topic_that_stays_is_no_trouble_and_its_id_outlives_the_driver(tmp_path):
    for _ in range(2):
        check = TopicCheck(tmp_path / "job", lambda: {"t": "id-1"})
        check()
        check()
    assert json.loads((tmp_path / "job" / "topics.json").read_text()) == {"t": "id-1"}


@pytest.mark.parametrize("is_restarted", [True, False])
def test_a_topic_made_anew_is_told_with_both_ids_and_what_goes_on(tmp_path, monkeypatch, is_restarted):
    monkeypatch.setenv("JOB", "fog-2")
    ids = {"t": "id-1", "u": "id-2"}
    check = TopicCheck(tmp_path, lambda: ids)
    check()
    ids["u"] = "id-3"
    check = TopicCheck(tmp_path, lambda: ids) if is_restarted else check
    expected = r"topic u was made anew: .* id id-2, and now it has id id-3\..* is lost\..*: make reset S=fog-2$"
    for _ in range(2):  # it does not get used to it
        with pytest.raises(StateError, match=expected):
            check()


def test_a_program_started_by_hand_is_told_its_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("JOB", raising=False)
    TopicCheck(tmp_path, lambda: {"t": "id-1"})()
    with pytest.raises(StateError, match=f"remove {tmp_path}, or start the program with --from"):
        TopicCheck(tmp_path, lambda: {"t": "id-2"})()


def test_a_further_topic_of_a_pattern_is_remembered_from_then_on(tmp_path):
    ids = {"t-1": "id-1"}
    check = TopicCheck(tmp_path, lambda: dict(ids))
    check()
    ids["t-2"] = "id-2"
    check()
    ids["t-2"] = "id-3"
    with pytest.raises(StateError, match="topic t-2 was made anew"):
        check()


def test_a_topic_that_no_broker_knows_at_the_moment_is_not_taken_for_a_new_one(tmp_path):
    ids = {"t": "id-1"}
    check = TopicCheck(tmp_path, lambda: dict(ids))
    check()
    ids.clear()  # the broker is just starting
    check()
    ids["t"] = "id-1"
    check()


def test_a_broker_that_is_away_ends_no_job(tmp_path, monkeypatch):
    found = [{"t": "id-1"}]
    checks = []

    def topic_ids(admin, topics):
        if not found:
            raise KafkaConnectionError
        return found.pop()

    monkeypatch.setattr(watchdog.kafka, "connect_admin", lambda settings: None)
    monkeypatch.setattr(watchdog.kafka, "topic_ids", topic_ids)
    monkeypatch.setattr(watchdog, "watch_in_background", checks.append)
    watchdog.guard_topics(Settings(), "t", tmp_path)
    checks[0]()
    found.append({"t": "id-2"})
    with pytest.raises(StateError, match="made anew"):
        checks[0]()


def test_a_client_that_never_answers_is_replaced_and_ends_no_job(tmp_path, monkeypatch):
    checks, clients = [], iter(("first", "second"))
    silent, ids = threading.Event(), {"t": "id-1"}

    def topic_ids(admin, topics):
        if admin == "first" and silent.is_set():
            threading.Event().wait()
        return dict(ids)

    monkeypatch.setattr(watchdog.kafka, "connect_admin", lambda settings: next(clients))
    monkeypatch.setattr(watchdog.kafka, "topic_ids", topic_ids)
    monkeypatch.setattr(watchdog, "watch_in_background", checks.append)
    monkeypatch.setattr(watchdog, "ANSWER_SECONDS", 0.1)
    check = watchdog.guard_topics(Settings(), "t", tmp_path)
    silent.set()
    check()
    ids["t"] = "id-2"
    with pytest.raises(StateError, match="made anew"):
        check()
