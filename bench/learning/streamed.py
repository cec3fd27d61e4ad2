"""How well and how soon a real stack learns: measured on the bench's own stack, on the runner that STACK names.

Each part starts from an empty stack. All times are those of the records on the topics.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from bench.lab.jobs import opened_beyond, records_of, rounds, run_jobs, send, sensor_topic
from bench.lab.stack import make, wait_until
from bench.learning.project import readings, score_central, score_message, updates

TIMEOUT_SECONDS = 400.0
LOOK_SECONDS = 0.5  # each look reads a topic anew


def learning(name: str, per_update: int = 500, most_rounds: int = 30) -> dict[str, Any]:
    """Two nodes learn the rule from the stream; beside it the same readings in one place, as many at a time."""
    run_jobs(MODEL=name, MAX_READINGS_PER_UPDATE=per_update)
    send(2 * per_update * (most_rounds + 2), "--seed", "21")
    opened = opened_beyond(most_rounds)[: most_rounds + 1]
    used = sum(each["metrics"]["num_examples"] for each in opened[1:])
    x, y = readings(2)
    federated, central = score_message(name, opened[-1]), score_central(name, x[:used], y[:used], 2 * per_update)
    return {
        "rounds": most_rounds,
        "readings": used,
        "f1": federated["f1"],
        "accuracy": federated["accuracy"],
        "centralised_f1": central["f1"],
        "centralised_accuracy": central["accuracy"],
    }


def latency(rate: float, seconds: float, warm_seconds: float) -> dict[str, Any]:
    """Time from each reading to the first global model that learned from it, two nodes at the default settings.

    Before the clock starts there are two rounds, and then the load itself for so many seconds.
    """
    run_jobs()
    send(400, "--seed", "8")
    opened_beyond(1)
    count, warm = int(rate * seconds), 200 + int(rate * warm_seconds)  # of each node
    send(2 * (warm - 200 + count), rate=rate)

    def have_all_learned() -> bool:
        return all(sum(each[0] for each in updates(node)) >= warm + count for node in (1, 2))

    wait_until("an update with the last reading", have_all_learned, TIMEOUT_SECONDS, LOOK_SECONDS)
    time_of = {tuple(each["place"]): message["at"] for message in rounds() for each in message.get("updates", [])}
    waits, lost = [], 0
    for node in (1, 2):
        sent = [record.timestamp for record in records_of(sensor_topic(node))]
        first = 0
        for num_examples, place in updates(node):
            span = range(max(first, warm), first + num_examples)  # without the warm-up
            first += num_examples
            if place in time_of:
                waits += [time_of[place] - sent[number] for number in span]
            else:
                lost += len(span)
    cuts = statistics.quantiles(waits, n=100, method="inclusive")
    return {
        "readings_per_second_and_node": rate,
        "readings": len(waits),
        "p50_ms": cuts[49],
        "p95_ms": cuts[94],
        "max_ms": max(waits),
        "in_late_updates": lost,
    }


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "mlp": lambda: learning("mlp"),
    "logistic": lambda: learning("logistic"),
    "0.5 readings/s": lambda: latency(0.5, 120, warm_seconds=0),
    "50 readings/s": lambda: latency(50, 60, warm_seconds=60),
}


def measure(part: str) -> dict[str, Any]:
    """Measure one part, and leave nothing running."""
    try:
        return PARTS[part]()
    finally:
        make("clean")
