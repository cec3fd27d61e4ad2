"""Who takes part in the bench, how much of it is done, in which order, and how long that takes. No I/O."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

WORKLOADS = ("squares", "weights", "alerts")
WARM_UP_RATE = 1000.0  # messages a second
REFERENCE_RATE = 1000.0  # the load that the table in the report's form shows
SHARE_OF_MAXIMUM = 0.8


@dataclass(frozen=True)
class Contestant:
    """One program that does a workload.

    Attributes:
        name: what the table calls it.
        workload: squares, weights or alerts.
        kind: how it is started: `job` (one of the stack's own), `report` (Spark on default options), `python`, `java`.
        command: what is started, with {source}, {target}, {node}, {nodes}, such as 51-52, and {now}, the time, to be
            filled in.
        start_seconds: expected time from start to the first result, for the estimate only.
        settings: environment variables of a `job`.
        nodes: how many nodes' topics it reads under the steady loads; each gets the whole load, the first is measured.
        beside: jobs of the stack that run beside it under the steady loads.
        interval_seconds: time between the commits of real-time mode, each of which holds the stream up.
        packages: whose versions the table shows.
        note: what a reader should know of its figures.
    """

    name: str
    workload: str
    kind: str
    command: tuple[str, ...]
    start_seconds: float
    settings: tuple[tuple[str, str], ...] = ()
    nodes: int = 1
    beside: tuple[tuple[str, ...], ...] = ()
    interval_seconds: float | None = None
    packages: tuple[str, ...] = ()
    note: str = ""


SQUARES_JOB = ("squares-kafka", "--input", "{source}", "--output", "{target}", "--mode")
IN_MEMORY = "the running mean is in memory only: a restart loses it"
CONTESTANTS = (
    Contestant(
        "real-time", "squares", "job", (*SQUARES_JOB, "real-time"), 10, interval_seconds=30, packages=("spark",),
        note="at least once; offsets are committed at the end of an interval",
    ),
    Contestant("micro-batch", "squares", "job", (*SQUARES_JOB, "micro-batch"), 10, packages=("spark",)),
    Contestant(
        "report design", "squares", "report", ("squares",), 40, packages=("spark",),
        note="DStream of one second on a socket, which a program of its own fills from the topic",
    ),
    Contestant("kafka-python", "squares", "python", ("kafka_python_loop.py",), 3, packages=("kafka-python",)),
    Contestant("confluent", "squares", "python", ("confluent_loop.py",), 3, packages=("confluent-kafka", "orjson")),
    Contestant("Quix Streams", "squares", "python", ("quix.py",), 5, packages=("quixstreams",)),
    Contestant("Kafka Streams", "squares", "java", ("KafkaStreamsRival",), 6, packages=("kafka-streams",)),
    Contestant("Flink", "squares", "java", ("FlinkRival",), 8, packages=("flink-streaming-java",)),
    Contestant(
        "fog node", "weights", "job", ("fog", "{node}"), 10, (("MODEL", "mean"),), packages=("spark",),
        note="exact over restarts; each reading is validated, the others take what comes",
    ),
    Contestant(
        "two fog nodes and cloud", "weights", "job", ("fog", "{node}", "--node", "{nodes}"), 20, nodes=2,
        beside=(("cloud", "--from", "{now}"),), packages=("spark",),
        note="one driver; under the loads it hosts a second node, with the same load, and both train the default model "
        "in rounds with the cloud; CPU and memory are of nodes and cloud, latency and errors of the first node",
    ),
    Contestant(
        "report design", "weights", "report", ("weights",), 40, packages=("spark",),
        note="starts at the newest reading, so a restart leaves out what came meanwhile",
    ),
    Contestant(
        "kafka-python", "weights", "python", ("kafka_python_loop.py",), 3, packages=("kafka-python",), note=IN_MEMORY
    ),
    Contestant(
        "confluent", "weights", "python", ("confluent_loop.py",), 3, packages=("confluent-kafka", "orjson"),
        note=IN_MEMORY,
    ),
    Contestant(
        "Quix Streams", "weights", "python", ("quix.py",), 5, packages=("quixstreams",),
        note="has no end of a poll: a weight for each reading; " + IN_MEMORY,
    ),
    Contestant("Kafka Streams", "weights", "java", ("KafkaStreamsRival",), 6, packages=("kafka-streams",)),
    Contestant("Flink", "weights", "java", ("FlinkRival",), 8, packages=("flink-streaming-java",)),
    Contestant(
        "alerts", "alerts", "job", ("alerts", "--topic", "{source}"), 10, interval_seconds=30, packages=("spark",),
        note="MLP with 16 hidden units, in real-time mode; at least once, as the squares",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        name: quick or full.
        repetitions: of everything, with the order of the contestants rotated.
        rates: loads in messages a second, in ascending order.
        load_seconds: of each load, its dropped head included.
        dropped_seconds: head of each load that is not measured.
        warm_up_seconds: at `WARM_UP_RATE`, before the first load.
        long_warm_up_seconds: the same of those with jobs beside them: so many JVMs' compilers need minutes.
        backlog: messages prepared for catching up, by workload.
        catch_up_seconds: longest time for it, from the first result; what is done then counts.
        drain_seconds: longest wait for the last results of a load; who is not done then is behind.
        with_share: also load each with `SHARE_OF_MAXIMUM` of its own throughput.
        with_interval: the reference load of who has intervals lasts longer than one, so that its end is in it.
        most_rate: most that the load generator can send beside a contestant, messages a second.
        limit_seconds: what the whole run may take.
    """

    name: str
    repetitions: int
    rates: tuple[float, ...]
    load_seconds: float
    dropped_seconds: float
    warm_up_seconds: float
    long_warm_up_seconds: float
    backlog: tuple[tuple[str, int], ...]
    catch_up_seconds: float
    drain_seconds: float
    with_share: bool
    with_interval: bool
    most_rate: float
    limit_seconds: float


PLANS = {
    "quick": Plan(
        name="quick", repetitions=1, rates=(1000,), load_seconds=4, dropped_seconds=1, warm_up_seconds=2,
        long_warm_up_seconds=2, backlog=(("squares", 600_000), ("weights", 600_000), ("alerts", 300_000)),
        catch_up_seconds=5, drain_seconds=15, with_share=False, with_interval=False, most_rate=100_000,
        limit_seconds=900,
    ),
    "full": Plan(
        name="full", repetitions=5, rates=(112, 1000, 10_000), load_seconds=10, dropped_seconds=2, warm_up_seconds=30,
        long_warm_up_seconds=300, backlog=(("squares", 4_200_000), ("weights", 5_000_000), ("alerts", 2_000_000)),
        catch_up_seconds=20, drain_seconds=60, with_share=True, with_interval=True, most_rate=100_000,
        limit_seconds=5 * 3600,
    ),
}  # fmt: skip

STOP_SECONDS = 4.0  # end of a contestant, and reading what it wrote
DRAIN_SECONDS = 1.5  # end of a load until its last result
INTERVAL_END_SECONDS = 3.0  # that an interval's end may take, so that a load of an interval has one in it
STACK_SECONDS = 60.0  # start and end of the stack, ceiling
PYTHON_WARM_UP_SECONDS = 5.0
LEAST_SHARE_OF_LOAD = 0.5  # to which a load is shortened when time runs out
BACKLOG_PER_SECOND = 150_000.0  # what the load generator prepares


def chosen(only: Sequence[str], workloads: Sequence[str]) -> list[Contestant]:
    """Return the contestants of these names (all if there are none) and workloads.

    Raises:
        ValueError: a name is nobody's.
    """
    names = {contestant.name for contestant in CONTESTANTS}
    if unknown := sorted(set(only) - names):
        msg = f"no contestant {', '.join(unknown)}; expected one of: {', '.join(sorted(names))}"
        raise ValueError(msg)
    return [each for each in CONTESTANTS if each.workload in workloads and (not only or each.name in only)]


def turns(contestants: Sequence[Contestant], repetitions: int) -> list[list[Contestant]]:
    """Return the order of each repetition: all in turn, the first one being another one each time."""
    shifts = [number % len(contestants) if contestants else 0 for number in range(repetitions)]
    return [[*contestants[shift:], *contestants[:shift]] for shift in shifts]


def remaining(orders: Sequence[Sequence[Contestant]], done: Container[tuple[int, str]]) -> list[list[Contestant]]:
    """Return the orders of all repetitions without what is done, as (number of the repetition from 1, name)."""
    return [
        [contestant for contestant in order if (number, contestant.name) not in done]
        for number, order in enumerate(orders, start=1)
    ]


def begin_or_resume(earlier: Mapping[str, Any] | None, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the results of a workload begin with: nothing, or the turns of a run that was broken off.

    Args:
        earlier: the results of that run; None: begin anew.
        about: plan, runner, machine, versions and start of the run that begins.

    Raises:
        ValueError: the earlier run was another one: of another plan, runner or version.
    """
    if earlier is None:
        return {**about, "resumed": [], "ceiling": [], "runs": []}
    for name in ("plan", "runner", "versions"):
        if earlier[name] != about[name]:
            msg = f"--resume: {name} was {earlier[name]}, and is {about[name]}; leave --resume out to begin anew"
            raise ValueError(msg)
    return {**earlier, "resumed": [*earlier.get("resumed", []), about["started"]]}


def load_seconds(plan: Plan, contestant: Contestant, rate: float) -> float:
    """Return how long a load lasts, its dropped head included."""
    if plan.with_interval and contestant.interval_seconds and rate == REFERENCE_RATE:
        return plan.dropped_seconds + contestant.interval_seconds + INTERVAL_END_SECONDS
    return plan.load_seconds


def loads(plan: Plan, contestant: Contestant, maximum: float | None) -> list[tuple[float, int, bool]]:
    """Return (rate, messages, is the share of the maximum) of each load, in ascending order.

    A share beyond what the generator can send is sent at that rate; what it reached is recorded with the result.
    """
    rates = [(rate, False) for rate in plan.rates]
    if plan.with_share and maximum:
        rates.append((float(round(min(SHARE_OF_MAXIMUM * maximum, plan.most_rate))), True))
    return [(rate, round(rate * load_seconds(plan, contestant, rate)), is_share) for rate, is_share in sorted(rates)]


def due_at(seconds: float, rate: float, count: int) -> int:
    """Return how many of `count` messages are due that long after the first, which is due at once."""
    return min(count, math.floor(seconds * rate) + 1)


def warm_up_seconds(plan: Plan, contestant: Contestant) -> float:
    """Return how long a contestant is loaded before it is measured: only a JVM's compiler needs long."""
    if contestant.kind == "python":
        return min(plan.warm_up_seconds, PYTHON_WARM_UP_SECONDS)
    return plan.long_warm_up_seconds if contestant.beside else plan.warm_up_seconds


def measured_seconds(plan: Plan, contestant: Contestant) -> float:
    """Return how long a contestant is loaded in a repetition, if it catches up as slowly as it may."""
    steady = sum(load_seconds(plan, contestant, rate) for rate in plan.rates) + plan.with_share * plan.load_seconds
    return warm_up_seconds(plan, contestant) + steady + plan.catch_up_seconds


def other_seconds(plan: Plan, contestant: Contestant) -> float:
    """Return what one contestant takes beside that in a repetition: two starts and ends, and waits for last results."""
    return 2 * (contestant.start_seconds + STOP_SECONDS) + (len(plan.rates) + plan.with_share) * DRAIN_SECONDS


def estimate_seconds(plan: Plan, contestants: Sequence[Contestant]) -> float:
    """Return how long the whole run takes."""
    total = sum(measured_seconds(plan, contestant) + other_seconds(plan, contestant) for contestant in contestants)
    present = {contestant.workload for contestant in contestants}
    backlogs = sum(size / BACKLOG_PER_SECOND for workload, size in plan.backlog if workload in present)
    return plan.repetitions * total + backlogs + STACK_SECONDS


def fitted(plan: Plan, left: Sequence[Contestant], seconds_left: float) -> Plan:
    """Return the plan with its loads shortened, to half at most, so that the contestants left fit the time left.

    Args:
        plan: as it was meant.
        left: turns still to come, of all repetitions.
        seconds_left: until the limit, the end of the stack taken off.
    """
    others = sum(other_seconds(plan, contestant) for contestant in left)
    share = (seconds_left - others) / sum(measured_seconds(plan, contestant) for contestant in left)
    share = min(1.0, max(LEAST_SHARE_OF_LOAD, share))
    return replace(
        plan,
        load_seconds=max(plan.dropped_seconds + 1, plan.load_seconds * share),
        warm_up_seconds=plan.warm_up_seconds * share,
        long_warm_up_seconds=plan.long_warm_up_seconds * share,
        catch_up_seconds=plan.catch_up_seconds * share,
    )
