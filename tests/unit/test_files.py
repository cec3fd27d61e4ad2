"""Data files: found out how they are written, each value under its own column, or an error that names the line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fedstream.errors import StackError
from fedstream.files.dialect import Given
from fedstream.files.table import BadRow, BadRows, Table, open_table
from fedstream.files.values import read_number

Read = Callable[..., tuple[list[str], list[tuple[int, dict[str, str]]]]]


@pytest.fixture
def table(tmp_path) -> Callable[..., Table]:
    """Return what opens a file with this content, read as is said of it."""

    def opened(content: str | bytes, names: str = "", **given: object) -> Table:
        path: Path = tmp_path / "machines.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return open_table(path, Given(**given), names)

    return opened


@pytest.fixture
def read(table) -> Read:
    """Return what reads a file's header and rows."""

    def rows(content: str | bytes, names: str = "", **given: object) -> tuple[list[str], list[tuple[int, dict]]]:
        found = table(content, names, **given)
        rows = found.read(BadRows())
        # A row may have an empty value more, behind a delimiter at its end.
        return list(found.columns), [(line, dict(zip(found.columns, cells, strict=False))) for line, cells in rows]

    return rows


@pytest.fixture
def error_of(read) -> Callable[..., str]:
    """Return what is said of a file that is refused, without its name."""

    def said(content: str | bytes, names: str = "", **given: object) -> str:
        with pytest.raises(StackError) as caught:
            read(content, names, **given)
        return str(caught.value).partition("machines.csv")[2].removeprefix(", ").removeprefix(": ")

    return said


# --- rows of CSV


def test_each_value_comes_under_its_column_with_its_line(read):
    assert read("a,b\n1,2\n\n3,\n") == (["a", "b"], [(2, {"a": "1", "b": "2"}), (4, {"a": "3", "b": ""})])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system_and_the_last_one_need_not(read, end):
    assert read(f"a,b{end}1,2{end}3,4") == (["a", "b"], [(2, {"a": "1", "b": "2"}), (3, {"a": "3", "b": "4"})])


def test_blanks_around_names_and_values_do_not_count(read):
    header, rows = read(' a ,b, "c, d"\nx y , 2, "3, 4"\n')
    assert (header, rows) == (["a", "b", "c, d"], [(2, {"a": "x y", "b": "2", "c, d": "3, 4"})])


def test_quotes_hold_commas_and_doubled_quotes(read):
    assert read('a,b\n"1,5","5"" pipe"\n') == (["a", "b"], [(2, {"a": "1,5", "b": '5" pipe'})])


def test_a_quote_inside_a_value_without_quotes_is_a_character(read):
    assert read('a,b\n5" pipe,2\nbelt "B",3"\n') == (
        ["a", "b"],
        [(2, {"a": '5" pipe', "b": "2"}), (3, {"a": 'belt "B"', "b": '3"'})],
    )


def test_a_row_of_more_values_is_refused_with_its_line_and_a_remedy(error_of):
    # One row of decimal commas between good ones.
    said = error_of("temperature,vibration\n70.5,0.05\n\n71,5,0,06\n72.5,0.07\n")
    assert said.startswith("line 4: 4 values; expected 2 as in the header, got '71,5,0,06'")
    assert "decimal comma" in said
    assert "quotes" in said


def test_a_row_of_fewer_values_is_refused_with_its_line_and_a_remedy(error_of):
    said = error_of("time,temperature,vibration\n1000,70,0.05\n2000,0.053\n")
    assert said.startswith("line 3: 2 values; expected 3 as in the header, got '2000,0.053'")
    assert "leave the place of a missing value empty" in said


@pytest.mark.parametrize(
    "rest",
    [
        "",  # nothing closes it
        "81.0,0.05,ok\n82.0,0.05,\n",
        '81.0,0.05,ok\n82.0,0.05,inch"\n83.0,0.05,ok\n',  # another stray quote closes it
        '81.0,0.05,"ok"\n82.0,0.05,ok\n',  # the next good quote would
        "81.0,0.05,ok\n" * 12_200,  # more than one value may hold
    ],
)
def test_a_quote_that_is_not_closed_is_refused_with_the_line_it_opens_on(error_of, rest):
    said = error_of('temperature,vibration,remark\n80.0,0.05,ok\n62.3,0.038,"belt 5 slipping\n' + rest)
    assert said.startswith("line 3: ")
    assert """'62.3,0.038,"belt 5 slipping'""" in said
    assert "expected a quote at both ends of a value or at neither" in said


def test_a_value_that_a_line_break_divides_is_refused(error_of):
    assert error_of('a,b\n1,"two\nlines"\n').startswith("line 2: ")


def test_text_after_a_closing_quote_is_refused(error_of):
    assert error_of('a,b\n1,2\n"3" inch,4\n').startswith("line 3: ")


def test_a_quote_that_is_not_closed_in_the_header_is_refused(error_of):
    assert error_of('a,"b\n1,2\n').startswith("line 1: ")


def test_a_value_longer_than_can_be_read_is_refused_with_its_line_and_briefly(error_of):
    said = error_of("a,b\n1,2\n" + "9" * 200_000 + ",2\n")
    assert said.startswith("line 3: ")
    assert "131072" in said
    assert len(said) < 500


@pytest.mark.parametrize("header", ["a,b,a", "a,b, a ", 'a,b,"a"'])
def test_a_column_that_is_there_twice_is_refused(error_of, header):
    assert error_of(f"{header}\n1,2,3\n").startswith("line 1: column a is there twice; expected ")


