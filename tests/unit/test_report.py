"""The report of a running stack: complete in both languages, and readable by the programs that take it."""

from __future__ import annotations

import re
import shutil
import zipfile
from importlib.resources import files

import pytest
from click.testing import CliRunner
from fake_topics import Stack, Topics
from matplotlib.figure import Figure

from fedstream.commands import report
from fedstream.commands.demo import Check
from fedstream.errors import StackError
from fedstream.messages.topics import GLOBAL_MODEL
from fedstream.settings import Settings


@pytest.fixture
def topics(monkeypatch):
    for name in ("STRATEGY", "STRATEGY_OPTIONS", "MODEL", "SEED", "LOCAL_EPOCHS", "KAFKA_BOOTSTRAP_SERVERS"):
        monkeypatch.delenv(name, raising=False)
    return Topics().install(monkeypatch)


def rows_below(text, heading):
    """Return the cells of the first table below a heading, without its head."""
    table = re.search(rf"^## {heading}\n.*?((?:^\|[^\n]*\n)+)", text, re.MULTILINE | re.DOTALL)[1]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


def test_a_cell_cannot_break_its_table():
    assert report.markdown_rows([("a|b", 1), (None, 2.5)]) == "| a\\|b | 1 |\n| None | 2.5 |"


def test_both_languages_say_the_same():
    english, french = (files("fedstream.commands").joinpath(f"report.{each}.md").read_text() for each in ("en", "fr"))
    assert re.findall(r"\$\w+", english) == re.findall(r"\$\w+", french)
    assert english.count("\n## ") == french.count("\n## ")


def test_the_report_has_the_rounds_as_they_are_on_the_topic(topics, monkeypatch):
    Stack(topics).run(3)
    checks = [Check("fog-1", "weight 40", "40 recomputed", True), Check("cloud", "41", "40", False)]
    monkeypatch.setattr(report, "checks_of", lambda *_: checks)  # of the demo; the stack test has the real ones
    done = CliRunner().invoke(report.report, ["--output", "-", "--seconds", "0"])
    assert done.exit_code == 0, done.output
    closed = [each for each in topics.messages(GLOBAL_MODEL) if each.get("metrics")]
    assert [row[0] for row in rows_below(done.stdout, "Rounds")] == [str(each["round"] - 1) for each in closed]
    assert [row[3] for row in rows_below(done.stdout, "Rounds")] == [
        str(each["metrics"]["num_examples"]) for each in closed
    ]
    assert [row[3] for row in rows_below(done.stdout, "Checks")] == ["ok", "FAILED"]
    assert "![Learning curves](learning-curves.png)" in done.stdout


def test_of_many_rounds_the_first_the_last_and_some_between_are_shown(topics):
    Stack(topics).run(report.MOST_ROUNDS + 7)
    run = report.registry.load_run(Settings())
    lines = report.round_table(run, "fr").splitlines()
    numbers = [int(line.split("|")[1]) for line in lines[2:]]
    assert (len(numbers), numbers[0], numbers[-1]) == (report.MOST_ROUNDS, 1, report.MOST_ROUNDS + 7)
    assert numbers == sorted(set(numbers))
    assert lines[0].startswith("| ronde | version | nœuds | exemples |")


def test_only_settings_that_say_something_are_listed(topics):
    Stack(topics).run(1)
    run = report.registry.load_run(Settings())
    rows = dict(report.settings_rows(Settings(drift_action="boost"), run))
    assert (rows["MODEL"], rows["STRATEGY"], rows["DRIFT_ACTION"]) == ("logistic", "FedAvg", "boost")
    assert "ROUND_QUORUM" not in rows


def test_pandoc_makes_a_document_with_the_picture(tmp_path):
    if not shutil.which("pandoc"):
        pytest.skip("pandoc is not installed")
    Figure().savefig(tmp_path / "report.png")
    report.write("# Title\n\n![curves](report.png)\n", tmp_path / "report.docx")
    names = zipfile.ZipFile(tmp_path / "report.docx").namelist()
    assert "word/document.xml" in names
    assert any(name.startswith("word/media/") for name in names)


def test_without_pandoc_or_with_another_name_the_remedy_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "which", lambda _: None)
    with pytest.raises(StackError, match=r"report.docx is made by pandoc, which is not there: install it"):
        report.write("", tmp_path / "report.docx")
    with pytest.raises(StackError, match=r"report.pdf; expected a name that ends in .md or .docx"):
        report.write("", tmp_path / "report.pdf")
    with pytest.raises(StackError, match=r"cannot write .*nowhere/report.md: No such file or directory"):
        report.write("", tmp_path / "nowhere" / "report.md")
