"""An hour under steady load: is anything lost, doubled or wrong, and does anything grow?

Numbers through the squares over Kafka and readings through a fog node, on a stack of its own. Each result is checked.
Once a minute (oftener in a short run) threads, open files, memory and checkpoint folder of both jobs are looked at. The
exit code is not 0 if a result is lost or wrong, or if something grows; growth is judged from ten minutes on. Real-time
mode's sink is at-least-once: duplicates are counted, and are no failure.

Examples:
    make soak MINUTES=60
    make soak MINUTES=5 ARGS="--rate 200"
    make soak MINUTES=60 STACK=docker
"""

from __future__ import annotations

import itertools
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import click
import psutil
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.lab import measures
from bench.lab.jobs import MODEL_WEIGHTS, Command
from bench.lab.load import Generator
from bench.lab.machine import about, conditions, file_for, save
from bench.lab.processes import executors, memory_mb, with_descendants
from bench.lab.stack import BOOTSTRAP, DATA, PORTS, RUNNER, StackError, execute, inside, standing
from bench.lab.tables import print_wide, table
from bench.lab.topics import Topics
from bench.rivals import contest
from bench.rivals.contest import Bench
from bench.rivals.plan import PLANS, chosen
from bench.rivals.start import Run, Running, start, stop

JOBS = (("real-time", "squares"), ("fog node", "weights"))
LOOKS = 5
HEAD_SHARE = 0.2  # of the samples: caches and heaps still fill
LEAST_MINUTES = 10.0  # to judge growth: until then pools of threads still fill
# What a whole run may add, in the measure's own unit, and as a share of its median.
LIMITS = {
    "threads": (5.0, 0.0),
    "open files": (10.0, 0.0),
    "memory (MB)": (50.0, 0.1),
    "checkpoint (kB)": (200.0, 0.1),
}
Look = dict[str, dict[str, float | None]]  # of each job, by its name: its measures


def checkpoint_kb(started: Run) -> float:
    """Return the size of a job's checkpoint folder in kB; raises StackError if there is none."""
    folder = f"{DATA}/bench/{started.name}"
    printed = execute(*inside("bash", "-c", f"du -sk {folder} || [[ -d {folder} ]]"))  # a file may go meanwhile
    return float(printed.split()[0])


def open_files(processes: list[psutil.Process]) -> float | None:
    """Return how many files and sockets they have open; None where the kernel keeps that from us."""
    try:
        return float(sum(process.num_fds() for process in processes))
    except psutil.AccessDenied:
        return None


def application(process: psutil.Process) -> str:
    """Return the id of the application that an executor works for; ids rise in the order in which jobs were started."""
    words = process.cmdline()
    return words[words.index("--app-id") + 1] if "--app-id" in words else ""


def look(jobs: list[Running]) -> Look:
    """Return the measures of each job; the jobs stand in the order in which they were started."""
    workers = sorted(executors(PORTS["SPARK_MASTER_PORT"]), key=application)
    of_jobs = (list(group) for _, group in itertools.groupby(workers, application))
    found = {}
    for job, own in zip(jobs, of_jobs, strict=True):
        everyone = with_descendants([*job.roots()[:1], *own])
        found[job.run.contestant.name] = {
            "threads": sum(process.num_threads() for process in everyone),
            "open files": open_files(everyone),
            "memory (MB)": round(memory_mb(everyone), 1),
            "checkpoint (kB)": checkpoint_kb(job.run),
        }
    return found


def look_again(jobs: list[Running]) -> Look:
    """Return the measures of each job; look again where a program that Spark had started ended meanwhile.

    Raises:
        StackError: there is always such a program.
    """
    for _ in range(LOOKS):
        with suppress(psutil.NoSuchProcess):
            return look(jobs)
    raise StackError(f"a process of the jobs ended during each of {LOOKS} looks at them")


def judge(minutes: list[float], samples: list[Look]) -> dict[str, dict[str, Any]]:
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


def checked(bench: Bench, started: Run, starts: list[int], state: str) -> dict[str, Any]:
    """Return what was lost, doubled or wrong of a job's results, with the 95 % bound, and the latencies of the load.

    The first message came before the load, and waited for the job's start: that is told apart.
    """
    sent_ms, matched = contest.read_back(bench, started, starts)
    lost = matched.lost + matched.late  # what is not there after the drain is lost
    return {
        "sent": len(sent_ms),
        "state": state,
        "lost": lost,
        "duplicated": matched.duplicated,
        "wrong": matched.wrong,
        "error_bound": measures.upper_bound(lost + matched.wrong, len(sent_ms)),
        "start": measures.percentiles(matched.latency_ms[:1])["max"],
        **measures.percentiles(matched.latency_ms[1:]),
    }


