"""How the rows of an experiment are held out, and spread over nodes: alike, or each with its own classes or machine."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fedstream.errors import SettingError
from fedstream.learning.models import Labels
from fedstream.settings import Settings
from fedstream.simulation.data import DataSet, Texts, numbers_first, readings, same_for, split
from fedstream.simulation.sensors import digits, simulated_ranges

LEAST_ROWS = 2  # of a node: fewer have no variance
DRAWS = 100
BY = "by:"  # begins a partition and a test that go by the values of a column

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Spread:
    """Training rows and those of each node, and held-out rows; where nodes differ, also whose those are.

    With a partition by a column, `values` has its value of each node.
    """

    train: DataSet
    parts: list[Indices]
    test: DataSet
    test_parts: list[Indices] | None = None
    values: tuple[str, ...] = ()


def partition(y: Labels, nodes: int, how: str, seed: int = 1) -> list[Indices]:
    """Spread rows over nodes; each row goes to one node, and a node's rows are in random order.

    `iid`: alike, as is `shift` here (see `spread`). `dirichlet:ALPHA`: of each class, the nodes' shares follow a
    symmetric Dirichlet distribution (as in Yurochkin et al. 2019; Hsu et al. 2019 draw each node's classes instead);
    if a node is left with less than two rows in all of 100 draws, the largest node gives it the missing ones.
    `shards:K`: K classes a node, each class cut evenly (after McMahan et al. 2017).

    Raises:
        SettingError: there is no such partition, or there are too few rows or classes for it.
    """
    kind, number = _parse(how)
    random = np.random.RandomState(seed % 2**32)
    if nodes < 1 or len(y) < LEAST_ROWS * nodes:
        most = len(y) // LEAST_ROWS
        raise SettingError(f"nodes is {nodes}; expected from 1 to {most}: {len(y)} rows, {LEAST_ROWS} a node at least")
    if kind == "dirichlet":
        parts = _dirichlet(y, nodes, number, random)
    elif kind == "shards":
        parts = _shards(y, nodes, int(number), random)
    else:
        parts = np.array_split(random.permutation(len(y)), nodes)
    return [random.permutation(part) for part in parts]


def _parse(how: str) -> tuple[str, float]:
    kind, colon, text = how.partition(":")
    try:
        number = float(text) if colon else math.nan
    except ValueError:
        number = math.nan
    good = {
        "iid": not colon,
        "by": text != "",
        "dirichlet": 0.001 <= number <= 1e6,
        "shards": number.is_integer() and number >= 1,
        "shift": abs(number) < 1000,
    }
    if not good.get(kind):
        expected = (
            "iid, dirichlet:ALPHA (0.001 to 1e6), shards:K (classes of a node), shift:C (sensors: °C a node) or "
            "by:COLUMN (a node for each of its values)"
        )
        raise SettingError(f"partition is {how!r}; expected {expected}")
    return kind, number


def _dirichlet(y: Labels, nodes: int, alpha: float, random: np.random.RandomState) -> list[Indices]:
    for _ in range(DRAWS):
        parts: list[list[int]] = [[] for _ in range(nodes)]
        for c in np.unique(y):
            rows = random.permutation(np.flatnonzero(y == c))
            cuts = (np.cumsum(random.dirichlet(np.full(nodes, alpha)))[:-1] * len(rows)).round().astype(int)
            for part, more in zip(parts, np.split(rows, cuts), strict=True):
                part += more.tolist()
        if min(map(len, parts)) >= LEAST_ROWS:
            break
    for part in parts:
        while len(part) < LEAST_ROWS:
            part.append(max(parts, key=len).pop())
    return [np.array(part) for part in parts]


def _shards(y: Labels, nodes: int, classes: int, random: np.random.RandomState) -> list[Indices]:
    found = random.permutation(np.unique(y))
    least, most = math.ceil(len(found) / nodes), len(found)
    if not least <= classes <= most:
        raise SettingError(f"partition is shards:{classes}; expected shards:{least} to shards:{most} for {nodes} nodes")
    parts: list[list[int]] = [[] for _ in range(nodes)]
    for place, c in enumerate(found):  # node i has the classes i * K to i * K + K - 1, counted round and round
        holders = [part for i, part in enumerate(parts) if (place - i * classes) % most < classes]
        cuts = np.array_split(random.permutation(np.flatnonzero(y == c)), len(holders))
        for part, rows in zip(holders, cuts, strict=True):
            part += rows.tolist()
    if min(map(len, parts)) < LEAST_ROWS:
        raise SettingError(f"partition is shards:{classes}: a node has less than {LEAST_ROWS} rows; use fewer nodes")
    return [np.array(part) for part in parts]


def columns_of(how: str, tests: Iterable[str]) -> tuple[str, ...]:
    """Return the columns that a partition and tests go by: those are no features."""
    given = [how, *(test.partition("=")[0] for test in tests)]
    return tuple(dict.fromkeys(text.removeprefix(BY) for text in given if text.startswith(BY)))


def hold_out(data: DataSet, tests: Iterable[str], seed: int = 1, fraction: float = 0.25) -> tuple[DataSet, DataSet]:
    """Return training and held-out rows: those with a value of `by:COLUMN=VALUE,...`, else a fraction of each class.

    Raises:
        SettingError: a test has another form, no row has its value, or it leaves no row to train on; as `split`.
    """
    chosen = np.zeros(len(data.y), dtype=np.bool_)
    for test in tests:
        column, equals, value = test.removeprefix(BY).partition("=")
        if not (test.startswith(BY) and column and equals):
            raise SettingError(f"test is {test!r}; expected by:COLUMN=VALUE, or one file")
        found = data.column(column)
        if value not in found:
            raise SettingError(f"test is {test!r}; expected a value of {column}: {_shown(found)}")
        chosen |= found == value
    if not chosen.any():
        return split(data, fraction, seed)
    if chosen.all():
        raise SettingError(f"test is {', '.join(tests)}: all rows of {data.name}; expected some that are left to train")
    return data.take(np.flatnonzero(~chosen)), data.take(np.flatnonzero(chosen))


def as_test(data: DataSet, train: DataSet) -> DataSet:
    """Return the rows of a second file with the columns in the order, and the labels in the places, of the first.

    Raises:
        SettingError: it has other columns, or a label that the first file has not.
    """
    if set(data.features) != set(train.features):
        was = f"{', '.join(data.features)}; expected {', '.join(train.features)}, as in {train.name}"
        raise SettingError(f"{data.name} has the columns of numbers {was}")
    known = [same_for(label) for label in train.labels]  # 1 is 1.0, yes is Yes
    if more := [label for label in data.labels if same_for(label) not in known]:
        raise SettingError(f"{data.name} has the labels {', '.join(more)}; expected {', '.join(train.labels)}")
    places = np.array([known.index(same_for(label)) for label in data.labels])
    columns = [data.features.index(name) for name in train.features]
    return replace(train, x=data.x[:, columns], y=places[data.y], name=data.name, columns=data.columns)


def _shown(found: Texts) -> str:
    names = np.unique(found).tolist()
    return ", ".join(names[:20]) + (f", ... ({len(names)} values)" if len(names) > 20 else "")


def spread(train: DataSet, test: DataSet, nodes: int | None, how: str, seed: int = 1) -> Spread:
    """Spread training rows over the nodes; without a number of nodes there are as many as `by:COLUMN` says.

    `by:COLUMN`: each value is a node; nodes that have rows on both sides are tested on their own ones where each has a
    scaler of its own. `shift:C` (sensors only) gives the nodes other ranges: node i (from 0) measures i * C more of the
    first feature (°C), in training and in held-out rows; the labels follow the rule on what it measures.

    Raises:
        SettingError: as `partition`, `shift` of data that no rule labels, a number of nodes beside `by`, or a value
            with too few rows.
    """
    kind, step = _parse(how)
    if kind == "by":
        return _by_column(train, test, nodes, how, seed)
    if nodes is None:
        raise SettingError(f"partition is {how!r}, which needs a number of nodes")
    if kind != "shift":
        return Spread(train, partition(train.y, nodes, how, seed), test)
    if train.settings is None:
        raise SettingError(f"partition is {how!r}, which works with the data of sensors; got {train.name}")
    parts, test_parts = (partition(each.y, nodes, "iid", seed) for each in (train, test))
    return Spread(
        _shifted(train, parts, step, train.settings),
        parts,
        _shifted(test, test_parts, step, train.settings),
        test_parts,
    )


def _by_column(train: DataSet, test: DataSet, nodes: int | None, how: str, seed: int) -> Spread:
    column = how.removeprefix(BY)
    found, held_out = train.column(column), test.column(column)
    values = sorted(set(found.tolist()), key=numbers_first)
    if nodes not in (None, len(values)):
        raise SettingError(
            f"nodes is {nodes}; expected none: partition {how} has a node for each of {len(values)} values"
        )
    random = np.random.RandomState(seed % 2**32)
    parts = [random.permutation(np.flatnonzero(found == value)) for value in values]
    for value, part in zip(values, parts, strict=True):
        if len(part) < LEAST_ROWS:
            msg = f"partition is {how}; {column} {value} has {len(part)} row to train on"
            raise SettingError(f"{msg}; expected {LEAST_ROWS} at least: leave it out of the file, or give it more rows")
    test_parts = [np.flatnonzero(held_out == value) for value in values]
    are_all = len(test.y) == sum(map(len, test_parts))
    return Spread(train, parts, test, test_parts if are_all else None, tuple(values))


def _shifted(data: DataSet, parts: list[Indices], step: float, settings: Settings) -> DataSet:
    x = data.x.copy()
    decimals = digits(*simulated_ranges(settings)[0])
    for i, rows in enumerate(parts):
        x[rows, 0] = (x[rows, 0] + i * step).round(decimals)
    named = readings(x, settings)
    places = np.array([data.labels.index(label) for label in named.labels])  # the positive one may be another
    return replace(data, x=x, y=places[named.y])
