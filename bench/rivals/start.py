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

from bench.lab import stack
from bench.lab.processes import executors
from bench.lab.stack import StackError
from bench.rivals.plan import Contestant

PYTHON = "bench/rivals/contestants"
JAVA = stack.ROOT / "bench" / "rivals" / "jvm" / "target"
READY_SECONDS = 180.0
STOP_SECONDS = 60.0
METRICS = "spark.sql.streaming.metricsEnabled=true"  # makes the driver's page tell of micro-batches


@dataclass(frozen=True)
class Run:
    """One start of a contestant."""

    contestant: Contestant
    number: int  # of this start among all of the bench; names its state and its log
    source: str
    target: str
    partitions: int  # of the source
    mode: str  # latency or throughput
    node: int  # number of the fog node whose readings it gets (of the workload weights)

    @property
    def name(self) -> str:
        """What its log, its state and its container are called."""
        words = (self.contestant.workload, self.contestant.name, self.mode, str(self.number))
        return "-".join(words).replace(" ", "-").lower()

    @property
    def node_id(self) -> str:
        """What its weights are signed with."""
        return f"fog-{self.node}" if self.contestant.kind == "job" else self.name

    @property
    def log(self) -> Path:
        """The file with all that it printed."""
        return stack.LOGS / f"{self.name}.log"

    @property
    def is_inside(self) -> bool:
        """Whether it runs inside the stack."""
        return self.contestant.kind in ("job", "report")


@dataclass(frozen=True)
class Running:
    """A contestant that was started, and the program that feeds its socket, if it has one."""

    run: Run
    process: subprocess.Popen[bytes]
    feed: subprocess.Popen[bytes] | None

    def roots(self) -> list[psutil.Process]:
        """Return the processes whose descendants are the contestant's; none once it has ended."""
        first = self.process.pid
        if stack.RUNNER == "docker" and self.run.is_inside:
            first = int(inspect("{{.State.Pid}}", self.run) or 0)
        try:
            return [psutil.Process(first), *executors(stack.PORTS["SPARK_MASTER_PORT"])] if first else []
        except psutil.NoSuchProcess:
            return []

    def check(self) -> None:
        """Raise StackError, which names the contestant and shows the end of its log, if it ended."""
        if self.process.poll() is not None:
            raise StackError(failure(self.run, f"it ended with exit code {self.process.returncode}"))

    def page(self) -> str | None:
        """Return the address of its driver's web pages, None if it has no micro-batches."""
        contestant = self.run.contestant
        if not self.run.is_inside or contestant.interval_seconds:
            return None
        port = stack.PORTS["SPARK_DRIVER_UI_PORT" if contestant.kind == "report" else "SQUARES_KAFKA_UI_PORT"]
        if contestant.kind == "job" and contestant.workload == "weights":
            port = int(stack.ENV["FOG_UI_PORT_BASE"]) + self.run.node
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return f"http://{inspect(form, self.run) if stack.RUNNER == 'docker' else 'localhost'}:{port}"


def inspect(form: str, run: Run) -> str:
    """Return what Docker tells of a contestant's container; empty while there is none."""
    line = ["docker", "inspect", "-f", form, stack.PREFIX + run.name]
    return subprocess.run(line, capture_output=True, text=True).stdout.strip()


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
    contestant, state = run.contestant, f"{stack.DATA}/bench/{run.name}"
    words = [word.format(source=run.source, target=run.target, node=run.node) for word in contestant.command]
    if contestant.kind == "job":
        settings = dict(contestant.settings) | {"CHECKPOINT_DIR": state, "TOPIC_PARTITIONS": str(run.partitions)}
        settings["SPARK_SUBMIT_OPTS"] = f"-D{METRICS}"
        return stack.inside("spark_cluster/start-job.sh", *words, name=run.name, **settings)
    given = [contestant.workload, "--bootstrap", stack.BOOTSTRAP_INSIDE if run.is_inside else stack.BOOTSTRAP]
    given += ["--input", run.source, "--output", run.target, "--node", run.name, "--parallelism", str(run.partitions)]
    given += ["--state", state if run.is_inside else str(local_state(run)), "--mode", run.mode]
    if contestant.kind == "report":
        return report_command(run, given)
    if contestant.kind == "python":
        return [sys.executable, str(stack.ROOT / PYTHON / words[0]), *given]
    if not shutil.which("java"):
        raise StackError(failure(run, "there is no java in PATH; on Debian: apt-get install openjdk-17-jdk-headless"))
    if not list(JAVA.glob("lib/*.jar")) or not (JAVA / "classes" / f"{words[0]}.class").exists():
        what = f"{JAVA} has no {words[0]}.class or no lib/; build it: mvn -f bench/rivals/jvm/pom.xml package"
        raise StackError(failure(run, what))
    return ["java", "-Xmx512m", "-XX:+UseSerialGC", "-cp", f"{JAVA}/classes:{JAVA}/lib/*", words[0], *given]


