"""Writes the pages of docs/reference/ that follow from the code: settings, environment, make targets, command lines.

Examples:
    make docs                        write them
    python docs/generate.py --check  tell whether they are up to date (exit code 1: they are not)
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

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
        "write it into `.env`, then `make down up`. To change one for one job: `make run-cloud STRATEGY=FedMedian`.\n"
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


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings,
    "environment.md": environment,
    "targets.md": targets,
    "cli.md": command_lines,
}


def render(name: str) -> str:
    """Return the text of a generated page, as it is to stand in its file."""
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
