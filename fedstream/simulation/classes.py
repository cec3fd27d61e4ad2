"""Which of two classes is the positive one, and how many rows each class has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedstream.errors import SettingError
from fedstream.simulation.data import DataSet


def with_positive(data: DataSet, label: str | None = None) -> DataSet:
    """Return data of two classes with the positive one as class 1: the one asked for, else the rarer one.

    So all scores speak of it, whatever the labels are called. Simulated readings keep label 1, as on the stack; of two
    classes with as many rows the last label stays.

    Raises:
        SettingError: there is no such label, or there are more classes.
    """
    if label is not None and (label not in data.labels or data.classes != 2):
        expected = f"one of its labels {', '.join(data.labels)}"
        if data.classes != 2:
            expected = f"none, as the scores of {data.classes} classes are their mean"
        raise SettingError(f"positive is {label!r} of {data.name}; expected {expected}")
    if data.classes != 2:
        return data
    rows = np.bincount(data.y, minlength=2)
    is_first_rarer = data.settings is None and rows[0] < rows[1]
    if not (is_first_rarer if label is None else label == data.labels[0]):
        return data
    return replace(data, y=1 - data.y, labels=data.labels[::-1])


def class_counts(data: DataSet) -> dict[str, int]:
    """Return how many rows each class has, by its label."""
    return dict(zip(data.labels, np.bincount(data.y, minlength=data.classes).tolist(), strict=True))