def report_command(run: Run, given: list[str]) -> list[str]:
    """Return how the report's design is submitted: Spark's own defaults, on as many slots as the stack's jobs take."""
    is_stream = run.contestant.workload == "squares"
    options = [
        f"spark.cores.max={run.partitions + 1 + is_stream}",  # a receiver holds one of its own
        f"spark.ui.port={stack.PORTS['SPARK_DRIVER_UI_PORT']}",
        METRICS,
    ]
    if is_stream:
        given += ["--socket", f"{feed_address()}:{stack.PORTS['FEED_PORT']}"]
    # A folder without spark-defaults.conf and without log settings: what Spark does when it is told nothing.
    variables = {"SPARK_CONF_DIR": PYTHON, "SPARK_DRIVER_MEMORY": "1g", "SPARK_EXECUTOR_MEMORY": "1g"}
    submit = ["spark-submit", *(word for option in options for word in ("--conf", option))]
    return stack.inside(*submit, f"{PYTHON}/report_design.py", *given, name=run.name, **variables)


def feed_address() -> str:
    """Return the host's address as the stack's programs reach it."""
    if stack.RUNNER == "local":
        return "127.0.0.1"
    form = "{{range .IPAM.Config}}{{.Gateway}}{{end}}"
    return stack.execute("docker", "network", "inspect", "-f", form, f"{stack.PREFIX}spark-net").strip()


def local_state(run: Run) -> Path:
    """Return the folder of a contestant on the host."""
    return stack.LOGS / "state" / run.name


def start(run: Run) -> Running:
    """Start a contestant; the report's design is ready when this returns, the others read from the first record on.

    Raises:
        StackError: it cannot be started, ended, or is not ready in time; the text names it.
    """
    stack.LOGS.mkdir(exist_ok=True)
    line = command(run)
    feed = None
    if run.contestant.kind == "report" and run.contestant.workload == "squares":
        where = ["--topic", run.source, "--host", feed_address(), "--port", str(stack.PORTS["FEED_PORT"])]
        generator = [sys.executable, "-m", "bench.lab.load", "socket", "--bootstrap", stack.BOOTSTRAP, *where]
        feed = launch(generator, stack.LOGS / f"{run.name}-feed.log")
    running = Running(run, launch(line, run.log), feed)
    if run.contestant.kind == "report":

        def is_ready() -> bool:
            running.check()
            return "ready" in run.log.read_text(errors="replace").splitlines()

        try:
            stack.wait_until("ready", is_ready, READY_SECONDS)
        except StackError as error:
            stop(running)
            raise StackError(failure(run, f"not ready within {READY_SECONDS:g} s")) from error
    return running


def launch(line: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a program with its output in a file, in a process group of its own."""
    where, variables = stack.ROOT, stack.environment()
    with log.open("wb") as output:
        return subprocess.Popen(
            line, cwd=where, env=variables, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )


def stop(*contestants: Running) -> None:
    """End contestants with their feeds, and wait for the end of their executors."""
    for running in contestants:
        if stack.RUNNER == "docker" and running.run.is_inside:
            subprocess.run(["docker", "stop", "-t", "20", stack.PREFIX + running.run.name], capture_output=True)
        for process in (running.process, running.feed):
            if process and process.poll() is None:
                end_group(process)
        shutil.rmtree(local_state(running.run), ignore_errors=True)
    stack.wait_until("end of the executors", lambda: not executors(stack.PORTS["SPARK_MASTER_PORT"]), STOP_SECONDS)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and those it started: SIGTERM, and SIGKILL after a while."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):  # it may end by itself, or not by SIGTERM
            os.killpg(process.pid, number)
            process.wait(STOP_SECONDS)
            return
