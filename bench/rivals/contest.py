"""One contestant's turn: catching up on a back-log, then a steady load, both by the broker's clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from bench.lab import measures
from bench.lab.jobs import ALERTS, MODEL_WEIGHTS, sensor_topic
from bench.lab.load import Generator
from bench.lab.measures import Floats, Ints, Matched
from bench.lab.processes import Sampler
from bench.lab.stack import BOOTSTRAP, FOG_NUMBERS, StackError
from bench.lab.topics import PLACE, Topics
from bench.rivals.plan import RATE, Contestant, Plan, load_seconds, warm_up_seconds
from bench.rivals.start import Run, Running, failure, start, stop

BACKLOG_PARTITIONS = 2
BACKLOG_TOPICS = {
    "squares": "numbers-backlog",
    "weights": sensor_topic(FOG_NUMBERS[0]),
    "alerts": "readings-backlog",
}
FIELDS = {"squares": ("n", "square"), "weights": ("samples", "weight"), "alerts": (PLACE, "probability")}
SHARED_TOPICS = {MODEL_WEIGHTS, ALERTS}  # written to by more than one start
FIRST_RESULT_SECONDS = 180.0
QUIET_SECONDS = 10.0  # without a new result what is missing counts as lost
LOOK_SECONDS = 0.25
LAST_VALUES = 50  # newest weights among which a node's own is looked for
LEAST_SHARE = 0.2  # of a back-log, between the first look and the last, to tell its CPU time


@dataclass
class Bench:
    """What all turns share: plan, topics, the right last weight of the back-log, the alerts' model, starts so far."""

    plan: Plan
    topics: Topics
    backlog_weight: float = 0.0
    model: dict[str, Floats] = field(default_factory=dict)
    starts: int = 0
    nodes: Iterator[int] = field(default_factory=lambda: iter(FOG_NUMBERS[1:]))


def prepare(bench: Bench, contestant: Contestant, mode: str, node: int) -> tuple[Run, list[int]]:
    """Make the topics of a start (in mode latency or throughput); return it with the target's end offsets before it."""
    bench.starts += 1
    number, workload = bench.starts, contestant.workload
    source, target = {
        "squares": (f"numbers-{number}", f"squares-{number}"),
        "weights": (sensor_topic(node), MODEL_WEIGHTS),
        "alerts": (f"readings-{number}", ALERTS),
    }[workload]
    partitions = 1
    if mode == "throughput":
        source, partitions = BACKLOG_TOPICS[workload], BACKLOG_PARTITIONS
    else:
        bench.topics.create(1, source)
    if target not in SHARED_TOPICS:
        bench.topics.create(partitions, target)
    return Run(contestant, number, source, target, partitions, mode, node), bench.topics.ends(target)


def clear(bench: Bench, run: Run) -> None:
    """Delete the topics that were made for a start."""
    own = {run.source, run.target}
    bench.topics.delete(*(own - SHARED_TOPICS - {BACKLOG_TOPICS[run.contestant.workload]}))


def done_so_far(bench: Bench, run: Run, starts: list[int]) -> int:
    """Return how many messages have a result by now."""
    if run.contestant.workload != "weights":
        return sum(bench.topics.ends(run.target)) - sum(starts)
    values = bench.topics.last_values(run.target, starts, LAST_VALUES)
    return max((int(m["samples"]) for m in map(orjson.loads, values) if m["node_id"] == run.node_id), default=0)


def wait_for_first(bench: Bench, running: Running, starts: list[int]) -> None:
    """Wait for the first result.

    Raises:
        StackError: the contestant ended, or there is none in time; the text names it and shows its log.
    """
    deadline = time.monotonic() + FIRST_RESULT_SECONDS
    while not done_so_far(bench, running.run, starts):
        running.check()
        if time.monotonic() > deadline:
            raise StackError(failure(running.run, f"no result within {FIRST_RESULT_SECONDS:g} s"))
        time.sleep(LOOK_SECONDS)


@contextmanager
def started(bench: Bench, run: Run) -> Iterator[tuple[Running, Sampler]]:
    """Start a contestant and look at its processes until the block ends; then end it."""
    running = start(run)
    sampler = Sampler(running.roots, running.page)
    try:
        yield running, sampler
    finally:
        sampler.close()
        stop(running)


def used(before: dict[str, Any], after: dict[str, Any], messages: int) -> dict[str, Any]:
    """Return CPU, memory and micro-batches between two looks of a sampler, for that many messages."""
    batches = after["batches_ms"]
    return {
        "cpu_seconds_per_million": 1e6 * measures.used_cpu_seconds(before["cpu"], after["cpu"]) / messages,
        "memory_mb": after["memory_mb"],
        "mean_batch_ms": statistics.fmean(batches) if batches else None,
    }


