"""The maths, without Spark and without Kafka: running totals, a node's weight, the global weight."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import astuple, dataclass

from fedstream.messages.messages import NodeUpdate


@dataclass(frozen=True)
class Totals:
    """Everything a node has to keep of its readings: number, sums (°C, g), sums of squares, rejected records."""

    count: int = 0
    sum_temperature: float = 0.0
    sum_vibration: float = 0.0
    sum_squared_temperature: float = 0.0
    sum_squared_vibration: float = 0.0
    rejected: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(*(mine + more for mine, more in zip(astuple(self), astuple(other), strict=True)))

    def weight(self) -> float:
        """Return (mean temperature + 100 × mean vibration) / 2 over all readings, the report's local model.

        Raises:
            ZeroDivisionError: there is no reading yet, so there is no mean.
        """
        return (self.sum_temperature + 100 * self.sum_vibration) / self.count / 2


def global_weight(updates: Collection[NodeUpdate]) -> float:
    """Return the mean of the nodes' weights, each counted as often as it has samples.

    This is federated averaging (McMahan et al. 2017, algorithm 1) of a model with one number. The exact sums make
    the result independent of the nodes' order.

    Raises:
        ZeroDivisionError: there is no update.
    """
    return math.fsum(update.weight * update.samples for update in updates) / sum(update.samples for update in updates)


def merge_update(latest: dict[str, NodeUpdate], update: NodeUpdate) -> bool:
    """Make an update its node's latest one, unless it is no newer than what is known; return whether it was newer.

    A node's `samples` only ever grows, so of two updates the one with more samples is the later one: an update that
    arrives twice, or after a later one, changes nothing. A node that counts from another source starts anew.
    """
    known = latest.get(update.node_id)
    is_newer = known is None or update.source != known.source or update.samples > known.samples
    if is_newer:
        latest[update.node_id] = update
    return is_newer
