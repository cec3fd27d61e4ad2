"""The results of the bench as tables: medians of the repetitions with their spread. No measuring here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from measures import median_and_spread, upper_bound
from plan import CONTESTANTS, PLANS, REFERENCE_RATE, SHARE_OF_MAXIMUM, WARM_UP_RATE, Contestant
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

PRINTED = {  # Table 4.1 of the course report: another machine, method not told
    "mean micro-batch (s)": "0.45",
    "p95 latency (ms)": "830",
    "maximum throughput (msg/s)": "112",
    "error rate": "0.02 %",
}
NO_VALUE = "-"
BASE = {"broker", "Python"}  # what all contestants have in common; the versions of the others stand beside their names
LEAST_LOOKS = 5  # at the memory, to tell whether it grows
SHARE = f"{SHARE_OF_MAXIMUM:.0%} of maximum"
Runs = list[dict[str, Any]]
Measured = dict[str, dict[str, Any]]  # the results of each workload


def taking_part(results: dict[str, Any], workload: str) -> Iterator[tuple[Contestant, Runs]]:
    """Yield each contestant of a workload that ran, with its runs."""
    for contestant in CONTESTANTS:
        wanted = (workload, contestant.name)
        runs = [run for run in results["runs"] if (run["workload"], run["contestant"]) == wanted]
        if contestant.workload == workload and runs:
            yield contestant, runs


def load_of(run: dict[str, Any], label: str) -> dict[str, Any]:
    """Return the section of a run's load, empty if the contestant did not come to it."""
    return next((load for load in run["loads"] if label_of(load) == label), {})


def label_of(load: dict[str, Any]) -> str:
    """Return what the tables call a load."""
    return SHARE if load["is_share"] else f"{load['wanted_per_second']:,.0f}"


REFERENCE = f"{REFERENCE_RATE:,.0f}"


def cell(values: list[float | None], form: str, scale: float = 1.0) -> str:
    """Return a median with its spread, `12.3 (11.9–14.0)`; only the value if there is one, - if there is none."""
    spread = median_and_spread([None if value is None else value * scale for value in values])
    if spread is None:
        return NO_VALUE
    if spread["n"] == 1:
        return format(spread["median"], form)
    return f"{spread['median']:{form}} ({spread['min']:{form}}–{spread['max']:{form}})"


def errors_of(runs: Runs) -> dict[str, int]:
    """Return what was checked, lost, duplicated and wrong over all runs, loads and back-logs."""
    parts = [part for run in runs for part in (run, run["catch_up"])]
    return {name: sum(part[name] for part in parts) for name in ("checked", "lost", "duplicated", "wrong")}


def error_cell(runs: Runs) -> str:
    """Return the error rate (lost and wrong) with its 95 % bound."""
    found = errors_of(runs)
    if not found["checked"]:
        return "-"
    bad = found["lost"] + found["wrong"]
    bound = upper_bound(bad, found["checked"])
    return f"{100 * bad / found['checked']:.3g} % ({bad} of {found['checked']:,}; < {100 * bound:.2g} %)"


def at_load(name: str, label: str) -> Callable[[dict[str, Any]], float | None]:
    """Return the function that takes a figure of a load from a run."""
    return lambda run: load_of(run, label).get(name)


def catching_up(name: str) -> Callable[[dict[str, Any]], float | None]:
    """Return the function that takes a figure of catching up from a run."""
    return lambda run: run["catch_up"][name]


# Title, figure of a run, format, scale: the report's Table 4.1 first, then what it leaves out.
ROWS: list[tuple[str, Callable[[dict[str, Any]], float | None], str, float]] = [
    ("mean micro-batch (s)", at_load("mean_batch_ms", REFERENCE), ".3f", 0.001),
    ("p95 latency (ms)", at_load("p95", REFERENCE), ",.0f", 1),
    ("maximum throughput (msg/s)", catching_up("per_second"), ",.0f", 1),
    ("p50 latency (ms)", at_load("p50", REFERENCE), ",.0f", 1),
    ("p99 latency (ms)", at_load("p99", REFERENCE), ",.0f", 1),
    ("max latency (ms)", at_load("max", REFERENCE), ",.0f", 1),
    ("CPU s per million, catching up", catching_up("cpu_seconds_per_million"), ".1f", 1),
    (f"CPU s per million, at {REFERENCE} msg/s", at_load("cpu_seconds_per_million", REFERENCE), ".1f", 1),
    ("peak memory (MB)", catching_up("memory_mb"), ",.0f", 1),
    ("start to first result (s)", lambda run: run["start_seconds"], ".1f", 1),
]
SHORT = {  # those that a terminal has room for
    "mean micro-batch (s)": "batch (s)",
    "p95 latency (ms)": "p95 (ms)",
    "maximum throughput (msg/s)": "most msg/s",
    "error rate": "errors",
    "p50 latency (ms)": "p50 (ms)",
    "p99 latency (ms)": "p99",
    "max latency (ms)": "max",
    "CPU s per million, catching up": "CPU s/M",
    "peak memory (MB)": "MB",
    "duplicates": "doubled",
}