def catch_up(bench: Bench, contestant: Contestant) -> dict[str, Any]:
    """Measure throughput from a back-log that was there before the contestant was."""
    workload, backlog = contestant.workload, dict(bench.plan.backlog)[contestant.workload]
    run, starts = prepare(bench, contestant, "throughput", FOG_NUMBERS[0])
    with started(bench, run) as (running, sampler):
        wait_for_first(bench, running, starts)
        before, done_before = sampler.take(), done_so_far(bench, run, starts)
        deadline = time.monotonic() + bench.plan.catch_up_seconds
        while (done := done_so_far(bench, run, starts)) < backlog and time.monotonic() < deadline:
            running.check()
            time.sleep(LOOK_SECONDS)
        after = sampler.take()
    at_ms, columns = results(bench, run, starts)
    clear(bench, run)
    is_complete, more = done >= backlog, done - done_before
    found = used(before, after, max(1, more))
    if more < LEAST_SHARE * backlog:  # too little was left after the first result to tell
        found["cpu_seconds_per_million"] = None
    found["memory_mb"] = max(before["memory_mb"], after["memory_mb"])
    batches = before["batches_ms"] + after["batches_ms"]
    progress = np.maximum.accumulate(columns[0]) if workload == "weights" else np.arange(1, len(at_ms) + 1)
    rate = measures.catch_up_rate(progress, np.sort(at_ms))
    if rate is None and batches:  # all in one micro-batch, which tells how long it took
        rate = 1000 * done / max(batches)
    found |= measures.check_backlog(workload, backlog, is_complete, bench.backlog_weight, *columns)
    return found | {"messages": done, "complete": is_complete, "per_second": rate}


def drain(bench: Bench, running: Running, starts: list[int], sent: int) -> str:
    """Wait until all that was sent has its result; return "done", "quiet" (some are lost) or "behind"."""
    deadline, seen, seen_at = time.monotonic() + bench.plan.drain_seconds, -1, time.monotonic()
    while (done := done_so_far(bench, running.run, starts)) < sent:
        running.check()
        now = time.monotonic()
        if done > seen:
            seen, seen_at = done, now
        if now - seen_at > QUIET_SECONDS:
            return "quiet"
        if now > deadline:
            return "behind"
        time.sleep(LOOK_SECONDS)
    return "done"


def steady_load(bench: Bench, contestant: Contestant) -> dict[str, Any]:
    """Measure latency at a steady load, on one partition."""
    plan = bench.plan
    run, starts = prepare(bench, contestant, "latency", next(bench.nodes))
    generator = Generator(contestant.workload, BOOTSTRAP, [run.source], run.partitions)
    begin, messages = time.monotonic(), round(RATE * load_seconds(plan, contestant))
    with started(bench, run) as (running, sampler), closing(generator):
        generator.send(0, 1)
        wait_for_first(bench, running, starts)
        start_seconds = time.monotonic() - begin
        generator.send(RATE, round(RATE * warm_up_seconds(plan, contestant)))
        state = drain(bench, running, starts, generator.sent)
        before, first = sampler.take(), generator.sent
        sent = generator.send(RATE, messages)
        state = drain(bench, running, starts, generator.sent)
        load = {"state": state} | sent | used(before, sampler.take(), messages)
    sent_ms, matched = read_back(bench, run, starts)
    clear(bench, run)
    load |= measures.latencies(sent_ms[first:], matched.latency_ms[first:], plan.dropped_seconds)
    is_behind = state == "behind"
    return {
        "start_seconds": round(start_seconds, 1),
        "warm_up_seconds": warm_up_seconds(plan, contestant),
        "checked": len(sent_ms) - matched.late * is_behind,
        "lost": matched.lost + matched.late * (not is_behind),
        "duplicated": matched.duplicated,
        "wrong": matched.wrong,
        "load": load,
    }


def results(bench: Bench, run: Run, starts: list[int]) -> tuple[Ints, list[Floats]]:
    """Return times and columns of a run's own results."""
    workload = run.contestant.workload
    own = ("node_id", run.node_id) if workload == "weights" else None
    return bench.topics.columns(run.target, starts, *FIELDS[workload], where=own)


def read_back(bench: Bench, run: Run, starts: list[int]) -> tuple[Ints, Matched]:
    """Read input and output of a run, and return the times of the inputs and what came of them."""
    at_ms, columns = results(bench, run, starts)
    if run.contestant.workload == "squares":
        sent_ms, _ = bench.topics.columns(run.source, [0])
        n, square = columns
        return sent_ms, measures.match_squares(sent_ms, n, square, at_ms)
    done, result = columns
    sent_ms, (temperature, vibration) = bench.topics.columns(run.source, [0], "temperature", "vibration")
    if run.contestant.workload == "alerts":
        expected = measures.probabilities(temperature, vibration, bench.model)
        return sent_ms, measures.match_alerts(sent_ms, expected, done, result, at_ms)
    expected = measures.running_weights(temperature, vibration)
    return sent_ms, measures.match_weights(sent_ms, expected, done, result, at_ms)
