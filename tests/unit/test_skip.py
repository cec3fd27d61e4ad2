"""Records that no job can read: what `make skip` changes in a checkpoint, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
from types import SimpleNamespace

import pytest
from fake_topics import Topics
from kafka import TopicPartition
from kafka.errors import CorruptRecordError

from fedstream.broker import kafka
from fedstream.commands import skip
from fedstream.errors import StackError
from fedstream.settings import Settings
from fedstream.spark.oversized import MOST_BYTES, find, look
from fedstream.spark.skips import Skip, add_skip, pass_over, skips_of, unread, unreadable
from fedstream.spark.state import BatchState

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

TOPIC = "sensor-data-node-1"
HEAD = 'v1\n{"batchWatermarkMs":0,"conf":{"a.b":"c"}}\n'  # as Spark writes it before the offsets


def text(*ends: int) -> str:
    """Return the offsets of partitions 0, 1 ... as Spark writes them."""
    return json.dumps({TOPIC: {str(number): end for number, end in enumerate(ends)}}, separators=(",", ":"))


class Query:
    """A query's folder."""

    def __init__(self, folder):
        """Make it as Spark leaves it before the first micro-batch, from offset 100 and 0 on."""
        self.folder, self.spark = folder, folder / "spark"
        for name in ("offsets", "commits", "sources/0"):
            (self.spark / name).mkdir(parents=True)
        (self.spark / "sources/0/0").write_bytes(b"\0v1\n" + text(100, 0).encode())

    def plan(self, number, *ends):
        """Plan a micro-batch."""
        (self.spark / "offsets" / str(number)).write_text(HEAD + text(*ends))
        return self

    def finish(self, number):
        """Count a micro-batch, and mark it as done."""
        (self.folder / "state.json").write_text(json.dumps({"batch_id": number}))
        (self.spark / "commits" / str(number)).write_text("v1\n{}")
        return self

    def planned(self):
        """Return where the planned and done micro-batches end."""
        found = {int(path.name): path.read_text() for path in (self.spark / "offsets").iterdir()}
        assert all(each.startswith(HEAD) for each in found.values())
        return {number: found[number].removeprefix(HEAD) for number in sorted(found)}


@pytest.fixture
def query(tmp_path):
    """Return a query that has done micro-batch 0 and fails in number 1, of offsets 300 to 499 and 7 to 8."""
    return Query(tmp_path / "fog-1" / TOPIC).plan(0, 300, 7).finish(0).plan(1, 500, 9)


def test_what_stands_before_the_record_is_read_then_what_stands_behind_it(query):
    add_skip(query.folder, Skip(TOPIC, 0, 350, 350))
    assert unread(query.folder) == [Skip(TOPIC, 0, 300, 499), Skip(TOPIC, 1, 7, 8)]
    pass_over(query.folder)
    assert query.planned() == {0: text(300, 7), 1: text(350, 9)}
    pass_over(query.folder)  # the driver was killed before it was done
    assert query.planned() == {0: text(300, 7), 1: text(350, 9)}
    query.finish(1).plan(2, 600, 12)  # it fails once more
    pass_over(query.folder)
    assert query.planned() == {0: text(300, 7), 1: text(351, 9)}
    query.plan(2, 600, 12)
    pass_over(query.folder)
    assert unread(query.folder) == [Skip(TOPIC, 0, 351, 599), Skip(TOPIC, 1, 9, 11)]


def test_a_batch_at_the_beginning_of_the_plan_is_passed_over_at_once(query):
    add_skip(query.folder, Skip(TOPIC, 0, 300, 399))
    add_skip(query.folder, Skip(TOPIC, 0, 400, 400))
    pass_over(query.folder)
    assert query.planned() == {0: text(401, 7)}


def test_a_record_of_the_first_micro_batch_is_passed_over(tmp_path):
    query = Query(tmp_path).plan(0, 300, 5)
    add_skip(query.folder, Skip(TOPIC, 0, 100, 100))  # where the query begins
    add_skip(query.folder, Skip(TOPIC, 1, 3, 3))
    pass_over(query.folder)
    assert query.planned() == {}
    assert (query.spark / "sources/0/0").read_bytes() == b"\0v1\n" + text(101, 0).encode()
    query.plan(0, 400, 6)
    pass_over(query.folder)
    assert query.planned() == {0: text(400, 3)}


def test_a_micro_batch_that_is_counted_and_only_to_be_sent_again_stays_as_it_is(query):
    (query.folder / "state.json").write_text(json.dumps({"batch_id": 1}))
    for first in (300, 350):
        add_skip(query.folder, Skip(TOPIC, 0, first, first))
    assert unread(query.folder) == []
    pass_over(query.folder)
    assert query.planned() == {0: text(300, 7), 1: text(500, 9)}


