"""Labelled rows for experiments: simulated readings, data sets that come with scikit-learn, data files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import click
import numpy as np
import numpy.typing as npt

from fedstream.errors import SettingError
from fedstream.files.options import FileOptions, data_files
from fedstream.files.table import BadRows, Table, open_table
from fedstream.files.values import Cell, is_missing, spelled
from fedstream.learning.arrays import Matrix
from fedstream.learning.models import Labels
from fedstream.settings import Settings
from fedstream.simulation.columns import column_remarks
from fedstream.simulation.sensors import digits, label_of, label_rule, simulated_ranges

BUNDLED = ("breast_cancer", "digits", "wine", "iris")
SENSOR_ROWS = 4000
LARGEST = 1e100  # beyond this the square of a sum is not finite
COUNTED_ROWS = 20  # from so many rows on a column that counts them is no accident
NO_NAMES = (
    "",
    "Unnamed: 0",
    "__index_level_0__",
)  # as pandas writes a row number to CSV, reads it back, writes Parquet
FILE = "file"  # the column that says which of several files a row is from

Texts = npt.NDArray[np.str_]


@dataclass(frozen=True)
class DataSet:
    """Rows x (n, features) with classes y (n,) in 0..classes-1; `labels` are the classes' names.

    Of a file, `features` are the names of the columns of x, `columns` has the others, such as texts (n,), by name, and
    `remarks` are what a user should know of its columns.
    """

    x: Matrix
    y: Labels
    classes: int
    name: str
    labels: tuple[str, ...]
    settings: Settings | None = None  # of simulated readings: their labels follow a rule
    features: tuple[str, ...] = ()
    columns: Mapping[str, Texts] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def is_file(self) -> bool:
        """Whether it is the rows of files."""
        return self.settings is None and self.name not in BUNDLED

    def take(self, rows: npt.NDArray[np.int64]) -> DataSet:
        """Return these rows alone."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return replace(self, x=self.x[rows], y=self.y[rows], columns=columns)

    def column(self, name: str) -> Texts:
        """Return the values of a file's column, be it a feature or not, as texts (n,).

        Raises:
            SettingError: there is no such column.
        """
        if name in self.columns:
            return self.columns[name]
        if name not in self.features:
            has = ", ".join(map(repr, [*self.columns, *self.features])) or "none"
            raise SettingError(f"no column {name!r}; {self.name} has {has}")
        return np.array([spelled(value) for value in self.x[:, self.features.index(name)].tolist()])


def load(
    source: str,
    label: str | None = None,
    rows: int | None = None,
    seed: int = 1,
    settings: Settings = Settings(),  # noqa: B008 - frozen
    file: FileOptions = FileOptions(),  # noqa: B008 - frozen
) -> DataSet:
    """Return the simulator's readings (`sensors`), a data set that comes with scikit-learn, or the rows of files.

    Args:
        source: sensors, breast_cancer, digits, wine, iris, or the path of a data file, or a pattern of several.
        label: the file's column of classes; every other column of numbers is a feature.
        rows: of `sensors` as many are drawn; of another source, this many of its rows are chosen at random.
        seed: of both.
        settings: which features `sensors` measure, and when their label is 1.
        file: how a file is read.

    Raises:
        SettingError: there is no such source, label or number of rows, or a file cannot be used.
        BadRow: a row of it cannot.
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
        x, y, names = bunch.data.astype(np.float64), bunch.target.astype(np.int64), tuple(map(str, bunch.feature_names))
        data = DataSet(x, y, len(labels), source, labels, None, names)
    else:
        data = _read_files(source, label, file)
    if rows is None:
        return data
    if rows > len(data.y):
        raise SettingError(f"rows is {rows}; expected at most {len(data.y)}, as many as {source} has")
    chosen = random.permutation(len(data.y))[:rows]
    return data.take(chosen)


def readings(x: Matrix, settings: Settings) -> DataSet:
    """Return readings x (n, features) with the labels of the simulator's rule."""
    rule, classes = label_rule(settings), settings.classes
    y = np.array([label_of(values, rule, classes) for values in x], dtype=np.int64)
    labels = ("good", "trouble") if classes == 2 else tuple(map(str, range(classes)))
    return DataSet(x, y, classes, "sensors", labels, settings)