def test_two_columns_without_a_name_are_refused_too(error_of):
    assert error_of(",a,\n1,2,3\n").startswith("line 1: column '' is there twice")


def test_one_column_without_a_name_is_a_column(read):
    assert read(",a\n0,1\n") == (["", "a"], [(2, {"": "0", "a": "1"})])


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_a_file_without_a_header_is_refused(error_of, text):
    assert error_of(text) == "line 1: the file is empty; expected a header with the names of the columns"


def test_a_file_of_a_header_alone_has_no_rows(read):
    assert read("a,b\n") == (["a", "b"], [])


def test_the_rows_before_a_bad_one_are_passed_on(table):
    rows = table("a,b\n1,2\n3\n").read(BadRows())
    assert next(rows) == (2, ["1", "2"])
    with pytest.raises(BadRow, match=r"machines\.csv, line 3: 1 values"):
        next(rows)


def test_bad_rows_are_left_out_and_counted_where_that_is_asked_for(table):
    bad = BadRows(skip=True)
    text = 'a,b\n1,2\n3\n4,"5\n6,7\n8,9,10\n11,12,13\n14,15\n'
    assert list(table(text).read(bad)) == [(2, ["1", "2"]), (5, ["6", "7"]), (8, ["14", "15"])]
    assert bad.count == 4
    assert [reason.partition("machines.csv, ")[2][:16] for reason in bad.reasons] == [
        "line 3: 1 values",
        "line 4: '4,\"5' c",
        "line 6: 3 values",
    ]
    assert str(bad).startswith("4 bad rows left out, such as\n  ")


# --- values


@pytest.mark.parametrize(
    ("text", "value"), [("72.48", 72.48), ("-3e1", -30.0), ("+5", 5.0), (".5", 0.5), ("007", 7.0), ("1E3", 1000.0)]
)
def test_a_number_is_read(text, value):
    assert read_number(text) == value


@pytest.mark.parametrize(
    "text", ["", "warm", "nan", "inf", "-Infinity", "1e999", "81,7", "1_000", "\u0667\u0660", "\uff17", "0x10", "1 2"]
)
def test_what_is_no_finite_number_in_plain_digits_is_refused(text):
    with pytest.raises(ValueError, match=r".*"):
        read_number(text)


# --- how a file is written


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a\tb\n1\t2\n3\t4\n", "tabs between values, decimal point, utf-8, names in line 1"),
        ("Air t\tb\n1\t\n3\t4\n", "tabs between values, decimal point, utf-8, names in line 1"),
        ("a|b\r1|2.5\r", "| between values, decimal point, utf-8, names in line 1"),
        ("a b\n1  2\n3 4\n", "blanks between values, decimal point, utf-8, names in line 1"),
        ("é;b\r\n72,5;0,05\r\n".encode("cp1252"), "; between values, decimal comma, cp1252, names in line 1"),
        ("é\tb\n72,5\t0,05\n".encode("utf-16"), "tabs between values, decimal comma, utf-16, names in line 1"),
        ("logger X\n\na,b,c\n1,2,3\n", ", between values, decimal point, utf-8, names in line 3"),
    ],
)
def test_how_a_file_is_written_is_found_out_and_said(table, content, words):
    assert table(content).said == f"machines.csv: {words}"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_last_line_without_an_end_is_told_since_its_last_number_may_be_cut_off(table, encoding, end):
    question = "the last line does not end: is the file complete?"
    text = f"température,vibration{end}72.5,0.05{end}72.5,0.071{end}"
    given = {"encoding": encoding} if encoding in ("utf-16-le", "utf-16-be") else {}
    assert question not in table(text.encode(encoding), **given).said
    for cut in (text.removesuffix(end), text.removesuffix(f"71{end}")):
        opened = table(cut.encode(encoding), **given)
        assert opened.said.endswith(f"; {question}")
        assert len(list(opened.read(BadRows()))) == 2  # it is no reason to refuse a row


@pytest.mark.parametrize(
    ("content", "option", "given"),
    [
        ("a;b\n1,013;2,500\n", "--decimal", {"decimal": ","}),  # thousands, or decimals?
        ("a;b\n1,5;2.5\n", "--decimal", {"decimal": "."}),
        ("x, y;a\n1, 2;3\n", "--delimiter", {"delimiter": ";"}),
        ("1,2\n3,4\n", "--names", {"names": "a,b"}),
        ("a,b\ndegC,g\n1,2\n", "--header 1 --skip-rows 1", {"header": "1", "skip_rows": 1}),
        (b"a,\x81\n1,2\n", "--encoding", {"encoding": "cp850"}),
        ("a,b,a\n1,2,3\n", "--names", {"names": "a,b,c"}),
    ],
)
def test_what_fits_two_ways_is_refused_with_the_option_that_decides(error_of, read, content, option, given):
    assert option in error_of(content)
    assert len(read(content, **given)[1]) >= 1


def test_a_line_of_names_that_cannot_be_cut_is_not_replaced_by_the_next_line(error_of):
    assert error_of('"temperature| "é|\nok| NA|\nok| 0.0|\n').startswith("lines 1 to 2 stand before the first row")


def test_a_row_of_delimiters_alone_is_a_row_without_values(read):
    assert read("a\tb\n1\t2\n\t\n")[1] == [(2, {"a": "1", "b": "2"}), (3, {"a": "", "b": ""})]
