"""The streamed figures of bench/federated.py: measured on the bench's own stack, on the runner that STACK names.

Each part starts from an empty stack. All times are those of the records on the topics.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
from processes import drivers, executors, memory_mb, with_descendants
from stack import BASE, BOOTSTRAP, PORTS, PREFIX, ROOT, RUNNER, environment, inside, make, wait_until

from fedstream.broker import kafka
from fedstream.learning.models import make_model
from fedstream.learning.scores import score
from fedstream.learning.training import train, train_config, train_seed
from fedstream.messages.rounds import GlobalModel
from fedstream.messages.topics import GLOBAL_MODEL, MODEL_WEIGHTS, sensor_topic
from fedstream.messages.weights import sums_of
from fedstream.settings import Settings
from fedstream.simulation.data import load

SETTINGS = Settings(kafka_bootstrap_servers=BOOTSTRAP)
UNSEEN_SEED = 99
COLD_ROUND = """
The readings are on the topics before the jobs start. The first round begins when the jobs have only just started: Java
still interprets what it will compile, and each Python worker loads scikit-learn."""


def wait(what: str, observe: Callable[[], Any]) -> Any:
    """Observe until there is something, and return it; each look reads a topic anew, so not too often."""
    return wait_until(what, observe, timeout_seconds=400, every_seconds=0.5)


def run_jobs(prepare: Callable[[], None] = lambda: None, **settings: Any) -> None:
    """Start cloud and fog nodes on an empty stack.

    Args:
        prepare: what is done when the stack is up, before the jobs start.
        settings: values of the jobs' settings and of the Makefile's variables.
    """
    pages = f"FOG_UI_PORT_BASE={BASE + 50}"  # the ports of the fog drivers' pages lie behind those of the stack
    make("clean")
    given = [pages, *(f"{name}={value}" for name, value in settings.items())]
    make("up", *given)
    prepare()
    make("-j2", "run-cloud", "run-fog", *given)


def send(count: int, *more: str, rate: float = 0) -> None:
    """Send simulated readings from the host, that many a second and node; 0: as fast as Kafka takes them."""
    command = [sys.executable, "producer/sensor_producer.py", "--count", str(count), "--rate", str(rate), *more]
    given = environment() | {"KAFKA_BOOTSTRAP_SERVERS": BOOTSTRAP}
    subprocess.run(command, cwd=ROOT, env=given, check=True, capture_output=True)


def rounds() -> list[dict[str, Any]]:
    """Return the models that opened a round, in order, each with the time `at` (ms) of its record."""
    found: dict[int, dict[str, Any]] = {}
    for record in kafka.follow_topic(SETTINGS, GLOBAL_MODEL)(0):
        message = json.loads(record.value)
        if "round" in message:
            found.setdefault(message["round"], message | {"at": record.timestamp})
    return [found[number] for number in sorted(found)]


def opened_beyond(number: int) -> list[dict[str, Any]]:
    """Wait for more than so many opened rounds, and return their models."""

    def enough() -> list[dict[str, Any]] | None:
        found = rounds()
        return found if len(found) > number else None

    return list(wait(f"more than {number} rounds", enough))


def readings(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features (n, 2) and labels (n,) of all nodes' readings, dealt out in turn as they were sent."""
    columns = []
    for node in range(1, nodes + 1):
        values = [json.loads(record.value) for record in kafka.follow_topic(SETTINGS, sensor_topic(node))(0)]
        columns.append([(each["temperature"], each["vibration"], each["label"]) for each in values])
    table = np.array([row for turn in zip(*columns, strict=True) for row in turn])
    return table[:, :2], table[:, 2].astype(np.int64)


def test_score(model: Any, arrays: Any, scaler: Any) -> dict[str, Any]:
    """Return the scores on 5,000 readings that no node has seen."""
    unseen = load("sensors", None, 5000, UNSEEN_SEED)
    found: dict[str, Any] = msgspec.to_builtins(score(model.predict(arrays, scaler.apply(unseen.x)), unseen.y))
    return found


