"""What the demo computes a second time: weights from readings."""

from __future__ import annotations

import pytest

from fedstream.commands import demo
from fedstream.commands.demo import explains, mean_weight, readings_behind, traffic
from fedstream.features import parse_features
from fedstream.messages.dead_letters import dead_letter
from fedstream.messages.readings import Reading
from fedstream.messages.rounds import read_update
from fedstream.messages.topics import DEAD_LETTER, GLOBAL_MODEL, MODEL_WEIGHTS, sensor_topic
from fedstream.messages.weights import GlobalWeight, NodeWeight
from fedstream.settings import Settings
from fedstream.tables import traffic_line
from tests.unit.fake_topics import Topics


def test_the_weight_is_the_mean_over_the_features_of_factor_times_mean_value():
    readings = [Reading("a", (70.0, 0.05), 0), Reading("a", (80.0, 0.07), 1)]
    # (1 * 75 + 100 * 0.06) / 2 = 40.5
    assert mean_weight(readings, Settings().table) == pytest.approx(40.5)
    table = parse_features("x:0:10:2,y:0:10:-1,z:0:10")
    # (2 * 2 - 1 * 4 + 1 * 9) / 3 = 3
    assert mean_weight([Reading("a", (1.0, 4.0, 9.0)), Reading("a", (3.0, 4.0, 9.0))], table) == pytest.approx(3.0)


def test_an_updates_readings_are_the_first_of_its_topic(monkeypatch):
    topics = Topics().install(monkeypatch)
    for temperature in (70, 71, 72):
        reading = {"sensor_id": "a", "temperature": temperature, "vibration": 0.05, "label": 0}
        topics.add(sensor_topic(2), b"a", reading)
    found = readings_behind(Settings(), 2, NodeWeight("fog-2", 40.0, 2))
    assert found == [Reading("a", (70.0, 0.05), 0), Reading("a", (71.0, 0.05), 0)]
    assert readings_behind(Settings(), 2, NodeWeight("fog-2", 40.0, 2, 1)) is None
    assert readings_behind(Settings(), 2, NodeWeight("fog-2", 40.0, 4)) is None


def test_the_bytes_of_readings_are_told_beside_those_of_what_is_sent(monkeypatch):
    topics = Topics().install(monkeypatch)
    for topic, size in ((sensor_topic(1), 700), (sensor_topic(2), 300), (MODEL_WEIGHTS, 100), (GLOBAL_MODEL, 50)):
        topics.add(topic, b"a", b"x" * size)
    # Both nodes read the models: 100 + 2 * 50 of 1000 bytes.
    assert traffic(Settings(), 2) == (1000, 100, 100)
    assert traffic_line(1000, 100, 100) == (
        "readings that stay at the nodes: 1.0 kB; sent instead: 100 bytes of updates and 100 bytes of models (20 %)"
    )
    monkeypatch.setattr(demo, "MOST_RECOMPUTED", 0)
    assert traffic(Settings(), 2) is None


def test_what_was_refused_is_no_message(monkeypatch):
    topics = Topics()
    topics.install(monkeypatch)
    for weight in (40.0, 99.0, 41.0):
        topics.add(MODEL_WEIGHTS, b"fog-1", NodeWeight("fog-1", weight, 10))
    topics.add(DEAD_LETTER, None, dead_letter(b"", "it jumps", (MODEL_WEIGHTS, 0, 1), 0, "cloud"))
    topics.add(DEAD_LETTER, None, dead_letter(b"", "no reading", ("sensor-data-node-1", 0, 2), 0, "fog-1"))
    messages = demo.follow(Settings(), MODEL_WEIGHTS, read_update)
    assert [each.weight for each in messages()] == [40.0, 41.0]


def test_a_global_weight_is_explained_by_the_updates_that_had_its_samples():
    updates = [
        NodeWeight("fog-1", 40.0, 1),
        NodeWeight("fog-2", 44.0, 3),
        NodeWeight("fog-1", 41.0, 2),
    ]
    # (40 * 1 + 44 * 3) / 4 = 43
    assert explains(GlobalWeight(43.0, 4, 2), updates) == pytest.approx(43.0)
    assert explains(GlobalWeight(43.0, 6, 2), updates) is None
