"""How each contestant is started, asked whether it is ready, and ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from plan import Contestant
from processes import executors
from stack import (
    BOOTSTRAP,
    BOOTSTRAP_INSIDE,
    DATA,
    ENV,
    LOGS,
    PORTS,
    PREFIX,
    ROOT,
    RUNNER,
    environment,
    inside,
    wait_until,
)

from fedstream.broker.position import now_ms, show_time
from fedstream.errors import StackError

JAVA = ROOT / "bench" / "jvm" / "target"
READY_SECONDS = 180.0
STOP_SECONDS = 60.0
METRICS = "spark.sql.streaming.metricsEnabled=true"  # makes the driver's page tell of micro-batches


@dataclass(frozen=True)
class Run:
    """One start of a contestant.

    Attributes:
        number: of this start among all of the bench; names its state and its log.
        sources: topics that it reads; the first one is measured.
        target: topic that it writes.
        partitions: of the source.
        mode: latency or throughput.
        nodes: numbers of the fog nodes, none of a contestant that is none.
        beside: starts of the jobs that run beside it.
    """

    contestant: Contestant
    number: int
    sources: tuple[str, ...]
    target: str
    partitions: int
    mode: str
    nodes: tuple[int, ...]
    beside: tuple[Run, ...] = ()

    @property
    def name(self) -> str:
        """What its log, its state and its container are called."""
        words = (self.contestant.workload, self.contestant.name, self.mode, str(self.number))
        return "-".join(words).replace(" ", "-").lower()

    @property
    def source(self) -> str:
        """The topic that is measured."""
        return self.sources[0]

    @property
    def node_id(self) -> str:
        """What its weights are signed with."""
        return f"fog-{self.nodes[0]}" if self.contestant.kind == "job" else self.name

    @property
    def log(self) -> Path:
        """The file with all that it printed."""
        return LOGS / f"{self.name}.log"


@dataclass(frozen=True)
class Running:
    """A contestant that was started, the program that feeds its socket, if it has one, and the jobs beside it."""

    run: Run
    process: subprocess.Popen[bytes]
    feed: subprocess.Popen[bytes] | None
    beside: tuple[Running, ...] = ()

    def roots(self) -> list[psutil.Process]:
        """Return the processes whose descendants are the contestant's; none once it has ended."""
        if RUNNER == "docker" and self.run.contestant.kind in ("job", "report"):
            line = ["docker", "inspect", "-f", "{{.State.Pid}}", PREFIX + self.run.name]
            first = int(subprocess.run(line, capture_output=True, text=True).stdout or 0)
        else:
            first = self.process.pid
        others = [root for job in self.beside for root in job.roots()]
        try:
            return [psutil.Process(first), *others, *executors(PORTS["SPARK_MASTER_PORT"])] if first else []
        except psutil.NoSuchProcess:
            return []

    def check(self) -> None:
        """Raise StackError, which names it and shows the end of its log, if the contestant or a job beside it ended."""
        for job in self.beside:
            job.check()
        if self.process.poll() is not None:
            raise StackError(failure(self.run, f"it ended with exit code {self.process.returncode}"))

    def page(self) -> str | None:
        """Return the address of its driver's web pages, None if it has no micro-batches."""
        contestant = self.run.contestant
        if contestant.kind == "report":
            port = PORTS["SPARK_DRIVER_UI_PORT"]
        elif contestant.kind == "job" and contestant.interval_seconds is None:
            is_fog = contestant.workload == "weights"
            port = int(ENV["FOG_UI_PORT_BASE"]) + self.run.nodes[0] if is_fog else PORTS["SQUARES_KAFKA_UI_PORT"]
        else:
            return None
        return f"http://{container_address(self.run) if RUNNER == 'docker' else 'localhost'}:{port}"


def container_address(run: Run) -> str:
    """Return the address of a contestant's container, which the host reaches; empty while there is none."""
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return subprocess.run(
        ["docker", "inspect", "-f", form, PREFIX + run.name], capture_output=True, text=True
    ).stdout.strip()


def failure(run: Run, what: str) -> str:
    """Return an error's text: who, what, and the end of its log."""
    log = run.log.read_text(errors="replace").splitlines()[-30:] if run.log.exists() else ["(no log)"]
    who = f"contestant {run.contestant.name!r} ({run.contestant.workload}, {run.mode})"
    return "\n".join([f"{who} cannot take part: {what}; end of {run.log}:", *log])


