"""Labelled rows for experiments: simulated readings, data sets that come with scikit-learn, CSV files."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedstream.errors import SettingError
from fedstream.learning.arrays import Matrix
from fedstream.learning.models import Labels
from fedstream.settings import Settings
from fedstream.simulation.rows import BadRow, read_number, read_rows
from fedstream.simulation.sensors import digits, label_of, label_rule, simulated_ranges

BUNDLED = ("breast_cancer", "digits", "wine", "iris")
SENSOR_ROWS = 4000
NO_LABEL = ("", "na", "n/a", "#n/a", "nan", "null", "none", "?", "-")  # as programs write a value that is missing


@dataclass(frozen=True)
class DataSet:
    """Rows x (n, features) with classes y (n,) in 0..classes-1; `labels` are the classes' names."""

    x: Matrix
    y: Labels
    classes: int
    name: str
    labels: tuple[str, ...]
    settings: Settings | None = None  # of simulated readings: their labels follow a rule


def load(
    source: str,
    label: str | None = None,
    rows: int | None = None,
    seed: int = 1,
    settings: Settings = Settings(),  # noqa: B008 - frozen
) -> DataSet:
    """Return the simulator's readings (`sensors`), a data set that comes with scikit-learn, or a CSV file.

    Args:
        source: sensors, breast_cancer, digits, wine, iris, or the path of a CSV file with a header.
        label: the file's column of classes; every other column is a feature.
        rows: of `sensors` as many are drawn; of another source, this many of its rows are chosen at random.
        seed: of both.
        settings: which features `sensors` measure, and when their label is 1.

    Raises:
        SettingError: there is no such source, label or number of rows, or a value of the file cannot be used.
    """
    random = np.random.RandomState(seed % 2**32)
    if label is not None and source in ("sensors", *BUNDLED):
        raise SettingError(f"label is {label!r}; expected none, as {source} has its own labels")
    if rows is not None and rows < 1:
        raise SettingError(f"rows is {rows}; expected at least 1")
    if source == "sensors":
        count = SENSOR_ROWS if rows is None else rows
        drawn = [random.uniform(*edges, count).round(digits(*edges)) for edges in simulated_ranges(settings)]
        return readings(np.column_stack(drawn), settings)
    if source in BUNDLED:
        from sklearn import datasets

        bunch = getattr(datasets, f"load_{source}")()
        labels = tuple(map(str, bunch.target_names))
        data = DataSet(bunch.data.astype(np.float64), bunch.target.astype(np.int64), len(labels), source, labels)
    else:
        data = _read_csv(Path(source), label)
    if rows is None:
        return data
    if rows > len(data.y):
        raise SettingError(f"rows is {rows}; expected at most {len(data.y)}, as many as {source} has")
    chosen = random.permutation(len(data.y))[:rows]
    return replace(data, x=data.x[chosen], y=data.y[chosen])


def readings(x: Matrix, settings: Settings) -> DataSet:
    """Return readings x (n, features) with the labels of the simulator's rule."""
    rule, classes = label_rule(settings), settings.classes
    y = np.array([label_of(values, rule, classes) for values in x], dtype=np.int64)
    labels = ("good", "trouble") if classes == 2 else tuple(map(str, range(classes)))
    return DataSet(x, y, classes, "sensors", labels, settings)


def _read_csv(path: Path, label: str | None) -> DataSet:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, lines = read_rows(file)
            if label not in header or len(header) < 2:
                columns = f"column of {path}, which has: {', '.join(header)}"
                raise SettingError(f"label is {label!r}; expected a {columns}, and a feature beside it at least")
            table = list(lines)
    except BadRow as error:
        raise SettingError(f"{path}, {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        expected = f"sensors, {', '.join(BUNDLED)} or the path of a CSV file"
        raise SettingError(f"data is {str(path)!r}, which cannot be read ({error}); expected {expected}") from error
    rows, texts = [], []
    first: dict[float | str, tuple[int, str]] = {}  # line and spelling
    for line, values in table:
        where, text = f"{path}, line {line}, column ", values.pop(label)
        if text.lower() in NO_LABEL:
            raise SettingError(f"{where}{label}: {text!r}; expected a label: fill in or leave out this row")
        number, _ = _numbers_first(text)
        first_line, spelling = first.setdefault(number if number < math.inf else text.lower(), (line, text))
        if text != spelling:
            got = f"{text!r}, but {spelling!r} in line {first_line}"
            raise SettingError(f"{where}{label}: {got}; expected one spelling of a label: write both alike")
        texts.append(text)
        rows.append([_number(value, where + name) for name, value in values.items()])
    labels = sorted(set(texts), key=_numbers_first)
    if len(labels) < 2:
        raise SettingError(f"column {label} of {path} has the labels {labels}; expected at least two")
    places = {text: i for i, text in enumerate(labels)}
    y = np.array([places[text] for text in texts], dtype=np.int64)
    return DataSet(np.array(rows), y, len(labels), path.name, tuple(labels))


def _number(text: str, where: str) -> float:
    try:
        value = read_number(text, float)
    except ValueError:
        value = math.nan
    if not abs(value) < 1e100:  # refuses NaN, too; beyond this the square of a sum is not finite
        raise SettingError(f"{where}: {text!r}; expected a finite number: fill in or leave out this row or column")
    return value


def _numbers_first(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


def split(data: DataSet, test_fraction: float = 0.25, seed: int = 1) -> tuple[DataSet, DataSet]:
    """Return training and held-out rows, both with the same shares of the classes (stratified).

    Raises:
        SettingError: a class has a single row, or there are too few rows for all classes on both sides.
    """
    from sklearn.model_selection import train_test_split

    try:
        train, test = train_test_split(
            np.arange(len(data.y)), test_size=test_fraction, stratify=data.y, random_state=seed % 2**32
        )
    except ValueError as error:
        raise SettingError(f"{data.name} cannot be split with a test share of {test_fraction}: {error}") from error
    return replace(data, x=data.x[train], y=data.y[train]), replace(data, x=data.x[test], y=data.y[test])
