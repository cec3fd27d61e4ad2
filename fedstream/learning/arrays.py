"""A model's arrays: numpy arrays by name in memory, lists of numbers on the wire (no pickle, readable everywhere)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from fedstream.errors import BadMessage
from fedstream.texts import Line

Matrix = npt.NDArray[np.float64]
Arrays = dict[str, Matrix]  # in the model's own order, which is also the order on the wire

MOST_DIMENSIONS = 8

Size = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Shape = Annotated[tuple[Size, ...], Meta(description=f"its sizes, at most {MOST_DIMENSIONS}")]


class NamedArray(Struct, frozen=True, dict=True):
    """One array as it travels; a float keeps every bit (the shortest text that reads back to it is written).

    Raises:
        BadMessage: the values do not fill the shape, one is not finite, or it has more than `MOST_DIMENSIONS`.
    """

    name: Annotated[Line, Meta(description="in the model")]
    shape: Shape
    dtype: Annotated[Literal["float64", "float32", "int64"], Meta(description="of the sender; all are read as float64")]
    values: Annotated[tuple[float, ...], Meta(description="all numbers, the last index moving fastest")]

    def __post_init__(self) -> None:
        """Make the numpy array at once, so that whoever has this object can use it."""
        about = f"array {self.name} has shape {list(self.shape)!s:.100} and {len(self.values)} values"
        if len(self.shape) > MOST_DIMENSIONS:
            msg = f"array {self.name} has {len(self.shape)} dimensions; expected at most {MOST_DIMENSIONS}"
            raise BadMessage(msg)
        if math.prod(self.shape) != len(self.values):
            raise BadMessage(f"{about}; expected as many numbers as the shape holds")
        try:
            finite = np.isfinite(self.array).all()
        except (ValueError, OverflowError) as error:  # no values, and beside a size of 0 one beyond every memory
            raise BadMessage(f"{about}; expected sizes that fit in memory") from error
        if not finite:
            raise BadMessage(f"array {self.name} has a NaN or infinite value; expected finite numbers")

    @cached_property
    def array(self) -> Matrix:
        """The array in memory, as float64."""
        return np.array(self.values, dtype=np.float64).reshape(self.shape)


NamedArrays = tuple[NamedArray, ...]


def to_wire(arrays: Mapping[str, npt.NDArray[Any]]) -> NamedArrays:
    """Return arrays as they travel.

    Raises:
        BadMessage: one has a value that is not finite.
    """
    return tuple(
        NamedArray(name, array.shape, _dtype(array), tuple(array.ravel().tolist())) for name, array in arrays.items()
    )


def _dtype(array: npt.NDArray[Any]) -> Any:
    return str(array.dtype)


def from_wire(named: Iterable[NamedArray]) -> Arrays:
    """Return arrays that have travelled, each as float64."""
    return {each.name: each.array for each in named}


def check_names(named: Iterable[NamedArray]) -> None:
    """Refuse arrays of which two have one name.

    Raises:
        BadMessage: as said.
    """
    names = [each.name for each in named]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        msg = f"two arrays are called {twice[0]!r:.100}; expected names that no other array has"
        raise BadMessage(msg)


def layout(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of each array: what two models must share to be averaged."""
    return {name: array.shape for name, array in arrays.items()}


def distance(arrays: Arrays, other: Arrays) -> float:
    """Return the Euclidean distance between two models of the same layout."""
    with np.errstate(over="ignore"):  # beyond every float: the distance is infinite
        return math.sqrt(sum(float(np.sum((array - other[name]) ** 2)) for name, array in arrays.items()))
