"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from fedstream.learning.scores import MEASURES
from fedstream.messages.weights import GlobalWeight

WIDTH = 110


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


def round_table(message: Mapping[str, Any]) -> str:
    """Return the table of a closed round, from the global model that came out of it.

    The scores are prequential: those of the model the round started from, on readings it had not been trained on.
    """
    if "metrics" not in message:
        return f"Ronde {message['round']} ouverte : modèle {message['model']}, version {message['version']}\n"
    title = f"Ronde {message['round'] - 1} : version {message['base_version']} -> {message['version']}"
    table = Table("noeud", title=title if "failed" not in message else f"{title} ({message['failed']})")
    for heading in ("exemples", "perte", "exactitude", "F1", "rappel", "fausses alarmes"):
        table.add_column(heading, justify="right")
    scores = {**message["node_metrics"], "global": message["metrics"]}
    for node, score in scores.items():
        table.add_row(
            node,
            str(score["num_examples"]),
            *(f"{score[name]:.4f}" for name in MEASURES),
            end_section=node == list(scores)[-2] if len(scores) > 1 else False,
        )
    table.caption = ", ".join(unusual_counts(message["counts"])) or None
    console = Console(width=WIDTH, highlight=False, color_system=None, markup=False)  # a name may have brackets
    with console.capture() as capture:
        console.print(table)
    return capture.get()