def soak(bench: Bench, minutes: float, rate: float, progress: Progress) -> dict[str, Any]:
    """Run the load and return samples, verdicts and what became of each message."""
    every_seconds = max(10.0, min(60.0, minutes))
    task = progress.add_task("start", total=minutes * 60)
    jobs: list[tuple[Running, Generator, list[int]]] = []
    samples, at_minutes = [], []
    try:
        for (name, workload), node in zip(JOBS, (51, 52), strict=True):
            planned, starts = contest.prepare(bench, chosen([name], [workload])[0], "latency", node)
            generator = Generator(workload, BOOTSTRAP, [planned.source], planned.partitions)
            jobs.append((start(planned), generator, starts))
            generator.send(0, 1)
            contest.wait_for_first(bench, jobs[-1][0], starts)
        for _, generator, _ in jobs:
            generator.begin(rate, round(rate * 60 * minutes))
        begin = time.monotonic()
        progress.update(task, description="soak")
        while (elapsed := time.monotonic() - begin) < minutes * 60:
            time.sleep(min(every_seconds, minutes * 60 - elapsed))
            at_minutes.append((time.monotonic() - begin) / 60)
            samples.append(look_again([running for running, _, _ in jobs]))
            for _, generator, _ in jobs:
                generator.check()
            progress.update(task, completed=time.monotonic() - begin)
        sent = [generator.finish() for _, generator, _ in jobs]
        states = [contest.drain(bench, running, starts, generator.sent) for running, generator, starts in jobs]
    finally:
        stop(*(running for running, _, _ in jobs))
        for _, generator, _ in jobs:
            generator.close()
    results = {
        running.run.contestant.workload: load | checked(bench, running.run, starts, state)
        for (running, _, starts), load, state in zip(jobs, sent, states, strict=True)
    }
    return {"results": results, "minutes": at_minutes, "samples": samples, "verdicts": judge(at_minutes, samples)}


def tables(found: dict[str, Any]) -> list[Table]:
    """Return what is shown of a soak."""
    counted, timed = ("sent", "lost", "duplicated", "wrong"), ("start", "p50", "p95", "p99", "max")
    results, growth = [], []
    for workload, row in found["results"].items():
        times = (f"{row[name]:,.0f}" if row[name] is not None else "-" for name in timed)
        results.append([workload, *(f"{row[name]:,}" for name in counted), f"< {row['error_bound']:.2g}", *times])
    for name, row in found["verdicts"].items():
        if "missing" in row:
            growth.append([name, "-", "-", "-", row["missing"], "-"])
            continue
        interval = f"{row['slope_low']:+.3g} to {row['slope_high']:+.3g}"
        shown = (f"{row['first']:g}", f"{row['last']:g}", f"{row['slope_per_minute']:+.3g}", interval)
        growth.append([name, *shown, {True: "yes", False: "no", None: "too soon to tell"}[row["grows"]]])
    headings = [*counted, "error rate (95 %)", *(f"{name} (ms)" for name in timed)]
    return [
        table("Messages", ["", *headings], results),
        table("Growth", ["", "first", "last", "a minute", "95 % interval", "grows"], growth),
    ]


@click.command(cls=Command, help=__doc__)
@click.option("--minutes", type=click.FloatRange(1), default=60, show_default=True, envvar="MINUTES")
@click.option("--rate", type=click.FloatRange(1), default=1000, show_default=True, help="Messages a second, of each.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the results.")
def main(minutes: float, rate: float, output: Path | None) -> None:
    """Run the soak; the exit code tells whether it was clean."""
    console = Console()
    results = about(["spark"]) | {"rate": rate, "planned_minutes": minutes}
    path = file_for("soak", output, is_whole=minutes >= 60)
    console.print(f"soak of {minutes:g} minutes at {rate:g} messages a second through each job, {RUNNER} runner")
    with standing(), closing(Topics(BOOTSTRAP)) as topics, Progress(console=console) as progress:
        topics.use_broker_time(MODEL_WEIGHTS)
        found = soak(Bench(PLANS["full"], topics), minutes, rate, progress)
    save(path, results | found)
    print_wide(console, *tables(found))
    bad = [f"{workload}: {row['lost']} lost, {row['wrong']} wrong" for workload, row in found["results"].items()
           if row["lost"] or row["wrong"]]  # fmt: skip
    bad += [f"{name} grows" for name, row in found["verdicts"].items() if row.get("grows")]
    console.print(conditions(results), f"results: {path}", sep="\n", highlight=False)
    if bad:
        raise StackError("the soak was not clean: " + "; ".join(bad))


if __name__ == "__main__":
    main()
