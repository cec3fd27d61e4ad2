"""Nothing is lost and nothing counted twice, whatever is killed; data outlive the stack until `make clean`."""

from __future__ import annotations

import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.stack.faults import FAULTS
from tests.stack.machine import NotRunError
from tests.stack.stack import ENV, ROOT, TOPICS, Stack, eventually, weight_of

READINGS = 200_000


@pytest.fixture
def sensing(stack: Stack, run_sensors) -> Stack:
    """Return a stack whose fog node and cloud have something to do all the time."""
    stack.stop("fog-2")  # each job more makes each recovery longer
    stack.make("-j2", "run-fog", "run-cloud", "NODES=1")
    run_sensors(100, nodes=1)
    return stack


def offset_of(stack: Stack, node: int) -> int:
    return stack.end_offset(f"sensor-data-node-{node}")


def counts_all_readings(stack: Stack, node: int) -> None:
    """Wait until a node's samples are the readings on its topic, beside the bad ones of another test."""

    def counted() -> tuple[int, int]:
        newest = (stack.updates(node) or [{"samples": 0, "rejected": 0}])[-1]
        return newest["samples"] + newest["rejected"], offset_of(stack, node)

    eventually(f"fog-{node} has counted the readings on its topic", counted, lambda seen: seen[0] == seen[1])


def counts_on(stack: Stack, timeout_seconds: float = 150) -> None:
    """Wait until fog-1 has counted 50 more readings."""
    before = stack.samples(1)
    eventually("fog-1 counts on", lambda: stack.samples(1), lambda seen: seen > before + 50, timeout_seconds)


def stop_sensors(stack: Stack) -> None:
    """Stop the sensors and see that each of their readings is counted once."""
    stack.stop("sensors")
    counts_all_readings(stack, 1)


@pytest.mark.smoke
def test_readings_are_counted_exactly_though_all_drivers_are_killed(fog_and_cloud: Stack) -> None:
    stack = fog_and_cloud
    model = stack.settled_model()
    before = {node: stack.samples(node) for node in (1, 2)}
    command = ["producer/sensor_producer.py", "--count", str(READINGS), "--rate", "0", "--seed", "5"]
    with subprocess.Popen(
        [".venv/bin/python", *command],
        cwd=ROOT,
        env={"KAFKA_BOOTSTRAP_SERVERS": stack.bootstrap, "PATH": "/usr/bin:/bin"},
    ) as producer:
        for node in (1, 2):
            part = before[node]
            eventually("a part is counted", lambda n=node: stack.samples(n), lambda seen, p=part: seen > p)
            stack.kill(f"fog-{node}")
            assert stack.samples(node) < part + READINGS // 2  # it was in the middle of the flood
        stack.kill("cloud")
        reached = stack.samples(1)
        eventually("fog-1 goes on", lambda: stack.samples(1), lambda seen: seen > reached)
        stack.kill("fog-1")  # and once more
        assert producer.wait(timeout=300) == 0
    for node in (1, 2):
        counts_all_readings(stack, node)
        assert stack.samples(node) == before[node] + READINGS // 2
        own = [update["samples"] for update in stack.updates(node)]
        assert own == sorted(own)  # published again after a kill, perhaps; never a smaller or a doubled count
    newest = stack.updates(2)[-1]
    readings = stack.messages("sensor-data-node-2")  # this node's topic has no bad record
    assert newest["weight"] == pytest.approx(weight_of(readings[: newest["samples"]]), abs=0.5001e-4)
    # The cloud has gone on where it was: it knows the node that has said nothing since, too.
    wanted = model["samples"] + READINGS
    after = eventually("the model of all readings", stack.model, lambda seen: seen["samples"] == wanted)
    assert after["nodes"] == model["nodes"]


def test_jobs_go_on_when_a_worker_is_killed(sensing: Stack) -> None:
    stack = sensing
    stack.stop("spark-worker-1")
    models = stack.end_offset("global-model")
    counts_on(stack)
    eventually("models on one worker", lambda: stack.end_offset("global-model"), lambda seen: seen > models + 3)
    stack.start("spark-worker-1")
    eventually("two workers again", lambda: known_to_master(stack)[1], lambda seen: seen == 2)
    stack.kill("spark-worker-2")  # on which all executors are now
    counts_on(stack)
    eventually("two workers again", lambda: known_to_master(stack)[1], lambda seen: seen == 2)
    stop_sensors(stack)


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
    except (OSError, json.JSONDecodeError) as error:  # it is just starting: no server yet, or one without this page
        return [str(error)], 0
    alive = [each["state"] for each in page["workers"]].count("ALIVE")
    return sorted(each["id"] for each in page["activeapps"] if each["state"] == "RUNNING"), alive


def test_a_killed_spark_master_comes_back_to_its_jobs_and_these_count_on(sensing: Stack) -> None:
    stack = sensing
    before = eventually("two workers", lambda: known_to_master(stack), lambda seen: seen[1] == 2 and len(seen[0]) >= 2)
    stack.kill("spark-master")
    eventually("the master knows all again", lambda: known_to_master(stack), lambda seen: seen == before, 60)
    counts_on(stack, timeout_seconds=60)
    assert known_to_master(stack) == before  # nothing was started anew for it
    stop_sensors(stack)


