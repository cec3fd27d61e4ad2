"""Checks the whole chain on live data and shows it: the end of `make demo`.

What the jobs published is compared with what the report's formulas give for the records now on the topics, computed
here a second time. The Java job's line and the squares come in on standard input, as the jobs print them.
"""

from __future__ import annotations

import os
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from fedstream.broker import kafka
from fedstream.commands import analysis, registry
from fedstream.errors import StackError
from fedstream.learning.scores import Score
from fedstream.messages.door import decode
from fedstream.messages.readings import label_of
from fedstream.messages.rounds import GlobalModel, read_update
from fedstream.messages.topics import GLOBAL_MODEL, MODEL_WEIGHTS, sensor_topic
from fedstream.messages.weights import GlobalWeight, NodeWeight, merge_update
from fedstream.settings import Settings, command_help

READINGS_WANTED = 5
ROUNDS_WANTED = 10
F1_WANTED = 0.9
SQUARES_WANTED = 5
MOST_RECOMPUTED = 200_000  # readings; more would take longer than the demo should
SUM_LINE = "La somme des entiers de 1 à 100 est : 5050"

M = TypeVar("M")
Reading = dict[str, Any]


def follow(settings: Settings, topic: str, read: Callable[[bytes | None], M]) -> Callable[[], list[M]]:
    """Return a function that gives all messages of a topic so far; each call adds what has come since."""
    records = kafka.follow_topic(settings, topic)
    found: list[M] = []

    def messages() -> list[M]:
        found.extend(registry.read_messages(records(0.2), read))
        return found

    return messages


def mean_weight(readings: list[Reading]) -> float:
    """Return the report's weight of these readings, written as the report writes it."""
    avg_temp = sum(reading["temperature"] for reading in readings) / len(readings)
    avg_vib = sum(reading["vibration"] for reading in readings) / len(readings)
    return float(avg_temp + 100 * avg_vib) / 2


def readings_behind(settings: Settings, node: int, update: NodeWeight) -> list[Reading] | None:
    """Return the readings an update was made of, or None where the topic does not tell.

    It tells if it has one partition and no record was rejected: then they are its first `samples` records.
    """
    if update.rejected or update.samples > MOST_RECOMPUTED:
        return None
    records = kafka.follow_topic(settings, sensor_topic(node), first=update.samples)(0)
    if any(record.partition for record in records):
        return None
    readings: list[Reading] = registry.read_messages(records[: update.samples], lambda value: decode(dict, value))
    return readings if len(readings) == update.samples else None


def explains(model: GlobalWeight, updates: list[NodeWeight]) -> float | None:
    """Return the weighted mean of the latest updates at the moment when they had the model's samples, or None."""
    latest: dict[str, NodeWeight] = {}
    for update in updates:
        merge_update(latest, update)
        samples = sum(each.samples for each in latest.values())
        if samples == model.samples and len(latest) == model.nodes:
            return sum(each.weight * each.samples for each in latest.values()) / samples
    return None


def read_weight(value: bytes | None) -> GlobalWeight:
    """Return the running weight of a record of `global-model`; the model of a round has one, too."""
    return decode(GlobalWeight, value)


def wait_for_rounds(settings: Settings, timeout_seconds: float) -> registry.Run | None:
    """Return the newest run once enough of its rounds are closed, or when the time is up; None if there is no run."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            run = registry.load_run(settings)
            if len(closed_rounds(run)) >= ROUNDS_WANTED or time.monotonic() > deadline:
                return run
        except StackError:  # no run yet
            if time.monotonic() > deadline:
                return None
        time.sleep(1)


def closed_rounds(run: registry.Run) -> list[GlobalModel]:
    """Return the models that closed a round with scores, in order; the scores are those of the round's own model."""
    return [message for _, message in sorted(run.rounds.items()) if message.metrics]


def learning_table(rounds: list[GlobalModel]) -> Table:
    """Return the learning curve as a table: how good each round's model was on readings it had not seen."""
    table = Table("round", "nodes", "readings", "loss", "F1", "", title="Learning, round by round")
    for message in rounds:
        score = message.metrics or Score()
        bar = "█" * round(40 * score.f1)
        cells = str(message.round - 1), str(len(message.node_metrics)), str(score.num_examples)
        table.add_row(*cells, f"{score.loss:.4f}", f"{score.f1:.4f}", bar)
    return table


def piped_lines() -> queue.Queue[str]:
    """Return a queue that fills with the lines of standard input."""
    lines: queue.Queue[str] = queue.Queue()

    def pump() -> None:
        for line in sys.stdin:
            lines.put(line.rstrip("\n"))

    threading.Thread(target=pump, daemon=True).start()
    return lines


def until(deadline: float, lines: queue.Queue[str]) -> Iterator[str]:
    """Yield lines until the deadline (of `time.monotonic`)."""
    while (left := deadline - time.monotonic()) > 0:
        try:
            yield lines.get(timeout=left)
        except queue.Empty:
            return