def test_without_a_skip_or_far_from_it_nothing_changes(query):
    before = query.planned()
    pass_over(query.folder)
    for place in (Skip(TOPIC, 0, 299, 299), Skip(TOPIC, 0, 500, 500), Skip("another", 0, 350, 350)):
        add_skip(query.folder, place)
    pass_over(query.folder)
    assert query.planned() == before


# --- the command


def call(tmp_path, at, job="fog-1"):
    """Call the command."""
    skip.main(job, at, {"CHECKPOINT_DIR": str(tmp_path)})


def test_each_record_gets_a_dead_letter_and_both_queries_of_the_job_pass_over_it(query, tmp_path, monkeypatch, capsys):
    topics = Topics()
    monkeypatch.setattr(kafka, "connect_publisher", topics.connect_publisher)
    training = Query(query.folder / "training").plan(0, 200, 0)  # it will come there later
    call(tmp_path, f"{TOPIC}:0:350-352")
    assert skips_of(query.folder) == skips_of(training.folder) == [Skip(TOPIC, 0, 350, 352)]
    letters = [message for _, _, message in topics.published]
    assert [(each["topic"], each["partition"], each["offset"], each["by"], each["value"]) for each in letters] == [
        (TOPIC, 0, offset, "fog-1", None) for offset in (350, 351, 352)
    ]
    assert {each["reason"] for each in letters} == {"skipped by hand: no job could read it"}
    assert {topic for topic, _, _ in topics.published} == {"dead-letter"}
    assert capsys.readouterr().out.startswith(f"fog-1: passes over {TOPIC}:0:350-352 (3 in dead-letter)")


@pytest.mark.parametrize(
    ("at", "job", "reason"),
    [
        ("", "fog-1", "AT is ''; expected topic:partition:offset or topic:partition:first-last"),
        ("topic:0", "fog-1", "AT is 'topic:0'; expected"),
        (f"{TOPIC}:0:350-349", "fog-1", "expected topic:partition:offset"),
        (f"{TOPIC}:0:350-10350", "fog-1", "expected at most 10000 records"),
        (f"{TOPIC}:0:299", "fog-1", f"does not wait for {TOPIC}:0:299: it stands at {TOPIC}:0:300-499, {TOPIC}:1:7-8."),
        (f"{TOPIC}:0:499-500", "fog-1", "fog-1 does not wait for"),
        (f"{TOPIC}:2:350", "fog-1", "fog-1 does not wait for"),
        (f"{TOPIC}:0:350", "cloud", "cloud does not wait for .*: it has counted all that it has planned to read"),
        (f"{TOPIC}:0:350", "alerts", "S is 'alerts'; expected fog-N or cloud"),
        (f"{TOPIC}:0:350", "squares", "S is 'squares'; expected a job that keeps a checkpoint"),
    ],
)
def test_a_place_where_the_job_does_not_stand_is_refused_and_nothing_is_changed(query, tmp_path, at, job, reason):
    with pytest.raises(StackError, match=reason):
        call(tmp_path, at, job)
    assert skips_of(query.folder) == []


def test_a_running_driver_is_not_changed_under_its_feet(query, tmp_path):
    (query.folder / "state.json").unlink()
    state = BatchState(query.folder, {"n": 0})
    with pytest.raises(StackError, match=f"a running driver uses {query.folder}: stop it first"):
        call(tmp_path, f"{TOPIC}:0:350")
    assert state.batch_id == -1


# --- what the job says

FAILED = f"""[STREAM_FAILED] Query [id = 1, runId = 2] terminated with exception: Job aborted: Lost task 0.3 in stage 1
org.apache.kafka.common.KafkaException: Received exception when fetching the next record from {TOPIC}-0. If needed, \
please seek past the record to continue consumption.
Caused by: org.apache.kafka.common.KafkaException: Record batch for partition {TOPIC}-0 at offset 300 is invalid, \
cause: Record is corrupt (stored crc = 1, computed crc = 2)
\tat org.apache.kafka.clients.consumer.internals.CompletedFetch.maybeEnsureValid(CompletedFetch.java:163)
"""