def table(header: list[str], *rows: list[str]) -> list[str]:
    """Return a Markdown table; all columns but the first are aligned to the right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]


def report_cells(results: dict[str, Any], workload: str) -> list[list[str]]:
    """Return the report's Table 4.1 and what belongs to it, its header first, a column for each contestant."""
    columns = list(taking_part(results, workload))
    with_printed = workload == "squares"
    rows = [[title, *(cell([figure(run) for run in runs], form, scale) for _, runs in columns)]
            for title, figure, form, scale in ROWS]  # fmt: skip
    rows.insert(3, ["error rate", *(error_cell(runs) for _, runs in columns)])
    rows.append(["duplicates", *(f"{errors_of(runs)['duplicated']:,}" for _, runs in columns)])
    shown = [" + ".join(f"{name} {results['versions'][name]}" for name in each.packages) for each, _ in columns]
    rows.append(["version", *shown])
    header = [f"at {REFERENCE} msg/s", *(each.name for each, _ in columns)]
    if with_printed:
        header.insert(1, "report, as printed")
        rows = [[row[0], PRINTED.get(row[0], "-"), *row[1:]] for row in rows]
    return [header, *rows]


def report_table(results: dict[str, Any], workload: str) -> list[str]:
    """Return `report_cells` as Markdown."""
    return table(*report_cells(results, workload))


def load_table(results: dict[str, Any], workload: str) -> list[str]:
    """Return a line for each contestant and load."""
    rows = []
    for contestant, runs in taking_part(results, workload):
        labels = list(dict.fromkeys(label_of(load) for run in runs for load in run["loads"]))
        for label in labels:
            parts = [part for run in runs if (part := load_of(run, label))]
            states = {part["state"] for part in parts}
            rows.append([
                contestant.name,
                label,
                cell([part["reached_per_second"] for part in parts], ",.0f"),
                *(cell([part[name] for part in parts], ",.0f") for name in ("p50", "p95", "p99", "max")),
                cell([part["cpu_seconds_per_million"] for part in parts], ".1f"),
                cell([part["memory_mb"] for part in parts], ",.0f"),
                cell([part["mean_batch_ms"] for part in parts], ".3f", 0.001),
                "yes" if states == {"done"} else " and ".join(sorted(states - {"done"})),
            ])  # fmt: skip
    header = ["contestant", "load (msg/s)", "reached", "p50 (ms)", "p95", "p99", "max", "CPU s/million"]
    return table([*header, "memory (MB)", "mean batch (s)", "kept up"], *rows)


def interval_end(interval_seconds: float, edges: list[dict[str, Any]]) -> str:
    """Return what the end of an interval costs under the reference load of each run."""
    every = f"offsets are committed every {interval_seconds:g} s"
    share, most, p99 = (
        cell([edge.get(name) for edge in edges], form, scale)
        for name, form, scale in (("end_share", ".1f", 100), ("end_max", ",.0f", 1), ("p99_with_end", ",.0f", 1))
    )
    if share == NO_VALUE:
        return f"{every}; no load here lasts that long, so that none has to meet an interval's end"
    return (
        f"{every}. What this holds up stands apart at {REFERENCE} msg/s, the worst message of an interval and those of "
        f"twice its wait behind it: {share} % of the load, the longest wait {most} ms; p99 with them {p99} ms"
    )


