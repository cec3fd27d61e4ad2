"""The results of the bench as tables: medians of the repetitions. No measuring here."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.lab.machine import conditions
from bench.lab.tables import print_wide, table
from bench.rivals.plan import CONTESTANTS, RATE, Contestant

# Table 4.1 of the course report, on another machine; how it was measured is not told.
PRINTED = {"batch (s)": "0.45", "p95 (ms)": "830", "most msg/s": "112", "errors": "0.02 %"}
NO_VALUE = "-"
Runs = list[dict[str, Any]]
Measured = dict[str, dict[str, Any]]  # the results of each workload


def taking_part(results: dict[str, Any], workload: str) -> Iterator[tuple[Contestant, Runs]]:
    """Yield each contestant of a workload that ran, with its runs."""
    for contestant in CONTESTANTS:
        wanted = (workload, contestant.name)
        runs = [run for run in results["runs"] if (run["workload"], run["contestant"]) == wanted]
        if contestant.workload == workload and runs:
            yield contestant, runs


def cell(values: list[float | None], form: str, scale: float = 1.0) -> str:
    """Return the median of the repetitions, - if none has a value."""
    known = [value * scale for value in values if value is not None]
    return format(statistics.median(known), form) if known else NO_VALUE


def errors_of(runs: Runs) -> dict[str, int]:
    """Return what was checked, lost, duplicated and wrong over all runs, loads and back-logs."""
    parts = [part for run in runs for part in (run, run["catch_up"])]
    return {name: sum(part[name] for part in parts) for name in ("checked", "lost", "duplicated", "wrong")}


def at_load(name: str) -> Callable[[dict[str, Any]], float | None]:
    """Return the function that takes a figure of the steady load from a run."""
    return lambda run: run["load"][name]


def catching_up(name: str) -> Callable[[dict[str, Any]], float | None]:
    """Return the function that takes a figure of catching up from a run."""
    return lambda run: run["catch_up"][name]


# Title, figure of a run, format, scale: the report's Table 4.1 first, then what it leaves out.
FIGURES: list[tuple[str, Callable[[dict[str, Any]], float | None], str, float]] = [
    ("batch (s)", at_load("mean_batch_ms"), ".3f", 0.001),
    ("p95 (ms)", at_load("p95"), ",.0f", 1),
    ("most msg/s", catching_up("per_second"), ",.0f", 1),
    ("p50 (ms)", at_load("p50"), ",.0f", 1),
    ("p99", at_load("p99"), ",.0f", 1),
    ("max", at_load("max"), ",.0f", 1),
    ("CPU s/M", catching_up("cpu_seconds_per_million"), ".1f", 1),
    ("MB", catching_up("memory_mb"), ",.0f", 1),
    ("start (s)", lambda run: run["start_seconds"], ".1f", 1),
]


def figures(runs: Runs) -> dict[str, str]:
    """Return the cells of a contestant by their headings."""
    cells = {title: cell([figure(run) for run in runs], form, scale) for title, figure, form, scale in FIGURES}
    found = errors_of(runs)
    errors = f"{100 * (found['lost'] + found['wrong']) / found['checked']:.2g} %" if found["checked"] else NO_VALUE
    return cells | {"errors": errors, "checked": f"{found['checked']:,}", "doubled": f"{found['duplicated']:,}"}


def report_table(results: dict[str, Any], workload: str) -> Table:
    """Return the report's Table 4.1 and what belongs to it, a line for each contestant."""
    rows = [(contestant.name, figures(runs)) for contestant, runs in taking_part(results, workload)]
    if workload == "squares":
        rows.insert(0, ("the report, as printed", PRINTED))
    headings = [*PRINTED, *(title for title, *_ in FIGURES if title not in PRINTED), "checked", "doubled"]
    title = f"{workload.capitalize()} at {RATE:,.0f} msg/s; most msg/s, CPU and memory while catching up"
    lines = [[name, *(cells.get(heading, NO_VALUE) for heading in headings)] for name, cells in rows]
    return table(title, ["", *headings], lines)


def remarks(results: dict[str, Any], workload: str) -> list[str]:
    """Return what a reader has to know: the ceiling, notes, and why a figure is missing."""
    lines = [f"Kafka's own ConsumerPerformance read the same back-log at {cell(results['ceiling'], ',.0f')} msg/s."]
    warm = {contestant.name: runs[0]["warm_up_seconds"] for contestant, runs in taking_part(results, workload)}
    shown = ", ".join(f"{name} {seconds:g} s" for name, seconds in warm.items())
    lines.append(f"Warm-up at {RATE:,.0f} msg/s before the load: {shown}.")
    for contestant, runs in taking_part(results, workload):
        first, name = runs[0], contestant.name
        if contestant.note:
            lines.append(f"{name}: {contestant.note}.")
        if first["catch_up"]["per_second"] is None:
            lines.append(f"{name}: no throughput, since all results came at one time.")
        if any(run["load"]["state"] != "done" for run in runs):
            lines.append(f"{name}: did not keep up with the load.")
        if not first["catch_up"]["complete"]:
            lines.append(f"{name}: did not end the back-log in the time given; the rate is that of what it did.")
    return lines


ABOUT = (
    "Latency: from the broker's LogAppendTime of the input to that of the output, whole milliseconds, time in queues "
    "included. Batch: processing time of a micro-batch by Spark's own account. CPU and memory (PSS): all processes of "
    "a contestant, without broker and load generator. One partition, catching up two. Medians of the "
    "repetitions. Errors: lost or wrong results of those checked."
)


def show(measured: Measured, console: Console) -> None:
    """Print each workload's tables and what a reader has to know of them, as wide as they need."""
    for workload, results in measured.items():
        print_wide(console, report_table(results, workload))
        console.print(*remarks(results, workload), conditions(results), "", sep="\n", highlight=False, soft_wrap=True)
    console.print(ABOUT, highlight=False)


def headline(run: dict[str, Any]) -> str:
    """Return a run in one line."""
    load, rate = run["load"], run["catch_up"]["per_second"]
    latency = f"p50 {load['p50']:.0f}, p95 {load['p95']:.0f} ms" if load["p95"] is not None else "no latency"
    found = errors_of([run])
    bad = ", ".join(f"{found[name]} {name}" for name in ("lost", "duplicated", "wrong"))
    speed = f"{rate:,.0f} msg/s catching up" if rate else "no throughput"
    return f"{run['repetition']}: {run['workload']} by {run['contestant']}: {latency}; {speed}; {bad}"
