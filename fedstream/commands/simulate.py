"""The command that runs a federation in one process, and its options for the settings of a federation."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TextIO

import click

from fedstream.files.options import file_options, take_file_options
from fedstream.settings import Settings
from fedstream.terminal import Command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SETTINGS = {
    "strategy": "strategy",
    "strategy_options": "strategy_options",
    "model": "model",
    "model_options": "model_options",
    "mode": "round_mode",
    "quorum": "round_quorum",
    "local_epochs": "local_epochs",
    "learning_rate": "learning_rate",
    "batch_size": "train_batch_size",
    "seed": "seed",
}


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for each of SETTINGS, with the setting's own meaning and default."""
    known = {setting.name: setting for setting in fields(Settings)}
    for option, name in reversed(SETTINGS.items()):
        about, default = known[name].metadata["about"], known[name].default
        text = f"{about}  [default: {default}]" if default != "" else about
        command = click.option(f"--{option.replace('_', '-')}", option, metavar="VALUE", help=text)(command)
    return command


def read_settings(given: dict[str, Any]) -> Settings:
    """Return the settings of the environment, overruled by those of SETTINGS that were given as options.

    Raises:
        SettingError: one has a value that cannot be used.
    """
    own = {SETTINGS[option].upper(): value for option, value in given.items() if value is not None}
    return Settings.from_env({**os.environ, **own})


@click.command(cls=Command)
@click.option("--nodes", type=int, help="[default: 10; with by:COLUMN as many as it has values]")
@click.option("--rounds", default=30, show_default=True)
@click.option(
    "--data", default="sensors", show_default=True, help="sensors, breast_cancer, digits, wine, iris, or a data file"
)
@click.option("--label", metavar="COLUMN", help="the file's column of classes")
@click.option("--rows", type=int, help="use this many rows  [default: all; 4000 of sensors, or what the stream needs]")
@click.option(
    "--partition",
    default="iid",
    show_default=True,
    help="iid, dirichlet:ALPHA, shards:K, shift:C (sensors: °C a node), or by:COLUMN (a node for each value)",
)
@click.option("--positive", metavar="LABEL", help="the class that F1 and recall speak of  [default: the rarer of two]")
@click.option(
    "--test",
    multiple=True,
    metavar="FILE|by:COLUMN=VALUE",
    help="held-out rows: a second file, or those with a value; repeatable  [default: a fourth of each class]",
)
@click.option(
    "--readings-per-round",
    type=int,
    help="new rows of a node in a round, each used once  [default: all its rows, every round]",
)
@click.option("--scaling", default="shared", show_default=True, help="shared by all nodes, local to each node, or none")
@click.option("--attackers", default=0, show_default=True, help="hostile nodes")
@click.option("--attack", default="sign-flip", show_default=True, help="sign-flip, noise, label-flip or scale:FACTOR")
@click.option("--dropout", default=0.0, show_default=True, help="probability that a node says nothing in a round")
@click.option("--stragglers", default=0, show_default=True, help="nodes that take longer than a round's deadline")
@click.option("--only", multiple=True, metavar="COLUMN", help="use these columns of the file alone; repeatable")
@file_options
@setting_options
@click.option(
    "--baselines/--no-baselines",
    default=True,
    show_default=True,
    help="also train on all rows in one place, and each node alone",
)
@click.option(
    "--json", "file", type=click.File("w", lazy=True), default="-", help="where the result goes  [default: stdout]"
)
def simulate(baselines: bool, file: TextIO, **given: Any) -> None:
    r"""Run a federation of many nodes in this process: no Kafka, no Spark, the cloud's own code for the rounds.

    Progress and a table go to stderr, the whole result as JSON to stdout. The same seed gives the same result.

    Examples:
        fedstream simulate --nodes 100 --readings-per-round 50 > result.json
        fedstream simulate --data breast_cancer --model logistic --partition dirichlet:0.1 --positive benign
        fedstream simulate --data breast_cancer --model logistic --attackers 3 --strategy FedMedian
        fedstream simulate --nodes 100 --partition dirichlet:0.1 --strategy MultiKrum \
            --strategy-options num_malicious_nodes=20,num_nodes_to_select=60 --attackers 20 --data breast_cancer
        fedstream simulate --data machines.csv --label failure --partition shards:1 --dropout 0.3 --stragglers 2
    """
    settings = read_settings({option: given.pop(option) for option in SETTINGS})
    from rich.console import Console
    from rich.progress import Progress

    from fedstream.simulation.scenario import Scenario
    from fedstream.simulation.simulate import simulate as run

    scenario, console = Scenario(reading=take_file_options(given), **given), Console(stderr=True)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("rounds", total=scenario.rounds)

        def on_round(entry: dict[str, Any]) -> None:
            accuracy = entry["test"]["accuracy"]
            progress.update(task, advance=1, description=f"round {entry['round']}: test accuracy {accuracy:.3f}")
            if baselines and entry["round"] == scenario.rounds:
                progress.update(task, description="baselines")

        result = run(settings, scenario, baselines=baselines, on_round=on_round)
    console.print(_table(result))
    for line in _remarks(result):
        click.echo(line, err=True)
    json.dump(result, file, indent=1, ensure_ascii=False)
    file.write("\n")


def _table(result: dict[str, Any]) -> Any:
    from rich.table import Table

    from fedstream.tables import HEADINGS, fractions

    names = ", ".join((result["scenario"]["data"], result["settings"]["model"], result["settings"]["strategy"]))
    table = Table(title=f"{names}: test scores")
    table.add_column("round", no_wrap=True)
    for heading in ("before training", *HEADINGS):
        table.add_column(heading, justify="right")
    history = result["rounds"]
    shown = sorted({round(i * (len(history) - 1) / 9) for i in range(10)})
    for entry in (history[i] for i in shown):
        before = f"{entry['prequential']['accuracy']:.4f}" if entry["prequential"] else "-"
        table.add_row(str(entry["round"]), before, *fractions(entry["test"], "-"), end_section=entry is history[-1])
    majority = result["majority"]
    for name, scores in result.get("baselines", {}).items():
        table.add_row(name.replace("_", " "), "", *fractions(scores, "-"))
    table.add_row(f"always {majority['label']}", "", *fractions(majority, "-"))
    return table


def _remarks(result: dict[str, Any]) -> Iterator[str]:
    """Yield the lines below the table."""
    from fedstream.tables import positive_note, traffic_line

    data = result["data"]
    yield positive_note(len(data["labels"]), f"class {data['positive']}")
    if absent := [label for label, count in data["classes"]["test"].items() if not count]:
        yield f"-: cannot be measured, as no test row is of class {', '.join(absent)}"
    yield "; ".join(f"{part} rows: {_counts(data['classes'][part])}" for part in ("train", "test"))
    yield traffic_line(**result["bytes"]["all"])
    yield f"updates: {_counts(result['final']['counts'])}; {result['seconds']} s"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items() if count)
