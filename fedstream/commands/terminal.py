"""What the commands share: options and tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from fedstream.commands.registry import METRICS, Message
from fedstream.tables import WIDTH

MEASURES = {"loss": "loss", "accuracy": "accuracy", "f1": "F1", "recall": "recall", "false_alarm_rate": "false alarms"}

run_option = click.option("--run", "run_id", help="The run's name.  [default: the newest run]")
metric_option = click.option(
    "--metric", default="f1", show_default=True, type=click.Choice(METRICS), help="What the best version is best in."
)
json_option = click.option("--json", "is_json", is_flag=True, help="Print JSON, for scripts.")


def make_console() -> Console:
    """Return the console of standard output; without a terminal its width is the same everywhere."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


def make_table(title: str, *headings: str) -> Table:
    """Return an empty table; numbers stand on the right."""
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        is_text = heading in ("node", "strategy", "array", "mark", "")
        # In a narrow terminal a heading may break, a number may not.
        width = 6 if heading in MEASURES.values() else None
        table.add_column(
            heading, justify="left" if is_text else "right", min_width=width, no_wrap=heading == "mark", overflow="fold"
        )
    return table


def measures(score: Mapping[str, Any] | None) -> Message:
    """Return the examples and measures of a score's dict, all None where there is no score."""
    return {name: score[name] if score else None for name in ("num_examples", *MEASURES)}


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return the examples and measures of a row as texts."""
    numbers = (None if row[name] is None else f"{row[name]:.4f}" for name in MEASURES)
    return [number or "-" for number in (row["num_examples"] and str(row["num_examples"]), *numbers)]
