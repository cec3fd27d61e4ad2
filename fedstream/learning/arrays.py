"""A model's arrays: numpy arrays by name in memory, lists of numbers on the wire (no pickle, readable everywhere)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fedstream.errors import BadMessage

Matrix = npt.NDArray[np.float64]
Arrays = dict[str, Matrix]  # in the model's own order, which is also the order on the wire

DTYPES = ("float64", "float32", "int64")
MOST_DIMENSIONS = 8


def to_wire(arrays: Mapping[str, npt.NDArray[Any]]) -> list[dict[str, Any]]:
    """Return arrays as JSON values; a float keeps every bit (Python writes the shortest text that reads back to it)."""
    return [
        {"name": name, "shape": list(array.shape), "dtype": str(array.dtype), "values": array.ravel().tolist()}
        for name, array in arrays.items()
    ]


def from_wire(wire: Any) -> Arrays:
    """Read arrays, each as float64.

    Raises:
        BadMessage: a part is missing or of the wrong type, values do not fill the shape, one is not finite, or an array
            has more than `MOST_DIMENSIONS`.
    """
    if not isinstance(wire, list) or not all(isinstance(entry, dict) for entry in wire):
        msg = f"arrays is of the wrong type: got {wire!r:.100}, expected a list of objects"
        raise BadMessage(msg)
    arrays: Arrays = {}
    for entry in wire:
        name, shape, dtype, values = (entry.get(part) for part in ("name", "shape", "dtype", "values"))
        if not isinstance(name, str) or name in arrays:
            msg = f"an array's name is {name!r:.100}; expected a string that no other array has"
            raise BadMessage(msg)
        if dtype not in DTYPES:
            msg = f"dtype of array {name} is {dtype!r:.100}; expected one of {', '.join(DTYPES)}"
            raise BadMessage(msg)
        is_shape = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
        if not is_shape or not isinstance(values, list) or math.prod(shape) != len(values):
            found = f"{len(values)} values" if isinstance(values, list) else f"{values!r:.100}"
            msg = f"array {name} has shape {shape!r:.100} and {found}; expected as many numbers as the shape holds"
            raise BadMessage(msg)
        if len(shape) > MOST_DIMENSIONS:
            msg = f"array {name} has {len(shape)} dimensions; expected at most {MOST_DIMENSIONS}"
            raise BadMessage(msg)
        if not all(type(value) in (int, float) for value in values):
            msg = f"array {name} has a value that is no number; expected numbers only"
            raise BadMessage(msg)
        try:
            flat = np.array(values, dtype=np.float64)
        except OverflowError as error:  # an integer beyond every float
            msg = f"array {name} has a value beyond every float64"
            raise BadMessage(msg) from error
        try:
            array = flat.reshape(shape)
        except ValueError as error:  # no values, and beside a size of 0 one beyond every memory
            msg = f"array {name} has shape {shape!r:.100} and {len(values)} values; expected sizes that fit in memory"
            raise BadMessage(msg) from error
        if not np.isfinite(array).all():
            msg = f"array {name} has a NaN or infinite value; expected finite numbers"
            raise BadMessage(msg)
        arrays[name] = array
    return arrays


def layout(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of each array: what two models must share to be averaged."""
    return {name: array.shape for name, array in arrays.items()}


def distance(arrays: Arrays, other: Arrays) -> float:
    """Return the Euclidean distance between two models of the same layout."""
    with np.errstate(over="ignore"):  # beyond every float: the distance is infinite
        return math.sqrt(sum(float(np.sum((array - other[name]) ** 2)) for name, array in arrays.items()))
