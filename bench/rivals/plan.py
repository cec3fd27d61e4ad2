"""Who takes part in the bench, how much of it is done, and in which order. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WORKLOADS = ("squares", "weights", "alerts")
RATE = 1000.0  # messages a second: the steady load, and the warm-up before it


@dataclass(frozen=True)
class Contestant:
    """One program that does a workload."""

    name: str
    workload: str
    kind: str  # how it is started: job (one of the stack's own), report (Spark on default options), python, java
    command: tuple[str, ...]  # with {source}, {target} and {node} to be filled in
    settings: tuple[tuple[str, str], ...] = ()  # environment variables of a job
    interval_seconds: float | None = None  # time between the commits of real-time mode, each holds the stream up
    packages: tuple[str, ...] = ()  # whose versions are told
    note: str = ""  # what a reader should know of its figures


SQUARES_JOB = ("squares-kafka", "--input", "{source}", "--output", "{target}", "--mode")
LOOP, LOOP_PACKAGES = ("confluent_loop.py",), ("confluent-kafka", "orjson")
STREAMS, FLINK = ("KafkaStreamsRival",), ("FlinkRival",)
CONTESTANTS = (
    Contestant(
        "real-time", "squares", "job", (*SQUARES_JOB, "real-time"), interval_seconds=30, packages=("spark",),
        note="at least once; offsets are committed every 30 s, which holds the stream up for a moment (see max)",
    ),
    Contestant("micro-batch", "squares", "job", (*SQUARES_JOB, "micro-batch"), packages=("spark",)),
    Contestant(
        "report design", "squares", "report", (), packages=("spark",),
        note="DStream of one second on a socket, which a program of its own fills from the topic",
    ),
    Contestant("confluent", "squares", "python", LOOP, packages=LOOP_PACKAGES),
    Contestant("Kafka Streams", "squares", "java", STREAMS, packages=("kafka-streams",)),
    Contestant("Flink", "squares", "java", FLINK, packages=("flink-streaming-java",)),
    Contestant(
        "fog node", "weights", "job", ("fog", "{node}"), (("MODEL", "mean"),), packages=("spark",),
        note="exact over restarts; each reading is validated, the others' are not",
    ),
    Contestant(
        "report design", "weights", "report", (), packages=("spark",),
        note="begins at the newest reading when it is first started",
    ),
    Contestant(
        "confluent", "weights", "python", LOOP, packages=LOOP_PACKAGES,
        note="the running mean is in memory only: a restart loses it",
    ),
    Contestant("Kafka Streams", "weights", "java", STREAMS, packages=("kafka-streams",)),
    Contestant(
        "Flink", "weights", "java", FLINK, packages=("flink-streaming-java",),
        note="the state is exact over restarts, the sink at least once",
    ),
    Contestant(
        "alerts", "alerts", "job", ("alerts", "--topic", "{source}"), interval_seconds=30, packages=("spark",),
        note="MLP with 16 hidden units, in real-time mode; at least once, as the squares",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    name: str
    repetitions: int  # of everything, with the order of the contestants rotated
    load_seconds: float  # of the steady load, its dropped head included
    dropped_seconds: float
    warm_up_seconds: float
    backlog: tuple[tuple[str, int], ...]  # messages prepared for catching up, by workload
    catch_up_seconds: float  # longest time for it, from the first result; what is done then counts
    drain_seconds: float  # longest wait for the last results; who is not done then is behind
    with_interval: bool  # the load of who has intervals lasts longer than one, so that its end is in it


PLANS = {
    "quick": Plan(
        name="quick", repetitions=1, load_seconds=4, dropped_seconds=1, warm_up_seconds=2,
        backlog=(("squares", 600_000), ("weights", 600_000), ("alerts", 300_000)), catch_up_seconds=5,
        drain_seconds=15, with_interval=False,
    ),
    "full": Plan(
        name="full", repetitions=5, load_seconds=10, dropped_seconds=2, warm_up_seconds=30,
        backlog=(("squares", 4_200_000), ("weights", 5_000_000), ("alerts", 2_000_000)), catch_up_seconds=20,
        drain_seconds=60, with_interval=True,
    ),
}  # fmt: skip
INTERVAL_END_SECONDS = 3.0  # that an interval's end may take, so that a load of an interval has one in it
PYTHON_WARM_UP_SECONDS = 5.0


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


def load_seconds(plan: Plan, contestant: Contestant) -> float:
    """Return how long the steady load of a contestant lasts, its dropped head included."""
    if plan.with_interval and contestant.interval_seconds:
        return plan.dropped_seconds + contestant.interval_seconds + INTERVAL_END_SECONDS
    return plan.load_seconds


def warm_up_seconds(plan: Plan, contestant: Contestant) -> float:
    """Return how long a contestant is loaded before it is measured: only a JVM's compiler needs long."""
    return min(plan.warm_up_seconds, PYTHON_WARM_UP_SECONDS) if contestant.kind == "python" else plan.warm_up_seconds
