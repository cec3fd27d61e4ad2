"""The streamed figures of bench/federated.py: measured on the real stack of the local runner, which it starts itself.

Each part starts from an empty stack with names and ports of its own (those of the stack tests), so that a stack of
yours is left alone. All times are those of the records on the topics.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedstream import kafka
from fedstream.data import load
from fedstream.messages import GLOBAL_MODEL, MODEL_WEIGHTS, sensor_topic
from fedstream.metrics import score
from fedstream.models import make_model
from fedstream.protocol import RoundModel
from fedstream.settings import Settings, StackError
from fedstream.training import scaler_of, statistics_of, train, train_config, train_seed

ROOT = Path(__file__).parents[1]
PORTS = {
    "ZOOKEEPER_PORT": 12181,
    "KAFKA_PORT": 19092,
    "KAFKA_NETWORK_PORT": 29192,
    "SPARK_MASTER_PORT": 17077,
    "SPARK_MASTER_UI_PORT": 18080,
    "SPARK_WORKER_1_UI_PORT": 18081,
    "SPARK_WORKER_2_UI_PORT": 18082,
    "SPARK_DRIVER_UI_PORT": 14040,
    "SPARK_DRIVER_UI_LAST_PORT": 14043,
    "CLOUD_UI_PORT": 14044,
    "SQUARES_UI_PORT": 14045,
    "FOG_UI_PORT_PREFIX": 1405,
    "NUMBERS_PORT": 19999,
}
RUN_DIR = ".run-bench"
ENV = os.environ | {name: str(port) for name, port in PORTS.items()} | {"STACK": "local", "RUN_DIR": RUN_DIR}
SETTINGS = Settings(kafka_bootstrap_servers=f"localhost:{PORTS['KAFKA_PORT']}")
UNSEEN_SEED = 99


def make(*words: str, **env: Any) -> None:
    """Run a make target of the bench's own stack."""
    given = {name: str(value) for name, value in env.items()}
    done = subprocess.run(["make", *words], cwd=ROOT, env=ENV | given, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise StackError(f"make {' '.join(words)} failed:\n{done.stdout}{done.stderr}")


def send(count: int, nodes: int, *more: str) -> None:
    """Send simulated readings, dealt out to the nodes, as fast as Kafka takes them."""
    command = [".venv/bin/python", "producer/sensor_producer.py", "--nodes", str(nodes), "--count", str(count)]
    env = {"KAFKA_BOOTSTRAP_SERVERS": SETTINGS.kafka_bootstrap_servers}
    subprocess.run([*command, "--rate", "0", *more], cwd=ROOT, env=os.environ | env, check=True, capture_output=True)


def wait(what: str, observe: Callable[[], Any], is_good: Callable[[Any], bool], timeout_seconds: float = 400) -> Any:
    """Observe until it is good, and return it.

    Raises:
        StackError: it was not in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while not is_good(seen := observe()):
        if time.monotonic() > deadline:
            raise StackError(f"{what}: not within {timeout_seconds:g} s; last seen: {seen!r:.300}")
        time.sleep(0.5)
    return seen


def rounds() -> list[dict[str, Any]]:
    """Return the models that opened a round, in order, each with the time `at` (ms) of its record."""
    found = {}
    for record in kafka.follow_topic(SETTINGS, GLOBAL_MODEL)(0):
        message = json.loads(record.value)
        if "round" in message:
            found.setdefault(message["round"], message | {"at": record.timestamp})
    return [found[number] for number in sorted(found)]


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
    return score(model.predict(arrays, scaler.apply(unseen.x)), unseen.y).as_dict()


def learning(name: str, per_update: int = 500, most_rounds: int = 30) -> dict[str, Any]:
    """Two nodes learn the rule from the stream; beside it the same readings in one place, as many at a time."""
    make("clean")
    make("up")
    make("-j2", "run-cloud", "run-fog", MODEL=name, MAX_READINGS_PER_UPDATE=per_update)
    send(2 * per_update * (most_rounds + 2), 2, "--seed", "21")
    wait("rounds", rounds, lambda seen: len(seen) > most_rounds)
    opened = rounds()[: most_rounds + 1]
    model = make_model(name, {})
    curve = []
    for message in opened[1:]:
        version = RoundModel.from_message(message)
        curve.append(test_score(model, version.arrays, version.scaler)["f1"])
    used = sum(each["metrics"]["num_examples"] for each in opened[1:])
    x, y = readings(2)
    scaler, arrays = scaler_of(statistics_of(x[:used])), model.initial_arrays(SETTINGS.seed)
    step = 2 * per_update
    for number, first in enumerate(range(0, used, step), start=1):
        chunk = slice(first, min(first + step, used))
        seed = train_seed(SETTINGS, number, 0)
        arrays = train(model, arrays, scaler, x[chunk], y[chunk], train_config(SETTINGS, {}), seed).arrays
    last = RoundModel.from_message(opened[-1])
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
    """One driver hosts the nodes; each has `per_node` readings for each round."""
    make("clean")
    make("up")
    limits = {"MAX_READINGS_PER_UPDATE": nodes * per_node, "UPDATE_MIN_READINGS": per_node}
    limits |= {"UPDATE_MAX_WAIT_SECONDS": 20, "ROUND_DEADLINE_SECONDS": 60}
    make("run-cloud", **limits)
    make("run-fog", NODES=nodes, NODES_PER_DRIVER=nodes, **limits)
    send(nodes * per_node * (turns + 2), nodes, "--seed", "5")
    closed = wait("rounds", rounds, lambda seen: len(seen) > turns + 1)
    full = [(before, after) for before, after in itertools.pairwise(closed) if len(after["updates"]) == nodes]
    seconds = [(after["at"] - before["at"]) / 1000 for before, after in full]
    return {
        "nodes": nodes,
        "readings_per_node_and_round": [after["metrics"]["num_examples"] / nodes for _, after in full],
        "round_seconds": seconds,
        "fog_memory_mb": fog_memory_mb(),  # with the cloud's one executor
    }


def fog_memory_mb() -> float:
    """Return the resident memory of the fog driver, its executors and their Python workers.

    Only the cloud runs beside it, so what is left of the Spark programs is the fog's.
    """
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            mine = f"RUN_PATH={ROOT}/{RUN_DIR}".encode() in (process / "environ").read_bytes()
            line = (process / "cmdline").read_bytes()
            words = (b"fog_node.py", b"pyspark.daemon", b"CoarseGrainedExecutorBackend")
            if mine and any(word in line for word in words):
                total += int((process / "status").read_text().split("VmRSS:")[1].split()[0])
        except (OSError, IndexError):
            continue
    return round(total / 1024)


def latency(rate: float, seconds: float = 60) -> dict[str, Any]:
    """Time from each reading to the first global model that learned from it, two nodes at the default settings."""
    make("clean")
    make("up")
    make("-j2", "run-cloud", "run-fog")
    send(400, 2, "--seed", "8")  # warm-up: some rounds before the clock starts
    wait("the first rounds", rounds, lambda seen: len(seen) > 1)
    count = int(2 * rate * seconds)
    command = [".venv/bin/python", "producer/sensor_producer.py", "--count", str(count), "--rate", str(rate)]
    env = {"KAFKA_BOOTSTRAP_SERVERS": SETTINGS.kafka_bootstrap_servers}
    subprocess.run(command, cwd=ROOT, env=os.environ | env, check=True, capture_output=True)
    wait(
        "all learned",
        lambda: [sum(u[0] for u in updates(n)) for n in (1, 2)],
        lambda seen: min(seen) >= 200 + count // 2,
    )
    time_of = {tuple(each["place"]): message["at"] for message in rounds() for each in message.get("updates", [])}
    waits, lost = [], 0
    for node in (1, 2):
        sent = [record.timestamp for record in kafka.follow_topic(SETTINGS, sensor_topic(node))(0)]
        first = 0
        for num_examples, place in updates(node):
            span = range(max(first, 200), first + num_examples)  # without the warm-up
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
    make("clean")
    make("up")
    make("-j2", "run-cloud", "run-fog", NODES=3, ROUND_PATIENCE=1000)
    make("run-producer", "ARGS=--rate 50", NODES=3)
    wait("a round of three", rounds, lambda seen: any(len(each.get("updates", [])) == 3 for each in seen))
    subprocess.run(
        ["bash", "-c", "source local/env.sh; supervisorctl -c local/supervisord.conf stop fog:fog-3"],
        cwd=ROOT, env=ENV, check=True, capture_output=True,
    )  # fmt: skip
    stopped = rounds()[-1]["round"]
    wait("rounds without it", rounds, lambda seen: seen[-1]["round"] >= stopped + turns + 1)
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
    "0.5 readings/s": lambda: latency(0.5, 120),
    "50 readings/s": lambda: latency(50, 60),
    "silent node": silence,
}


def measure(part: str) -> dict[str, Any]:
    """Measure one part, and leave nothing running."""
    try:
        return PARTS[part]()
    finally:
        make("clean")


def table(section: Mapping[str, Any]) -> str:
    """Return the section of docs/federated.md."""
    lines = ["## On the real stack\n", "Kafka, Spark and all jobs on the same two cores; local runner.\n"]
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
        lines += ["| nodes in one driver | readings of a node and round | seconds of a round | fog memory |"]
        lines += ["| --- | ---: | ---: | ---: |"]
        for entry in sorted(hosts, key=lambda entry: entry["nodes"]):
            seconds = entry["round_seconds"]
            shown = (
                f"{statistics.median(seconds):.1f} (median of {len(seconds)}, {min(seconds):.1f} to {max(seconds):.1f})"
            )
            readings = statistics.fmean(entry["readings_per_node_and_round"])
            lines.append(f"| {entry['nodes']} | {readings:.0f} | {shown} | {entry['fog_memory_mb']} MB |")
        if len(hosts) == 2:
            few, many = sorted(hosts, key=lambda entry: entry["nodes"])
            added = (many["fog_memory_mb"] - few["fog_memory_mb"]) / (many["nodes"] - few["nodes"])
            lines.append(f"\n{added:.1f} MB for each node more (driver, executors and Python workers).")
        lines.append("")
    waits = [entry for entry in section.values() if "p50_ms" in entry]
    if waits:
        lines += [
            "| readings a second and node | reading → first model that learned it: p50 | p95 | max | in late updates |"
        ]
        lines += ["| --- | ---: | ---: | ---: | ---: |"]
        for entry in sorted(waits, key=lambda entry: entry["readings_per_second_and_node"]):
            times = " | ".join(f"{entry[name] / 1000:.2f} s" for name in ("p50_ms", "p95_ms", "max_ms"))
            lost = f"{entry['in_late_updates']} of {entry['readings'] + entry['in_late_updates']}"
            lines.append(f"| {entry['readings_per_second_and_node']:g} | {times} | {lost} |")
        lines.append("\nTwo nodes at the default settings of a round.\n")
    if entry := section.get("silent node"):
        seconds = entry["seconds_open"]
        lines.append(
            f"One of three nodes silent and waited for in every round (ROUND_PATIENCE=1000): {len(seconds)} of "
            f"{entry['rounds']} rounds closed, open for {min(seconds):.2f} to {max(seconds):.2f} s with a deadline of "
            f"{entry['deadline_seconds']:g} s.\n"
        )
    return "\n".join(lines)
