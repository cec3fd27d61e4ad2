"""Faults while data flow: is anything lost, doubled or wrong, and how long does each stream take to go on?

Sensors send readings to two fog nodes, and numbers go through the squares over Kafka, on a stack of its own. One fault
follows the other, in an order drawn from the seed: a part is killed (-9), paused, cut off from the network, loses
packets, or gets a slow disk, a full one or another clock. After each one all streams must go on; at the end every count
is compared with what is on the topics. The exit code is not 0 if something was lost, doubled (squares may come again
after a crash: at least once) or wrong, or if a stream did not go on in time. What this machine cannot do is named as
not run.

Examples:
    make chaos MINUTES=30
    make chaos MINUTES=10 ARGS="--seed 7 --only pause" STACK=docker
    make chaos MINUTES=30 ARGS="--output bench/results/faults.json"; make docs
"""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import click
from kafka import KafkaProducer
from kafka.errors import KafkaError
from rich.console import Console
from rich.table import Table

from fedstream.terminal import Command
from tests.stack import disks
from tests.stack.faults import FAULTS, is_to_be_seen, prepare
from tests.stack.machine import NotRunError
from tests.stack.stack import QUICK, Stack, weight_of

PARTS = ("kafka", "zookeeper", "spark-master", "spark-worker-1", "fog-1", "cloud", "squares-kafka")
FAULT_SECONDS = 30.0  # so long a fault lasts that is not over at once; it is to be seen by then
LIMIT_SECONDS = 60.0  # after a fault's end each stream is to go on by then
PATIENCE_SECONDS = 240.0  # so long it is waited for, to tell how long it took
LINGERING = ("kill", "clock")  # drivers end some time after these: without executors, or with a clock that was set back
AFTERMATH_SECONDS = 45.0  # so long after such a fault streams are looked at again
STILL_SECONDS = 10.0  # a stream that does not move for so long stands still
LOOK_BACK = 200  # records of a topic in which the newest message of each stream is found
RATE = 25  # readings a second and node, and numbers a second
LOOK_SECONDS = 3.0  # between two looks at the health, each of which costs a second of a core
# Rounds of a few seconds, at intervals that leave two cores time for what a fault costs: the start of a driver.
CALM = QUICK | dict.fromkeys(("TRIGGER_INTERVAL_MS", "UPDATE_INTERVAL_MS", "CLOUD_INTERVAL_MS"), "1000")
NODES = (1, 2)
STREAMS = ("global weights", "rounds", "squares")  # beside those of the nodes


class Cell(NamedTuple):
    """A fault: what happens to which part."""

    part: str
    kind: str


@dataclass
class Outcome:
    """What came of a fault: how long each stream took to go on after its end, and what health said meanwhile."""

    cell: Cell
    seconds: dict[str, float] = field(default_factory=dict)
    health: str = ""
    not_run: str = ""  # why not

    @property
    def is_good(self) -> bool:
        """Whether all streams went on in time, and a fault that stops its part was seen."""
        in_time = all(seconds <= LIMIT_SECONDS for seconds in self.seconds.values())
        seen = self.health.startswith("red") or not is_to_be_seen(self.cell.kind, self.cell.part)
        return bool(self.not_run) or (in_time and seen)

    @property
    def slowest(self) -> tuple[str, float]:
        """The stream that took longest to go on, and how long."""
        return max(self.seconds.items(), key=lambda each: each[1], default=("", 0.0))


class Numbers(threading.Thread):
    """Sends the numbers 0, 1, 2 ... to their topic until it is stopped; the client repeats what was not taken."""

    def __init__(self, bootstrap: str) -> None:
        """Nothing is sent yet."""
        super().__init__(daemon=True)
        self._servers, self._stopping, self.sent = bootstrap, threading.Event(), 0

    def run(self) -> None:
        """Send at the rate."""
        with KafkaProducer(bootstrap_servers=self._servers, delivery_timeout_ms=300_000) as producer:
            while not self._stopping.wait(1 / RATE):
                producer.send("numbers", value=b'{"n":%d}' % self.sent, partition=0)
                self.sent += 1

    def stop(self) -> None:
        """Send what waits, and end."""
        self._stopping.set()
        self.join()


