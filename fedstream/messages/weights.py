"""Running weights: a node's running sums, its weight, and the global weight.

fog-N --(NodeWeight, topic model-weights)--> cloud --(GlobalWeight, topic global-model)--> everybody
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated

from msgspec import Meta, Struct, field

from fedstream.errors import BadMessage
from fedstream.learning.arrays import Matrix
from fedstream.learning.scores import Count
from fedstream.learning.training import Scaler, scaler_of
from fedstream.texts import Line, Name

LONGEST_NAME = 200  # characters of a node's name
LONGEST_SOURCE = 1000  # characters; of many topics it is a long list
MOST_SAMPLES = 10**14  # ten years of 300,000 readings a second
LARGEST_WEIGHT = 1e9  # far beyond any weight, and still finite when multiplied by any number of samples

# Beyond these a square would not be finite.
Sum = Annotated[float, Meta(ge=-1e150, le=1e150)]
SumOfSquares = Annotated[float, Meta(ge=0, le=1e150)]


class RunningSums(Struct, frozen=True):
    """Everything a node has to keep of its readings: their number, and each feature's sum and sum of squares.

    `rejected` counts the records that were no good readings. Of no readings, `sums` and `squares` may be empty.
    """

    count: Count = 0
    sums: tuple[Sum, ...] = ()
    squares: tuple[SumOfSquares, ...] = ()
    rejected: Count = 0

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

    def scaler(self) -> Scaler:
        """Return what takes each feature to mean 0 and variance 1, as `learning.training.scaler_of`.

        Raises:
            ZeroDivisionError: there is no reading yet, so there is no mean.
        """
        return scaler_of(self.count, self.sums, self.squares)


def _added(mine: tuple[float, ...], more: tuple[float, ...]) -> tuple[float, ...]:
    both = zip(mine, more, strict=bool(mine and more))
    return tuple(one + other for one, other in both) or mine or more


def sums_of(x: Matrix) -> RunningSums:
    """Return the sums of x (n, features)."""
    return RunningSums(len(x), tuple(x.sum(axis=0).tolist()), tuple((x * x).sum(axis=0).tolist()))


def merge_sums(parts: Iterable[RunningSums]) -> RunningSums:
    """Return the sums of all readings together; the exact sums do not depend on the order of the parts."""
    given = list(parts)
    sums = zip(*(part.sums for part in given), strict=True)
    squares = zip(*(part.squares for part in given), strict=True)
    return RunningSums(
        sum(part.count for part in given),
        tuple(map(math.fsum, sums)),
        tuple(map(math.fsum, squares)),
        sum(part.rejected for part in given),
    )


# A default that comes from a factory is written, too: `omit_defaults` leaves out the others only.
class NodeWeight(Struct, frozen=True, omit_defaults=True):
    """What one fog node has learned: its weight and the number of readings behind it.

    `sums` and `squares` are what the cloud needs of the `samples` readings to scale features alike on all nodes.

    Raises:
        BadMessage: it is not one sum and one square for every feature.
    """

    node_id: Annotated[Name, Meta(max_length=LONGEST_NAME, description="such as fog-1")]
    weight: Annotated[float, Meta(ge=-LARGEST_WEIGHT, le=LARGEST_WEIGHT, description="the report's local model")]
    samples: Annotated[int, Meta(ge=1, le=MOST_SAMPLES, description="good readings behind it")]
    rejected: Annotated[Count, Meta(description="records that went to dead-letter instead")] = field(
        default_factory=int
    )
    sums: Annotated[tuple[Sum, ...], Meta(description="of each feature's values")] = ()
    squares: Annotated[tuple[SumOfSquares, ...], Meta(description="sums of each feature's squared values")] = ()
    source: Annotated[
        Line,
        Meta(max_length=LONGEST_SOURCE, description="what was counted, where that is not all of the node's own topic"),
    ] = ""

    def __post_init__(self) -> None:
        """Check what the types do not say."""
        if len(self.sums) != len(self.squares):
            both = f"sums has {len(self.sums)} numbers and squares {len(self.squares)}"
            raise BadMessage(f"{both}; expected one of each for every feature")

    def headline(self) -> dict[str, str | float]:
        """Return what a person wants to see of it."""
        return {
            "node_id": self.node_id,
            "weight": self.weight,
            "samples": self.samples,
            "rejected": self.rejected,
        }

    @property
    def readings(self) -> RunningSums:
        """The sums that it carries."""
        return RunningSums(self.samples, self.sums, self.squares, self.rejected)

    def alone(self) -> NodeWeight:
        """Return the running weight without what an answer to a round has beside it."""
        return self if type(self) is NodeWeight else NodeWeight(*(getattr(self, name) for name in _FIELDS))

    def is_newer_than(self, known: NodeWeight | None) -> bool:
        """Tell whether it is later than what is known of its node.

        A node's `samples` only ever grows, so of two weights the one with more samples is the later one: a message that
        arrives twice, or after a later one, changes nothing. A node that counts from another source starts anew.
        """
        return known is None or self.source != known.source or self.samples > known.samples


_FIELDS = NodeWeight.__struct_fields__


class GlobalWeight(Struct, frozen=True):
    """The nodes' weights merged into one, and the number of readings behind it."""

    global_weight: Annotated[float, Meta(description="mean of the nodes' weights, each as often as it has samples")]
    samples: Annotated[int, Meta(ge=0, description="good readings of all nodes")]
    nodes: Annotated[int, Meta(ge=0, description="nodes behind it")]


def global_weight(updates: Collection[NodeWeight]) -> float:
    """Return the mean of the nodes' weights, each counted as often as it has samples.

    This is federated averaging (McMahan et al. 2017, algorithm 1) of a model with one number. The exact sums make
    the result independent of the nodes' order.

    Raises:
        ZeroDivisionError: there is no update.
    """
    return math.fsum(update.weight * update.samples for update in updates) / sum(update.samples for update in updates)


def merged_weight(latest: Mapping[str, NodeWeight]) -> GlobalWeight | None:
    """Return the global weight of the nodes' latest weights, or None while there is none."""
    updates = latest.values()
    if not updates:
        return None
    return GlobalWeight(global_weight(updates), sum(update.samples for update in updates), len(updates))


def merge_update(latest: dict[str, NodeWeight], update: NodeWeight) -> bool:
    """Make an update its node's latest one, unless it is no newer than what is known; return whether it was newer."""
    is_newer = update.is_newer_than(latest.get(update.node_id))
    if is_newer:
        latest[update.node_id] = update.alone()
    return is_newer
