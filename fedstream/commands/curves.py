"""Learning curves: the federation's, each node's, and those of the same model trained on all readings in one place."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import numpy.typing as npt

from fedstream.broker import kafka
from fedstream.commands import registry
from fedstream.commands.export import model_of
from fedstream.commands.terminal import run_option
from fedstream.errors import BadMessage, StackError
from fedstream.learning.arrays import Matrix
from fedstream.messages.readings import reading_format
from fedstream.messages.rounds import GlobalModel
from fedstream.messages.topics import sensor_topic
from fedstream.rounds.runs import GLOBAL, Run
from fedstream.settings import Settings
from fedstream.tables import of_class
from fedstream.terminal import Command

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Readings = tuple[Matrix, npt.NDArray[np.int64]]
Curve = dict[int, dict[str, float]]  # by round: f1 and loss

CENTRAL = "centralised"
LONGEST_LABEL = 100  # characters
MOST_COLOURS = 10  # more nodes are one kind of line in the legend
PANELS = {"f1": "prequential F1", "loss": "prequential log loss (nats)"}


def measured_rounds(run: Run) -> dict[int, GlobalModel]:
    """Return the message that closed each round with a score, by the closed round."""
    return {number - 1: message for number, message in sorted(run.rounds.items()) if message.metrics}


def federated_curves(run: Run) -> dict[str, Curve]:
    """Return the curve of each node, sorted by name, and of all together, which comes first."""
    curves: dict[str, Curve] = {GLOBAL: {}}
    for number, message in measured_rounds(run).items():
        for node, score in (*message.node_metrics.items(), (GLOBAL, message.metrics)):
            curves.setdefault(node, {})[number] = {name: getattr(score, name) for name in PANELS}
    return dict(sorted(curves.items(), key=lambda entry: (entry[0] != GLOBAL, len(entry[0]), entry[0])))


def read_readings(records: Iterable[Any], settings: Settings) -> Readings:
    """Return the good readings that have a label, (n, features) and labels (n,), in order of the records' time."""
    form, found = reading_format(settings), []
    for record in sorted(records, key=lambda record: (record.timestamp, record.topic, record.partition, record.offset)):
        with suppress(BadMessage):  # the fog nodes, too, leave it out
            reading = form.decode(record.value)
            if reading.label is not None:
                found.append(reading)
    return form.table(found), np.array([reading.label for reading in found], dtype=np.int64)


def central_curve(run: Run, readings: Readings, settings: Settings) -> Curve:
    """Train the run's model on all readings in one stream: tested, then trained, in steps as large as the rounds.

    It starts from the run's first version and scales as the federation did in the same round. The curve ends where
    the readings do.
    """
    from fedstream.learning.training import train, train_config  # scikit-learn takes a second

    config = train_config(settings, {})  # nothing of a round: no strategy asks for anything here
    first = run.versions[min(run.versions)]
    model, arrays = model_of(first, settings), first.arrays
    curve: Curve = {}
    start = 0
    for number, message in measured_rounds(run).items():
        end = start + (message.metrics.num_examples if message.metrics else 0)
        if end > len(readings[1]):
            break
        scaler = run.rounds.get(number, message).scaler
        x, y = readings[0][start:end], readings[1][start:end]
        try:
            trained = train(model, arrays, scaler, x, y, config, settings.seed + number, settings.decision_threshold)
        except Exception as error:  # of whatever the topics hold, or a model of the user's own
            msg = f"the centralised training fails in round {number} ({type(error).__name__}: {error!s:.200})"
            raise StackError(f"{msg}; --max-readings 0 draws the other curves") from error
        curve[number] = {name: getattr(trained.score, name) for name in PANELS}
        arrays, start = trained.arrays, end
    return curve


def _as_it_is(text: str) -> str:
    return text.replace("$", r"\$")  # between two of them matplotlib would read a formula


