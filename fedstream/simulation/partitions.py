"""How the rows of an experiment are spread over nodes: alike, or each node with other classes or another range."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedstream.errors import SettingError
from fedstream.learning.models import Labels
from fedstream.settings import Settings
from fedstream.simulation.data import DataSet, readings, split
from fedstream.simulation.sensors import digits, simulated_ranges

LEAST_ROWS = 2  # of a node: fewer have no variance
DRAWS = 100

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Spread:
    """Training rows and those of each node, and held-out rows; where nodes differ, also whose those are."""

    train: DataSet
    parts: list[Indices]
    test: DataSet
    test_parts: list[Indices] | None = None


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
        "dirichlet": 0.001 <= number <= 1e6,
        "shards": number.is_integer() and number >= 1,
        "shift": abs(number) < 1000,
    }
    if not good.get(kind):
        expected = "iid, dirichlet:ALPHA (0.001 to 1e6), shards:K (classes of a node) or shift:C (sensors: °C a node)"
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


def spread(data: DataSet, nodes: int, how: str, seed: int = 1, test_fraction: float = 0.25) -> Spread:
    """Hold rows out, and spread the others over the nodes.

    `shift:C` (sensors only) gives the nodes other ranges: node i (from 0) measures i * C more of the first
    feature (°C), in training and in held-out rows; the labels follow the rule on what it measures.

    Raises:
        SettingError: as `split` and `partition`, or `shift` of data that no rule labels.
    """
    kind, step = _parse(how)
    train, test = split(data, test_fraction, seed)
    if kind != "shift":
        return Spread(train, partition(train.y, nodes, how, seed), test)
    if data.settings is None:
        raise SettingError(f"partition is {how!r}, which works with the data of sensors; got {data.name}")
    parts, test_parts = (partition(each.y, nodes, "iid", seed) for each in (train, test))
    return Spread(
        _shifted(train, parts, step, data.settings), parts, _shifted(test, test_parts, step, data.settings), test_parts
    )


def _shifted(data: DataSet, parts: list[Indices], step: float, settings: Settings) -> DataSet:
    x = data.x.copy()
    decimals = digits(*simulated_ranges(settings)[0])
    for i, rows in enumerate(parts):
        x[rows, 0] = (x[rows, 0] + i * step).round(decimals)
    return readings(x, settings)