@click.command(help=command_help(__doc__))
@click.option("--nodes", default=2, show_default=True, type=click.IntRange(1), help="Fog nodes that run.")
@click.option("--timeout", "timeout_seconds", default=240.0, show_default=True, help="Longest wait for each part.")
def main(nodes: int, timeout_seconds: float) -> None:
    """Wait for data from every part, check it, print a table; exit code 1 if a part failed."""
    settings = Settings.from_env(os.environ)
    console = Console(width=110, highlight=False)
    table = Table("part", "what came out", "checked against", "result", title="Edge-Fog-Cloud on live data")
    failed = []

    def row(part: str, came_out: str, against: str, good: bool) -> None:
        table.add_row(part, came_out, against, "ok" if good else "FAILED")
        if not good:
            failed.append(part)

    lines = piped_lines()
    updates_of = follow(settings, MODEL_WEIGHTS, read_update)
    models_of = follow(settings, GLOBAL_MODEL, read_weight)
    for node in range(1, nodes + 1):
        console.print(f"  waiting for {READINGS_WANTED} readings behind a weight of fog-{node} ...")
        deadline = time.monotonic() + timeout_seconds
        update = None
        while time.monotonic() < deadline and (update is None or update.samples < READINGS_WANTED):
            update = next((each for each in reversed(updates_of()) if each.node_id == f"fog-{node}"), None)
        if update is None or update.samples < READINGS_WANTED:
            row(f"fog-{node}", f"{update or 'no weight'}", f"after {timeout_seconds:g} s", False)
            continue
        came_out = f"weight {update.weight} of {update.samples} readings"
        readings = readings_behind(settings, node, update)
        if readings is None:
            row(f"fog-{node}", came_out, "40.5 expected of uniform readings", abs(update.weight - 40.5) < 5)
            continue
        mean = mean_weight(readings)
        # Half a unit of the fourth decimal, to which an update is rounded.
        good = abs(mean - update.weight) < 0.5001e-4
        row(f"fog-{node}", came_out, f"{mean:.6f} recomputed from the topic", good)
        reading = readings[-1]
        is_label = reading["label"] == label_of(reading["temperature"], reading["vibration"])
        row(f"sensors of node {node}", f"{reading}", "label: > 85 °C or > 0.08 g", is_label)

    console.print(f"  waiting for a global model of {nodes} nodes ...")
    deadline = time.monotonic() + timeout_seconds
    model = None
    while time.monotonic() < deadline and (model is None or model.nodes < nodes):
        model = next(iter(models_of()[-1:]), None)
    if model is None or model.nodes < nodes:
        row("cloud", f"{model or 'no global model'}", f"after {timeout_seconds:g} s", False)
    else:
        merged = explains(model, updates_of())
        row(
            "cloud",
            f"global_weight {model.global_weight:.10f} of {model.samples} readings",
            "no such updates" if merged is None else f"{merged:.10f} recomputed from the updates",
            merged is not None and abs(merged - model.global_weight) < 1e-9,
        )

    if settings.model != "mean":
        console.print(f"  waiting for {ROUNDS_WANTED} rounds ...")
        run = wait_for_rounds(settings, timeout_seconds)
        closed = closed_rounds(run) if run else []
        if run is None or len(closed) < ROUNDS_WANTED:
            row("rounds", f"{len(closed)} of {ROUNDS_WANTED} closed", f"after {timeout_seconds:g} s", False)
        else:
            console.print(learning_table(closed))
            first, last = (score.f1 for score in (closed[0].metrics, closed[-1].metrics) if score)
            row(
                "rounds",
                f"{len(closed)} rounds, F1 {first:.3f} -> {last:.3f}",
                f"F1 of at least {F1_WANTED}, on readings not seen before",
                last >= max(first, F1_WANTED),
            )
            replayed = [each for each in analysis.replay_run(run, settings) if each["result"] != analysis.NOT_REPLAYED]
            identical = sum(each["result"] == analysis.IDENTICAL for each in replayed)
            row(
                "versions",
                f"{max(run.versions)} versions of {run.run_id}",
                f"{identical} of {len(replayed)} identical, aggregated anew",
                0 < identical == len(replayed),
            )

    console.print("  waiting for the sum and for squares ...")
    pairs: list[tuple[int, int]] = []
    sum_line = ""
    for line in until(time.monotonic() + timeout_seconds, lines):
        if line.startswith("La somme"):
            sum_line = line
        elif pair := re.fullmatch(r"\((-?\d+), (\d+)\)", line):
            pairs.append((int(pair[1]), int(pair[2])))
        if len(pairs) >= SQUARES_WANTED:
            break
    row(
        "squares",
        " ".join(map(str, pairs)) or "none",
        f"{SQUARES_WANTED} pairs (n, n * n)",
        len(pairs) >= SQUARES_WANTED and all(n * n == square for n, square in pairs),
    )
    row("Java sum", sum_line or "nothing", "100 * 101 / 2 = 5050", sum_line == SUM_LINE)
    console.print(table)
    if failed:
        console.print(f"failed: {', '.join(failed)}; see: make logs S=NAME, make doctor")
        sys.exit(1)


if __name__ == "__main__":
    main()
