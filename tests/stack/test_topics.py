"""What happens to a job's counts when a producer takes records back, or when somebody makes a topic anew."""

from __future__ import annotations

import base64
import re
import uuid
from contextlib import suppress
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import TopicAlreadyExistsError

from tests.stack.stack import Stack, at_once, eventually


def reading(celsius: float) -> bytes:
    return b'{"sensor_id":"node-1","temperature":%.1f,"vibration":0.05,"label":0}' % celsius


def make_anew(stack: Stack, topic: str, *values: bytes) -> None:
    """Delete a topic if it is there, and make it anew with these records."""
    with KafkaAdminClient(bootstrap_servers=stack.bootstrap) as admin:

        def made() -> str:
            with suppress(TopicAlreadyExistsError):  # its deletion is not done, or a job was quicker
                admin.create_topics({topic: {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
            (found,) = admin.describe_topics([topic])
            return str(found["topic_id"]) if found["error_code"] == 0 else ""

        (old,) = admin.describe_topics([topic])
        if old["error_code"] == 0:
            admin.delete_topics([topic])
        eventually("the topic is a new one", made, lambda seen: seen not in ("", str(old["topic_id"])), 60)
    stack.send(topic, *values)


def topic_id(stack: Stack, topic: str) -> str:
    """Return a topic's id as Kafka's own tool shows it: 22 characters of base64."""
    return re.search(rf"^Topic: {topic}\s+TopicId: (\S+)", stack.make("topics"), re.M)[1]  # type: ignore[index]


def as_base64(shown: str) -> str:
    """Return an id in the form of Kafka's tool."""
    return base64.urlsafe_b64encode(uuid.UUID(shown).bytes).decode().rstrip("=")


def newest(stack: Stack, topic: str) -> dict[str, Any]:
    """Return fog-1's newest running weight of a topic, one without samples before the first."""
    updates = [update for update in stack.node_messages(1) if update.get("source", "").split(" ")[0] == topic]
    return updates[-1] if updates else {"samples": 0}


def counted(stack: Stack, topic: str) -> int:
    """Return the `samples` of it."""
    return int(newest(stack, topic)["samples"])


@pytest.fixture
def run_fog(stack: Stack):
    """Start fog-1 on a topic of the test's own, without training, and stop it afterwards."""
    stack.make("stop-jobs")

    def run(topic: str) -> None:
        stack.make("run-fog", f"ARGS=--topic {topic}", "NODES=1", "MODEL=mean")

    yield run
    stack.make("stop-jobs")


def test_records_that_were_taken_back_are_not_counted(stack: Stack, run_fog) -> None:
    make_anew(stack, "taken-back")
    run_fog("taken-back")
    with KafkaProducer(bootstrap_servers=stack.bootstrap, transactional_id="test-taken-back") as producer:
        producer.init_transactions()
        for celsius, is_kept, count in ((70, True, 100), (90, False, 100), (70, True, 100), (90, False, 7)):
            producer.begin_transaction()
            for _ in range(count):
                producer.send("taken-back", key=b"node-1", value=reading(celsius))
            producer.flush()
            producer.commit_transaction() if is_kept else producer.abort_transaction()
    eventually("the kept ones", lambda: counted(stack, "taken-back"), lambda seen: seen >= 200, 60)
    update = newest(stack, "taken-back")
    assert (update["samples"], update["weight"]) == (200, 37.5)  # (70 + 100 x 0.05) / 2
    # No micro-batch waits at an end that was taken back: what comes next is counted at once.
    stack.send("taken-back", *[reading(70)] * 10)
    eventually("ten more", lambda: counted(stack, "taken-back"), lambda seen: seen == 210, 15)
    words = ("fedstream", "replay", "--topic", "taken-back", "--into", "kept", "--speed", "max")
    replayed = stack.run("spark-master", *words)
    assert '"records": 210' in replayed.stdout, replayed


def test_a_topic_made_anew_stops_its_job_with_the_cause_until_it_is_reset(stack: Stack, run_fog) -> None:
    make_anew(stack, "made-anew", *[reading(70)] * 100)
    at_once(lambda: stack.make("run-cloud"), lambda: run_fog("made-anew"))
    cloud = stack.get("CLOUD_UI_PORT", "/api/v1/applications")[0]["id"]
    eventually("all readings", lambda: counted(stack, "made-anew"), lambda seen: seen == 100)

    def red(old: str) -> None:
        """Wait until ps and doctor tell of the topic, and compare the ids with Kafka's own."""
        told = r"fog-1: ended \d+ times and was started again; its last error: topic made-anew was made anew: (.+)"
        shown = eventually("red", lambda: stack.make("ps"), lambda seen: re.search(told, seen), 90)
        paragraph = re.search(told, shown)[1]  # type: ignore[index]
        ids = re.search(r"id (\S+), and now it has id (\S+)\.", paragraph)
        assert [as_base64(each) for each in ids.groups()] == [old, topic_id(stack, "made-anew")]  # type: ignore[union-attr]
        assert "make reset S=fog-1" in paragraph
        doctor = stack.make("doctor", check=False)
        assert "topic made-anew was made anew" in doctor
        assert "1 to mend" in doctor

    # More records than were read of the old one, so that offsets alone would not tell; while the job runs,
    old = topic_id(stack, "made-anew")
    make_anew(stack, "made-anew", *[reading(80)] * 150)
    red(old)
    assert counted(stack, "made-anew") == 100  # not one of the new topic's was added to them
    before = stack.model()["samples"]
    stack.make("reset", "S=fog-1")
    eventually("the new readings", lambda: counted(stack, "made-anew"), lambda seen: seen == 150)
    assert newest(stack, "made-anew")["weight"] == 42.5  # (80 + 100 x 0.05) / 2
    eventually("the cloud follows", lambda: stack.model()["samples"], lambda seen: seen == before + 50)

    # and while it is stopped.
    stack.stop("fog-1")
    old = topic_id(stack, "made-anew")
    make_anew(stack, "made-anew", *[reading(70)] * 200)
    stack.start("fog-1")
    red(old)
    assert counted(stack, "made-anew") == 150
    assert stack.get("CLOUD_UI_PORT", "/api/v1/applications")[0]["id"] == cloud  # it has gone on
