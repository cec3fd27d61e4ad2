"""Nothing is lost and nothing counted twice, whatever is killed; data outlive the stack until `make clean`."""

from __future__ import annotations

import subprocess

import pytest

from tests.stack.conftest import ENV, ROOT, Stack, eventually
from tests.stack.test_jobs import TOPICS, weight_of

READINGS = 400_000


def offset_of(stack: Stack, node: int) -> int:
    return stack.end_offset(f"sensor-data-node-{node}")


def rejected(stack: Stack, node: int) -> int:
    updates = stack.updates(node)
    return updates[-1]["rejected"] if updates else 0


def good_readings(stack: Stack, node: int) -> int:
    """Return how many readings the node's topic holds beside the bad ones of another test."""
    return offset_of(stack, node) - rejected(stack, node)


def counts_all_readings(stack: Stack, node: int) -> None:
    eventually(
        f"samples of fog-{node} equal the readings on its topic",
        lambda: (stack.samples(node), good_readings(stack, node)),
        lambda seen: seen[0] == seen[1],
        timeout_seconds=150,
    )


@pytest.mark.smoke
def test_readings_are_counted_exactly_though_drivers_are_killed(stack: Stack) -> None:
    stack.make("run-fog", "run-cloud")
    stack.stop("sensors")
    counts_all_readings(stack, 1)
    counts_all_readings(stack, 2)
    before = {node: stack.samples(node) for node in (1, 2)}
    command = ["producer/sensor_producer.py", "--count", str(READINGS), "--rate", "0", "--seed", "5"]
    with subprocess.Popen(
        [".venv/bin/python", *command],
        cwd=ROOT,
        env={"KAFKA_BOOTSTRAP_SERVERS": stack.bootstrap, "PATH": "/usr/bin:/bin"},
    ) as producer:
        for killed in (1, 2):  # in the middle of the flood: once each, and the first once more below
            part = before[killed] + 20_000
            eventually("a part is counted", lambda k=killed: stack.samples(k), lambda seen, p=part: seen > p)
            stack.kill(f"fog-{killed}")
        assert producer.wait(timeout=300) == 0
    stack.kill("fog-1")
    for node in (1, 2):
        counts_all_readings(stack, node)
        assert stack.samples(node) == before[node] + READINGS // 2
    own = [update["samples"] for update in stack.updates(1)]
    assert own == sorted(own)  # published again after a kill, perhaps; never a smaller or a doubled count


def test_the_weight_after_the_kills_is_that_of_all_readings(stack: Stack) -> None:
    newest = stack.updates(2)[-1]
    readings = stack.messages("sensor-data-node-2")  # this node's topic has no bad record
    assert newest["weight"] == pytest.approx(weight_of(readings[: newest["samples"]]), abs=0.5001e-4)


def test_a_killed_aggregator_goes_on_where_it_was(stack: Stack) -> None:
    others = 1000 if stack.model().get("nodes") == 3 else 0  # the invented fog-9 of another test
    known = stack.samples(1) + stack.samples(2) + others
    before = eventually("the model of all readings", stack.model, lambda seen: seen["samples"] == known)
    stack.kill("cloud")
    sent = stack.python("producer/sensor_producer.py", "--count", "10", "--rate", "0")
    assert sent.returncode == 0, sent
    wanted = before["samples"] + 10
    after = eventually("the model of ten more readings", stack.model, lambda seen: seen["samples"] == wanted)
    assert after["nodes"] == before["nodes"]


def test_jobs_go_on_when_a_worker_is_killed(stack: Stack) -> None:
    stack.make("run-fog", "run-cloud")
    stack.make("run-producer", "ARGS=--rate 20")
    stack.stop("spark-worker-1")
    for node in (1, 2):
        before = stack.samples(node)
        eventually(f"fog-{node} on one worker", lambda n=node: stack.samples(n), lambda seen, b=before: seen > b + 50)
    models = stack.end_offset("global-model")
    eventually("models on one worker", lambda: stack.end_offset("global-model"), lambda seen: seen > models + 3)
    stack.start("spark-worker-1")
    eventually(
        "two workers again",
        lambda: [each["state"] for each in stack.get("SPARK_MASTER_UI_PORT", "/json/")["workers"]].count("ALIVE"),
        lambda seen: seen == 2,
    )
    stack.kill("spark-worker-2")
    before = stack.samples(1)
    eventually("fog-1 after a kill -9", lambda: stack.samples(1), lambda seen: seen > before + 50)


def active_executors(stack: Stack, node: int) -> int:
    """Return how many executors a fog driver has, itself not counted."""
    page = str(int(ENV["FOG_UI_PORT_BASE"]) + node)
    (application,) = stack.get(page, "/api/v1/applications")
    executors = stack.get(page, f"/api/v1/applications/{application['id']}/executors")
    return sum(each["isActive"] for each in executors if each["id"] != "driver")