def test_a_driver_that_no_master_knows_is_red_and_is_started_anew(sensing: Stack) -> None:
    stack = sensing
    eventually("executors", lambda: active_executors(stack, 1), lambda seen: seen > 0)
    forget = stack.run("spark-master", "bash", "-c", "rm -r $SPARK_RECOVERY_DIR/*")
    assert forget.returncode == 0, forget
    stack.kill("spark-master")
    eventually("no executor", lambda: active_executors(stack, 1), lambda seen: seen == 0, 60)
    # For 30 s there is none any more; then the driver has ended, since there was none for 30 s.
    (listed, _) = eventually(
        "red in both", lambda: (stack.make("ps"), stack.make("doctor", check=False)),
        lambda seen: all("fog-1: no executor" in each for each in seen), 40,
    )  # fmt: skip
    assert "FAIL" in listed
    counts_on(stack)
    assert "no executor for 30 s" in stack.log("fog-1")
    stop_sensors(stack)


def goes_on(stack: Stack) -> None:
    """Wait until more models have come."""
    models = stack.end_offset("global-model")
    eventually("models go on", lambda: stack.end_offset("global-model"), lambda seen: seen > models + 3)


def test_of_two_clouds_the_newer_one_goes_on_and_the_other_stays_ended_and_says_why(sensing: Stack) -> None:
    stack = sensing
    with ThreadPoolExecutor() as pool:
        # Of a checkpoint of its own, so that no lock of a folder stops it.
        second = pool.submit(stack.run, "spark-master", "spark-submit", "cloud/aggregator.py", "--from", "0")
        said = "another cloud has been started on the topics at"
        eventually("the first one is red", lambda: stack.make("ps"), lambda seen: f"cloud: {said}" in seen)
        goes_on(stack)
        assert f"Error: {said}" in stack.log("cloud")
        assert not second.done(), "the first one was not started anew to end this one"
        stack.make("run-cloud")
        ended = second.result(timeout=400)
    assert (ended.returncode, said in ended.stdout + ended.stderr) == (1, True), ended
    goes_on(stack)


@pytest.mark.parametrize("part", ["kafka", "cloud", "fog-1"])
@pytest.mark.parametrize("kind", ["pause", "cut"])
def test_a_part_that_is_paused_or_cut_off_is_red_and_all_go_on_after_it(sensing: Stack, kind: str, part: str) -> None:
    stack = sensing
    counts_on(stack)
    try:
        with FAULTS[kind](stack, part):
            eventually("red", lambda: stack.make("doctor", check=False), lambda seen: "to mend" in seen, 40)
    except NotRunError as error:
        pytest.skip(str(error))
    counts_on(stack, timeout_seconds=60)
    goes_on(stack)
    stop_sensors(stack)


def test_a_killed_zookeeper_stops_no_job_and_comes_back(sensing: Stack) -> None:
    stack = sensing
    stack.kill("zookeeper")
    counts_on(stack, timeout_seconds=60)
    stack.make("up")
    topic = ["--topic", "made-later"]
    made = stack.python("producer/sensor_producer.py", "--nodes", "1", "--count", "1", "--rate", "0", *topic)
    assert "1 readings sent" in made.stdout, made  # which needs ZooKeeper: the topic is new
    counts_on(stack, timeout_seconds=60)


def test_the_broker_comes_back_from_a_stop_and_from_a_kill(sensing: Stack) -> None:
    stack = sensing
    for end in (lambda: (stack.stop("kafka"), stack.start("kafka")), lambda: stack.kill("kafka")):
        end()
        stack.make("up")
        counts_on(stack)
    stop_sensors(stack)


def test_down_and_up_keep_everything(stack: Stack) -> None:
    stack.make("-j2", "run-fog", "run-cloud", "NODES=1")
    model = stack.settled_model(1)
    stack.make("stop-jobs")
    before = {topic: stack.end_offset(topic) for topic in TOPICS}
    samples = stack.samples(1)
    stack.make("down")
    stack.make("up")
    assert {topic: stack.end_offset(topic) for topic in TOPICS} == before
    stack.make("-j2", "run-fog", "run-cloud", "NODES=1")
    stack.send_readings(7, "--nodes", "1")
    stack.eventually_counts(1, samples + 7)
    after = eventually("the model", stack.model, lambda seen: seen["samples"] == model["samples"] + 7)
    assert after["nodes"] == model["nodes"]


@pytest.mark.smoke
def test_clean_and_up_start_empty(stack: Stack) -> None:
    stack.send_readings(1, "--nodes", "1")
    stack.make("clean")
    stack.make("up")
    assert sorted(re.findall(r"^Topic: (\S+)", stack.make("topics"), re.M)) == TOPICS
    assert {topic: stack.end_offset(topic) for topic in TOPICS} == dict.fromkeys(TOPICS, 0)
