"""The command that writes the rounds of a run to a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from fedstream.commands import registry
from fedstream.commands.terminal import output_option, run_option
from fedstream.errors import StackError
from fedstream.learning.scores import SCORE_COLUMNS, measures
from fedstream.output import check_name, write_rows
from fedstream.rounds.admission import KINDS
from fedstream.rounds.runs import GLOBAL, Run
from fedstream.settings import Settings
from fedstream.terminal import Command

Row = dict[str, Any]  # of the file
COLUMNS = {
    "run_id": str,
    "round": int,
    "base_version": int,
    "version": int,
    "node": str,
    **SCORE_COLUMNS,
    **dict.fromkeys(KINDS, int),
    "note": str,
}


def history_rows(run: Run) -> list[Row]:
    """Return a row for each closed round and node, and one for all nodes together, which has the round's counts too.

    A round that closed without a score (it failed, or was ended by a rollback) has the last kind of row only.
    """
    rows = []
    for _, message in sorted(run.rounds.items()):
        if not message.closes_round:
            continue
        note = message.failed
        if message.restored_from is not None:
            note = f"rollback to version {message.restored_from}"
        about = {
            "run_id": run.run_id,
            "round": message.round - 1,
            "base_version": message.base_version,
            "version": message.version,
        }
        for node, score in (*message.node_metrics.items(), (GLOBAL, message.metrics)):
            counts = {kind: message.counts.get(kind) if node == GLOBAL else None for kind in KINDS}
            rows.append(about | {"node": node} | measures(score) | counts | {"note": note})
    return rows


@click.command(cls=Command)
@output_option(required=True)
@run_option
def history(output: Path, run_id: str | None) -> None:
    """Write a run's rounds to a file: a row per round and node.

    Node "global" stands for all nodes together; its row has the round's counts (late, missing, ...), too. The
    scores are those of base_version, the version the round started from.

    Examples:
        fedstream history --output rounds.csv
        fedstream history --output rounds.parquet
    """
    check_name(output)
    run = registry.load_run(Settings.from_env(os.environ), run_id)
    rows = history_rows(run)
    if not rows:
        raise StackError(f"no round of run {run.run_id} has closed yet; see: fedstream watch")
    write_rows(rows, COLUMNS, output)
    click.echo(f"{len(rows)} rows of run {run.run_id} are in {output}.")
