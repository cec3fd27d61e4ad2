"""The command that writes the rounds of a run to a file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from fedstream.commands import registry
from fedstream.commands.registry import GLOBAL, Run
from fedstream.commands.terminal import run_option
from fedstream.errors import StackError
from fedstream.learning.scores import MEASURES
from fedstream.rounds.admission import KINDS
from fedstream.settings import Settings
from fedstream.tables import measures
from fedstream.terminal import Command

Row = dict[str, Any]  # of the file


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


def write_history(rows: Sequence[Row], path: Path) -> None:
    """Write rows as JSON lines or Parquet, as the file's name says.

    Raises:
        StackError: its name ends otherwise, or it cannot be written.
    """
    if path.suffix not in (".jsonl", ".parquet"):
        raise StackError(f"--output is {path}; expected a name that ends in .jsonl or .parquet")
    try:
        if path.suffix == ".jsonl":
            path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {measure.name: pa.float64() for measure in MEASURES} | dict.fromkeys(
            ("run_id", "node", "note"), pa.string()
        )
        schema = pa.schema([(name, kinds.get(name, pa.int64())) for name in rows[0]])
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
    except OSError as error:
        raise StackError(f"cannot write {path}: {error.strerror or error}") from error


@click.command(cls=Command)
@click.option("--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="*.jsonl or *.parquet")
@run_option
def history(output: Path, run_id: str | None) -> None:
    """Write a run's rounds to a file: a row per round and node.

    Node "global" stands for all nodes together; its row has the round's counts (late, missing, ...), too. The
    scores are those of base_version, the version the round started from.

    Examples:
        fedstream history --output rounds.parquet
        fedstream history --output rounds.jsonl
    """
    run = registry.load_run(Settings.from_env(os.environ), run_id)
    rows = history_rows(run)
    if not rows:
        raise StackError(f"no round of run {run.run_id} has closed yet; see: fedstream watch")
    write_history(rows, output)
    click.echo(f"{len(rows)} rows of run {run.run_id} are in {output}.")
