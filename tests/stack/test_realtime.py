"""Real-time mode on the real stack: squares over Kafka and alerts, exact, and whole after a crash."""

from __future__ import annotations

import base64
import json
from collections import Counter, defaultdict

import numpy as np
from kafka import KafkaProducer

from fedstream.learning.models import make_model
from fedstream.messages.rounds import GlobalModel
from tests.stack.conftest import Stack, eventually
from tests.stack.test_rounds import QUICK, send_readings

NUMBERS = 3000
SCORED = "scored"  # a topic of its own: those of the nodes hold what other tests have sent


def squares(stack: Stack) -> Counter[int]:
    """Return how often each number has come out, and check each square."""
    found = stack.messages("squares")
    assert all(message["square"] == message["n"] ** 2 for message in found)
    return Counter(message["n"] for message in found)


def test_each_number_comes_out_with_its_square_though_the_driver_is_killed(stack: Stack) -> None:
    stack.make("run-squares-kafka")
    stack.send("numbers", b"hello", *(b'{"n":%d}' % n for n in range(1000, 1000 + NUMBERS // 2)))
    eventually("half of the numbers", lambda: len(squares(stack)), lambda seen: seen >= NUMBERS // 2)
    stack.kill("squares-kafka")
    stack.send("numbers", *(b'{"n":%d}' % n for n in range(1000 + NUMBERS // 2, 1000 + NUMBERS)))
    eventually("all numbers", lambda: len(squares(stack)), lambda seen: seen == NUMBERS)
    assert set(squares(stack)) == set(range(1000, 1000 + NUMBERS))
    letters = [each for each in stack.messages("dead-letter") if each["topic"] == "numbers"]
    assert {base64.b64decode(each["value"]) for each in letters} == {b"hello"}
    # A restart repeats what was not committed: from the first batch on here, never more than twice.
    assert max(squares(stack).values()) <= 2


def test_the_bridge_passes_the_sockets_numbers_on(stack: Stack) -> None:
    before = stack.end_offset("numbers")
    stack.make("run-bridge")
    eventually("numbers of the socket", lambda: stack.end_offset("numbers"), lambda seen: seen >= before + 3)
    numbers = [message["n"] for message in stack.messages("numbers", before)]
    assert all(1 <= n <= 100 for n in numbers)
    eventually("their squares", lambda: squares(stack), lambda seen: set(numbers) <= set(seen))
    stack.make("stop-jobs")


def test_squares_keep_their_numbers_partition_and_order(stack: Stack) -> None:
    stack.make("run-squares-kafka", "ARGS=--input pairs --output pair-squares", TOPIC_PARTITIONS="2")
    eventually("real-time mode", lambda: stack.log("squares-kafka"), lambda seen: "(real-time) : pairs" in seen)
    with KafkaProducer(bootstrap_servers=stack.bootstrap) as producer:
        for n in range(NUMBERS):
            producer.send("pairs", value=b'{"n":%d}' % n, partition=n % 2)

    def numbers() -> list[list[int]]:
        records = (stack.records("pair-squares", number=number) for number in (0, 1))
        return [[json.loads(record.value)["n"] for record in each] for each in records]

    expected = [list(range(0, NUMBERS, 2)), list(range(1, NUMBERS, 2))]
    eventually("even and odd ones apart, in order", numbers, lambda seen: seen == expected)
    stack.make("stop-jobs")


def test_each_reading_is_scored_by_the_model_in_service_though_the_driver_is_killed(stack: Stack) -> None:
    stack.make("-j2", "run-fog", "run-cloud", **QUICK)
    send_readings(stack, 2000, seed=11)
    eventually("a model", lambda: len(stack.rounds()), lambda seen: seen >= 2)
    stack.make("run-alerts", f"ARGS=--topic {SCORED}")

    def send(count: int, seed: int) -> None:
        send_readings(stack, count, seed, "--topic", SCORED)

    def missing() -> int:
        return stack.end_offset(SCORED) - len({record.key for record in stack.records("alerts")})

    send(1000, seed=21)
    eventually("all readings scored", missing, lambda seen: seen == 0)
    stack.kill("alerts")
    send(1000, seed=22)
    send_readings(stack, 2000, seed=12)  # which bring new versions
    eventually("all readings scored", missing, lambda seen: seen == 0)
    newest = stack.rounds()[-1]["version"]

    def is_in_service() -> bool:
        send(1, seed=23)
        return any(message["model_version"] >= newest for message in stack.messages("alerts"))

    eventually("a newer version in service", is_in_service, lambda seen: seen)
    eventually("all readings scored", missing, lambda seen: seen == 0)
    readings, found = stack.messages(SCORED), defaultdict(list)
    for record in stack.records("alerts"):
        message, (topic, partition, offset) = json.loads(record.value), record.key.decode().split("/")
        assert (topic, partition) == (SCORED, "0")
        reading = readings[int(offset)]
        row = (reading["temperature"], reading["vibration"], message["probability"])
        found[message["run_id"], message["model_version"]].append(row)
    models = {(model["run_id"], model["version"]): GlobalModel.from_message(model) for model in stack.rounds()}
    assert len(found) >= 2
    for version, rows in found.items():
        model, values = models[version], np.array(rows)
        assert model.scaler
        expected = make_model("mlp", {}).predict(model.arrays, model.scaler.apply(values[:, :2]))[:, 1]
        assert np.abs(expected - values[:, 2]).max() < 1e-9
    stack.make("stop-jobs")
