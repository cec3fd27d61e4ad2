"""How good a model is: sums that add up across partitions, nodes and rounds, and the measures they give."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedstream.errors import BadMessage
from fedstream.learning.arrays import Matrix

MEASURES = ("loss", "accuracy", "f1", "recall", "false_alarm_rate")  # the ones that tables show
SMALLEST_PROBABILITY = 1e-15  # keeps the log loss of a sure but wrong prediction finite: at most 34.5


@dataclass(frozen=True)
class Score:
    """The sum of the log losses and confusion[true][predicted]; two scores add up, an empty one adds nothing.

    With two classes, f1, recall, precision and false_alarm_rate are those of class 1, with more the plain mean over
    the classes (macro). A quotient with nothing below the line is 0.
    """

    loss_sum: float = 0.0
    confusion: tuple[tuple[int, ...], ...] = ()

    def __add__(self, other: Score) -> Score:
        if not self.confusion or not other.confusion:
            confusion = self.confusion or other.confusion
        else:
            rows = zip(self.confusion, other.confusion, strict=True)
            confusion = tuple(tuple(a + b for a, b in zip(*row, strict=True)) for row in rows)
        return Score(self.loss_sum + other.loss_sum, confusion)

    @property
    def num_examples(self) -> int:
        """The number of readings scored."""
        return sum(map(sum, self.confusion))

    @property
    def loss(self) -> float:
        """The mean log loss of a reading, in nats."""
        return _ratio(self.loss_sum, self.num_examples)

    @property
    def accuracy(self) -> float:
        """The share of readings whose class was predicted."""
        return _ratio(sum(row[i] for i, row in enumerate(self.confusion)), self.num_examples)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        return self._mean(lambda tp, fp, fn, tn: _ratio(2 * tp, 2 * tp + fp + fn))

    @property
    def recall(self) -> float:
        """TP / (TP + FN): the share of true alarms that were raised."""
        return self._mean(lambda tp, fp, fn, tn: _ratio(tp, tp + fn))

    @property
    def precision(self) -> float:
        """TP / (TP + FP): the share of raised alarms that were true."""
        return self._mean(lambda tp, fp, fn, tn: _ratio(tp, tp + fp))

    @property
    def false_alarm_rate(self) -> float:
        """FP / (FP + TN): the share of negatives that raised an alarm."""
        return self._mean(lambda tp, fp, fn, tn: _ratio(fp, fp + tn))

    def _mean(self, measure: Callable[[int, int, int, int], float]) -> float:
        classes = range(len(self.confusion))
        values = []
        for c in classes if len(classes) != 2 else (1,):
            tp, true, predicted = self.confusion[c][c], sum(self.confusion[c]), sum(row[c] for row in self.confusion)
            values.append(measure(tp, predicted - tp, true - tp, self.num_examples - true - predicted + tp))
        return _ratio(math.fsum(values), len(values))

    def as_dict(self) -> dict[str, Any]:
        """Return the sums and all measures as JSON values."""
        names = ("num_examples", "loss", "accuracy", "f1", "recall", "precision", "false_alarm_rate")
        sums = {"confusion": [list(row) for row in self.confusion], "loss_sum": self.loss_sum}
        return {name: getattr(self, name) for name in names} | sums

    @classmethod
    def from_dict(cls, message: Any) -> Score:
        """Read a score from its sums; the measures follow from them, so those in the message are ignored.

        Raises:
            BadMessage: a sum is missing, of the wrong type, negative or not finite, or the confusion is not square.
        """
        fields: dict[str, Any] = message if isinstance(message, dict) else {}
        loss_sum, confusion = fields.get("loss_sum"), fields.get("confusion")
        if (
            not isinstance(loss_sum, (int, float)) or isinstance(loss_sum, bool) or not 0 <= loss_sum <= _LARGEST
        ):  # refuses NaN, too
            msg = f"loss_sum of a score is {loss_sum!r:.100}; expected a finite number of at least 0"
            raise BadMessage(msg)
        rows: list[Any] = confusion if isinstance(confusion, list) else [None]
        counts = [count for row in rows for count in (row if isinstance(row, list) and len(row) == len(rows) else [-1])]
        if not all(type(count) is int and 0 <= count < 2**63 for count in counts):
            msg = f"confusion of a score is {confusion!r:.100}; expected a square of whole numbers of at least 0"
            raise BadMessage(msg)
        return cls(float(loss_sum), tuple(tuple(row) for row in rows))


def score(probabilities: Matrix, y: npt.NDArray[np.int64], threshold: float = 0.5) -> Score:
    """Score the probabilities (n, classes) of n readings against their true classes y (n,).

    Of two classes, class 1 is predicted from `threshold` on; of more, the most probable one.
    """
    classes = probabilities.shape[1]
    predicted = probabilities[:, 1] >= threshold if classes == 2 else probabilities.argmax(axis=1)
    confusion = np.bincount(y * classes + predicted, minlength=classes**2).reshape(classes, classes)
    losses = -np.log(np.maximum(probabilities[np.arange(len(y)), y], SMALLEST_PROBABILITY))
    return Score(max(float(losses.sum()), 0.0), tuple(tuple(row) for row in confusion.tolist()))


_LARGEST = 1e300  # so that the sum of many scores stays finite


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
