"""One node's training: scaling the features, measuring before learning, joining what was trained in parallel."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from fedstream.errors import BadMessage
from fedstream.features import Feature
from fedstream.learning.arrays import Arrays, Matrix
from fedstream.learning.models import Model, TrainConfig
from fedstream.learning.scores import Score, score
from fedstream.settings import Settings

Number = Annotated[float, Meta(ge=-1e300, le=1e300)]  # so that the sum of many nodes' numbers stays finite


class Scaler(Struct, frozen=True):
    """Takes each feature to mean 0 and variance 1: (x - mean) / std.

    Raises:
        BadMessage: the two have not one number for each feature.
    """

    mean: Annotated[tuple[Number, ...], Meta(description="of each feature")]
    std: Annotated[tuple[Annotated[float, Meta(ge=1e-300, le=1e300)], ...], Meta(description="of each feature")]

    def __post_init__(self) -> None:
        """Compare the lengths."""
        if len(self.mean) != len(self.std):
            msg = f"a scaler has {len(self.mean)} means and {len(self.std)} std; expected one of each for every feature"
            raise BadMessage(msg)

    def apply(self, x: Matrix) -> Matrix:
        """Return x (n, features) scaled."""
        return np.asarray((x - np.array(self.mean)) / np.array(self.std))

    def rounded(self, table: Sequence[Feature]) -> Scaler:
        """Return a scaler that serves as well and tells no exact number of the readings.

        Each std is the nearest power of two, each mean the nearest multiple of that within the feature's limits.

        >>> Scaler((74.3,), (8.66,)).rounded([Feature("temperature", -100, 1000)])
        Scaler(mean=(72.0,), std=(8.0,))
        """
        std = tuple(2.0 ** round(math.log2(exact)) for exact in self.std)
        near = (round(mean / unit) * unit for mean, unit in zip(self.mean, std, strict=True))
        mean = tuple(min(max(each, own.low), own.high) for each, own in zip(near, table, strict=True))
        return Scaler(mean, std)


@dataclass(frozen=True)
class Trained:
    """Trained arrays, the readings they learned from, and how good the arrays were on these before the training."""

    arrays: Arrays
    num_examples: int
    score: Score


def scaler_of(count: int, sums: Sequence[float], squares: Sequence[float]) -> Scaler:
    """Return the scaler with the mean and the population variance E[x²] - E[x]², as StandardScaler.

    A variance within the rounding of the sums is none: such a feature counts as constant, and its std is 1, or as much
    as that rounding may hide if this is more. So a time stamp in ms never gives numbers of thousands.

    Raises:
        ZeroDivisionError: there is no reading yet, so there is no mean.
    """
    mean = [total / count for total in sums]
    square = [total / count for total in squares]
    variance = [e - m * m for e, m in zip(square, mean, strict=True)]
    # Of E[x²]: each addition rounds by at most half an epsilon, and a few more operations follow (Chan, Golub, LeVeque
    # 1983). It stops at 1e-12: many readings are added up in parts, and no narrow feature may turn constant in the end.
    rounding = min((count + 8) * sys.float_info.epsilon / 2, 1e-12)
    std = [
        math.sqrt(v) if v > rounding * e else max(1.0, math.sqrt(rounding * e))
        for v, e in zip(variance, square, strict=True)
    ]
    return Scaler(tuple(mean), tuple(std))


def train_config(settings: Settings, round_config: Mapping[str, Any]) -> TrainConfig:
    """Return the settings of a node's training, with what the round's strategy wants of the nodes."""
    return TrainConfig(
        epochs=settings.local_epochs,
        batch_size=settings.train_batch_size,
        learning_rate=settings.learning_rate * float(round_config.get("learning-rate-factor", 1.0)),
        class_weight=settings.class_weight,
        proximal_mu=float(round_config.get("proximal-mu", 0.0)),
    )


def train_seed(settings: Settings, round_number: int, node: int, partition: int = 0) -> int:
    """Return the seed of one training: another for each round, node and partition, the same again after a crash."""
    return (settings.seed * 1_000_003 + round_number * 1009 + node * 31 + partition) % 2**31


def train(
    model: Model,
    arrays: Arrays,
    scaler: Scaler | None,
    x: Matrix,
    y: npt.NDArray[np.int64],
    config: TrainConfig,
    seed: int,
    threshold: float = 0.5,
) -> Trained:
    """Test, then train: score `arrays` on x (n, features) and y (n,), and only then learn from them.

    Each reading is thus measured by a model that has not seen it: the prequential error (Gama et al. 2013, sec. 3).
    """
    scaled = x if scaler is None else scaler.apply(x)
    before = score(model.predict(arrays, scaled), y, threshold)
    return Trained(model.fit(arrays, scaled, y, config, seed), len(y), before)


def merge_trained(parts: Sequence[Trained]) -> Trained:
    """Join the partitions of one node: their arrays averaged by num_examples (parameter averaging), their scores added.

    Raises:
        ZeroDivisionError: the parts hold no reading.
    """
    total = sum(part.num_examples for part in parts)
    shares = [part.num_examples / total for part in parts]
    arrays = {
        name: np.sum([share * part.arrays[name] for share, part in zip(shares, parts, strict=True)], axis=0)
        for name in parts[0].arrays
    }
    return Trained(arrays, total, sum((part.score for part in parts), Score()))
