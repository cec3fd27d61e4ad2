"""How good a model is: sums that add up across partitions, nodes and rounds, and the measures they give."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from fedstream.errors import BadMessage
from fedstream.learning.arrays import Matrix


class Measure(NamedTuple):
    """A measure that tables show."""

    name: str  # of the attribute of `Score`, and in messages and files
    heading: str
    french: str  # heading of the cloud's own table
    is_lowest_best: bool = False


MEASURES = (
    Measure("loss", "loss", "perte", is_lowest_best=True),
    Measure("accuracy", "accuracy", "exactitude"),
    Measure("f1", "F1", "F1"),
    Measure("recall", "recall", "rappel"),
    Measure("false_alarm_rate", "false alarms", "fausses alarmes", is_lowest_best=True),
)
SCORE_COLUMNS = {"num_examples": int, "positive_class": int, **dict.fromkeys((each.name for each in MEASURES), float)}
SMALLEST_PROBABILITY = 1e-15  # keeps the log loss of a sure but wrong prediction finite: at most 34.5

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
# Below this the sum of many scores stays finite.
LossSum = Annotated[float, Meta(ge=0, le=1e300, description="sum of the readings' log losses, in nats")]
# The sum of many fits 64 bits.
Cell = Annotated[int, Meta(ge=0, le=10**12)]
Confusion = Annotated[tuple[tuple[Cell, ...], ...], Meta(description="readings by [true class][predicted class]")]


class Score(Struct, frozen=True):
    """The sum of the log losses and confusion[true][predicted]; two scores add up, an empty one adds nothing.

    With two classes, f1, recall, precision and false_alarm_rate are those of class 1, with more the plain mean over
    the classes (macro). A quotient with nothing below the line is 0. All measures follow from the two sums, and
    replace what a message says of them.

    Raises:
        BadMessage: the confusion is not square.
    """

    loss_sum: LossSum = 0.0
    confusion: Confusion = ()
    num_examples: Annotated[int, Meta(description="readings scored")] = 0
    loss: Annotated[float, Meta(description="mean log loss of a reading, in nats")] = 0.0
    accuracy: Annotated[float, Meta(description="share of readings whose class was predicted")] = 0.0
    f1: Annotated[float, Meta(description="of class 1: 2 TP / (2 TP + FP + FN)")] = 0.0
    recall: Annotated[float, Meta(description="TP / (TP + FN): share of true alarms that were raised")] = 0.0
    precision: Annotated[float, Meta(description="TP / (TP + FP): share of raised alarms that were true")] = 0.0
    false_alarm_rate: Annotated[float, Meta(description="FP / (FP + TN): share of negatives with an alarm")] = 0.0

    def __post_init__(self) -> None:
        """Work out the measures."""
        confusion = self.confusion
        if any(len(row) != len(confusion) for row in confusion):
            msg = f"confusion of a score is {confusion!s:.100}; expected a square: a row and a column for each class"
            raise BadMessage(msg)
        total = sum(map(sum, confusion))
        right = sum(row[i] for i, row in enumerate(confusion))
        for name, value in (
            ("num_examples", total),
            ("loss", _ratio(self.loss_sum, total)),
            ("accuracy", _ratio(right, total)),
            ("f1", self._mean(lambda tp, fp, fn, tn: _ratio(2 * tp, 2 * tp + fp + fn))),
            ("recall", self._mean(lambda tp, fp, fn, tn: _ratio(tp, tp + fn))),
            ("precision", self._mean(lambda tp, fp, fn, tn: _ratio(tp, tp + fp))),
            ("false_alarm_rate", self._mean(lambda tp, fp, fn, tn: _ratio(fp, fp + tn))),
        ):
            force_setattr(self, name, value)

    @property
    def positive_class(self) -> int | None:
        """The class that f1, recall, precision and false_alarm_rate speak of; None: they are the mean over all."""
        return 1 if len(self.confusion) == 2 else None

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """The measures that these readings cannot tell, such as the recall where there was nothing to find.

        Example:
            >>> Score(0.0, ((9, 1), (0, 0))).unmeasured, Score(0.0, ((0, 0), (1, 9))).unmeasured
            (('f1', 'recall'), ('false_alarm_rate',))
        """
        there = [sum(row) > 0 for row in self.confusion]
        positive = there[1] if len(there) == 2 else all(there)
        negative = there[0] if len(there) == 2 else sum(there) > 1
        return (() if positive else ("f1", "recall")) + (() if negative else ("false_alarm_rate",))

    def __add__(self, other: Score) -> Score:
        if not self.confusion or not other.confusion:
            confusion = self.confusion or other.confusion
        else:
            rows = zip(self.confusion, other.confusion, strict=True)
            confusion = tuple(tuple(a + b for a, b in zip(*row, strict=True)) for row in rows)
        return Score(self.loss_sum + other.loss_sum, confusion)

    def _mean(self, measure: Callable[[int, int, int, int], float]) -> float:
        classes, total = range(len(self.confusion)), sum(map(sum, self.confusion))
        values = []
        for c in classes if len(classes) != 2 else (1,):
            tp, true, predicted = self.confusion[c][c], sum(self.confusion[c]), sum(row[c] for row in self.confusion)
            values.append(measure(tp, predicted - tp, true - tp, total - true - predicted + tp))
        return _ratio(math.fsum(values), len(values))


def score(probabilities: Matrix, y: npt.NDArray[np.int64], threshold: float = 0.5) -> Score:
    """Score the probabilities (n, classes) of n readings against their true classes y (n,).

    Of two classes, class 1 is predicted from `threshold` on; of more, the most probable one.
    """
    classes = probabilities.shape[1]
    predicted = probabilities[:, 1] >= threshold if classes == 2 else probabilities.argmax(axis=1)
    confusion = np.bincount(y * classes + predicted, minlength=classes**2).reshape(classes, classes)
    losses = -np.log(np.maximum(probabilities[np.arange(len(y)), y], SMALLEST_PROBABILITY))
    return Score(max(float(losses.sum()), 0.0), tuple(tuple(row) for row in confusion.tolist()))


def measures(score: Score | None) -> dict[str, Any]:
    """Return the examples, the positive class and the measures of a score, all None where there is no score."""
    return {name: getattr(score, name, None) for name in SCORE_COLUMNS}


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
