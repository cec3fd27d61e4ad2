"""Rows as files: what is written is what other programs read, and a file is never half."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fedstream.errors import StackError
from fedstream.output import write_rows

COLUMNS = {"node": str, "n": int, "share": float, "good": bool, "at": datetime}
ROWS = [
    {"node": 'fog-1, "é"', "n": 2**53 + 1, "share": 0.1, "good": True, "at": 1_700_000_000_123, "more": "left out"},
    {"node": None, "n": None, "share": None, "good": None, "at": None},
]
AT = datetime(2023, 11, 14, 22, 13, 20, 123_000, UTC)  # 1,700,000,000.123 s after the begin of 1970


def test_a_csv_file_has_a_header_and_reads_back_with_pythons_reader(tmp_path):
    write_rows(ROWS, COLUMNS, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert first == {
        "node": 'fog-1, "é"',
        "n": str(2**53 + 1),
        "share": "0.1",
        "good": "True",
        "at": AT.isoformat("T", "milliseconds"),
    }
    assert set(second.values()) == {""}


def test_json_lines_and_parquet_hold_the_same_rows(tmp_path):
    for ending in ("jsonl", "parquet"):
        write_rows(ROWS, COLUMNS, tmp_path / f"rows.{ending}")
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text("utf-8").splitlines()]
    table = pq.read_table(tmp_path / "rows.parquet")
    assert [str(kind) for kind in table.schema.types] == ["string", "int64", "double", "bool", "timestamp[ms, tz=UTC]"]
    assert table.to_pylist() == [{**lines[0], "at": AT}, lines[1]]
    assert datetime.fromisoformat(lines[0]["at"]) == AT


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ('=HYPERLINK("http://x","y")', '\'=HYPERLINK("http://x","y")'),
        ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("＝1+1", "'＝1+1"),
        ("\t=1", "\t'=1"),
        ("\r\n=1", "\r\n'=1"),
        ("press;=1+1", "press;'=1+1"),  # Excel in French begins a cell at a semicolon
        ('press",=1+1', "press\",'=1+1"),
        # What is no formula stays as it is.
        ("-1.5", "-1.5"),
        ("+33", "+33"),
        ("-1e-3", "-1e-3"),
        ("fog-1", "fog-1"),
        ("a=b", "a=b"),
        ("rollback to version 3; -1 of 4", "rollback to version 3; -1 of 4"),
        ("'", "'"),
        ("", ""),
    ],
)
def test_no_text_of_a_csv_file_is_a_formula_for_a_spreadsheet(tmp_path, text, written):
    write_rows([{"node": text, "n": -1}], {"node": str, "n": int}, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["node", "n"], [written, "-1"]]
    write_rows([{"node": text, "n": -1}], {"node": str, "n": int}, tmp_path / "rows.jsonl")
    assert json.loads((tmp_path / "rows.jsonl").read_text()) == {"node": text, "n": -1}  # for programs


def test_negative_numbers_of_a_csv_file_stay_numbers(tmp_path):
    write_rows([{"n": -3, "x": -1.5}], {"n": int, "x": float}, tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_text() == "n,x\n-3,-1.5\n"


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_no_rows_and_times_beyond_the_year_9999_are_written_too(tmp_path, ending):
    write_rows([], COLUMNS, tmp_path / "new" / f"rows.{ending}")
    write_rows([ROWS[1] | {"at": 2**62}], COLUMNS, tmp_path / "new" / f"rows.{ending}")
    if ending != "parquet":
        assert str(2**62) in (tmp_path / "new" / f"rows.{ending}").read_text()


def test_a_writer_that_dies_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "rows.csv"
    write_rows(ROWS, COLUMNS, path)
    before = path.read_bytes()

    def dies(unfinished, target):
        assert unfinished.read_bytes().startswith(b"node,")
        raise KeyboardInterrupt  # as a kill does, it is caught by nothing here

    monkeypatch.setattr(Path, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        write_rows(ROWS * 2, COLUMNS, path)
    assert path.read_bytes() == before
    assert list(tmp_path.glob("*.csv")) == [path]


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match=r"cannot write .*file/rows\.csv: "):
        write_rows(ROWS, COLUMNS, tmp_path / "file" / "rows.csv")