def known_to_master(stack: Stack) -> tuple[list[str], int]:
    """Return the applications that run, and how many workers are alive, as the master's page has them."""
    try:
        page = stack.get("SPARK_MASTER_UI_PORT", "/json/")
    except OSError as error:  # it is just starting
        return [str(error)], 0
    alive = [each["state"] for each in page["workers"]].count("ALIVE")
    return sorted(each["id"] for each in page["activeapps"] if each["state"] == "RUNNING"), alive


@pytest.mark.smoke
def test_a_killed_spark_master_comes_back_to_its_jobs_and_these_count_on(stack: Stack) -> None:
    stack.make("run-fog", "run-cloud")
    stack.make("run-producer", "ARGS=--rate 20")
    before = eventually("two workers", lambda: known_to_master(stack), lambda seen: seen[1] == 2 and len(seen[0]) >= 3)
    stack.kill("spark-master")
    eventually("the master knows all again", lambda: known_to_master(stack), lambda seen: seen == before, 60)
    reached = stack.samples(1), stack.samples(2)
    for node in (1, 2):
        count = reached[node - 1]
        eventually(f"fog-{node} counts on", lambda n=node: stack.samples(n), lambda seen, c=count: seen > c + 50, 60)
    assert known_to_master(stack) == before  # nothing was started anew for it
    stack.stop("sensors")
    for node in (1, 2):
        counts_all_readings(stack, node)


@pytest.mark.smoke
def test_a_driver_that_no_master_knows_is_red_and_is_started_anew(stack: Stack) -> None:
    stack.make("run-fog", "run-cloud")
    stack.make("run-producer", "ARGS=--rate 20")
    eventually("executors", lambda: active_executors(stack, 1), lambda seen: seen > 0)
    forget = stack.run("spark-master", "bash", "-c", "rm -r $SPARK_RECOVERY_DIR")
    assert forget.returncode == 0, forget
    stack.kill("spark-master")
    eventually("no executor", lambda: active_executors(stack, 1), lambda seen: seen == 0, 60)
    red = eventually("red", lambda: stack.make("ps"), lambda seen: "fog-1: no executor any more" in seen, 30)
    assert "FAIL" in red
    assert "fog-1: no executor any more" in stack.make("doctor", check=False)
    before = stack.samples(1), stack.samples(2)
    for node in (1, 2):
        count = before[node - 1]
        eventually(f"fog-{node} counts on", lambda n=node: stack.samples(n), lambda seen, c=count: seen > c + 50)
    assert "no executor for 30 s" in stack.log("fog-1")
    stack.stop("sensors")
    for node in (1, 2):
        counts_all_readings(stack, node)


def test_a_killed_zookeeper_stops_no_job_and_comes_back(stack: Stack) -> None:
    stack.make("run-fog", "run-cloud")
    stack.make("run-producer", "ARGS=--rate 20")
    before = stack.samples(1)
    stack.kill("zookeeper")
    eventually("fog-1 counts on", lambda: stack.samples(1), lambda seen: seen > before + 50, 60)
    stack.make("up")
    made = stack.python(
        "producer/sensor_producer.py", "--nodes", "1", "--count", "1", "--rate", "0", "--topic", "made-later"
    )
    assert "1 readings sent" in made.stdout, made  # which needs ZooKeeper: the topic is new
    before = stack.samples(2)
    eventually("fog-2 counts on", lambda: stack.samples(2), lambda seen: seen > before + 50, 60)


def test_the_broker_comes_back_from_a_stop_and_from_a_kill(stack: Stack) -> None:
    for end in (lambda: (stack.stop("kafka"), stack.start("kafka")), lambda: stack.kill("kafka")):
        before = stack.samples(1), offset_of(stack, 1)
        end()
        stack.make("up")
        eventually("new readings are counted", lambda: stack.samples(1), lambda seen, b=before: seen > b[0] + 50)
    stack.stop("sensors")
    for node in (1, 2):
        counts_all_readings(stack, node)


def test_down_and_up_keep_everything(stack: Stack) -> None:
    stack.make("stop-jobs")
    before = {topic: stack.end_offset(topic) for topic in TOPICS}
    samples = stack.samples(1)
    stack.make("down")
    stack.make("up")
    assert {topic: stack.end_offset(topic) for topic in TOPICS} == before
    stack.make("run-fog", "run-cloud")
    sent = stack.python("producer/sensor_producer.py", "--nodes", "1", "--count", "7", "--rate", "0")
    assert sent.returncode == 0, sent
    eventually("seven more", lambda: stack.samples(1), lambda seen: seen == samples + 7)


@pytest.mark.smoke
def test_clean_and_up_start_empty(stack: Stack) -> None:
    stack.make("clean")
    stack.make("up")
    assert {topic: stack.end_offset(topic) for topic in TOPICS} == dict.fromkeys(TOPICS, 0)