def command(run: Run) -> list[str]:
    """Return the command line that starts a contestant in the foreground.

    Raises:
        StackError: a program that it needs is missing; the text says how to get it.
    """
    contestant = run.contestant
    fill = {"source": run.source, "target": run.target, "now": show_time(now_ms())}
    if run.nodes:
        fill |= {"node": str(run.nodes[0]), "nodes": f"{run.nodes[0]}-{run.nodes[-1]}"}
    words = [word.format(**fill) for word in contestant.command]
    state = f"{DATA}/bench/{run.name}"
    if contestant.kind == "job":
        settings = dict(contestant.settings) | {"CHECKPOINT_DIR": state, "TOPIC_PARTITIONS": str(run.partitions)}
        settings["SPARK_SUBMIT_OPTS"] = f"-D{METRICS}"
        return inside("spark_cluster/start-job.sh", *words, name=run.name, **settings)
    outside = contestant.kind != "report"
    bootstrap = BOOTSTRAP if outside else BOOTSTRAP_INSIDE
    given = ["--bootstrap", bootstrap, "--input", run.source, "--output", run.target, "--node", run.name]
    given += ["--parallelism", str(run.partitions), "--state", state if not outside else str(local_state(run))]
    given += ["--mode", run.mode]
    if contestant.kind == "report":
        return report_command(run, [*words, *given])
    if contestant.kind == "python":
        return [sys.executable, str(ROOT / "bench" / "contestants" / words[0]), contestant.workload, *given]
    if not shutil.which("java"):
        raise StackError(failure(run, "there is no java in PATH; on Debian: apt-get install openjdk-17-jdk-headless"))
    if not list(JAVA.glob("lib/*.jar")) or not list(JAVA.glob(f"classes/**/{words[0]}.class")):
        what = f"{JAVA} has no {words[0]}.class or no lib/; build it: mvn -f bench/jvm/pom.xml package"
        raise StackError(failure(run, what))
    java = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-cp", f"{JAVA}/classes:{JAVA}/lib/*"]
    return [*java, words[0], contestant.workload, *given]


def report_command(run: Run, words: list[str]) -> list[str]:
    """Return how the report's design is submitted: Spark's own defaults, on as many slots as the stack's jobs take."""
    is_stream = run.contestant.workload == "squares"
    options = [
        f"spark.cores.max={run.partitions + 1 + is_stream}",  # a receiver holds one of its own
        f"spark.ui.port={PORTS['SPARK_DRIVER_UI_PORT']}",
        METRICS,
    ]
    if is_stream:
        words += ["--socket", f"{feed_address()}:{PORTS['FEED_PORT']}"]
    # A folder without spark-defaults.conf and without log settings: what Spark does when it is told nothing.
    variables = {"SPARK_CONF_DIR": "bench/contestants", "SPARK_DRIVER_MEMORY": "1g", "SPARK_EXECUTOR_MEMORY": "1g"}
    submit = ["spark-submit", *(word for option in options for word in ("--conf", option))]
    return inside(*submit, "bench/contestants/report_design.py", *words, name=run.name, **variables)


def feed_address() -> str:
    """Return the host's address as the stack's programs reach it."""
    if RUNNER == "local":
        return "127.0.0.1"
    form = "{{range .IPAM.Config}}{{.Gateway}}{{end}}"
    line = ["docker", "network", "inspect", "-f", form, f"{PREFIX}spark-net"]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()


def local_state(run: Run) -> Path:
    """Return the folder of a contestant on the host."""
    return LOGS / "state" / run.name


def start(run: Run) -> Running:
    """Start a contestant; a rival is ready when this returns, a job of the stack may need some seconds more.

    Raises:
        StackError: it cannot be started, ended, or is not ready in time; the text names it.
    """
    LOGS.mkdir(exist_ok=True)
    line = command(run)
    feed = None
    if run.contestant.kind == "report" and run.contestant.workload == "squares":
        where = ["--host", feed_address(), "--port", str(PORTS["FEED_PORT"])]
        generator = [sys.executable, "bench/load.py", "socket", "--bootstrap", BOOTSTRAP, "--topic", run.source]
        feed = launch([*generator, *where], LOGS / f"{run.name}-feed.log")
    running = Running(run, launch(line, run.log), feed, tuple(start(job) for job in run.beside))
    if run.contestant.kind != "job":  # a job of the stack reads from the first record on, whenever that is

        def is_ready() -> bool:
            running.check()
            return "ready" in run.log.read_text(errors="replace").splitlines()

        try:
            wait_until("ready", is_ready, READY_SECONDS)
        except StackError as error:
            stop(running)
            raise StackError(failure(run, f"not ready within {READY_SECONDS:g} s")) from error
    return running


def launch(line: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a program with its output in a file, in a process group of its own."""
    with log.open("wb") as output:
        return subprocess.Popen(
            line, cwd=ROOT, env=environment(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )


def stop(*contestants: Running) -> None:
    """End contestants with their feeds, and wait for the end of their executors."""
    everyone = [running for contestant in contestants for running in (contestant, *contestant.beside)]
    for running in everyone:
        if RUNNER == "docker" and running.run.contestant.kind in ("job", "report"):
            subprocess.run(["docker", "stop", "-t", "20", PREFIX + running.run.name], capture_output=True)
        for process in (running.process, running.feed):
            if process and process.poll() is None:
                end_group(process)
        shutil.rmtree(local_state(running.run), ignore_errors=True)
    wait_until("end of the executors", lambda: not executors(PORTS["SPARK_MASTER_PORT"]), STOP_SECONDS)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and those it started: SIGTERM, and SIGKILL after a while."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):  # it may end by itself, or not by SIGTERM
            os.killpg(process.pid, number)
            process.wait(STOP_SECONDS)
            return