def draw(curves: dict[str, Curve], title: str, classes: int = 2) -> Figure:
    """Return the figure: F1 above, loss below, the legend on the right of both."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)  # needs no display
    panels: Sequence[Any] = figure.subplots(len(PANELS), 1, sharex=True)
    nodes = [name for name in curves if name != GLOBAL and not name.startswith(CENTRAL)]
    for panel, (measure, label) in zip(panels, PANELS.items(), strict=True):
        for name, curve in curves.items():
            shown = _as_it_is(f"{name:.{LONGEST_LABEL}}")
            look: dict[str, Any] = {"linewidth": 1.0, "alpha": 0.75, "label": shown}
            if name == GLOBAL:
                look = {"linewidth": 2.5, "color": "black", "zorder": 3, "label": shown}
            elif name not in nodes:
                look = {"linewidth": 2.0, "color": "tab:red", "linestyle": "--", "zorder": 4, "label": shown}
            elif len(nodes) > MOST_COLOURS:
                about = f"each of {len(nodes)} nodes" if name == nodes[0] else None
                look = {"linewidth": 0.7, "alpha": 0.5, "color": "tab:blue", "label": about}
            marker = "o" if len(curve) == 1 else None  # a line of one point would not be seen
            panel.plot(list(curve), [point[measure] for point in curve.values()], marker=marker, **look)
        panel.set_ylabel(f"{label}\n{of_class(classes)}" if measure == "f1" else label)
        panel.grid(alpha=0.3)
    panels[0].set_ylim(-0.02, 1.02)
    panels[1].set_ylim(bottom=0)
    panels[1].set_xlabel("round")
    panels[1].xaxis.get_major_locator().set_params(integer=True)
    panels[0].set_title(_as_it_is(f"{title:.{2 * LONGEST_LABEL}}"))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def central_name(run: Run, curve: Curve, taken: int, most: int) -> str:
    """Return the legend's name of the centralised curve, which says where and why it ends early."""
    missing = [number for number in measured_rounds(run) if number not in curve]
    if not missing:
        return CENTRAL
    reason = f"--max-readings {most}" if taken >= most else "no more readings on the topics"
    return f"{CENTRAL}\n(none in round {missing[0]} and later:\n{reason})"


def load_readings(run: Run, settings: Settings, most: int) -> Readings:
    """Return the first readings of the run's nodes: fog-3 learns from topic sensor-data-node-3."""
    ends = [node.rpartition("-")[2] for node in federated_curves(run)]
    numbers = sorted({int(end) for end in ends if end.isdecimal()})
    records: list[Any] = []
    for number in numbers:
        try:
            records += islice(kafka.read_topic(settings, sensor_topic(number)), most)
        except kafka.KafkaUnavailableError as error:
            click.echo(f"Without the readings of node {number}: {error.message}", err=True)
    x, y = read_readings(records, settings)
    return x[:most], y[:most]


def figure_of(run: Run, settings: Settings, most: int) -> Figure:
    """Return the figure of a run; the centralised curve takes at most so many readings, and is left out with 0.

    Raises:
        StackError: no round has closed yet, or the centralised training fails.
    """
    if not measured_rounds(run):
        raise StackError(f"no round of run {run.run_id} has closed yet; see: fedstream watch")
    curves = federated_curves(run)
    if most:
        readings = load_readings(run, settings, most)
        central = central_curve(run, readings, settings)
        curves[central_name(run, central, len(readings[1]), most)] = central
    about = run.versions[max(run.versions)]
    title = f"Learning curves of run {run.run_id} ({about.model}, {about.strategy})"
    return draw(curves, title, settings.classes)


@click.command(cls=Command)
@click.option(
    "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="*.png, *.svg, *.pdf or - (PNG)"
)
@run_option
@click.option(
    "--max-readings",
    "most",
    default=200_000,
    show_default=True,
    type=click.IntRange(0),
    help="Most readings of the centralised training; 0 leaves its curve out.",
)
def plot(output: Path, run_id: str | None, most: int) -> None:
    """Draw a run's learning curves: global, each node, and centralised.

    Centralised is the same model with the same settings (LOCAL_EPOCHS, LEARNING_RATE, ...), trained on all
    nodes' readings in one stream, from the first on the topics. All scores are prequential.

    Examples:
        fedstream plot --output curves.png
        fedstream plot --output curves.svg --max-readings 50000
    """
    settings = Settings.from_env(os.environ)
    run = registry.load_run(settings, run_id)
    is_piped = output == Path("-")
    if not is_piped and output.suffix not in (".png", ".svg", ".pdf"):
        raise StackError(f"--output is {output}; expected - or a name that ends in .png, .svg or .pdf")
    figure = figure_of(run, settings, most)
    try:
        target: Any = sys.stdout.buffer if is_piped else output
        figure.savefig(target, format="png" if is_piped else None)
    except OSError as error:
        raise StackError(f"cannot write {output}: {error.strerror}") from error
    if not is_piped:
        click.echo(f"The curves of run {run.run_id}, {len(measured_rounds(run))} rounds, are in {output}.")
