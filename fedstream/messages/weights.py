"""Running weights: a node's running sums, its weight, and the global weight.

fog-N --(NodeWeight, topic model-weights)--> cloud --(GlobalWeight, topic global-model)--> everybody
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from fedstream.errors import BadMessage
from fedstream.messages.door import read_count, read_field, read_number, read_numbers

LONGEST_NAME = 200  # characters of a node's name


@dataclass(frozen=True)
class NodeWeight:
    """What one fog node has learned: its weight and the number of readings behind it.

    `rejected` counts the node's records that went to `dead-letter` instead. `sums` and `squares` (of temperatures in
    °C and vibrations in g) are what the cloud needs of the `samples` readings to scale features alike on all nodes.
    `source` says what was counted, where that is not all of the node's own topic.
    """

    node_id: str
    weight: float
    samples: int
    rejected: int = 0
    sums: tuple[float, ...] = ()
    squares: tuple[float, ...] = ()
    source: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the message of topic `model-weights`."""
        sums = {"sums": list(self.sums), "squares": list(self.squares)} if self.sums else {}
        return self.headline() | sums | ({"source": self.source} if self.source else {})

    def headline(self) -> dict[str, Any]:
        """Return what a person wants to see of it."""
        return {
            "node_id": self.node_id,
            "weight": self.weight,
            "samples": self.samples,
            "rejected": self.rejected,
        }

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> NodeWeight:
        """Read an update; unknown fields are ignored.

        Raises:
            BadMessage: a field is missing, of the wrong type or out of range.
        """
        sums, squares = (read_numbers(message, name) for name in ("sums", "squares"))
        if len(sums) != len(squares):
            msg = f"sums has {len(sums)} numbers and squares {len(squares)}; expected one of each for every feature"
            raise BadMessage(msg)
        node_id = read_field(message, "node_id", str, "a string")
        if not (0 < len(node_id) <= LONGEST_NAME and node_id.isprintable()):
            msg = f"node_id is {node_id!r:.250}; expected a name of 1 to {LONGEST_NAME} printable characters"
            raise BadMessage(msg)
        return cls(
            node_id=node_id,
            weight=read_number(message, "weight"),
            samples=read_count(message, "samples", low=1),
            rejected=read_count({"rejected": 0, **message}, "rejected", low=0),
            sums=sums,
            squares=squares,
            source=read_field({"source": "", **message}, "source", str, "a string"),
        )


@dataclass(frozen=True)
class GlobalWeight:
    """The nodes' weights merged into one, and the number of readings behind it."""

    global_weight: float
    samples: int
    nodes: int

    def as_dict(self) -> dict[str, Any]:
        """Return the message of topic `global-model`."""
        return {"global_weight": self.global_weight, "samples": self.samples, "nodes": self.nodes}


class RunningSums(msgspec.Struct, frozen=True):
    """Everything a node has to keep of its readings: their number, and each feature's sum and sum of squares.

    `rejected` counts the records that were no good readings. Of no readings, `sums` and `squares` may be empty.
    """

    count: int = 0
    sums: tuple[float, ...] = ()
    squares: tuple[float, ...] = ()
    rejected: int = 0

    def __add__(self, other: RunningSums) -> RunningSums:
        return RunningSums(
            self.count + other.count,
            _added(self.sums, other.sums),
            _added(self.squares, other.squares),
            self.rejected + other.rejected,
        )

    def weight(self, factors: Sequence[float]) -> float:
        """Return the mean over the features of factor × mean value: the report's local model.

        With the report's factors 1 and 100 it is (mean temperature + 100 × mean vibration) / 2.

        Raises:
            ZeroDivisionError: there is no reading yet, so there is no mean.
        """
        if not self.count:
            raise ZeroDivisionError("no reading yet, so there is no mean")
        total = math.fsum(factor * value for factor, value in zip(factors, self.sums, strict=True))
        return total / self.count / len(factors)


def _added(mine: tuple[float, ...], more: tuple[float, ...]) -> tuple[float, ...]:
    both = zip(mine, more, strict=bool(mine and more))
    return tuple(one + other for one, other in both) or mine or more


def global_weight(updates: Collection[NodeWeight]) -> float:
    """Return the mean of the nodes' weights, each counted as often as it has samples.

    This is federated averaging (McMahan et al. 2017, algorithm 1) of a model with one number. The exact sums make
    the result independent of the nodes' order.

    Raises:
        ZeroDivisionError: there is no update.
    """
    return math.fsum(update.weight * update.samples for update in updates) / sum(update.samples for update in updates)


def merge_update(latest: dict[str, NodeWeight], update: NodeWeight) -> bool:
    """Make an update its node's latest one, unless it is no newer than what is known; return whether it was newer.

    A node's `samples` only ever grows, so of two updates the one with more samples is the later one: an update that
    arrives twice, or after a later one, changes nothing. A node that counts from another source starts anew.
    """
    known = latest.get(update.node_id)
    is_newer = known is None or update.source != known.source or update.samples > known.samples
    if is_newer:
        latest[update.node_id] = update
    return is_newer
