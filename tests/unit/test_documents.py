"""The documents: they are short, their links and commands work, and what follows from the code is up to date."""

from __future__ import annotations

import functools
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import click
import pytest

from fedstream.commands.cli import main
from fedstream.commands.simulate import read_settings
from fedstream.files.options import take_file_options
from fedstream.learning.models import make_model
from fedstream.rounds.strategies import make_strategy
from fedstream.settings import Settings, parse_options
from fedstream.simulation.scenario import Scenario

ROOT = Path(__file__).parents[2]
JOBS = {
    "run-producer": "producer/sensor_producer.py",
    "run-fog": "fog/fog_node.py",
    "run-cloud": "cloud/aggregator.py",
    "run-squares": "socket_stream/consumer.py",
    "run-bridge": "socket_stream/bridge.py",
    "run-squares-kafka": "realtime/squares.py",
    "run-alerts": "realtime/alerts.py",
}


def tracked(pattern: str) -> list[Path]:
    """Return the files of the repository, or that would be added to it, whose path matches."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard", pattern]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    return sorted({ROOT / name for name in names if name and (ROOT / name).is_file()})


@functools.cache
def generator() -> ModuleType:
    """Return docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATED = [ROOT / "docs" / "reference" / name for name in generator().PAGES]
WRITTEN = sorted({ROOT / "README.md", *tracked("docs/*.md")} - set(GENERATED))
DOCUMENTS = [*WRITTEN, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
DECISIONS = tracked("docs/explanation/decisions/0*.md")


def name_of(path: Path) -> str:
    """Return a path as the repository calls it."""
    return str(path.relative_to(ROOT))


def text_of(path: Path) -> str:
    """Return a document's text."""
    return path.read_text(encoding="utf-8")


def prose_of(path: Path) -> str:
    """Return a document's text without its blocks of code."""
    return re.sub(r"```.*?```", "", text_of(path), flags=re.DOTALL)


# --- what follows from the code


@pytest.mark.parametrize("name", generator().PAGES)
def test_a_generated_page_is_up_to_date(name):
    assert text_of(ROOT / "docs" / "reference" / name) == generator().render(name), "make docs writes it anew"


def test_each_variable_of_dotenv_has_a_comment():
    rows = re.findall(r"^\| `\w+` \| .* \| (.*) \|$", text_of(ROOT / "docs/reference/environment.md"), re.MULTILINE)
    assert len(rows) > 20
    assert all(rows)


# --- length


def test_the_readme_is_a_page_to_read():
    assert len(text_of(ROOT / "README.md").splitlines()) <= 200
    assert len(text_of(ROOT / "README.md").split()) <= 2000


def test_the_documents_are_an_afternoon_to_read():
    assert sum(len(text_of(path).split()) for path in WRITTEN) <= 16_000


def test_contributing_fits_a_screen_or_two():
    assert len(text_of(ROOT / "CONTRIBUTING.md").splitlines()) <= 60


# --- decisions


@pytest.mark.parametrize("path", DECISIONS, ids=name_of)
def test_a_decision_is_short_and_in_the_index_with_its_status(path):
    lines = text_of(path).splitlines()
    assert len(lines) <= 60
    (status,) = re.findall(r"^Status: (accepted|withdrawn|superseded by \d{4})\b", text_of(path), re.MULTILINE)
    index = text_of(ROOT / "docs/explanation/decisions/README.md")
    assert re.findall(rf"^- \[{path.name[:4]}\]\({path.name}\): .* \((.+)\)$", index, re.MULTILINE) == [status]


# --- links and paths


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", prose_of(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_the_links_of_a_document_resolve(path):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", prose_of(path)):
        found = (path.parent / target).resolve() if target else path
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found), f"{target}#{anchor}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_the_files_that_a_document_names_exist(path):
    suffixes = "py|sh|env|xml|conf|java|csv|yml|lock|toml"
    for named in re.findall(rf"`((?:[\w.-]+/)+[\w.-]+\.(?:{suffixes}))`", prose_of(path)):
        assert (ROOT / named).is_file(), named


def test_every_page_can_be_reached_from_the_index():
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)\)", text_of(index))}
    pages = {
        path for path in [*WRITTEN, *GENERATED] if path not in DECISIONS and path != index and path.suffix == ".md"
    }
    assert {name_of(path) for path in pages - linked} == set()


# --- commands


