"""Parquet and JSON Lines say what a CSV file of the same table says, to the sensors and to the simulation."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedstream.errors import SettingError, StackError
from fedstream.files.dialect import Given
from fedstream.files.options import FileOptions
from fedstream.files.readings import Meaning, Replay
from fedstream.files.table import BadRow, BadRows, open_table
from fedstream.messages.readings import Reading
from fedstream.settings import Settings
from fedstream.simulation.data import load

FORMS = ("csv", "jsonl", "parquet")
AT = datetime(2026, 1, 17, 7, 54, 53, 250_000, UTC)
AT_MS = 1_768_636_493_250  # 20,470 days of 86,400 s, 7 h 54 min 53.25 s
ROWS = [
    {"sensor_id": f"press-{i % 2}", "event_time": AT + timedelta(seconds=i), "temperature": 60.5 + i, "vibration": i}
    | {"label": i == 2, "note": None if i else "è"}
    for i in range(3)
]


@pytest.fixture
def written(tmp_path):
    """Return what writes rows to a file of a form, by other libraries than those that read it."""

    def write(form: str, rows: list[dict]) -> Path:
        path = tmp_path / f"machines.{form}"
        texts = [{k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()} for row in rows]
        if form == "csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(texts)
        elif form == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in texts))
        else:
            pd.DataFrame(rows).to_parquet(path)
        return path

    return write


def replayed(path: Path, bad: BadRows | None = None, **settings: object) -> list[tuple[int, Reading]]:
    """Return the readings of a file."""
    meaning = Meaning(Settings(**settings), lambda values: 0)
    return list(Replay([open_table(path, Given())], meaning, 2, bad or BadRows()))


@pytest.mark.parametrize("form", FORMS)
def test_texts_times_numbers_and_labels_are_the_same_readings(written, form):
    assert replayed(written(form, ROWS)) == [
        (1, Reading("press-0", (60.5, 0.0), 0, AT_MS)),
        (2, Reading("press-1", (61.5, 1.0), 0, AT_MS + 1000)),
        (1, Reading("press-0", (62.5, 2.0), 1, AT_MS + 2000)),
    ]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("column", "expected"),
    [("temperature", "a number"), ("label", "a label (LABELS=optional"), ("sensor_id", "the name of a sensor")],
)
def test_a_missing_value_is_refused_with_its_place_or_its_row_left_out(written, form, column, expected):
    path = written(form, [ROWS[0], ROWS[1] | {column: None}, ROWS[2]])
    place = {"csv": "line 3", "jsonl": "line 2", "parquet": "row 2"}[form]
    with pytest.raises(BadRow) as caught:
        replayed(path)
    assert f"{path}, {place}: {column} is ''; expected {expected}" in str(caught.value)
    bad = BadRows(skip=True)
    assert (len(replayed(path, bad)), bad.count) == (2, 1)


@pytest.mark.parametrize("form", FORMS)
def test_a_missing_label_is_none_where_labels_are_optional(written, form):
    path = written(form, [ROWS[0] | {"label": None}, ROWS[2]])
    assert [reading.label for _, reading in replayed(path, labels="optional")] == [None, 1]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("label", [[0, 1, 1], [0.0, 1.0, 1.0], ["no", "yes", "yes"], [False, True, True]])
def test_labels_of_each_kind_are_the_same(written, form, label):
    path = written(form, [row | {"label": each} for row, each in zip(ROWS, label, strict=True)])
    assert [reading.label for _, reading in replayed(path)] == [0, 1, 1]
    data = load(str(path), "label")
    assert (data.y.tolist(), data.features) == ([0, 1, 1], ("temperature", "vibration"))


@pytest.mark.parametrize("form", FORMS)
def test_the_simulation_learns_from_the_same_rows(written, form):
    data = load(str(written(form, ROWS)), "label")
    assert data.features == ("temperature", "vibration")
    assert data.x.tolist() == [[60.5, 0.0], [61.5, 1.0], [62.5, 2.0]]
    assert (data.labels, data.y.tolist()) == (("False", "True"), [0, 0, 1])
    assert data.column("sensor_id").tolist() == ["press-0", "press-1", "press-0"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Paris"])
def test_times_of_parquet_are_right_in_each_unit_and_zone(tmp_path, unit, zone):
    per_second = {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9}[unit]
    # Inside are always units since 1970 UTC; a time without a zone is taken for UTC.
    times = pa.array([AT_MS // 1000 * per_second], pa.timestamp(unit, zone))
    pq.write_table(pa.table({"temperature": [72.5], "vibration": [0.05], "event_time": times}), tmp_path / "t.parquet")
    assert [reading.event_time for _, reading in replayed(tmp_path / "t.parquet")] == [AT_MS // 1000 * 1000]


def test_days_decimals_small_numbers_and_categories_of_parquet_are_read(tmp_path):
    table = pa.table(
        {
            "event_time": pa.array([20_470], pa.date32()),
            "temperature": pa.array([Decimal("72.50")]),
            "vibration": pa.array([0.5], pa.float16()),
            "label": pa.array(["yes"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    assert replayed(tmp_path / "t.parquet") == [(1, Reading("node-1", (72.5, 0.5), 1, 20_470 * 86_400_000))]


def test_the_row_number_of_pandas_in_parquet_is_no_feature(tmp_path):
    rows = [{"heat": float(i % 5), "failed": i % 2} for i in range(30)]
    pd.DataFrame(rows).drop(index=[3, 7]).to_parquet(tmp_path / "t.parquet")
    assert "__index_level_0__" in pq.read_schema(tmp_path / "t.parquet").names
    data = load(str(tmp_path / "t.parquet"), "failed")
    assert (data.features, len(data.y)) == (("heat",), 28)


def test_a_column_that_is_there_twice_in_parquet_is_refused(tmp_path):
    columns = [pa.array([1.0]), pa.array([2.0]), pa.array([3.0])]
    pq.write_table(pa.table(columns, names=["temperature", "vibration", "temperature"]), tmp_path / "t.parquet")
    with pytest.raises(SettingError, match=r"t\.parquet: column temperature is there twice"):
        open_table(tmp_path / "t.parquet", Given())


def test_the_same_rows_in_one_batch_or_in_several(tmp_path):
    columns = {"temperature": [float(i % 90) for i in range(10_000)], "vibration": [0.05] * 10_000}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=3000)
    assert [reading.values[0] for _, reading in replayed(tmp_path / "t.parquet")] == columns["temperature"]


# --- JSON Lines


@pytest.fixture
def lines(tmp_path):
    """Return what writes a text to a file of JSON Lines."""

    def write(text: str) -> Path:
        path = tmp_path / "log.jsonl"
        path.write_bytes(text.encode())
        return path

    return write


@pytest.mark.parametrize("begin", ["", "\ufeff", "\n\n", "\r\n  "])
def test_values_are_found_by_name_in_any_order_and_inside_an_object(lines, begin):
    first, second = (
        '{"m":"a","values":{"t":72.5,"v":0.05},"x":[1,{}]}',
        '{"values":{"v":0.06,"t":"73.5"},"m":7,"late":1}',
    )
    text = f"{first}\r\n\n{second}"
    fields = "sensor_id=m,temperature=values.t,vibration=values.v"
    assert replayed(lines(begin + text), fields=fields) == [
        (1, Reading("a", (72.5, 0.05), 0)),
        (2, Reading("7", (73.5, 0.06), 0)),
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{'temperature': 72.5, 'vibration': 0.05}", "is no JSON object"),
        ("[72.5, 0.05]", "is no JSON object"),
        ('{"temperature":72.5,"vibration":0.05', "is no JSON object"),
        ('{"temperature":72.5,"vibration":NaN}', "is no JSON object"),
        ('{"temperature":72.5}', "vibration is ''; expected a number"),
        ('{"temperature":true,"vibration":0.05}', "temperature is 'True'; expected a number"),
        ('{"temperature":[72.5],"vibration":0.05}', "temperature is '[72.5]'; expected a number"),
        ('{"temperature":1%s,"vibration":0.05}' % ("0" * 400), "expected a number"),
        ('{"temperature":72.5,"vibration":0.05,"label":[1]}', "label is '[1]'; expected 0 or 1"),
        ('{"temperature":72.5,"vibration":0.05,"label":{}}', "label is"),
    ],
)
def test_a_line_that_is_no_reading_is_refused_with_its_number(lines, line, words):
    good = '{"temperature":72.5,"vibration":0.05,"label":0}\n'
    with pytest.raises(StackError) as caught:
        replayed(lines(f"{good}{line}\n{good}"))
    assert "log.jsonl, line 2: " in str(caught.value)
    assert words in str(caught.value)
    bad = BadRows(skip=True)
    assert (len(replayed(lines(f"{good}{line}\n{good}"), bad)), bad.count) == (2, 1)


# --- what is none of them


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    "option",
    [{"delimiter": ";"}, {"decimal": ","}, {"encoding": "cp1252"}, {"header": "2"}, {"skip_rows": 1}, {"names": "a,b"}],
)
def test_options_of_csv_are_refused_where_they_would_do_nothing(written, form, option):
    options = FileOptions(**option)
    with pytest.raises(SettingError, match=r"machines\.\w+ is (JSON Lines|Parquet); expected CSV, which alone has --d"):
        open_table(written(form, ROWS), options.given, options.names)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04rest", "is a zip file, such as an Excel workbook; expected .*: save it as CSV UTF-8"),
        (b"\x1f\x8brest", "is compressed; .*: gunzip it"),
        (b'[{"a":1}]', "is a list; .*one object a line"),
        (b"PAR1rest", "cannot be read as Parquet"),
        (b"a,\0b\n", "has NUL bytes; expected text"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_what_to_do(tmp_path, content, words):
    (tmp_path / "odd").write_bytes(content)
    with pytest.raises(SettingError, match=words):
        open_table(tmp_path / "odd", Given())
