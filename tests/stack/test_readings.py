"""Readings of other kinds, without a change of code: many nodes' on one topic, a third value, a producer's own form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from statistics import fmean

import pytest

from tests.stack.stack import ENV, QUICK, Stack, at_once, eventually


@pytest.fixture(scope="module", autouse=True)
def leave_it_empty(one_stack: Stack) -> Iterator[None]:
    yield
    one_stack.make("clean")  # a job with two values does not go on from the sums of three


def test_four_nodes_share_one_topic_without_a_new_file(stack: Stack) -> None:
    """The report's drawing, one topic for all sensors; each driver hosts two nodes."""
    topic, letters = "of-all-sensors", stack.end_offset("dead-letter")
    fog = ("run-fog", "NODES=4", "NODES_PER_DRIVER=2", f"ARGS=--topic {topic}")
    at_once(lambda: stack.make(*fog, **QUICK), lambda: stack.make("run-cloud", **QUICK))
    stack.send_readings(42, "--nodes", "4", "--topic", topic)
    stack.send(topic, b"no reading of anybody")
    dealt = {1: 11, 2: 11, 3: 10, 4: 10}  # 42 in turn
    for node, samples in dealt.items():
        eventually(f"fog-{node}", lambda n=node: stack.samples(n, topic), lambda seen, s=samples: seen == s)
    eventually("one dead letter", lambda: stack.end_offset("dead-letter"), lambda seen: seen == letters + 1)
    for node, samples in dealt.items():
        eventually(
            f"all learned by fog-{node}", lambda n=node: stack.learned(n, topic), lambda seen, s=samples: seen == s
        )
    assert stack.end_offset("dead-letter") == letters + 1  # kept once, though two drivers read it
    assert ENV["NODES"] == "2"  # the topics made at start-up; the rest came with the nodes


HUMIDITY = {
    "FEATURES": "temperature:-100:1000:1,vibration:0:1000:100,humidity:0:100:0.5",
    "SIMULATED_RANGES": "humidity:20:80",
    "LABEL_RULE": "temperature>85,humidity>70",
}


def test_a_third_value_is_counted_and_learned(empty_stack: Stack) -> None:
    stack = empty_stack
    stack.make("-j2", "run-fog", "run-cloud", **HUMIDITY, **QUICK)
    sent = stack.python("producer/sensor_producer.py", "--count", "1000", "--rate", "0", "--seed", "3", **HUMIDITY)
    assert "1000 readings sent, all acknowledged" in sent.stdout, sent
    stack.send("sensor-data-node-1", b'{"sensor_id":"node-1","temperature":70,"vibration":0.05,"label":0}')
    for node in (1, 2):
        stack.eventually_counts(node, 500)
        readings = stack.messages(f"sensor-data-node-{node}")[:500]
        assert all(each["label"] == int(each["temperature"] > 85 or each["humidity"] > 70) for each in readings)
        means = {name: fmean(each[name] for each in readings) for name in ("temperature", "vibration", "humidity")}
        weight = (means["temperature"] + 100 * means["vibration"] + 0.5 * means["humidity"]) / 3
        assert stack.updates(node)[-1]["weight"] == pytest.approx(weight, abs=0.5001e-4)
    (letter,) = eventually("a dead letter", lambda: stack.messages("dead-letter"), lambda seen: len(seen) == 1)
    assert letter["reason"] == "humidity is missing; expected a number from 0 to 100"
    opened = eventually("a second round", stack.rounds, lambda seen: len(seen) > 1)[-1]
    first = {array["name"]: array["shape"] for array in opened["arrays"]}["coefs_0"]
    assert first[0] == len(opened["scaler"]["mean"]) == 3


FOREIGN = {
    "FEATURES": "temperature:-100:1000:1,vibration_x:0:1000:100",
    "FIELDS": "sensor_id=node_id,label=anomaly,event_time=timestamp,"
    "temperature=features.temperature,vibration_x=features.vibration_x",
    "LABELS": "optional",
    "MODEL": "mean",
}


def test_the_messages_of_an_existing_producer_are_taken_as_they_come(stack: Stack) -> None:
    topic = "of-an-existing-producer"
    stack.make("stop-jobs")
    letters = stack.end_offset("dead-letter")
    stack.make("run-fog", f"ARGS=--topic {topic} --sensors 1", NODES="1", **FOREIGN)
    common = {"timestamp": "2026-01-17T07:54:53.993385", "node_id": 1}
    messages = [
        common | {"features": {"temperature": 70, "vibration_x": 0.05, "pressure": 101.2}, "anomaly": 1},
        common | {"timestamp": 1768636493.1, "features": {"temperature": 80, "vibration_x": 0.07}},
        common | {"features": {"temperature": 80, "vibration_x": "0.07"}},
        common | {"temperature": 80, "vibration_x": 0.07},
    ]
    stack.send(topic, *(json.dumps(message).encode() for message in messages))
    eventually("two readings", lambda: stack.samples(1, topic), lambda seen: seen == 2)
    last = eventually("rejected records", lambda: stack.updates(1, topic)[-1], lambda seen: seen["rejected"] == 2)
    assert last["weight"] == 40.5  # (150 / 2 + 100 * 0.12 / 2) / 2 = (75 + 6) / 2
    assert [letter["reason"] for letter in stack.messages("dead-letter", letters)] == [
        'features.vibration_x is "0.07"; expected a number from 0 to 1000',
        "features is missing",
    ]