class Chaos:
    """The stack, its load, and what is seen of its streams."""

    def __init__(self, stack: Stack, console: Console, kinds: Collection[str]) -> None:
        """Start the stack, ready for faults of these kinds, and its load, and wait until all streams flow."""
        self.stack, self.console = stack, console
        self._places = dict.fromkeys((*(f"weights of fog-{node}" for node in NODES), *STREAMS), 0)
        prepare(stack, kinds)
        stack.empty()
        stack.make("-j3", "run-fog", "run-cloud", "run-squares-kafka", **CALM)
        self.numbers = Numbers(stack.bootstrap)
        self.numbers.start()
        stack.make("run-producer", f"ARGS=--rate {RATE}")
        self.wait_until_all_go_on({}, PATIENCE_SECONDS)

    def places(self) -> dict[str, int]:
        """Return how far each stream has come, by its newest messages; no further while no broker answers."""
        with suppress(KafkaError):
            for message in self._newest("model-weights"):
                if "round" not in message:
                    self._places[f"weights of {message['node_id']}"] = message["samples"]
            for message in self._newest("global-model"):
                stream, place = ("rounds", "round") if "round" in message else ("global weights", "samples")
                self._places[stream] = message[place]
            self._places["squares"] = self.stack.end_offset("squares")
        return dict(self._places)

    def _newest(self, topic: str) -> list[dict[str, Any]]:
        return self.stack.messages(topic, max(self.stack.end_offset(topic) - LOOK_BACK, 0))

    def wait_until_all_go_on(self, before: dict[str, int], longest: float) -> dict[str, float]:
        """Return after how many seconds each stream has come further than before; infinity where it has not."""
        begin, took = time.monotonic(), dict[str, float]()
        while True:
            places = self.places()
            for name, place in places.items():
                if place > before.get(name, 0):
                    took.setdefault(name, time.monotonic() - begin)
            if len(took) == len(places):
                return took
            if time.monotonic() - begin > longest:
                return dict.fromkeys(places, float("inf")) | took
            time.sleep(0.5)

    def suffer(self, cell: Cell) -> Outcome:
        """Do what the cell says once all is well, and see what comes of it."""
        outcome, deadline = Outcome(cell), time.monotonic() + PATIENCE_SECONDS
        while self.trouble() and time.monotonic() < deadline:  # of the fault before this one
            time.sleep(LOOK_SECONDS)
        try:
            with FAULTS[cell.kind](self.stack, cell.part):
                if cell.kind != "kill":
                    outcome.health = self.health_within(FAULT_SECONDS)
        except NotRunError as error:
            outcome.not_run = str(error)
            return outcome
        begin = time.monotonic()
        # Of what was on its way when the fault ended nothing is proven; what comes later is.
        outcome.seconds = self.wait_until_all_go_on(self.places(), PATIENCE_SECONDS)
        if cell.kind in LINGERING:
            time.sleep(max(0.0, begin + AFTERMATH_SECONDS - time.monotonic()))
            outcome.seconds = self.for_good(outcome.seconds, time.monotonic() - begin)
        return outcome

    def for_good(self, seconds: dict[str, float], passed: float) -> dict[str, float]:
        """Return these seconds since a fault; anew for a stream that stands still now, `passed` seconds after it."""
        again = self.wait_until_all_go_on(self.places(), PATIENCE_SECONDS)
        return {
            name: passed + again[name] if again[name] > STILL_SECONDS else before for name, before in seconds.items()
        }

    def health_within(self, seconds: float) -> str:
        """Return after how long `make doctor` was red, and what it said; looks until the time is over."""
        begin, said = time.monotonic(), ""
        while (now := time.monotonic() - begin) < seconds:
            if not said and (trouble := self.trouble()):
                said = f"red after {now:.0f} s: {trouble}"
            time.sleep(LOOK_SECONDS)
        return said or "green"

    def trouble(self) -> str:
        """Return the first thing that is not well by `make doctor`, an empty text if all is."""
        found = self.stack.make("doctor", check=False)
        if "the stack is well" in found:
            return ""
        return next((line.partition("FAIL")[2].strip() for line in found.splitlines() if "FAIL" in line), found[-200:])

    def mistakes(self) -> Iterator[str]:
        """Stop the load, wait until all of it is processed, and yield what is lost, doubled or wrong."""
        self.numbers.stop()
        self.stack.stop("sensors")
        deadline = time.monotonic() + PATIENCE_SECONDS
        for node in NODES:
            yield from self._mistakes_of_node(node, deadline)
        yield from self._mistakes_of_squares(deadline)

    def _mistakes_of_node(self, node: int, deadline: float) -> Iterator[str]:
        readings = self.stack.messages(f"sensor-data-node-{node}")
        ids = Counter(json.dumps(reading, sort_keys=True) for reading in readings)
        self.console.print(f"fog-{node}: {len(readings)} readings on its topic, {len(ids)} different ones")
        counted = _until(lambda: self.stack.samples(node), len(readings), deadline)
        if counted != len(readings):
            yield f"fog-{node} has counted {counted} of {len(readings)} readings"
        weight = self.stack.updates(node)[-1]["weight"]
        if abs(weight - weight_of(readings)) > 0.5001e-4:
            yield f"fog-{node} has weight {weight}; expected {weight_of(readings)}"
        learned = _until(lambda: self.stack.learned(node), len(readings), deadline)
        if learned > len(readings):
            yield f"fog-{node} has learned {learned} readings; expected at most {len(readings)}"
        self.console.print(f"fog-{node}: {counted} counted, {learned} learned")

    def _mistakes_of_squares(self, deadline: float) -> Iterator[str]:
        sent = self.numbers.sent
        _until(lambda: len({message["n"] for message in self.stack.messages("squares")}), sent, deadline)
        squares = self.stack.messages("squares")
        times = Counter(message["n"] for message in squares)
        self.console.print(f"squares: {sent} numbers, {len(times)} squared, {len(squares) - len(times)} came again")
        if lost := sorted(set(range(sent)) - set(times)):
            yield f"{len(lost)} of {sent} numbers have no square, the first one is {lost[0]}"
        if wrong := [message for message in squares if message["square"] != message["n"] ** 2]:
            yield f"{len(wrong)} squares are wrong, the first one is {wrong[0]}"


