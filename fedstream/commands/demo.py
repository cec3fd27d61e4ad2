"""Checks the whole chain on live data and shows it: the end of `make demo`.

What the jobs published is compared with what the report's formulas give for the records now on the topics, computed
here a second time. The Java job's line and the squares come in on standard input, as the jobs print them.
"""

from __future__ import annotations

import math
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import click
from rich.console import Console
from rich.table import Table

from fedstream.broker import kafka
from fedstream.commands import registry
from fedstream.commands.verify import IDENTICAL, NOT_VERIFIED, verify_run
from fedstream.errors import StackError
from fedstream.features import REPORT_RULE, Feature
from fedstream.learning.scores import Score
from fedstream.messages.dead_letters import DeadLetter
from fedstream.messages.door import decode
from fedstream.messages.readings import Reading, reading_format
from fedstream.messages.rounds import GlobalModel, read_update
from fedstream.messages.topics import DEAD_LETTER, GLOBAL_MODEL, MODEL_WEIGHTS, sensor_topic
from fedstream.messages.weights import GlobalWeight, NodeWeight, merge_update
from fedstream.rounds.runs import Run, read_messages
from fedstream.settings import Settings
from fedstream.simulation.sensors import label_of, label_rule
from fedstream.stack.progress import Progress
from fedstream.tables import positive_note, traffic_line
from fedstream.terminal import Command

READINGS_WANTED = 5
ROUNDS_WANTED = 10
F1_WANTED = 0.9
SQUARES_WANTED = 5
MOST_RECOMPUTED = 200_000  # readings; more would take longer than the demo should
MOST_LETTERS = 10_000  # of the newest, in which refused records are looked for
SUM_LINE = "La somme des entiers de 1 à 100 est : 5050"

T = TypeVar("T")
M = TypeVar("M")


class Check(NamedTuple):
    """What came out of a part, what it was compared with, and whether it is right."""

    part: str
    came_out: str
    against: str
    is_good: bool


def refused_places(settings: Settings, topic: str) -> set[tuple[int, int]]:
    """Return partition and offset of the records of a topic that became dead letters: they count for nothing."""
    records = kafka.read_topic(settings, DEAD_LETTER, MOST_LETTERS)
    letters = read_messages(records, lambda value: decode(DeadLetter, value))
    return {(letter.partition, letter.offset) for letter in letters if letter.topic == topic}


def follow(settings: Settings, topic: str, read: Callable[[bytes | None], M]) -> Callable[[], list[M]]:
    """Return a function that gives all messages of a topic so far that were not refused; each call adds new ones."""
    records = kafka.follow_topic(settings, topic)
    found: list[M] = []

    def messages() -> list[M]:
        new = list(records(0.2))
        refused = refused_places(settings, topic) if new else set()
        found.extend(read_messages((r for r in new if (r.partition, r.offset) not in refused), read))
        return found

    return messages


def mean_weight(readings: list[Reading], features: Sequence[Feature]) -> float:
    """Return the report's weight of these readings: the mean over the features of factor × mean value."""
    means = [sum(values) / len(readings) for values in zip(*(reading.values for reading in readings), strict=True)]
    total = math.fsum(feature.factor * mean for feature, mean in zip(features, means, strict=True))
    return total / len(features)


def readings_behind(settings: Settings, node: int, update: NodeWeight) -> list[Reading] | None:
    """Return the readings an update was made of, or None where the topic does not tell.

    It tells if it has one partition and no record was rejected: then they are its first `samples` records.
    """
    if update.rejected or update.samples > MOST_RECOMPUTED:
        return None
    records = list(islice(kafka.read_topic(settings, sensor_topic(node)), update.samples))
    if any(record.partition for record in records):
        return None
    if len(records) < update.samples:
        return None
    form = reading_format(settings)
    return [form.decode(record.value) for record in records]