def learning(name: str, per_update: int = 500, most_rounds: int = 30) -> dict[str, Any]:
    """Two nodes learn the rule from the stream; beside it the same readings in one place, as many at a time."""
    run_jobs(MODEL=name, MAX_READINGS_PER_UPDATE=per_update)
    send(2 * per_update * (most_rounds + 2), "--seed", "21")
    opened = opened_beyond(most_rounds)[: most_rounds + 1]
    model = make_model(name, {})
    curve = []
    for message in opened[1:]:
        version = msgspec.convert(message, GlobalModel)
        curve.append(test_score(model, version.arrays, version.scaler)["f1"])
    used = sum(each["metrics"]["num_examples"] for each in opened[1:])
    x, y = readings(2)
    scaler, arrays = sums_of(x[:used]).scaler(), model.initial_arrays(SETTINGS.seed)
    step = 2 * per_update
    for number, first in enumerate(range(0, used, step), start=1):
        chunk = slice(first, min(first + step, used))
        seed = train_seed(SETTINGS, number, 0)
        arrays = train(model, arrays, scaler, x[chunk], y[chunk], train_config(SETTINGS, {}), seed).arrays
    last = msgspec.convert(opened[-1], GlobalModel)
    federated, central = test_score(model, last.arrays, last.scaler), test_score(model, arrays, scaler)
    return {
        "rounds": most_rounds,
        "readings": used,
        "f1": federated["f1"],
        "accuracy": federated["accuracy"],
        "centralised_f1": central["f1"],
        "centralised_accuracy": central["accuracy"],
        "curve_f1": curve,
    }


def many_nodes(nodes: int, per_node: int = 1000, turns: int = 5) -> dict[str, Any]:
    """One driver hosts the nodes; each has `per_node` readings for each round.

    They are sent before the jobs start: a producer of so many would take one of the two cores from them.
    """
    run_jobs(
        lambda: send(nodes * per_node * (turns + 2), "--nodes", str(nodes), "--seed", "5"),
        NODES=nodes,
        NODES_PER_DRIVER=nodes,
        MAX_READINGS_PER_UPDATE=nodes * per_node,
        UPDATE_MIN_READINGS=per_node,
        UPDATE_MAX_WAIT_SECONDS=20,
        ROUND_DEADLINE_SECONDS=60,
    )
    opened = opened_beyond(turns + 1)[: turns + 2]
    first, *seconds = [(after["at"] - before["at"]) / 1000 for before, after in itertools.pairwise(opened)]
    return {
        "nodes": nodes,
        "nodes_per_round": [len(each["updates"]) for each in opened[1:]],
        "readings_per_node_and_round": [each["metrics"]["num_examples"] / nodes for each in opened[1:]],
        "first_round_seconds": first,
        "round_seconds": seconds,
        "fog_memory_mb": fog_memory_mb(),  # with the cloud's one executor
    }


def fog_memory_mb() -> float:
    """Return the memory (PSS) of the fog driver, all executors and their Python workers: the cloud has one executor."""
    port = PORTS["SPARK_MASTER_PORT"]
    return round(memory_mb(with_descendants([*drivers("fog_node.py", port), *executors(port)]))[0])


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

    wait("an update with the last reading", have_all_learned)
    time_of = {tuple(each["place"]): message["at"] for message in rounds() for each in message.get("updates", [])}
    waits, lost = [], 0
    for node in (1, 2):
        sent = [record.timestamp for record in kafka.follow_topic(SETTINGS, sensor_topic(node))(0)]
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
        "warm_seconds": warm_seconds,
        "readings": len(waits),
        "p50_ms": cuts[49],
        "p95_ms": cuts[94],
        "max_ms": max(waits),
        "in_late_updates": lost,
    }


def updates(node: int) -> list[tuple[int, tuple[int, int]]]:
    """Return (num_examples, place) of a node's updates, in order, each once."""
    found: dict[int, tuple[int, tuple[int, int]]] = {}
    for record in kafka.follow_topic(SETTINGS, MODEL_WEIGHTS)(0):
        message = json.loads(record.value)
        if "round" in message and message["node_id"] == f"fog-{node}":
            found.setdefault(message["trained_at"], (message["num_examples"], (record.partition, record.offset)))
    return list(found.values())


