"""Writes the pages of docs/reference/ that follow from something else.

Settings, environment, targets, commands and messages follow from the code, faults from kept results of `make chaos`.

Examples:
    make docs                        write them
    python docs/generate.py --check  tell whether they are up to date (exit code 1: they are not)
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "reference"
JOB_FOLDERS = ("producer", "fog", "cloud", "socket_stream", "realtime")
WIDTH = 100  # of the help texts


def row(*cells: str) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def head(*cells: str) -> str:
    """Return the head of a Markdown table."""
    return row(*cells) + "\n" + row(*["---"] * len(cells))


def code(text: object) -> str:
    """Return a value as code, or a word for an empty one."""
    return f"`{text}`" if str(text) else "empty"


def settings() -> str:
    """Return the page of the jobs' settings, from `fedstream.settings.Settings`."""
    from dataclasses import fields

    from fedstream.settings import Settings

    rows = []
    for setting in fields(Settings):
        low, high, choices = (setting.metadata[name] for name in ("low", "high", "choices"))
        limits = [f"at least {low:g}"] * (low > float("-inf")) + [f"at most {high:.15g}"] * (high < float("inf"))
        limit = ", ".join(limits) or " or ".join(map(code, choices))
        rows.append(row(code(setting.name.upper()), code(setting.default), setting.metadata["about"], limit))
    return (
        "# Settings of the jobs\n\n"
        "Each setting is an environment variable, which a job reads once, when it starts. To change one for good,\n"
        "write it into `.env`, then `make down up` and start the jobs again. To change one for one job:\n"
        "`make run-cloud STRATEGY=FedMedian`.\n"
        "`MODEL` and `MODEL_OPTIONS` must be the same for the fog nodes and the cloud.\n\n"
        + "\n".join([head("setting", "default", "meaning", "limits"), *rows])
    )


def environment() -> str:
    """Return the page of the variables of `.env`, each with the comment above it."""
    page = (
        "# Variables of `.env`\n\n"
        "`.env` is the one place for versions, ports and sizes. A variable of the shell or of the make command line\n"
        "wins: `make up KAFKA_PORT=19092`. Services take over a change at `make down up`.\n"
    )
    comment = ""
    for line in (ROOT / ".env").read_text(encoding="utf-8").splitlines():
        if line.startswith("# === "):
            page += f"\n## {line.removeprefix('# === ')}\n\n{head('variable', 'default', 'meaning')}\n"
        elif line.startswith("#"):
            comment = line.removeprefix("# ")
        elif "=" in line:
            name, _, value = line.partition("=")
            page += row(code(name), code(value), comment) + "\n"
            comment = ""
    return page.rstrip()


