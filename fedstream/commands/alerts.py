"""What is on the topic of alerts: how many, how quick, which ones twice, and when each model version took over."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np

from fedstream.broker import kafka
from fedstream.commands.terminal import json_option, output_option
from fedstream.errors import StackError
from fedstream.messages.alerts import Alert
from fedstream.messages.door import decode
from fedstream.messages.topics import ALERTS, MODEL_VERSIONS
from fedstream.output import check_name, write_rows
from fedstream.rounds.runs import read_messages, read_models
from fedstream.settings import Settings
from fedstream.tables import make_console, make_table
from fedstream.terminal import Command

PERCENTS = (50, 95, 99, 100)
COLUMNS = {
    "reading": str,
    "repeated": bool,
    "sensor_id": str,
    "probability": float,
    "alert": bool,
    "model_version": int,
    "run_id": str,
    "event_time": datetime,
    "scored_at": datetime,
}


def delays(scored: Iterable[Alert]) -> dict[str, float]:
    """Return percentiles of the ms from a reading's event time to its score; empty where there is no reading."""
    found = [message.scored_at - message.event_time for message in scored]
    return {f"p{percent}": float(np.percentile(found, percent)) for percent in PERCENTS} if found else {}


def alert_rows(
    keys: Sequence[bytes], messages: Sequence[Alert], made_at: Mapping[tuple[str, int], int]
) -> list[dict[str, Any]]:
    """Return a row for each model version that scored readings, in the order of their first scores.

    Args:
        keys: the key of each record; a reading that is scored again has the same one.
        messages: the records' messages, of the same length.
        made_at: when each version came onto `model-versions`, by run and version (ms since 1970).
    """
    versions: dict[tuple[str, int], list[Alert]] = {}
    repeats: dict[tuple[str, int], int] = {}
    seen: set[bytes] = set()
    for key, message in zip(keys, messages, strict=True):
        version = (message.run_id, message.model_version)
        versions.setdefault(version, []).append(message)
        repeats[version] = repeats.get(version, 0) + (key in seen)
        seen.add(key)
    rows = []
    for version, scored in versions.items():
        first = min(message.scored_at for message in scored)
        rows.append(
            {"run_id": version[0], "version": version[1], "scored": len(scored), "repeated": repeats[version]}
            | {"alerts": sum(message.alert for message in scored), "first_scored_at": first}
            | {"took_over_ms": first - made_at[version] if version in made_at else None, "delay_ms": delays(scored)}
        )
    return rows


def scored_rows(keys: Sequence[bytes | None], messages: Sequence[Alert]) -> list[dict[str, Any]]:
    """Return a row for each score: the place of its reading, whether it was scored before, and what was found."""
    seen: set[bytes | None] = set()
    rows = []
    for key, message in zip(keys, messages, strict=True):
        about = {"reading": (key or b"").decode(errors="replace"), "repeated": key in seen}
        rows.append(about | msgspec.to_builtins(message))
        seen.add(key)
    return rows


def version_times(records: Iterable[Any]) -> dict[tuple[str, int], int]:
    """Return when each version came onto `model-versions` (ms since 1970), by run and version."""
    found: dict[tuple[str, int], int] = {}
    for record in records:
        for model in read_models([record]):
            found.setdefault((model.run_id, model.version), record.timestamp)
    return found


@click.command(cls=Command)
@click.option("--last", default=100_000, show_default=True, type=click.IntRange(1), help="So many of each partition.")
@json_option
@output_option()
def alerts(last: int, is_json: bool, output: Path | None) -> None:
    """Show what the alerts job has scored: readings, repeats, delays, and when each model version took over.

    A delay is that from a reading's event time to its score; repeats are readings that were scored before,
    after a crash of the job. A version that was overtaken within an interval scored nothing. The file of
    --output has a row for each scored reading instead.

    Examples:
        fedstream alerts
        fedstream alerts --last 1000 --json
        fedstream alerts --output alerts.csv
    """
    if output:
        check_name(output)
    settings = Settings.from_env(os.environ)
    records = kafka.read_topic(settings, ALERTS, last)
    scored = [(r.key, alert) for r in records for alert in read_messages([r], lambda value: decode(Alert, value))]
    if not scored:
        raise StackError(
            f"topic {ALERTS} has no scored reading; start the job first: make run-alerts (and run-fog, run-cloud)"
        )
    keys, messages = [key for key, _ in scored], [alert for _, alert in scored]
    if output:
        write_rows(scored_rows(keys, messages), COLUMNS, output)
        click.echo(f"{len(messages)} scored readings are in {output}.")
        return
    rows = alert_rows(keys, messages, version_times(kafka.read_topic(settings, MODEL_VERSIONS)))
    if is_json:
        click.echo(json.dumps(rows))
        return
    headings = ("version", "readings", "repeated", "alerts", *(f"p{percent} ms" for percent in PERCENTS), "took over s")
    table = make_table("Alerts, by model version", *headings)
    for row in rows:
        taken = "-" if row["took_over_ms"] is None else f"{row['took_over_ms'] / 1000:.1f}"
        counts = (str(row[name]) for name in ("version", "scored", "repeated", "alerts"))
        table.add_row(*counts, *(f"{delay:.0f}" for delay in row["delay_ms"].values()), taken)
    make_console().print(table)
