"""A replayed day on the real stack gives what the day gave; a job that starts from a time counts from there."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from tests.stack.conftest import Stack, eventually

READINGS = 1440  # one a minute
# So that every round but the last takes exactly a third of them, whatever the timing.
THIRDS = {"MODEL": "logistic", "UPDATE_MIN_READINGS": "480", "MAX_READINGS_PER_UPDATE": "480"}
YESTERDAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
NOON = (YESTERDAY + timedelta(hours=12)).strftime("%Y-%m-%dT%H:%M:%SZ")


def day_of_readings() -> list[tuple[int, bytes]]:
    """Return (time in ms, reading); fractions of 64 and 1024 add up exactly, in whatever order."""
    source, found = random.Random(24), []
    for minute in range(READINGS):
        temperature, vibration = source.randint(60 * 64, 90 * 64) / 64, source.randint(20, 102) / 1024
        time_ms = round((YESTERDAY + timedelta(minutes=minute)).timestamp() * 1000)
        reading = {"sensor_id": "node-1", "temperature": temperature, "vibration": vibration}
        label = int(temperature > 85 or vibration > 0.08)
        found.append((time_ms, json.dumps(reading | {"label": label, "event_time": time_ms}).encode()))
    return found


def send_day(stack: Stack) -> None:
    """Put the day on a new topic, each record with the time of its reading."""
    with KafkaAdminClient(bootstrap_servers=stack.bootstrap) as admin:
        about = {"num_partitions": 1, "replication_factor": 1}
        admin.create_topics({"day": about}, wait_for_metadata=True)
    with KafkaProducer(bootstrap_servers=stack.bootstrap) as producer:
        for time_ms, value in day_of_readings():
            producer.send("day", key=b"node-1", value=value, timestamp_ms=time_ms, headers=[("h", b"1")])


def results(stack: Stack, topic: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the last running weight of a fog node that reads the topic, and what it trained in three rounds."""
    stack.make("run-cloud", **THIRDS)
    stack.make("run-fog", f"ARGS=--topic {topic}", "NODES=1", **THIRDS)
    eventually("all readings", lambda: stack.samples(1), lambda seen: seen == READINGS)
    updates = eventually("three rounds", lambda: stack.learned(1), lambda seen: len(seen) >= 3)
    kept = ("round", "num_examples", "arrays", "metrics")
    return stack.updates(1)[-1], [{name: update[name] for name in kept} for update in updates[:3]]


@pytest.fixture(scope="module")
def original(stack: Stack) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the results of the day itself, and leave an empty stack with the same day."""
    send_day(stack)
    found = results(stack, "day")
    stack.make("clean")
    stack.make("up")
    send_day(stack)
    return found


def test_a_day_replayed_at_full_speed_gives_the_same_weight_samples_and_trained_models(
    stack: Stack, original: tuple[dict[str, Any], list[dict[str, Any]]]
) -> None:
    day = [YESTERDAY.date().isoformat(), (YESTERDAY + timedelta(days=1)).date().isoformat()]
    done = stack.run(
        "spark-master", *("fedstream", "replay", "--topic", "day", "--from", day[0], "--to", day[1], "--speed", "max")
    )
    assert done.returncode == 0, done
    summary = json.loads(done.stdout)
    assert (summary["records"], summary["gaps"], summary["into"]) == (READINGS, 0, "day-replay")
    before, after = (
        [(each.offset, each.timestamp, each.key, each.value, each.headers) for each in stack.records(topic)]
        for topic in ("day", "day-replay")
    )
    assert len(before) == READINGS
    assert after == before

    weight, rounds = results(stack, "day-replay")
    assert weight.pop("source") == "day-replay"
    assert original[0].pop("source") == "day"
    assert weight == original[0]
    assert [each["num_examples"] for each in rounds] == [480] * 3
    assert rounds == original[1]  # arrays and scores, bit by bit


def test_a_fog_node_that_starts_from_a_time_is_followed_by_the_cloud_and_goes_on_after_a_kill(stack: Stack) -> None:
    def run(start: str, samples: int) -> None:
        stack.make("run-fog", f"ARGS=--topic day-replay{start}", "NODES=1", **THIRDS)
        eventually("samples", lambda: stack.samples(1), lambda seen: seen == samples)
        eventually("samples of the model", lambda: stack.model()["samples"], lambda seen: seen == samples)

    run(f" --from {NOON}", READINGS // 2)
    assert stack.updates(1)[-1]["source"] == f"day-replay from {NOON}"
    stack.kill("fog-1")
    stack.send("day-replay", *(value for _, value in day_of_readings()[:10]))
    eventually("ten more", lambda: stack.samples(1), lambda seen: seen == READINGS // 2 + 10)
    run("", READINGS + 10)
    stack.make("clean")
    stack.make("up")