def traffic(settings: Settings, nodes: int) -> tuple[int, int, int] | None:
    """Return the bytes of readings, which stay at the nodes, and of updates and models, which are sent instead.

    Each node reads every model. None: a topic is too long to be read for it.
    """

    def total(topic: str) -> float:
        sizes = [len(record.value or b"") for record in islice(kafka.read_topic(settings, topic), MOST_RECOMPUTED + 1)]
        return sum(sizes) if len(sizes) <= MOST_RECOMPUTED else math.inf

    readings = sum(total(sensor_topic(node)) for node in range(1, nodes + 1))
    updates, models = total(MODEL_WEIGHTS), nodes * total(GLOBAL_MODEL)
    if math.isinf(readings + updates + models):
        return None
    return int(readings), int(updates), int(models)


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


def closed_rounds(run: Run) -> list[GlobalModel]:
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
        table.caption = positive_note(len(score.confusion))
    return table


def checks_table(checks: Sequence[Check]) -> Table:
    """Return what was checked as a table."""
    table = Table("part", "what came out", "checked against", "result", title="Edge-Fog-Cloud on live data")
    for check in checks:
        table.add_row(*check[:3], "ok" if check.is_good else "FAILED")
    return table


def piped_lines() -> queue.Queue[str]:
    """Return a queue that fills with the lines of standard input."""
    lines: queue.Queue[str] = queue.Queue()

    def pump() -> None:
        for line in sys.stdin:
            lines.put(line.rstrip("\n"))

    threading.Thread(target=pump, daemon=True).start()
    return lines


