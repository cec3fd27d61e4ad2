"""Real-time mode on the real stack: squares over Kafka, exact, in order, and whole after a crash."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator

import pytest
from kafka import KafkaProducer

from tests.stack.stack import Stack, eventually

NUMBERS = 3000
FIRST = 1000  # above all numbers of the socket


@pytest.fixture(scope="module")
def squaring(one_stack: Stack) -> Iterator[Stack]:
    """Return a stack on which the squares run over topics of two partitions; no other module makes these topics."""
    one_stack.use()
    one_stack.make("run-squares-kafka", TOPIC_PARTITIONS="2")
    eventually("real-time mode", lambda: one_stack.log("squares-kafka"), lambda seen: "(real-time) : numbers" in seen)
    yield one_stack
    for job in ("bridge", "squares-kafka"):
        one_stack.stop(job)


def squares(stack: Stack) -> list[list[int]]:
    """Return the numbers that came out on each partition, and check each square."""
    found = [[json.loads(record.value) for record in stack.records("squares", number=number)] for number in (0, 1)]
    assert all(message["square"] == message["n"] ** 2 for messages in found for message in messages)
    return [[message["n"] for message in messages] for messages in found]


def sent_squares(stack: Stack) -> list[list[int]]:
    """Return those of the numbers that this module sends, without the socket's."""
    return [[n for n in numbers if n >= FIRST] for numbers in squares(stack)]


def in_order(first: int, end: int) -> list[list[int]]:
    return [list(range(first + number, end, 2)) for number in (0, 1)]


def send_numbers(stack: Stack, first: int, end: int) -> None:
    """Send even numbers to the first partition and odd ones to the second."""
    with KafkaProducer(bootstrap_servers=stack.bootstrap) as producer:
        for n in range(first, end):
            producer.send("numbers", value=b'{"n":%d}' % n, partition=n % 2)


def test_each_number_comes_out_with_its_square_in_order_though_the_driver_is_killed(squaring: Stack) -> None:
    stack, half, end = squaring, FIRST + NUMBERS // 2, FIRST + NUMBERS
    stack.send("numbers", b"hello")
    send_numbers(stack, FIRST, half)
    eventually(
        "half of them, in order, each once", lambda: sent_squares(stack), lambda seen: seen == in_order(FIRST, half)
    )
    stack.kill("squares-kafka")
    send_numbers(stack, half, end)
    eventually(
        "all of them, those that came again left out",
        lambda: [list(dict.fromkeys(numbers)) for numbers in sent_squares(stack)],
        lambda seen: seen == in_order(FIRST, end),
    )
    # A restart repeats what was not committed: from the first batch on here, never more than twice.
    assert max(Counter(n for numbers in sent_squares(stack) for n in numbers).values()) <= 2
    letters = [each for each in stack.messages("dead-letter") if each["topic"] == "numbers"]
    assert {base64.b64decode(each["value"]) for each in letters} == {b"hello"}


def test_the_bridge_passes_the_sockets_numbers_on(squaring: Stack) -> None:
    stack = squaring
    before = [stack.end_offset("numbers", number) for number in (0, 1)]

    def passed_on() -> list[int]:
        records = [record for number in (0, 1) for record in stack.records("numbers", before[number], number)]
        return [json.loads(record.value)["n"] for record in records]

    stack.make("run-bridge")
    numbers = eventually("numbers of the socket", passed_on, lambda seen: len(seen) >= 3)
    assert all(1 <= n <= 100 for n in numbers)
    eventually("their squares", lambda: set().union(*squares(stack)), lambda seen: set(numbers) <= seen)