def silence(turns: int = 8) -> dict[str, Any]:
    """Three nodes, the third one stopped for good: how long rounds stay open while it is waited for, and after."""
    run_jobs(NODES=3, ROUND_PATIENCE=1000)
    make("run-producer", "NODES=3", "ARGS=--rate 50")

    def has_three() -> bool:
        return any(len(each.get("updates", [])) == 3 for each in rounds())

    wait("a round of three nodes", has_three)
    local = inside("supervisorctl", "-c", "deploy/local/supervisord.conf", "stop", "jobs:fog-3")
    line = local if RUNNER == "local" else ["docker", "stop", f"{PREFIX}fog-3"]
    subprocess.run(line, cwd=ROOT, env=environment(), check=True, capture_output=True)
    stopped = rounds()[-1]["round"]
    wait("rounds without it", lambda: rounds()[-1]["round"] > stopped + turns)
    models = [each for each in rounds() if each["round"] > stopped + 1]
    gaps = [(after["at"] - before["at"]) / 1000 for before, after in itertools.pairwise(models)]
    return {
        "deadline_seconds": SETTINGS.round_deadline_seconds,
        "rounds": len(gaps),
        "missing": [each["counts"]["missing"] for each in models[1:]],
        "seconds_open": gaps,
    }


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "mlp": lambda: learning("mlp"),
    "logistic": lambda: learning("logistic"),
    "10 nodes": lambda: many_nodes(10),
    "50 nodes": lambda: many_nodes(50),
    "0.5 readings/s": lambda: latency(0.5, 120, warm_seconds=0),
    "50 readings/s": lambda: latency(50, 60, warm_seconds=60),
    "silent node": silence,
}


def measure(part: str) -> dict[str, Any]:
    """Measure one part, and leave nothing running."""
    try:
        return PARTS[part]()
    finally:
        make("clean")


def table(section: Mapping[str, Any], runner: str) -> str:
    """Return the section of docs/federated.md."""
    lines = [f"## On the real stack, {runner} runner\n", "Kafka, Spark and all jobs on the same two cores.\n"]
    if any(name in section for name in ("mlp", "logistic")):
        lines += [
            "| model, 2 nodes | rounds | readings | federated F1 | centralised F1 | points |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        for name in ("mlp", "logistic"):
            if entry := section.get(name):
                figures = f"{entry['f1']:.4f} | {entry['centralised_f1']:.4f}"
                points = 100 * (entry["f1"] - entry["centralised_f1"])
                lines.append(f"| {name} | {entry['rounds']} | {entry['readings']} | {figures} | {points:+.2f} |")
        lines.append(
            "\nF1 on 5,000 readings that no node has seen; centralised: the same readings, as many at a time.\n"
        )
    hosts = [entry for name, entry in section.items() if name.endswith("nodes") and "round_seconds" in entry]
    if hosts:
        lines += [
            "| nodes in one driver | readings of a node and round | seconds of a round | first round | fog memory |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        for entry in sorted(hosts, key=lambda entry: entry["nodes"]):
            seconds = entry["round_seconds"]
            shown = (
                f"{statistics.median(seconds):.1f} (median of {len(seconds)}, {min(seconds):.1f} to {max(seconds):.1f})"
            )
            readings = statistics.fmean(entry["readings_per_node_and_round"])
            first = f"{entry['first_round_seconds']:.1f}"
            lines.append(f"| {entry['nodes']} | {readings:.0f} | {shown} | {first} | {entry['fog_memory_mb']} MB |")
        if len(hosts) == 2:
            few, many = sorted(hosts, key=lambda entry: entry["nodes"])
            added = (many["fog_memory_mb"] - few["fog_memory_mb"]) / (many["nodes"] - few["nodes"])
            lines.append(f"\n{added:.1f} MB for each node more (driver, executors and Python workers).")
        lines.append(COLD_ROUND)
        lines.append("")
    waits = [entry for entry in section.values() if "p50_ms" in entry]
    if waits:
        lines += [
            "| readings a second and node | before that | reading → first model that learned it: p50 | p95 | max "
            "| in late updates |"
        ]
        lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
        for entry in sorted(waits, key=lambda entry: entry["readings_per_second_and_node"]):
            times = " | ".join(f"{entry[name] / 1000:.2f} s" for name in ("p50_ms", "p95_ms", "max_ms"))
            lost = f"{entry['in_late_updates']} of {entry['readings'] + entry['in_late_updates']}"
            before = f"{entry['warm_seconds']:g} s" if entry["warm_seconds"] else "two rounds"
            lines.append(f"| {entry['readings_per_second_and_node']:g} | {before} | {times} | {lost} |")
        lines.append("\nTwo nodes at the default settings of a round, once the same load had run for a while.\n")
    if entry := section.get("silent node"):
        seconds = entry["seconds_open"]
        lines.append(
            f"One of three nodes silent and waited for in every round (ROUND_PATIENCE=1000): {len(seconds)} of "
            f"{entry['rounds']} rounds closed, open for {min(seconds):.2f} to {max(seconds):.2f} s with a deadline of "
            f"{entry['deadline_seconds']:g} s: that time and the micro-batch that acts on it.\n"
        )
    return "\n".join(lines)