class Demo:
    """What is checked, one part after the other."""

    def __init__(self, settings: Settings, timeout_seconds: float) -> None:
        """Begin with no part; each is waited for that long at most."""
        self._settings = settings
        self._timeout_seconds = timeout_seconds
        self._progress = Progress()
        self._updates = follow(settings, MODEL_WEIGHTS, read_update)
        self._models = follow(settings, GLOBAL_MODEL, read_weight)
        self.console = Console(width=110, highlight=False)
        self.checks: list[Check] = []

    def row(self, part: str, came_out: str, against: str, good: bool) -> None:
        """Add what came out of a part."""
        self.checks.append(Check(part, came_out, against, good))

    def wait(self, what: str, observe: Callable[[], T | None]) -> T | None:
        """Observe until there is something, and return it; None when the time is up."""
        deadline = time.monotonic() + self._timeout_seconds
        while (found := observe()) is None and time.monotonic() < deadline:
            self._progress.waiting(what)
        return found

    def show(self, *parts: Any) -> None:
        """Print tables or lines after what was waited for."""
        self._progress.end()
        self.console.print(*parts)

    def fog(self, node: int) -> None:
        """Check a node's newest weight against the mean of its readings, and the label of one of them."""

        def enough() -> NodeWeight | None:
            newest = next((each for each in reversed(self._updates()) if each.node_id == f"fog-{node}"), None)
            return newest if newest and newest.samples >= READINGS_WANTED else None

        update = self.wait(f"{READINGS_WANTED} readings behind a weight of fog-{node}", enough)
        if update is None:
            self.row(f"fog-{node}", "no such weight", f"after {self._timeout_seconds:g} s", False)
            return
        came_out = f"weight {update.weight} of {update.samples} readings"
        readings = readings_behind(self._settings, node, update)
        if readings is None:
            self.row(f"fog-{node}", came_out, "40.5 expected of uniform readings", abs(update.weight - 40.5) < 5)
            return
        mean = mean_weight(readings, self._settings.table)
        # Half a unit of the fourth decimal, to which an update is rounded.
        good = abs(mean - update.weight) < 0.5001e-4
        self.row(f"fog-{node}", came_out, f"{mean:.6f} recomputed from the topic", good)
        reading = readings[-1]
        settings = self._settings
        is_label = reading.label == label_of(reading.values, label_rule(settings), settings.classes)
        found = reading_format(settings).encode(reading).decode()
        self.row(f"sensors of node {node}", found, f"label 1: {settings.label_rule or REPORT_RULE}", is_label)

    def cloud(self, nodes: int) -> None:
        """Check the newest global weight against the nodes' updates."""
        newest = self.wait(
            f"a global model of {nodes} nodes",
            lambda: next((model for model in self._models()[-1:] if model.nodes >= nodes), None),
        )
        if newest is None:
            self.row("cloud", "no such model", f"after {self._timeout_seconds:g} s", False)
            return
        merged = explains(newest, self._updates())
        self.row(
            "cloud",
            f"global_weight {newest.global_weight:.10f} of {newest.samples} readings",
            "no such weights" if merged is None else f"{merged:.10f} recomputed from the nodes' weights",
            merged is not None and abs(merged - newest.global_weight) < 1e-9,
        )

    def rounds(self) -> None:
        """Check that the model has learned, and its versions."""

        def enough() -> Run | None:
            with suppress(StackError):  # no run yet
                run = registry.load_run(self._settings)
                if len(closed_rounds(run)) >= ROUNDS_WANTED:
                    return run
            time.sleep(1)
            return None

        run = self.wait(f"{ROUNDS_WANTED} rounds of learning", enough)
        if run is None:
            self.row("rounds", f"fewer than {ROUNDS_WANTED}", f"after {self._timeout_seconds:g} s", False)
            return
        closed = closed_rounds(run)
        self.show(learning_table(closed))
        first, last = (score.f1 for score in (closed[0].metrics, closed[-1].metrics) if score)
        came_out = f"{len(closed)} rounds, F1 {first:.3f} -> {last:.3f}"
        against = f"F1 of at least {F1_WANTED}, on readings not seen before"
        self.row("rounds", came_out, against, last >= max(first, F1_WANTED))
        self.versions(run)

    def versions(self, run: Run) -> None:
        """Check that each version of a run comes out again from its updates."""
        results = [each["result"] for each in verify_run(run, self._settings)]
        replayed = [result for result in results if result != NOT_VERIFIED]
        identical = replayed.count(IDENTICAL)
        self.row(
            "versions",
            f"{max(run.versions)} versions of {run.run_id}",
            f"{identical} of {len(replayed)} identical, aggregated anew",
            0 < identical == len(replayed),
        )

    def squares_and_sum(self, lines: queue.Queue[str]) -> None:
        """Check the squares and the line of the Java job."""
        pairs: list[tuple[int, int]] = []
        sum_line = ""

        def enough() -> bool | None:
            nonlocal sum_line
            with suppress(queue.Empty):
                line = lines.get(timeout=0.5)
                if line.startswith("La somme"):
                    sum_line = line
                elif pair := re.fullmatch(r"\((-?\d+), (\d+)\)", line):
                    pairs.append((int(pair[1]), int(pair[2])))
            return len(pairs) >= SQUARES_WANTED or None

        good = self.wait("the sum and for squares", enough) is not None
        self.row(
            "squares",
            " ".join(map(str, pairs)) or "none",
            f"{SQUARES_WANTED} pairs (n, n * n)",
            good and all(n * n == square for n, square in pairs),
        )
        self.row("Java sum", sum_line or "nothing", "100 * 101 / 2 = 5050", sum_line == SUM_LINE)


@click.command(cls=Command, help=__doc__)
@click.option("--nodes", default=2, show_default=True, type=click.IntRange(1), help="Fog nodes that run.")
@click.option("--timeout", "timeout_seconds", default=240.0, show_default=True, help="Longest wait for each part.")
def main(nodes: int, timeout_seconds: float) -> None:
    """Wait for data from every part, check it, print a table; exit code 1 if a part failed."""
    lines = piped_lines()
    settings = Settings.from_env(os.environ)
    demo = Demo(settings, timeout_seconds)
    for node in range(1, nodes + 1):
        demo.fog(node)
    demo.cloud(nodes)
    if settings.model != "mean":
        demo.rounds()
    demo.squares_and_sum(lines)
    demo.show(checks_table(demo.checks))
    if found := traffic(settings, nodes):
        demo.console.print(traffic_line(*found))
    if failed := [check.part for check in demo.checks if not check.is_good]:
        demo.console.print(f"failed: {', '.join(failed)}; see: make logs S=NAME, make doctor")
        sys.exit(1)


if __name__ == "__main__":
    main()