def command_lines(document: Path) -> Iterator[str]:
    """Yield the lines of a document's bash blocks without their comments, continuation lines joined."""
    for block in re.findall(r"```bash\n(.*?)```", text_of(document), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                yield line.strip()


def inline_commands(document: Path) -> Iterator[str]:
    """Yield the commands that stand in a sentence or a table."""
    yield from re.findall(r"`((?:make|fedstream|spark-submit) [^`]+)`", prose_of(document))


def words_of(line: str) -> list[str]:
    """Return the words of a command line; a comment is left out."""
    return shlex.split(line, comments=True)


@functools.cache
def script_options(path: str) -> set[str]:
    """Return the options of a job script."""
    command = generator().job_script(ROOT / path)
    assert command is not None, path
    return {"-h", "--help"} | {name for parameter in command.params for name in parameter.opts}


@functools.cache
def make_variables() -> set[str]:
    """Return the names that may stand before an equals sign on a make command line."""
    files = [ROOT / "Makefile", *tracked("*.mk"), *tracked("*docker/*.sh")]
    used = {name for path in files for name in re.findall(r"\$+[({]?([A-Z][A-Z_]*)", text_of(path))}
    dotenv = set(re.findall(r"^([A-Z][A-Z0-9_]*)=", text_of(ROOT / ".env"), re.MULTILINE))
    return used | dotenv | {setting.name.upper() for setting in fields(Settings)}


def options_in(words: list[str]) -> set[str]:
    """Return the options among the words of a command."""
    return {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_the_make_commands_of_a_document_exist(document):
    targets = set(re.findall(r"^([a-z-]+):(?!=)", text_of(ROOT / "Makefile"), re.MULTILINE))
    lines = [*command_lines(document), *inline_commands(document)]
    for line in (line for line in lines if re.match(r"(time |cd \S+ && )?make ", line)):
        words = words_of(line.split("|")[0])
        words = words[words.index("make") + 1 :]
        given = dict(word.split("=", 1) for word in words if "=" in word)
        wanted = {word for word in words if "=" not in word}
        assert {word for word in wanted if word not in targets and not re.search(r"[*…]|JOB", word)} == set(), line
        assert set(given) <= make_variables(), line
        for target in wanted & set(JOBS):
            assert options_in(given.get("ARGS", "").split()) <= script_options(JOBS[target]), line


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_the_options_of_a_script_exist(document):
    for line in [*command_lines(document), *inline_commands(document)]:
        words = words_of(line) if re.search(r"\w/\w+\.py\b", line) else []
        for place, word in enumerate(words):
            script = word.removeprefix("/app/")
            if word.endswith(".py") and (ROOT / script).is_file() and script.split("/")[0] not in ("docs", "bench"):
                assert options_in(words[place + 1 :]) <= script_options(script), line


FEDSTREAM_LINES = [line for path in WRITTEN for line in command_lines(path) if line.startswith("fedstream ")]


@pytest.mark.parametrize("line", FEDSTREAM_LINES)
def test_a_command_line_of_fedstream_can_be_read(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = words_of(line)
    arguments = words[1 : next((i for i, word in enumerate(words) if word in ("|", ">")), len(words))]
    command: click.Command = main
    context = main.make_context("fedstream", arguments)
    while isinstance(command, click.Group):
        name, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, arguments, parent=context)
    if command.name == "simulate":  # these must also fit together
        params = context.params | {"reading": take_file_options(dict(context.params))}
        scenario = Scenario(**{name: params[name] for name in Scenario.__dataclass_fields__})
        given = {name: context.params[name] for name in ("strategy", "strategy_options", "model", "model_options")}
        settings = read_settings(given)
        make_model(settings.model, parse_options("MODEL_OPTIONS", settings.model_options))
        make_strategy(settings.strategy, parse_options("STRATEGY_OPTIONS", settings.strategy_options))
        assert scenario.data in ("sensors", "breast_cancer", "digits", "wine", "iris") or Path(scenario.data).is_file()


def test_command_lines_of_fedstream_were_found():
    assert len(FEDSTREAM_LINES) > 15


# --- your own data

OWN_DATA = [ROOT / "docs/how-to/bring-your-own-data.md", ROOT / "docs/fr/vos-donnees.md"]
SHAPES = [
    (line, block)
    for page in OWN_DATA
    for lines, block in re.findall(r"```bash\n(.*?)```(?:\s*```text\n(.*?)```)?", text_of(page), re.DOTALL)
    for line in lines.splitlines()
]


@pytest.mark.parametrize(("line", "block"), SHAPES, ids=[re.search(r"data/\S+", line)[0] for line, _ in SHAPES])
def test_a_file_of_the_page_on_your_own_data_is_read_as_the_page_shows(line, block):
    _, *words = words_of(line)
    pattern_or_file = [str(ROOT / word) if word.startswith("examples/") else word for word in words]
    done = subprocess.run([sys.executable, *pattern_or_file], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = (done.stdout + done.stderr).splitlines()
    assert set(block.splitlines()) <= set(printed)


def test_five_shapes_are_shown_in_two_languages():
    assert len(SHAPES) == 2 * 5
