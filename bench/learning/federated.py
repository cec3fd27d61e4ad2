"""How well the federation learns: beside one machine with all rows, under attack, with nodes that are slow or silent.

Simulated sections are those of scenarios.toml, by the cloud's own code and with every message through its JSON form;
streamed parts run on a real stack, which this starts. Accuracy is that on held-out rows (25 %, stratified): mean and
standard deviation over the seeds; a seed is also another split. What is measured goes into federated.json under its
section's name, so that one section can be measured anew.

Examples:
    make federated                              (all of it, on the chosen runner: about an hour)
    make federated ARGS="--offline --only attacks --only scaling"
    make federated ARGS=--stream                (about 15 minutes)
    make federated ARGS="--stream --part mlp"
"""

from __future__ import annotations

import json
import os
import statistics
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from bench.lab.jobs import Command
from bench.lab.machine import RESULTS, about, conditions, save
from bench.lab.stack import RUNNER
from bench.lab.tables import print_wide
from bench.learning import report, streamed
from bench.learning.project import simulated

SECTIONS: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_name("scenarios.toml").read_text())
PRESETS = SECTIONS.pop("presets")
FIRST_SEED = 11
PACKAGES = ("flwr", "numpy", "scikit-learn")


def scenarios(section: Mapping[str, Any]) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """Yield the choices, by the names of what varies, and the keys of each scenario of a section."""
    axes = [
        choices.items() if isinstance(choices, dict) else [(str(value), {name: value}) for value in choices]
        for name, choices in section["vary"].items()
    ]
    for picked in product(*axes):
        given: dict[str, Any] = {}
        for part in (section["fixed"], *(keys for _, keys in picked)):
            given |= PRESETS[part["like"]] if "like" in part else {}
            given |= {name: value for name, value in part.items() if name != "like"}
        yield dict(zip(section["vary"], (name for name, _ in picked), strict=True)), given


def spread_of(values: Iterable[float]) -> dict[str, float]:
    """Return mean and standard deviation over the seeds, and the extremes."""
    found = list(values)
    deviation = statistics.stdev(found) if len(found) > 1 else 0.0
    return {"mean": statistics.fmean(found), "std": deviation, "min": min(found), "max": max(found)}


def run(pool: Executor, given: dict[str, Any]) -> dict[str, Any]:
    """Simulate with every seed; return what the tables and the picture need, with all that was set."""
    seeds = [FIRST_SEED + number for number in range(given.pop("seeds", 3))]
    results = list(pool.map(partial(simulated, given), seeds))
    entry: dict[str, Any] = {"given": given, "seeds": seeds}
    entry |= {name: spread_of(result["final"]["test"][name] for result in results) for name in ("accuracy", "f1")}
    for name in ("centralised", "local_only") if given.get("baselines") else ():
        entry[name] = spread_of(result["baselines"][name]["accuracy"] for result in results)
    counts = [result["final"]["counts"] for result in results]
    entry["counts"] = {kind: sum(each[kind] for each in counts) for kind in counts[0]}
    entry["virtual_seconds"] = spread_of(result["final"]["virtual_seconds"] for result in results)
    entry["seconds"] = statistics.fmean(result["seconds"] for result in results)
    return entry


def keep(path: Path, key: str, section: dict[str, Any]) -> None:
    """Put a section beside what was measured before."""
    results = json.loads(path.read_text()) if path.exists() else {}
    save(path, results | {key: results.get(key, {}) | section})


@click.command(cls=Command, help=__doc__)
@click.option("--offline", is_flag=True, help="Only what needs no Kafka and no Spark.")
@click.option("--stream", is_flag=True, help="Only what runs on a real stack, which this starts on the runner STACK.")
@click.option("--part", "parts", multiple=True, type=click.Choice(list(streamed.PARTS)), help="Of --stream: this only.")
@click.option("--only", multiple=True, type=click.Choice(list(SECTIONS)), help="Of --offline: this only.")
@click.option("--output", default=RESULTS, type=click.Path(path_type=Path), help="Folder.  [default: bench/results]")
def main(offline: bool, stream: bool, parts: tuple[str, ...], only: tuple[str, ...], output: Path) -> None:
    """Measure, print a table of each section, and keep the results."""
    console = Console()
    made_with = about(PACKAGES)
    output.mkdir(parents=True, exist_ok=True)
    path = output / "federated.json"
    for part in (parts or streamed.PARTS) if stream or not offline else ():
        console.print(f"{part}, on a stack of its own")
        measured = {part: streamed.measure(part)}
        keep(path, f"streamed {RUNNER}", measured | {"about": made_with})
        print_wide(console, *report.streamed_tables(measured))
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for key in (only or SECTIONS) if offline or not stream else ():
            section = SECTIONS[key]
            entries = {}
            for choices, given in scenarios(section):
                name = " ".join(choices.values())
                console.print(f"{key}: {name}", highlight=False)
                entries[name] = {"choices": choices} | run(pool, given)
            keep(path, key, entries | {"about": made_with})
            print_wide(console, report.section_table(section["title"], entries))
    console.print(conditions(made_with), f"results: {path}", sep="\n", highlight=False)


if __name__ == "__main__":
    main()
