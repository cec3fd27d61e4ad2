"""The command that writes down what a running stack did: the page that a student hands in."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import fields
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from shutil import which
from string import Template
from time import strftime

import click

from fedstream.commands import registry
from fedstream.commands.curves import figure_of, measured_rounds
from fedstream.commands.demo import Check, Demo, traffic
from fedstream.commands.latency import FIGURES, listen, row
from fedstream.commands.terminal import run_option
from fedstream.commands.watch import remarks
from fedstream.errors import StackError
from fedstream.learning.scores import MEASURES
from fedstream.rounds.runs import Run, round_row
from fedstream.settings import Settings
from fedstream.tables import HEADINGS, cells
from fedstream.terminal import Command

MOST_ROUNDS = 20  # in the table: the first, the last, and some between
MOST_READINGS = 200_000  # of the centralised training
PACKAGES = ("fedstream", "pyspark", "flwr", "scikit-learn", "kafka-python")
PATIENCE_SECONDS = 10.0  # for each part that is checked
OF_A_RUN = ("model", "strategy", "strategy_options", "seed")  # settings that its newest version names

Rows = Iterable[Sequence[object]]


def markdown_rows(rows: Rows) -> str:
    r"""Return the rows of a Markdown table.

    Example:
        >>> markdown_rows([("a|b", 1)])
        '| a\\|b | 1 |'
    """
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)


def settings_rows(settings: Settings, run: Run) -> Rows:
    """Return name and value of what the run was made with, and of each other setting not at its default but folders."""
    newest = run.versions[max(run.versions)]
    yield from ((name.upper(), getattr(newest, name)) for name in OF_A_RUN if getattr(newest, name) not in ("", None))
    for setting in fields(settings):
        value = getattr(settings, setting.name)
        if setting.name not in OF_A_RUN and value != setting.default and not isinstance(value, Path):
            yield setting.name.upper(), value


def round_table(run: Run, language: str) -> str:
    """Return a Markdown table of at most `MOST_ROUNDS` closed rounds, evenly spread, first and last among them."""
    names = ["round", "version", "nodes", "examples", *HEADINGS, "remarks"]
    if language == "fr":
        names = ["ronde", "version", "nœuds", "exemples", *(measure.french for measure in MEASURES), "remarques"]
    closed = list(measured_rounds(run).values())
    last = len(closed) - 1
    places = sorted({round(i * last / (MOST_ROUNDS - 1)) for i in range(MOST_ROUNDS)})
    shown = [round_row(closed[place]) for place in places]
    rows = [(each["round"], each["version"], each["nodes"], *cells(each), remarks(each)) for each in shown]
    return markdown_rows([names, ["---"] * len(names), *rows])


def latency_rows(settings: Settings, seconds: float) -> Rows:
    """Listen to the stack for so long, and return a row for each path; none with 0 seconds."""
    for each in (row(waits, seconds) for waits in (listen(settings, 1, seconds) if seconds else [])):
        figures = ("-" if each[name] is None else f"{each[name]:,.0f}" for name in FIGURES)
        yield each["path"], *figures, f"{each['per_second']:,.1f}"


def checks_of(settings: Settings, run: Run) -> list[Check]:
    """Compute again what the fog nodes, the cloud and the rounds of a run have published."""
    demo = Demo(settings, PATIENCE_SECONDS)
    nodes = {name for message in run.rounds.values() for name in message.node_metrics}
    numbers = sorted(int(name.removeprefix("fog-")) for name in nodes if name.removeprefix("fog-").isdecimal())
    for number in numbers:
        demo.fog(number)
    demo.cloud(len(numbers))
    demo.versions(run)
    return demo.checks


def traffic_rows(settings: Settings, run: Run) -> Rows:
    """Return a row of the bytes that stayed at the nodes, and that were sent instead; none if that was too much."""
    found = traffic(settings, len(run.rounds[max(run.rounds)].node_metrics))
    return [[f"{count:,}" for count in found]] if found else []


def text_of(settings: Settings, run: Run, language: str, seconds: float, picture: str) -> str:
    """Return the report in Markdown: the template of its language, filled in."""
    template = Template(files("fedstream.commands").joinpath(f"report.{language}.md").read_text(encoding="utf-8"))
    checks = ((*check[:3], "ok" if check.is_good else "FAILED") for check in checks_of(settings, run))
    return template.substitute(
        run=run.run_id,
        date=strftime("%Y-%m-%d %H:%M"),
        settings=markdown_rows(settings_rows(settings, run)),
        packages=markdown_rows((name, version(name)) for name in PACKAGES),
        checks=markdown_rows(checks),
        rounds=round_table(run, language),
        picture=picture,
        traffic=markdown_rows(traffic_rows(settings, run)),
        seconds=f"{seconds:g}",
        latency=markdown_rows(latency_rows(settings, seconds)),
    )


def write(text: str, path: Path) -> None:
    """Write the report as Markdown, or by pandoc as a document, as the file's name says.

    Raises:
        StackError: its name ends otherwise, it cannot be written, or pandoc is missing or fails.
    """
    try:
        if path.suffix == ".md":
            path.write_text(text, encoding="utf-8")
            return
        if path.suffix != ".docx":
            raise StackError(f"--output is {path}; expected a name that ends in .md or .docx")
        if not which("pandoc"):
            remedy = "install it (apt-get install pandoc), or write Markdown: --output report.md"
            raise StackError(f"{path} is made by pandoc, which is not there: {remedy}")
        command = ["pandoc", "--from", "gfm", "--output", path.name]
        done = subprocess.run(command, input=text, cwd=path.parent, capture_output=True, text=True)
    except OSError as error:
        raise StackError(f"cannot write {path}: {error.strerror or error}") from error
    if done.returncode:
        raise StackError(f"pandoc cannot write {path}: {done.stderr.strip()}")


@click.command(cls=Command)
@click.option(
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="*.md, *.docx (needs pandoc), or - (Markdown; its picture is learning-curves.png, as make plot draws it)",
)
@click.option("--language", default="en", show_default=True, type=click.Choice(["en", "fr"]))
@click.option(
    "--seconds", default=20.0, show_default=True, type=click.FloatRange(0), help="Measure so long; 0 leaves it out."
)
@run_option
def report(output: Path, language: str, seconds: float, run_id: str | None) -> None:
    """Write a report of the running stack: settings, checks, rounds, learning curves, latency.

    The learning curves are a picture beside it, of the same name.

    Examples:
        fedstream report --output report.md
        fedstream report --output compte-rendu.docx --language fr
    """
    settings = Settings.from_env(os.environ)
    run = registry.load_run(settings, run_id)
    is_piped = output == Path("-")
    picture = Path("learning-curves.png") if is_piped else output.with_suffix(".png")
    if not is_piped:
        try:
            figure_of(run, settings, MOST_READINGS).savefig(picture)
        except OSError as error:
            raise StackError(f"cannot write {picture}: {error.strerror}") from error
    text = text_of(settings, run, language, seconds, picture.name)
    if is_piped:
        click.echo(text)
        return
    write(text, output)
    click.echo(f"The report of run {run.run_id} is in {output}, its learning curves are in {picture}.")