def remarks(results: dict[str, Any], workload: str) -> list[str]:
    """Return what a reader has to know: the ceiling, boundaries, notes, and why a figure is missing."""
    lines = []
    ceilings = [entry["per_second"] for entry in results["ceiling"] if entry["workload"] == workload]
    lines.append(f"- Ceiling, Kafka's own ConsumerPerformance on the same back-log: {cell(ceilings, ',.0f')} msg/s.")
    warm = {contestant.name: runs[0]["warm_up_seconds"] for contestant, runs in taking_part(results, workload)}
    shown = ", ".join(f"{name} {seconds:g} s" for name, seconds in warm.items())
    lines.append(f"- Warm-up at {WARM_UP_RATE:,.0f} msg/s before the loads: {shown}.")
    for contestant, runs in taking_part(results, workload):
        first, name = runs[0], contestant.name
        edges = [load_of(run, REFERENCE) for run in runs]
        if contestant.interval_seconds:
            lines.append(f"- {name}: {interval_end(contestant.interval_seconds, edges)}.")
        if contestant.note:
            lines.append(f"- {name}: {contestant.note}.")
        if contestant.kind in ("python", "java") or contestant.interval_seconds:
            lines.append(f"- {name}: no mean batch, since it does not work in micro-batches.")
        elif load_of(first, REFERENCE).get("mean_batch_ms") is None:
            lines.append(f"- {name}: no mean batch, since its driver's page told of none.")
        if first["catch_up"]["per_second"] is None:
            lines.append(f"- {name}: no throughput, since all results came at one time.")
        if first["catch_up"]["cpu_seconds_per_million"] is None:
            lines.append(f"- {name}: no CPU time of catching up, since most was done at the first look.")
        looks = first["catch_up"].get("memory_looks_mb", [])
        if contestant.kind == "job" and len(looks) >= LEAST_LOOKS:
            shown = ", ".join(f"{megabytes:,.0f}" for megabytes in looks)
            lines.append(f"- {name}: memory while catching up, looked at every 3 s: {shown} MB.")
        if not first["catch_up"]["complete"]:
            lines.append(f"- {name}: did not end the back-log in the time given; the rate is that of what it did.")
    return [*lines, ""]


ABOUT = (
    "Latency is event time: from the broker's LogAppendTime of the input to that of the output, in whole milliseconds, "
    "time in queues included; the load's schedule is open. The mean batch is processing time, by Spark's own account. "
    "CPU and memory (PSS) are those of all processes of a contestant, executors and Python workers included, without "
    "broker and load generator. Loads on 1 partition, catching up on 2. Cells with a range are median (least–greatest) "
    f"of the repetitions. A load of {SHARE} is at most {PLANS['full'].most_rate:,.0f} a second: its generator shares "
    "the cores. Error rate: lost and wrong results, with the 95 % upper bound."
)


def conditions(results: dict[str, Any]) -> str:
    """Return in one line when, how and on what the results of a workload were measured."""
    machine = results["machine"]
    base = ", ".join(f"{name} {results['versions'][name]}" for name in sorted(set(results["versions"]) & BASE))
    begun = ", resumed ".join([results["started"], *results.get("resumed", [])])
    return (
        f"Plan {results['plan']}, {results['runner']} runner, {begun}: {machine['cores']} cores of "
        f"{machine['processor']}, {machine['memory_gb']} GB, {machine['system']}; {base}."
    )


def markdown(measured: Measured) -> str:
    """Return the tables of all workloads as Markdown."""
    lines = [ABOUT, ""]
    for workload in measured:
        results = measured[workload]
        lines += [f"### {workload.capitalize()}", "", conditions(results), "", *report_table(results, workload)]
        lines += [*load_table(results, workload), *remarks(results, workload)]
    return "\n".join(lines)


def short_table(results: dict[str, Any], workload: str) -> Table:
    """Return the report's table for a terminal: a line for each contestant, with medians and rates alone."""
    header, *rows = report_cells(results, workload)
    title = f"{workload.capitalize()} {header[0]}; most msg/s, CPU and memory (MB) while catching up"
    shown = Table(title=title, title_justify="left", box=SIMPLE)
    shown.add_column("")
    for short in SHORT.values():
        shown.add_column(short, justify="right", no_wrap=True)
    cells = {title: [text.partition(" (")[0] for text in texts] for title, *texts in rows}
    for name, *line in zip(header[1:], *(cells[title] for title in SHORT), strict=True):
        shown.add_row(name, *line)
    return shown


def show(measured: Measured, console: Console) -> None:
    """Print each workload's table in short, and with which versions it was made."""
    for workload, results in measured.items():
        show_wide(console, short_table(results, workload))
        packages = ", ".join(f"{name} {results['versions'][name]}" for name in sorted(set(results["versions"]) - BASE))
        console.print(f"{conditions(results)} {packages}.", highlight=False, soft_wrap=True)


def show_wide(console: Console, *tables: Table) -> None:
    """Print tables with room for all their columns, also where the console is narrow or its width is not known."""
    Console(width=max(console.width, 120)).print(*tables)


def headline(run: dict[str, Any]) -> str:
    """Return a run in one line."""
    load, rate = load_of(run, REFERENCE), run["catch_up"]["per_second"]
    latency = f"p50 {load['p50']:.0f}, p95 {load['p95']:.0f} ms" if load.get("p95") is not None else "no latency"
    shown = f"{rate:,.0f} msg/s" if rate else "-"
    bad = {name: run[name] + run["catch_up"][name] for name in ("lost", "duplicated", "wrong")}
    return f"{run['repetition']}: {run['workload']} by {run['contestant']}: {latency} at {REFERENCE}; {shown}; {bad}"