def targets() -> str:
    """Return the page of the make targets, from the `##` texts of the Makefile."""
    found = re.findall(r"^([a-z-]+):.*?## (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    rows = [row(code(f"make {name}"), about) for name, about in found]
    page = "# Targets of make\n\n`make` alone shows this list, too.\n\n"
    return page + "\n".join([head("target", "what it does"), *rows])


def commands(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the help text of a command and of all commands below it."""
    width = {"terminal_width": WIDTH, "max_content_width": WIDTH}
    context = click.Context(command, info_name=name, **{**command.context_settings, **width})
    yield name, command.get_help(context)
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            if below := command.get_command(context, each):
                yield from commands(below, f"{name} {each}")


def job_script(path: Path) -> click.Command | None:
    """Return the command of a script, or None if it has none."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, "main", None)
    return found if isinstance(found, click.Command) else None


def command_lines() -> str:
    """Return the page of `fedstream` and of the job scripts, with all their options."""
    from fedstream.commands.cli import main as fedstream

    found = list(commands(fedstream, "fedstream"))
    for path in (each for folder in JOB_FOLDERS for each in sorted((ROOT / folder).glob("*.py"))):
        if command := job_script(path):
            found += commands(command, str(path.relative_to(ROOT)))
    page = (
        "# Command lines\n\n"
        "`fedstream` needs `source deploy/local/env.sh` on the local runner; on Docker put `docker exec spark-master`\n"
        'before it. The options of a job go into `ARGS`: `make run-producer ARGS="--rate 100"`.\n\n'
    )
    return page + "\n\n".join(f"## `{name}`\n\n```text\n{text.rstrip()}\n```" for name, text in found)


@functools.cache
def message_types() -> dict[str, list[Any]]:
    """Return the types of the messages of each topic, one below the other."""
    from fedstream.messages.alerts import Alert
    from fedstream.messages.dead_letters import DeadLetter
    from fedstream.messages.numbers import Number, Square
    from fedstream.messages.readings import ReadingFormat
    from fedstream.messages.rounds import Deadline, Event, GlobalModel, ModelUpdate, Rollback
    from fedstream.messages.weights import GlobalWeight, NodeWeight
    from fedstream.settings import Settings

    return {
        "sensor-data-node-N, sensor-data": [ReadingFormat(Settings()).kind],
        "model-weights": [NodeWeight, ModelUpdate],
        "global-model": [GlobalWeight, GlobalModel],
        "model-versions": [GlobalModel],
        "round-control": [Deadline, Rollback],
        "events": [Event],
        "numbers": [Number],
        "squares": [Square],
        "alerts": [Alert],
        "dead-letter": [DeadLetter],
    }


def kind_of(field: dict[str, Any]) -> str:
    """Return what a field of a JSON Schema takes, in words: its type and limits."""
    if "anyOf" in field:
        return " or ".join(kind_of(each) for each in field["anyOf"])
    if "$ref" in field:
        return code(str(field["$ref"]).rpartition("/")[2])
    if "enum" in field:
        return " or ".join(map(code, field["enum"]))
    words: dict[str, str] = {"integer": "whole number", "string": "text", "array": "list", "boolean": "true or false"}
    kind: str = field.get("type", "any value")
    text = words.get(kind, kind)
    low, high = (field.get(name) for name in ("minimum", "maximum"))
    if low is not None or high is not None:
        text += f" from {low:.15g}" if low is not None else ""
        text += f" to {high:.15g}" if high is not None and high < 2**63 - 1 else ""
    if kind == "array" and "items" in field and field["items"]:
        text += f" of {kind_of(field['items'])}"
    return text


def messages() -> str:
    """Return the page of all messages, from their types."""
    import msgspec

    page = (
        "# Messages\n\n"
        "Every message is decoded into one of these types, or refused with field, value and what is expected. Other\n"
        "fields are ignored. The fields of a reading are those of `FEATURES`, here the default. Which message goes\n"
        "where, with examples: [topics](topics.md). The same as JSON Schema:\n"
        "[messages.schema.json](messages.schema.json).\n"
    )
    types = {kind: None for kinds in message_types().values() for kind in kinds}
    _, parts = msgspec.json.schema_components(list(types), ref_template="{name}")
    topics_of = {kind.__name__: [t for t, kinds in message_types().items() if kind in kinds] for kind in types}
    for name in [*topics_of, *(part for part in parts if part not in topics_of)]:
        schema = parts[name]
        where = " on " + ", ".join(map(code, topics_of[name])) if name in topics_of else ", a part of others"
        about = schema.get("description", "A reading of a sensor.").partition("\n\n")[0].replace("\n", " ")
        page += f"\n## `{name}`{where}\n\n{about}\n\n{head('field', 'type', 'must be there', 'meaning')}\n"
        for field, kind in schema.get("properties", {}).items():
            needed = "yes" if field in schema.get("required", []) else "no"
            page += row(code(field), kind_of(kind), needed, kind.get("description", "")) + "\n"
    return page.rstrip()


def schemas() -> str:
    """Return the JSON Schemas of all messages."""
    import msgspec

    types = {kind: None for kinds in message_types().values() for kind in kinds}
    _, parts = msgspec.json.schema_components(list(types), ref_template="#/$defs/{name}")
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": parts}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def cell_of(rows: list[dict[str, Any]]) -> str:
    """Return what came of a fault on a runner, of all runs."""
    run = [each for each in rows if each["times"]]
    if not run:
        return "not run" + next((f": {each['not_run']}" for each in rows if "not_run" in each), "")
    seen = ""
    if run[0]["to_be_seen"]:
        seen = ", seen" if all(each["health"].startswith("red") for each in run) else ", not seen"
    return f"{max(each['seconds'] for each in run)} s{seen}"


def faults() -> str:
    """Return the page of the fault matrix, from the runs of `make chaos` that were kept."""
    runs = json.loads((ROOT / "bench" / "results" / "faults.json").read_text())
    runners = ("local", "docker")
    of = {runner: [run for run in runs if run["runner"] == runner] for runner in runners}
    page = (
        "# The fault matrix\n\n"
        "Results of `make chaos` on two cores: after how many seconds the slowest stream went on when the fault was\n"
        "over (kill: when the part was dead), and whether `make doctor` had seen the fault within 30 s. Pause, cut,\n"
        "loss (5 % of the packets), slow disk (each fsync half a second later), full disk (no room in the part's own\n"
        "folder) and clock (one hour ahead) last 30 s. The aim is 60 s; on a busy machine the start of a driver alone\n"
        "takes half a minute.\n\n"
    )
    summary = [head("runner", "seeds", "faults", "lost, doubled or wrong")]
    for runner in runners:
        mistakes = sum(len(run["mistakes"]) for run in of[runner])
        seeds = ", ".join(str(run["seed"]) for run in of[runner]) or "none"
        summary.append(row(runner, seeds, str(sum(run["faults"] for run in of[runner])), str(mistakes)))
    table = [head("part", "fault", *runners)]
    keys = dict.fromkeys((each["part"], each["fault"]) for run in runs for each in run["cells"])
    for part, fault in keys:
        cells = (
            [c for run in of[r] for c in run["cells"] if (c["part"], c["fault"]) == (part, fault)] for r in runners
        )
        table.append(row(part, fault, *map(cell_of, cells)))
    return page + "\n".join(summary) + "\n\n" + "\n".join(table)


def metrics() -> str:
    """Return the page of the board's metrics, from `fedstream.board.metrics`."""
    from fedstream.board.metrics import FAMILIES

    page = (
        "# Metrics\n\n"
        "For Prometheus: `http://localhost:8090/metrics`. All follow from the topics; nothing is counted in the jobs.\n"
        "A name that ends in `_total` is a counter, any other a gauge. Also there: `process_*` of the board itself.\n\n"
    )
    rows = [row(code(each.name), ", ".join(map(code, each.labels)), each.about) for each in FAMILIES]
    return page + "\n".join([head("metric", "labels", "what it says"), *rows])


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings,
    "environment.md": environment,
    "targets.md": targets,
    "cli.md": command_lines,
    "messages.md": messages,
    "messages.schema.json": schemas,
    "faults.md": faults,
    "metrics.md": metrics,
}


def render(name: str) -> str:
    """Return the text of a generated page, as it is to stand in its file."""
    if name.endswith(".json"):
        return PAGES[name]()
    title, _, body = PAGES[name]().partition("\n")
    return f"{title}\n\n<!-- Made by `make docs`; do not edit. -->\n{body}\n"


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit code 1 if a page is not up to date.")
def main(check: bool) -> None:
    """Write the generated pages."""
    for name in PAGES:
        path, text = FOLDER / name, render(name)
        if check and not (path.is_file() and path.read_text(encoding="utf-8") == text):
            raise click.ClickException(f"{path.relative_to(ROOT)} is not up to date; make docs writes it anew")
        if not check:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