def _read_files(source: str, label: str | None, options: FileOptions) -> DataSet:
    try:
        files = data_files(source)
    except SettingError as error:
        raise SettingError(f"data is {source!r}; expected sensors, {', '.join(BUNDLED)} or a file: {error}") from error
    tables = [open_table(path, options.given, options.names) for path in files]
    for name in (*options.leave_out, *options.only):
        if not any(name in table.columns for table in tables):
            tables[0].place(name, "to leave out or to use")
    bad = BadRows(options.on_bad_row == "skip")
    gathered = [_Rows(table, label, options, bad) for table in tables]
    first = gathered[0]
    for other in gathered[1:]:
        if other.features != first.features:
            was = f"{', '.join(other.features)}; expected {', '.join(first.features)}, as in {first.table.path}"
            raise SettingError(
                f"{other.table.path} has the columns of numbers {was}: choose with --leave-out or --only"
            )
    for each in gathered:
        click.echo(each.said, err=True)
    if bad.count:
        click.echo(str(bad), err=True)
    texts = [text for each in gathered for text in each.labels]
    spellings: dict[float | str, str] = {}
    for text in texts:
        spellings.setdefault(same_for(text), text)
    labels = sorted(spellings.values(), key=numbers_first)
    places = {text: i for i, text in enumerate(labels)}
    y = np.array([places[spellings[same_for(text)]] for text in texts], dtype=np.int64)
    columns = {name: np.array([cell for each in gathered for cell in each.texts(name)]) for name in first.others}
    if len(gathered) > 1:
        columns[FILE] = np.array([each.table.path.stem for each in gathered for _ in each.labels])
    name = tables[0].path.name if len(tables) == 1 else source
    x = np.concatenate([each.x for each in gathered])
    remarks = column_remarks(first.features, [each.x for each in gathered]) if len(x) else []
    return DataSet(x, y, len(labels), name, tuple(labels), None, first.features, columns, tuple(remarks))


class _Rows:
    """The rows of a file: features, labels, and the columns that are neither."""

    def __init__(self, table: Table, label: str | None, options: FileOptions, bad: BadRows) -> None:
        if label is None or label not in table.columns or len(table.columns) < 2:
            columns = f"column of {table.path}, which has: {', '.join(table.columns)}"
            raise SettingError(f"label is {label!r}; expected a {columns}, and a feature beside it at least")
        self.table = table
        place = table.columns.index(label)
        rows = list(table.read(bad))
        self.why_not = {
            i: reason
            for i in range(len(table.columns))
            if i != place and (reason := _no_feature(table, i, [cells[i] for _, cells in rows], options))
        }
        used = [i for i in range(len(table.columns)) if i != place and i not in self.why_not]
        self.features = tuple(table.columns[i] for i in used)
        if not used:
            raise SettingError(f"{self.said}; expected a column of numbers at least, beside {label}")
        self.x, self.labels, self._kept = self._numbers(rows, used, place, bad)

    @property
    def others(self) -> list[str]:
        """The columns that are no features."""
        return [self.table.columns[i] for i in self.why_not]

    @property
    def said(self) -> str:
        """How the file is read, and which columns are left out."""
        left = ", ".join(f"{self.table.columns[i] or 'the first column'} ({why})" for i, why in self.why_not.items())
        return self.table.said + (f"; left out: {left}" if left else "")

    def texts(self, name: str) -> list[str]:
        """Return a column that is no feature, as texts."""
        place = self.table.place(name, "in each file")
        return [spelled(cells[place]) for cells in self._kept]

    def _numbers(
        self, rows: Sequence[tuple[int, Sequence[Cell]]], used: Sequence[int], label: int, bad: BadRows
    ) -> tuple[Matrix, list[str], list[Sequence[Cell]]]:
        table = self.table
        x, labels, kept = [], [], []
        for line, cells in rows:
            place = label
            try:
                if is_missing(cells[label]):
                    raise ValueError("a label")
                values = []
                for place in used:
                    values.append(_number(table, cells[place]))
            except (ValueError, TypeError) as error:
                expected = "a label" if place == label else f"a finite number ({error})"
                remedy = "fill in or leave out this row (--on-bad-row skip) or column (--leave-out)"
                shown = f"{table.columns[place]} is {spelled(cells[place])!r:.100}"
                bad.add(table.where(line), f"{shown}; expected {expected}: {remedy}")
                continue
            x.append(values)
            labels.append(spelled(cells[label]))
            kept.append(cells)
        return np.array(x, dtype=np.float64).reshape(-1, len(used)), labels, kept


def _no_feature(table: Table, place: int, cells: Sequence[Cell], options: FileOptions) -> str:
    """Return why a column is no feature, or an empty text."""
    name = table.columns[place]
    if name in options.leave_out:
        return "as asked"
    if options.only:
        return "" if name in options.only else "not in --only"
    if name in NO_NAMES:
        return "without a name: a row number?"
    numbers = []
    for cell in cells:
        try:
            numbers.append(_number(table, cell))
        except (ValueError, TypeError):
            numbers.append(math.nan)
    if cells and all(map(math.isnan, numbers)):
        return "no numbers"
    counts = len(cells) >= COUNTED_ROWS and np.all(np.diff(numbers) == 1)
    return "it counts the rows; --only takes it" if counts else ""


def _number(table: Table, cell: Cell) -> float:
    value = table.number(cell)
    if abs(value) >= LARGEST:
        msg = f"below {LARGEST:g}"
        raise ValueError(msg)
    return value


def same_for(text: str) -> float | str:
    """Return what is equal for two spellings of a label: 0 and 0.0, no and No."""
    number, _ = numbers_first(text)
    return number if number < math.inf else text.lower()


def numbers_first(text: str) -> tuple[float, str]:
    """Return what sorts texts as people do: numbers by their size, and words behind them."""
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
    return data.take(train), data.take(test)
