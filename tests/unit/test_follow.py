"""What became of a reading, told by topics that are worked out by hand (tests/board/followed.py)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fedstream.board.follow import Follower, Place, read_place
from fedstream.messages.door import encode
from fedstream.messages.rounds import global_model
from fedstream.settings import Settings
from tests.board.followed import READING, TOPIC, answer, letter, make_known, make_log

TEXTS = Path(__file__).parents[2] / "fedstream" / "board" / "static" / "en.json"


@pytest.fixture
def log():
    return make_log()


@pytest.fixture
def known():
    return make_known()


def follow(log, known, offset, topic=TOPIC, **settings):
    found = Follower(Place(topic, 0, offset), log, known, Settings(**settings)).follow()
    texts = json.loads(TEXTS.read_text(encoding="utf-8"))
    for step in found["steps"]:  # each has its text, and what that text needs
        assert set(re.findall(r"\{(\w+)\}", texts[f"follow-{step['says']}"])) <= step.keys()
        assert f"step-{step['step']}" in texts
    return {step["step"]: step for step in found["steps"]} | {"is_open": found["is_open"]}


def says(found):
    return {step: row["says"] for step, row in found.items() if step not in ("reading", "is_open")}


def test_a_reading_is_followed_to_the_version_that_has_it(log, known):
    found = follow(log, known, 2)
    assert json.loads(found["reading"]["text"]) == READING
    # Weights of 2, 4, 6 records: the one of 4 is the first beyond offset 2; records of fog-2 stand between.
    assert found["counted"] | {"at": 0} == {
        "step": "counted", "says": "counted", "at": 0, "place": "model-weights[0]@3", "node": "fog-1",
        "weight": 44.0, "samples": 4, "rejected": 0,
    }  # fmt: skip
    assert (found["scored"]["says"], found["scored"]["probability"]) == ("scored-alarm", 0.75)
    assert found["scored"]["place"] == "alerts[0]@2"
    assert (found["learned"]["says"], found["learned"]["round"], found["learned"]["num_examples"]) == ("learned", 1, 4)
    assert (found["version"]["version"], found["version"]["updates"]) == (1, 2)
    assert not found["is_open"]


def test_the_last_record_of_a_micro_batch_belongs_to_it_and_the_next_one_to_the_next(log, known):
    assert follow(log, known, 3)["counted"]["samples"] == 4
    assert follow(log, known, 5)["counted"]["samples"] == 5  # 6 records, one of them rejected
    assert follow(log, known, 3)["learned"]["round"] == 1
    assert follow(log, known, 5)["learned"]["round"] == 2


def test_a_record_that_was_refused_is_followed_to_its_dead_letter(log, known):
    found = follow(log, known, 4)
    assert (found["letter"]["by"], found["letter"]["reason"]) == ("fog-1", "not JSON")
    assert says(found) == {"letter": "letter", "scored": "scored-not-yet", "counted": "counted-rejected"}
    log.add("dead-letter", 105.7, letter(4, "alerts"))
    assert "scored" not in follow(log, known, 4)


def test_what_is_still_to_come_is_said_to_be_open(log, known):
    found = follow(log, known, 7)  # learned in round 2, which has not ended
    assert (found["version"]["says"], found["is_open"]) == ("version-not-yet", True)
    assert says(follow(log, known, 11)) == {
        "scored": "scored-not-yet", "counted": "counted-not-yet", "learned": "learned-not-yet",
    }  # fmt: skip
    assert follow(log, known, 12)["reading"]["says"] == "reading-to-come"


def test_a_round_that_ended_without_the_update_is_told(log, known):
    log.add("global-model", 110, global_model("run-a", 3, 2, {}), "mlp")
    assert follow(log, known, 7)["version"]["says"] == "version-without"
    log.topics["global-model"].pop()
    log.add("global-model", 110, global_model("run-a", 3, 2, {}, mode="async"), "mlp")  # a later one may still have it
    assert follow(log, known, 7)["version"]["says"] == "version-not-yet"


def test_what_was_before_the_memory_of_the_board_is_not_known_any_more(log, known):
    known["micro_batches"] = {"fog-1/training": known["micro_batches"]["fog-1/training"][1:]}
    assert follow(log, known, 2)["learned"]["says"] == "learned-not-known"
    assert follow(log, known, 5)["learned"]["says"] == "learned"
    known["micro_batches"] = {}
    assert follow(log, known, 2)["learned"]["says"] == "learned-no-training"
    log.starts[TOPIC] = 3
    assert follow(log, known, 2)["reading"]["says"] == "reading-gone"


def test_before_the_first_micro_batch_of_a_training_there_was_none(log, known):
    (_, first, _) = known["micro_batches"]["fog-1/training"]
    known["micro_batches"] = {"fog-1/training": (first._replace(number=0),)}
    assert follow(log, known, 2)["learned"]["says"] == "learned"


def test_a_micro_batch_that_was_not_seen_leaves_more_than_one_update(log, known):
    first, _, last = known["micro_batches"]["fog-1/training"]
    known["micro_batches"] = {"fog-1/training": (first, last)}
    steps = Follower(Place(TOPIC, 0, 2), log, known, Settings()).follow()["steps"]  # 4 + 3 of 8 records were learned
    assert [row["round"] for row in steps if row["says"] == "learned-perhaps"] == [1, 2]
    assert "version" not in {row["step"] for row in steps}
    log.topics["model-weights"].pop()  # the second one had no reading: that one is left is no proof
    assert follow(log, known, 2)["learned"]["says"] == "learned-perhaps"


def test_micro_batches_that_were_not_seen_are_told_apart_where_each_record_was_learned(log, known):
    first, _, last = known["micro_batches"]["fog-1/training"]
    known["micro_batches"] = {"fog-1/training": (first, last._replace(offsets={TOPIC: {"0": 7}}))}
    for offset, number in ((3, 1), (5, 2), (6, 2)):  # 4 and 3 readings are the records 0 to 3 and 4 to 6
        found = follow(log, known, offset)
        assert (found["learned"]["says"], found["learned"]["round"]) == ("learned", number)
    assert follow(log, known, 3)["version"]["version"] == 1


def test_a_training_without_an_update_of_the_node_is_told(log, known):
    log.topics["model-weights"] = [each for each in log.topics["model-weights"] if b"round" not in each.value]
    log.add("model-weights", 105, answer(1, 0, 4), "fog-1")  # it abstained
    assert follow(log, known, 2)["learned"]["says"] == "learned-nothing"


@pytest.mark.parametrize(
    ("gap", "source", "told"),
    [(3, "", "gap"), (None, "", "unsure"), (0, "sensor-data from 15m", "source")],
)
def test_a_count_that_is_no_offset_tells_nothing(log, known, gap, source, told):
    known["gaps"], known["nodes"][0]["source"] = {"fog-1": gap}, source
    assert follow(log, known, 2)["counted"]["says"] == f"counted-{told}"


def test_of_several_partitions_and_of_a_shared_topic_a_count_tells_nothing(log, known):
    log.parts[TOPIC] = 2
    assert follow(log, known, 2)["counted"]["says"] == "counted-parted"
    log.add("sensor-data", 100, READING)
    found = says(follow(log, known, 0, "sensor-data"))
    assert (found["counted"], found["learned"]) == ("counted-shared", "learned-shared")


def test_a_reading_without_a_label_is_not_learned(log, known):
    log.topics[TOPIC][2].value = encode({name: READING[name] for name in READING if name != "label"})
    assert follow(log, known, 2, labels="optional")["learned"]["says"] == "learned-no-label"
    assert follow(log, known, 2)["learned"]["says"] == "learned-unreadable"


def test_what_a_bounded_search_does_not_find_is_not_said_to_be_missing(log, known):
    log.most = 1
    found = says(follow(log, known, 7))
    assert (found["scored"], found["counted"]) == ("scored-not-yet", "counted-not-found")
    log.add("dead-letter", 110, letter(0, "fog-1", "sensor-data-node-2"))
    log.add("dead-letter", 111, letter(7, "fog-1"))
    assert says(follow(log, known, 7))["letter"] == "letter-not-found"
    assert found["learned"] == "learned-not-found"
    log.add("numbers", 100, {"n": 1})
    assert says(follow(log, known, 0, "numbers")) == {"letter": "letter-not-found"}
    log.most = 1000
    assert says(follow(log, known, 0, "numbers")) == {"letter": "letter-none"}
    del log.topics["alerts"]
    assert follow(log, known, 2)["scored"]["says"] == "scored-never"


@pytest.mark.parametrize(
    ("place", "named"),
    [
        (("", "0", "1"), "topic"),
        (("__consumer_offsets", "0", "1"), "topic"),
        (("t", "x", "1"), "partition"),
        (("t", "-1", "1"), "partition"),
        (("t", "0", "9" * 30), "offset"),
        (("t", "0", "²"), "offset"),
        (("t", "0", ""), "offset"),
    ],
)
def test_what_is_no_place_is_refused(place, named):
    with pytest.raises(ValueError, match=f"^{named} is "):
        read_place(*place)
    assert read_place(TOPIC, "0", "12") == Place(TOPIC, 0, 12)