def _until(observe: Callable[[], int], wanted: int, deadline: float) -> int:
    while (seen := observe()) < wanted and time.monotonic() < deadline:
        time.sleep(0.5)
    return seen


def deck(seed: int, only: str | None) -> Iterator[Cell]:
    """Yield faults for ever: all cells in an order of the seed, then all of them in another one."""
    source = random.Random(seed)
    cells = [Cell(part, kind) for part, kind in itertools.product(PARTS, FAULTS) if only in (None, part, kind)]
    while True:
        yield from source.sample(cells, len(cells))


def rows(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """Return what came of each cell: how often it was run, the longest that a stream took, and what health said."""
    found = []
    for cell in itertools.starmap(Cell, itertools.product(PARTS, FAULTS)):
        own = [outcome for outcome in outcomes if outcome.cell == cell]
        row: dict[str, Any] = {"part": cell.part, "fault": cell.kind, "times": sum(not each.not_run for each in own)}
        if row["times"]:
            worst = max((each for each in own if not each.not_run), key=lambda each: each.slowest[1])
            row |= {"stream": worst.slowest[0], "seconds": round(worst.slowest[1]), "health": worst.health}
            row["to_be_seen"] = is_to_be_seen(cell.kind, cell.part)
        elif own:
            row["not_run"] = own[0].not_run
        found.append(row)
    return found


def table_of(cells: list[dict[str, Any]]) -> Table:
    """Return the table of the cells."""
    table = Table("part", "fault", "times", "slowest stream", "seconds", "health meanwhile", title="Faults")
    for row in cells:
        if row["times"]:
            shown = (str(row["times"]), row["stream"], str(row["seconds"]), row["health"])
        else:
            shown = ("0", "not run", "", row.get("not_run", ""))
        table.add_row(row["part"], row["fault"], *shown)
    return table


def keep(run: dict[str, Any], path: Path) -> None:
    """Put a run into a file of runs, in the place of one of the same runner and seed."""
    runs = json.loads(path.read_text()) if path.exists() else []
    others = [each for each in runs if (each["runner"], each["seed"]) != (run["runner"], run["seed"])]
    path.write_text(json.dumps([*others, run], indent=1) + "\n")


@click.command(cls=Command, help=__doc__)
@click.option("--minutes", default=10.0, show_default=True, type=click.FloatRange(0, min_open=True))
@click.option("--seed", default=1, show_default=True, help="The order of the faults.")
@click.option("--only", metavar="PART|FAULT", help="Only this part or fault, such as fog-1 or pause.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="File of runs to add this one to.")
def main(minutes: float, seed: int, only: str | None, output: Path | None) -> None:
    """Run it."""
    console = Console(highlight=False, width=150)
    if only and only not in (*PARTS, *FAULTS):
        raise click.UsageError(f"--only is {only!r}; expected one of {', '.join((*PARTS, *FAULTS))}")
    for name in ("ARGS", "MAKEFLAGS", "MAKEOVERRIDES"):  # of `make chaos`, and not of the targets that it calls
        os.environ.pop(name, None)
    stack = Stack()
    console.print(f"chaos on the {stack.runner} runner, {minutes:g} minutes, seed {seed}")
    outcomes: list[Outcome] = []
    try:
        chaos = Chaos(stack, console, FAULTS if only in (None, *PARTS) else (only,))
        end = time.monotonic() + 60 * minutes
        for cell in deck(seed, only):
            outcome = chaos.suffer(cell)
            outcomes.append(outcome)
            seconds = ", ".join(f"{name} {value:.0f} s" for name, value in outcome.seconds.items())
            result = "not run" if outcome.not_run else "ok     " if outcome.is_good else "FAIL   "
            console.print(f"{result} {cell.kind} {cell.part}: {seconds} {outcome.health}{outcome.not_run}")
            if time.monotonic() > end:
                break
        mistakes = list(chaos.mistakes())
    finally:
        disks.take_away(stack)
        stack.make("clean")  # which keeps the logs in test-logs/
    cells = rows(outcomes)
    console.print(table_of(cells))
    for mistake in mistakes:
        console.print(f"FAIL {mistake}")
    late, count = [outcome for outcome in outcomes if not outcome.is_good], sum(not each.not_run for each in outcomes)
    console.print(f"{count} faults: {len(mistakes)} mistakes, {len(late)} late or not seen")
    if output:
        about = {"runner": stack.runner, "seed": seed, "minutes": minutes, "faults": count, "late": len(late)}
        keep(about | {"mistakes": mistakes, "cells": cells}, output)
    sys.exit(bool(mistakes or late))


if __name__ == "__main__":
    main()
