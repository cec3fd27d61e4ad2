"""Columns of a file that teach a model nothing, or what it should not learn."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import numpy as np

from fedstream.learning.arrays import Matrix

LEAST_STEPS = 19  # from so many steps on a column that only ever grows is no accident


def column_remarks(names: Sequence[str], files: Sequence[Matrix]) -> list[str]:
    """Return a line for each column that a user should look at first.

    Args:
        names: of the columns.
        files: the rows (n, columns) of each file, in their order there.

    Example:
        >>> column_remarks(["room", "heat"], [np.array([[7.0, 20.5], [7.0, 19.0]])])
        ['column room is 7 in each row, so nothing is learned from it; leave it out: --leave-out room']
    """
    found = []
    for place, name in enumerate(names):
        columns, remedy = [x[:, place] for x in files], f"leave it out: --leave-out {shlex.quote(name)}"
        values, steps = np.concatenate(columns), np.concatenate([np.diff(column) for column in columns])
        if not np.ptp(values):
            found.append(f"column {name} is {values[0]:g} in each row, so nothing is learned from it; {remedy}")
        elif len(steps) >= LEAST_STEPS and (np.all(steps > 0) or np.all(steps < 0)):
            what = "grows" if steps[0] > 0 else "falls"
            why = "as a time or a meter: a model may learn when something was, and not why"
            found.append(f"column {name} {what} from each row to the next, {why}; {remedy}")
    return found
