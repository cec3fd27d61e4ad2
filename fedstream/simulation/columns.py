"""Columns of a file that teach a model nothing, or what it should not learn."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import numpy as np

from fedstream.learning.arrays import Matrix

LEAST_ROWS = 20  # from so many on a column that only ever grows is no accident


def column_remarks(names: Sequence[str], x: Matrix) -> list[str]:
    """Return a line for each column of x (n, features), in the file's order, that a user should look at first.

    Example:
        >>> column_remarks(["room", "heat"], np.array([[7.0, 20.5], [7.0, 19.0]]))
        ['column room is 7 in each row, so nothing is learned from it; leave it out: --leave-out room']
    """
    found = []
    for name, values in zip(names, x.T, strict=True):
        steps, remedy = np.diff(values), f"leave it out: --leave-out {shlex.quote(name)}"
        if not steps.any():
            found.append(f"column {name} is {values[0]:g} in each row, so nothing is learned from it; {remedy}")
        elif len(values) >= LEAST_ROWS and (np.all(steps > 0) or np.all(steps < 0)):
            what = "grows" if steps[0] > 0 else "falls"
            why = "as a time or a meter: a model may learn when something was, and not why"
            found.append(f"column {name} {what} from each row to the next, {why}; {remedy}")
    return found
