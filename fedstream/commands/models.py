"""The commands on the versions of the global model: list, show, roll back, export."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from fedstream.commands import export as exporting
from fedstream.commands import registry
from fedstream.commands.rollback import roll_back
from fedstream.commands.terminal import json_option, metric_option, output_option, run_option
from fedstream.learning.scores import SCORE_COLUMNS, Score, measures
from fedstream.messages.rounds import GlobalModel
from fedstream.output import check_name, write_rows
from fedstream.rounds import runs
from fedstream.rounds.runs import GLOBAL, Run
from fedstream.settings import Settings
from fedstream.tables import HEADINGS, cells, make_console, make_table, positive_note
from fedstream.terminal import Group

COLUMNS = {
    "run_id": str,
    "version": int,
    "round": int,
    "strategy": str,
    **SCORE_COLUMNS,
    "best": bool,
    "current": bool,
    "restored_from": int,
}


def version_rows(run: Run, metric: str) -> list[dict[str, Any]]:
    """Return a row for each version: its own score, and whether it is the best or the current one."""
    measured, best = runs.scores(run), runs.best(run, metric)
    return [
        {"run_id": run.run_id, "version": version, "round": message.round, "strategy": message.strategy}
        | measures(measured[version][GLOBAL] if version in measured else None)
        | {"best": version == best, "current": version == run.current, "restored_from": message.restored_from}
        for version, message in sorted(run.versions.items())
    ]


def describe(message: GlobalModel, measured: Mapping[str, Score]) -> dict[str, Any]:
    """Return what `models show` tells of a version, as JSON values."""
    kept = ("run_id", "version", "round", "model", "mode", "strategy", "opened_at", "base_version", "restored_from")
    more = ("counts", "updates", "participants", "scaler")
    own = exporting.as_json(message, measured)
    return {name: msgspec.to_builtins(getattr(message, name)) for name in (*kept, *more)} | {
        "positive_class": own["positive_class"],
        "metrics": own["metrics"],
        "node_metrics": own["node_metrics"],
        "arrays": [
            {"name": name, "shape": list(array.shape), "norm": math.sqrt(float((array**2).sum()))}
            for name, array in message.arrays.items()
        ],
    }


@click.group(cls=Group)
def models() -> None:
    """The versions of the global model: list, show, roll back, export."""


@models.command("list")
@run_option
@metric_option
@json_option
@output_option()
def list_versions(run_id: str | None, metric: str, is_json: bool, output: Path | None) -> None:
    """List the versions of a run with their scores.

    A score is prequential: measured on readings the version had not seen. The best one has a star.

    Examples:
        fedstream models list
        fedstream models list --metric loss --json
        fedstream models list --output versions.csv
    """
    if output:
        check_name(output)
    settings = Settings.from_env(os.environ)
    run = registry.load_run(settings, run_id)
    rows = version_rows(run, metric)
    if output:
        write_rows(rows, COLUMNS, output)
        click.echo(f"{len(rows)} versions of run {run.run_id} are in {output}.")
        return
    if is_json:
        click.echo(json.dumps(rows))
        return
    table = make_table(f"Run {run.run_id}", "version", "round", "examples", *HEADINGS, "strategy", "mark")
    for row in rows:
        marks = ["* best"] * row["best"] + ["current"] * row["current"]
        marks += [f"= version {row['restored_from']}"] if row["restored_from"] is not None else []
        table.add_row(str(row["version"]), str(row["round"]), *cells(row), row["strategy"], ", ".join(marks))
    table.caption = positive_note(settings.classes)
    make_console().print(table)


@models.command("show")
@click.argument("version")
@run_option
@metric_option
@json_option
def show_version(version: str, run_id: str | None, metric: str, is_json: bool) -> None:
    """Show all that is known of one version.

    VERSION is a number, best or current.

    Examples:
        fedstream models show 12
        fedstream models show best --json
    """
    settings = Settings.from_env(os.environ)
    run = registry.load_run(settings, run_id)
    message = registry.pick_version(run, version, metric)
    about = describe(message, runs.scores(run).get(message.version, {}))
    if is_json:
        click.echo(json.dumps(about))
        return
    click.echo(f"Version {about['version']} of run {about['run_id']}: {about['model']}, {about['strategy']}")
    if about["restored_from"] is not None:
        click.echo(f"Its arrays are those of version {about['restored_from']} (rollback).")
    table = make_table(f"Scores of version {about['version']}", "node", "examples", *HEADINGS)
    for node, score in [*about["node_metrics"].items(), *([(GLOBAL, about["metrics"])] if about["metrics"] else [])]:
        table.add_row(node, *cells(score))
    table.caption = positive_note(settings.classes)
    if about["metrics"]:
        make_console().print(table)
    else:
        click.echo("Not measured yet: its round is still open, or brought no update.")
    if about["updates"]:
        table = make_table(f"Made of version {about['base_version']} and", "node", "examples", "staleness")
        for each in about["updates"]:
            table.add_row(each["node_id"], str(each["num_examples"]), str(each["staleness"]))
        counts = ", ".join(f"{kind}: {count}" for kind, count in about["counts"].items() if count)
        table.caption = counts
        make_console().print(table)
    table = make_table("Arrays", "array", "shape", "norm")
    for array in about["arrays"]:
        table.add_row(array["name"], " x ".join(map(str, array["shape"])), f"{array['norm']:.6g}")
    make_console().print(table)
    scaler = about["scaler"]
    click.echo(f"Scaler: mean {scaler['mean']}, std {scaler['std']}" if scaler else "Scaler: none")
    click.echo(f"Asked to train: {', '.join(about['participants']) or 'all nodes'}")


@models.command("rollback")
@click.argument("version")
@metric_option
@run_option
def rollback(version: str, metric: str, run_id: str | None) -> None:
    """Make an older version of a run the current one.

    VERSION is a number or best. The cloud opens a new round with its arrays, under a new version. The command
    waits for it, at most WAIT_TIMEOUT_SECONDS.

    Examples:
        fedstream models rollback 12
        fedstream models rollback best --metric loss
    """
    model = roll_back(Settings.from_env(os.environ), version, metric, run_id)
    click.echo(f"Version {model.restored_from} of run {model.run_id} is back as version {model.version}.")


@models.command("export")
@click.argument("version")
@click.option("--format", "kind", required=True, type=click.Choice(["json", "skops"]))
@click.option("--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The file to write.")
@run_option
@metric_option
def export(version: str, kind: str, output: Path, run_id: str | None, metric: str) -> None:
    """Write one version to a file.

    VERSION is a number, best or current. json holds the arrays by name, the scaler and the
    metrics, for any language; skops a fitted Pipeline of scikit-learn, without pickle:
    skops.io.load(FILE).predict_proba(readings).

    Examples:
        fedstream models export best --format skops --output model.skops
        fedstream models export 12 --format json --output model.json
    """
    settings = Settings.from_env(os.environ)
    run = registry.load_run(settings, run_id)
    message = registry.pick_version(run, version, metric)
    exporting.export(message, runs.scores(run).get(message.version, {}), kind, output, settings)
    click.echo(f"Version {message.version} of run {run.run_id} is in {output}.")
