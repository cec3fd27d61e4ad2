"""A replayed day on the real stack gives what the day gave; a job that starts from a time counts from there."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from tests.stack.stack import Stack, at_once, eventually

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


def run_fog(stack: Stack, topic: str, start: str = "") -> None:
    stack.make("run-fog", f"ARGS=--topic {topic} {start}", "NODES=1", **THIRDS)


def results(stack: Stack, topic: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the last running weight of a fog node that reads the topic, and what it trained in three rounds."""
    at_once(lambda: stack.make("run-cloud", **THIRDS), lambda: run_fog(stack, topic))
    eventually("all readings", lambda: stack.samples(1, topic), lambda seen: seen == READINGS)
    updates = eventually("three rounds", lambda: stack.trained(1, topic), lambda seen: len(seen) >= 3)
    kept = ("round", "num_examples", "arrays", "metrics")
    return stack.updates(1, topic)[-1], [{name: update[name] for name in kept} for update in updates[:3]]


@pytest.fixture(scope="module")
def day(one_stack: Stack) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the results of the day itself, on a stack that has the day and the jobs of these tests only."""
    one_stack.empty()
    send_day(one_stack)
    return results(one_stack, "day")


def test_a_fog_node_that_starts_from_a_time_is_followed_by_the_cloud_and_goes_on_after_a_kill(
    stack: Stack, day: tuple[dict[str, Any], list[dict[str, Any]]]
) -> None:
    def run(start: str, samples: int) -> None:
        run_fog(stack, "day", start)
        counts(start, samples)
        eventually("samples of the model", lambda: stack.model()["samples"], lambda seen: seen == samples)

    def counts(start: str, samples: int) -> None:
        source = f"day {start.replace('--', '')}".strip()
        eventually("samples", lambda: stack.samples(1, source), lambda seen: seen == samples)

    run(f"--from {NOON}", READINGS // 2)
    stack.kill("fog-1")
    stack.send("day", *(value for _, value in day_of_readings()[:10]))
    counts(f"--from {NOON}", READINGS // 2 + 10)
    run("", READINGS + 10)


def test_a_day_replayed_at_full_speed_gives_the_same_weight_samples_and_trained_models(
    day: tuple[dict[str, Any], list[dict[str, Any]]], empty_stack: Stack
) -> None:
    stack = empty_stack
    send_day(stack)
    dates = ["--from", YESTERDAY.date().isoformat(), "--to", (YESTERDAY + timedelta(days=1)).date().isoformat()]
    summary = json.loads(stack.fedstream("replay", "--topic", "day", *dates, "--speed", "max"))
    assert (summary["records"], summary["gaps"], summary["into"]) == (READINGS, 0, "day-replay")
    before, after = (
        [(each.offset, each.timestamp, each.key, each.value, each.headers) for each in stack.records(topic)]
        for topic in ("day", "day-replay")
    )
    assert len(before) == READINGS
    assert after == before

    weight, rounds = results(stack, "day-replay")
    assert day[0]["source"] == "day"
    assert weight == day[0] | {"source": "day-replay"}
    assert [each["num_examples"] for each in rounds] == [480] * 3
    assert rounds == day[1]  # arrays and scores, bit by bit
