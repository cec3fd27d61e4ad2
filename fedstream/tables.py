"""Tables for the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from fedstream.learning.scores import MEASURES, measures
from fedstream.messages.rounds import Event, GlobalModel
from fedstream.messages.topics import GLOBAL_MODEL
from fedstream.messages.weights import GlobalWeight

WIDTH = 110
HEADINGS = [measure.heading for measure in MEASURES]


def make_console() -> Console:
    """Return the console of standard output; without a terminal its width is the same everywhere."""
    # A name may have brackets and colons.
    return Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else WIDTH)


def make_table(title: str, *headings: str) -> Table:
    """Return an empty table; numbers stand on the right."""
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        is_text = heading in ("node", "strategy", "array", "mark", "")
        # In a narrow terminal a heading may break, a number may not.
        width = 6 if heading in HEADINGS else None
        table.add_column(
            heading, justify="left" if is_text else "right", min_width=width, no_wrap=heading == "mark", overflow="fold"
        )
    return table


def of_class(classes: int, positive: str = "label 1 (trouble)") -> str:
    """Return which class a measure such as F1 speaks of.

    Example:
        >>> of_class(2), of_class(3)
        ('of label 1 (trouble)', 'mean over the 3 classes')
    """
    return f"of {positive}" if classes == 2 else f"mean over the {classes} classes"


def positive_note(classes: int, positive: str = "label 1 (trouble)") -> str:
    """Return the line of a table of measures that tells which class they speak of."""
    return f"F1, recall, false alarms: {of_class(classes, positive)}"


def traffic_line(readings: int, updates: int, models: int) -> str:
    """Return what learning at the nodes saves: the bytes of readings that stay there, and of what is sent instead."""
    sent = f"{decimal(updates)} of updates and {decimal(models)} of models"
    share = 100 * (updates + models) / max(readings, 1)
    return f"readings that stay at the nodes: {decimal(readings)}; sent instead: {sent} ({share:.0f} %)"


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return the examples and measures of a row as texts."""
    return ["-" if row["num_examples"] is None else str(row["num_examples"]), *fractions(row, "-")]


def fractions(row: Mapping[str, Any], missing: str = "") -> list[str]:
    """Return the measures of a row as texts."""
    return [missing if row[measure.name] is None else f"{row[measure.name]:.4f}" for measure in MEASURES]


def console_table(batch_id: int, model: GlobalWeight | None) -> str:
    """Return the table that Spark's console sink prints for a micro-batch, as in the report."""
    cell = repr(model.global_weight) if model else "NULL"
    width = max(len(cell), len("global_weight"))
    rule = "+" + "-" * width + "+"
    heading = (
        f"-------------------------------------------\nBatch: {batch_id}\n-------------------------------------------"
    )
    return f"{heading}\n{rule}\n|{'global_weight':<{width}}|\n{rule}\n|{cell:<{width}}|\n{rule}\n"


def unusual_counts(counts: Mapping[str, int]) -> list[str]:
    """Return what beside accepted updates a round has had: late: 1, missing: 2."""
    return [f"{kind}: {count}" for kind, count in counts.items() if count and kind != "accepted"]


def round_table(model: GlobalModel) -> str:
    """Return the table of a closed round, from the global model that came out of it.

    The scores are prequential: those of the model the round started from, on readings it had not been trained on.
    """
    if model.metrics is None:
        return f"Ronde {model.round} ouverte : modèle {model.model}, version {model.version}\n"
    title = f"Ronde {model.round - 1} : version {model.base_version} -> {model.version}"
    table = Table("noeud", title=f"{title} ({model.failed})" if model.failed else title)
    for heading in ("exemples", *(measure.french for measure in MEASURES)):
        table.add_column(heading, justify="right")
    scores = [*model.node_metrics.items(), ("global", model.metrics)]
    for place, (node, score) in enumerate(scores):
        table.add_row(node, *cells(measures(score)), end_section=place == len(scores) - 2)
    classes = len(model.metrics.confusion)
    whose = "de la classe 1 (panne)" if classes == 2 else f"moyenne des {classes} classes"
    table.caption = "\n".join([f"F1, rappel, fausses alarmes : {whose}", *unusual_counts(model.counts)])
    console = Console(width=WIDTH, highlight=False, color_system=None, markup=False, emoji=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def told(topic: str, message: object) -> str:
    """Return what the cloud's console says of a message that is to be sent, an empty text of most."""
    if isinstance(message, Event):
        return f"Cloud -> {message.kind} : {message.node_id or ''} {message.detail}"
    return round_table(message) if topic == GLOBAL_MODEL and isinstance(message, GlobalModel) else ""
