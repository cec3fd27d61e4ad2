"""An hour under steady load: is anything lost, doubled or wrong, and does anything grow?

Numbers through the squares over Kafka and readings through a fog node, on a stack of its own. Each result is checked.
Once a minute (oftener in a short run) live heap, threads, open files, memory and checkpoint folder of both jobs are
looked at; a full garbage collection goes before, so that the heap shows what is alive, at the cost of a pause. The exit
code is not 0 if a result is lost or wrong, or if something grows; growth is judged from ten minutes on. Real-time
mode's sink is at-least-once: duplicates are counted, and are no failure.

Examples:
    make soak MINUTES=60
    make soak MINUTES=5 ARGS="--rate 200"
    make soak MINUTES=60 STACK=docker ARGS="--output /tmp/soak"
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import time
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import contest
import measures
import psutil
import report
from compare import machine, versions
from contest import Bench
from load import Generator
from plan import PLANS, Contestant, chosen
from processes import executors, memory_mb, with_descendants
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rivals import Run, Running, start, stop
from stack import BOOTSTRAP, DATA, LOGS, PORTS, ROOT, RUNNER, environment, inside, standing
from topics import Topics

from fedstream.errors import StackError
from fedstream.messages.topics import MODEL_WEIGHTS
from fedstream.settings import command_help

JOBS = (("real-time", "squares"), ("fog node", "weights"))
LOOKS = 5
HEAD_SHARE = 0.2  # of the samples: caches and heaps still fill
LEAST_MINUTES = 10.0  # to judge growth: until then pools of threads still fill
# What a whole run may add, in the measure's own unit, and as a share of its median.
LIMITS = {
    "driver heap (MB)": (10.0, 0.1),
    "executor heap (MB)": (10.0, 0.1),
    "threads": (5.0, 0.0),
    "open files": (10.0, 0.0),
    "memory (MB)": (50.0, 0.1),
    "checkpoint (kB)": (200.0, 0.1),
}


def live_heap_mb(processes: list[psutil.Process]) -> float | None:
    """Return the heap (MB) alive in these processes' JVMs, after a full collection; None without the JDK's tools.

    Raises:
        subprocess.CalledProcessError: a JVM does not answer.
    """
    if RUNNER == "docker" or not (shutil.which("jcmd") and shutil.which("jstat")):
        return None
    kilobytes = 0.0
    for process in processes:
        if process.name() != "java":
            continue
        subprocess.run(["jcmd", str(process.pid), "GC.run"], check=True, capture_output=True, timeout=60)
        printed = subprocess.check_output(["jstat", "-gc", str(process.pid)], text=True, timeout=60)
        names, values = (line.split() for line in printed.splitlines()[:2])
        row = dict(zip(names, values, strict=True))
        kilobytes += sum(float(row[name]) for name in ("S0U", "S1U", "EU", "OU"))
    return round(kilobytes / 1024, 2)


def checkpoint_kb(run: Run) -> float:
    """Return the size of a job's checkpoint folder in kB.

    Raises:
        StackError: there is no such folder.
    """
    line = inside("du", "-sk", f"{DATA}/bench/{run.name}")
    done = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)
    if not done.stdout:  # its exit code is 1 also when Spark has just removed a file
        raise StackError(f"no checkpoint folder of {run.name}: {done.stderr}")
    return float(done.stdout.split()[0])


def application(process: psutil.Process) -> str:
    """Return the id of the application that an executor works for; ids rise in the order in which jobs were started."""
    words = process.cmdline()
    return words[words.index("--app-id") + 1] if "--app-id" in words else ""


def vitals(jobs: list[Running]) -> dict[str, dict[str, float | None]]:
    """Look at each job, by its name; the jobs stand in the order in which they were started.

    Raises:
        StackError: a job has ended.
    """
    by_application = {
        key: list(group)
        for key, group in itertools.groupby(sorted(executors(PORTS["SPARK_MASTER_PORT"]), key=application), application)
    }
    found = {}
    for job, workers in zip(jobs, by_application.values(), strict=True):
        driver = with_descendants(job.roots()[:1])
        hands = with_descendants(workers)
        everyone = [*driver, *hands]
        found[job.run.contestant.name] = {
            "driver heap (MB)": live_heap_mb(driver),
            "executor heap (MB)": live_heap_mb(hands),
            "threads": sum(process.num_threads() for process in everyone),
            "open files": open_files(everyone),
            "memory (MB)": round(memory_mb(everyone)[0], 1),
            "checkpoint (kB)": checkpoint_kb(job.run),
        }
    return found


def look(jobs: list[Running]) -> dict[str, dict[str, float | None]]:
    """Return the jobs' vitals; look again where a program that Spark had started ended meanwhile.

    Raises:
        StackError: a job has ended, or there is always such a program.
    """
    for _ in range(LOOKS):
        with suppress(psutil.NoSuchProcess):
            return vitals(jobs)
    raise StackError(f"a process of the jobs ended during each of {LOOKS} looks at them")


def open_files(processes: list[psutil.Process]) -> float | None:
    """Return how many files and sockets they have open; None where the kernel keeps that from us."""
    try:
        return float(sum(process.num_fds() for process in processes))
    except psutil.AccessDenied:
        return None


def judge(minutes: list[float], samples: list[dict[str, dict[str, float | None]]]) -> dict[str, dict[str, Any]]:
    """Return for each job's measure how it went on, and whether it grew (None: too soon to tell).

    Without figures it says why there are none.
    """
    head = int(HEAD_SHARE * len(samples))
    verdicts = {}
    for job, measure in itertools.product(samples[0], LIMITS):
        values = [value for sample in samples[head:] if (value := sample[job][measure]) is not None]
        if len(values) < len(samples) - head:
            verdicts[f"{job}: {measure}"] = {"missing": f"cannot be read on the {RUNNER} runner by this user"}
        else:
            verdict = measures.growth(minutes[head:], values, *LIMITS[measure])
            verdicts[f"{job}: {measure}"] = verdict if minutes[-1] >= LEAST_MINUTES else verdict | {"grows": None}
    return verdicts


def checked(bench: Bench, run: Run, starts: list[int], state: str) -> dict[str, Any]:
    """Return what was lost, doubled or wrong of a job's results, with the 95 % bound, and the latencies of the load.

    The first message came before the load, and waited for the job's start: that is told apart.
    """
    sent_ms, matched = contest.read_back(bench, run, starts)
    lost = matched.lost + matched.late  # what is not there after the drain is lost
    bad = lost + matched.wrong
    return {
        "sent": len(sent_ms),
        "state": state,
        "lost": lost,
        "duplicated": matched.duplicated,
        "wrong": matched.wrong,
        "error_bound": measures.upper_bound(bad, len(sent_ms)),
        "start": measures.percentiles(matched.latency_ms[:1])["max"],
        **measures.percentiles(matched.latency_ms[1:]),
    }


def soak(bench: Bench, minutes: float, rate: float, progress: Progress) -> dict[str, Any]:
    """Run the load and return samples, verdicts and what became of each message."""
    every_seconds = max(10.0, min(60.0, minutes))
    task = progress.add_task("start", total=minutes * 60)
    jobs: list[tuple[Contestant, Running, Generator, list[int]]] = []
    samples, at_minutes = [], []
    try:
        for (contestant,), node in zip((chosen([name], [workload]) for name, workload in JOBS), (51, 52), strict=True):
            run, starts = contest.prepare(bench, contestant, "latency", [node])
            generator = Generator(contestant.workload, BOOTSTRAP, [run.source], run.partitions)
            running = start(run)
            jobs.append((contestant, running, generator, starts))
            generator.send(0, 1)
            contest.wait_for_first(bench, running, starts)
        for _, _, generator, _ in jobs:
            generator.begin(rate, round(rate * 60 * minutes))
        begin = time.monotonic()
        progress.update(task, description="soak")
        while (elapsed := time.monotonic() - begin) < minutes * 60:
            time.sleep(min(every_seconds, minutes * 60 - elapsed))
            at_minutes.append((time.monotonic() - begin) / 60)
            samples.append(look([running for _, running, _, _ in jobs]))
            for _, _, generator, _ in jobs:
                generator.check()
            progress.update(task, completed=time.monotonic() - begin)
        sent = [generator.finish() for _, _, generator, _ in jobs]
        states = [contest.drain(bench, running, starts, generator.sent) for _, running, generator, starts in jobs]
    finally:
        stop(*(running for _, running, _, _ in jobs))
        for _, _, generator, _ in jobs:
            generator.close()
    results = {
        contestant.workload: load | checked(bench, running.run, starts, state)
        for (contestant, running, _, starts), load, state in zip(jobs, sent, states, strict=True)
    }
    return {"results": results, "minutes": at_minutes, "samples": samples, "verdicts": judge(at_minutes, samples)}


def tables(found: dict[str, Any]) -> list[Table]:
    """Return what is shown of a soak."""
    counted, timed = ("sent", "lost", "duplicated", "wrong"), ("start", "p50", "p95", "p99", "max")
    results = Table("messages", *counted, "error rate (95 %)", *(f"{name} (ms)" for name in timed))
    for workload, row in found["results"].items():
        counts = (f"{row[name]:,}" for name in counted)
        times = (f"{row[name]:,.0f}" if row[name] is not None else "-" for name in timed)
        results.add_row(workload, *counts, f"< {row['error_bound']:.2g}", *times)
    growth = Table("job", "first", "last", "a minute", "95 % interval", "grows")
    for name, row in found["verdicts"].items():
        if "missing" in row:
            growth.add_row(name, "-", "-", "-", row["missing"], "-")
            continue
        interval = f"{row['slope_low']:+.3g} to {row['slope_high']:+.3g}"
        shown = (f"{row['first']:g}", f"{row['last']:g}", f"{row['slope_per_minute']:+.3g}", interval)
        growth.add_row(name, *shown, {True: "yes", False: "no", None: "too soon to tell"}[row["grows"]])
    return [results, growth]


@click.command(help=command_help(__doc__), context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", type=click.FloatRange(1), default=60, show_default=True, envvar="MINUTES")
@click.option("--rate", type=click.FloatRange(1), default=1000, show_default=True, help="Messages a second, of each.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the results; else docs, of a whole hour.")
def main(minutes: float, rate: float, output: Path | None) -> None:
    """Run the soak; the exit code tells whether it was clean."""
    console = Console()
    contestants = [each for name, workload in JOBS for each in chosen([name], [workload])]
    about = {"machine": machine(), "versions": versions(contestants), "runner": RUNNER, "rate": rate}
    about |= {"planned_minutes": minutes, "started": datetime.now(UTC).isoformat(timespec="seconds")}
    folder = output or (ROOT / "docs" if minutes >= 60 else LOGS)
    folder.mkdir(parents=True, exist_ok=True)
    console.print(f"soak of {minutes:g} minutes at {rate:g} messages a second through each job, {RUNNER} runner")
    with standing(), closing(Topics(BOOTSTRAP)) as topics, Progress(console=console) as progress:
        topics.use_broker_time(MODEL_WEIGHTS)
        bench = Bench(PLANS["full"], topics, progress.console.print)
        found = soak(bench, minutes, rate, progress)
    (folder / "soak.json").write_text(json.dumps(about | found, indent=1) + "\n")
    report.show_wide(console, *tables(found))
    bad = [f"{workload}: {row['lost']} lost, {row['wrong']} wrong" for workload, row in found["results"].items()
           if row["lost"] or row["wrong"]]  # fmt: skip
    bad += [f"{name} grows" for name, row in found["verdicts"].items() if row.get("grows")]
    console.print(f"results: {folder}/soak.json")
    if bad:
        raise StackError("the soak was not clean: " + "; ".join(bad))


if __name__ == "__main__":
    main()