class Damaged:
    """A consumer of a partition of 1000 records; those in the ranges are damaged batches."""

    def __init__(self, *damaged):
        """Begin at the first record."""
        self.damaged, self.polls = damaged, 0

    def assign(self, partitions):
        """Take the one partition."""
        assert partitions == [TopicPartition(TOPIC, 0)]

    def end_offsets(self, partitions, timeout_ms=None):
        """Return the end."""
        return dict.fromkeys(partitions, 1000)

    def seek(self, partition, offset):
        """Go to an offset."""
        self.at = offset

    def poll(self, timeout_ms):
        """Fail as kafka-python does, which reads a batch as a whole."""
        self.polls += 1
        for batch in self.damaged:
            if self.at in batch:
                msg = f"Record batch for partition x at offset {batch.start} failed crc check"
                raise CorruptRecordError(msg)
        return {}

    def close(self):
        """Do nothing."""


@pytest.mark.parametrize("batch", [range(300, 301), range(300, 400), range(300, 1000)], ids=str)
def test_the_jobs_error_names_all_records_of_the_damaged_batch_and_the_command(batch, monkeypatch):
    consumer = Damaged(batch, range(700, 900)) if batch.stop < 700 else Damaged(batch)
    monkeypatch.setattr(kafka, "connect_consumer", lambda settings: consumer)
    place = f"{TOPIC}:0:300" + (f"-{batch[-1]}" if len(batch) > 1 else "")
    for job, command in (
        ("fog-1", f"make skip S=fog-1 AT={place}"),
        ("alerts", f"make reset S=alerts FROM={batch.stop}"),
    ):
        monkeypatch.setenv("JOB", job)
        said = unreadable(FAILED, Settings())
        assert said == (
            f"no job can read {place} (topic:partition:offset): Record is corrupt (stored crc = 1, computed crc = 2). "
            f"To pass over it: {command}"
        )
    assert re.fullmatch(r"[\w.-]+:\d+:\d+(-\d+)?", place)
    assert consumer.polls <= 2 * 10, "1000 records are halved ten times"


def test_another_error_is_not_taken_for_it():
    assert unreadable("[STREAM_FAILED] terminated with exception: Topic t was lost", SimpleNamespace()) == ""


# --- records that unpack to more than an executor holds


class Packed:
    """A consumer of a partition of 1000 records, some packed together in batches that no memory holds; one is long."""

    def __init__(self, *bombs, long=()):
        """Begin at the first record."""
        self.bombs, self.long, self.at, self.reads = bombs, long, 0, 0

    def assign(self, partitions):
        """Take the one partition."""
        assert partitions == [TopicPartition(TOPIC, 0)]

    def seek(self, partition, offset):
        """Go to an offset."""
        self.at = offset

    def position(self, partition):
        """Return the offset to read next."""
        return self.at

    def poll(self, timeout_ms, max_records):
        """Return a record; a batch is unpacked as a whole."""
        assert max_records == 1
        if any(self.at in bomb for bomb in self.bombs):
            self.reads += 1
            raise MemoryError
        self.at += 1
        value = b"x" * (MOST_BYTES + 1) if self.at - 1 in self.long else b"{}"
        return {"": [SimpleNamespace(value=value)]}

    def close(self):
        """Do nothing."""


@pytest.mark.parametrize(
    ("bombs", "long", "found"),
    [
        ([range(310, 311)], (), f"{TOPIC}:0:310"),
        ([range(310, 367), range(900, 950)], (), f"{TOPIC}:0:310-366"),
        ([range(250, 301)], (), f"{TOPIC}:0:300"),  # its first records have been read
        ([range(400, 1000)], (), f"{TOPIC}:0:400-499"),  # the others are not planned yet
        ([], (333, 444), f"{TOPIC}:0:333"),
        ([range(500, 600)], (600,), "None"),
    ],
)
def test_records_that_no_executor_holds_are_found_with_all_that_are_packed_with_them(bombs, long, found, monkeypatch):
    consumer = Packed(*bombs, long=long)
    monkeypatch.setattr(kafka, "connect_consumer", lambda settings: consumer)
    assert str(look(Settings(), [Skip(TOPIC, 0, 300, 499)])) == found
    assert consumer.reads < 20, "each unpacks a batch"


def test_the_records_are_looked_for_in_a_process_of_its_own(monkeypatch):
    calls = []

    def run(command, **_):
        calls.append(command[2:])
        return SimpleNamespace(returncode=0, stdout=f"{TOPIC}:0:310\n")

    monkeypatch.setattr(subprocess, "run", run)
    waiting = [Skip(TOPIC, 0, 300, 499), Skip(TOPIC, 1, 7, 8)]
    assert find(Settings(), waiting) == Skip(TOPIC, 0, 310, 310)
    assert calls == [["fedstream.spark.oversized", f"{TOPIC}:0:300-499", f"{TOPIC}:1:7-8"]]
