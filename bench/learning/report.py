"""Tables of what was learned. No measuring here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from bench.lab.tables import table

BASELINES = {"centralised": "one machine", "local_only": "each node alone"}
F1_OF = "Two nodes on the real stack; F1 on 5,000 readings that no node has seen"
WAIT_FOR = "From a reading to the first global model that learned from it, two nodes (s)"


def section_table(title: str, entries: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a line for each scenario of a section: its choices, scores, and what became of its updates."""
    first = next(iter(entries.values()))
    baselines = [name for name in BASELINES if name in first]
    rows = []
    for entry in entries.values():
        cells = [value(entry[name]) for name in ("accuracy", "f1", *baselines)]
        if baselines:
            cells.append(f"{100 * (entry['accuracy']['mean'] - entry['centralised']['mean']):+.2f}")
        others = ", ".join(f"{count} {kind}" for kind, count in entry["counts"].items() if count and kind != "accepted")
        cells += [f"{entry['virtual_seconds']['mean']:.0f}", f"{entry['seconds']:.1f}", others or "-"]
        rows.append([*entry["choices"].values(), *cells])
    compared = [*(BASELINES[name] for name in baselines), *(["points to it"] if baselines else [])]
    headings = ["accuracy", "F1", *compared, "virtual s", "s", "updates not taken"]
    return table(title, [*first["choices"], *headings], rows, texts=len(first["choices"]))


def value(figures: Mapping[str, float]) -> str:
    """Return mean and deviation."""
    return f"{figures['mean']:.4f} ± {figures['std']:.4f}"


def streamed_tables(section: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Return the tables of what was measured on a real stack."""
    learned, waited = [], []
    for name, entry in section.items():
        if "f1" in entry:
            points = f"{100 * (entry['f1'] - entry['centralised_f1']):+.2f}"
            scores = [f"{entry['f1']:.4f}", f"{entry['centralised_f1']:.4f}", points]
            learned.append([name, str(entry["rounds"]), f"{entry['readings']:,}", *scores])
        elif "p50_ms" in entry:
            times = [f"{entry[name] / 1000:.2f}" for name in ("p50_ms", "p95_ms", "max_ms")]
            lost = f"{entry['in_late_updates']} of {entry['readings'] + entry['in_late_updates']}"
            waited.append([f"{entry['readings_per_second_and_node']:g}", *times, lost])
    found = table(F1_OF, ["model", "rounds", "readings", "federated F1", "one machine", "points to it"], learned)
    waiting = table(WAIT_FOR, ["readings a second of each", "p50", "p95", "max", "in late updates"], waited)
    return [each for each in (found, waiting) if each.row_count]
