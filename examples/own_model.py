"""A model of one's own: Gaussian naive Bayes, whose arrays average without any loss.

    MODEL=examples.own_model:NaiveBayes
    MODEL_OPTIONS=memory=0.9

An array holds means over readings. The mean of two nodes' arrays, each counted `num_examples` times, is therefore the
array of all their readings together: FedAvg gives exactly what one machine with all the data would have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedstream.learning.arrays import Arrays, Matrix
from fedstream.learning.models import Labels, TrainConfig

SMALLEST_VARIANCE = 1e-9


@dataclass(frozen=True)
class NaiveBayes:
    """Each class is a normal distribution per feature; `memory` is the part of the old arrays that a training keeps."""

    features: int = 2
    classes: int = 2
    memory: float = 0.0

    def initial_arrays(self, seed: int) -> Arrays:
        """Return arrays that know nothing: no reading of any class has been seen."""
        shape = (self.classes, self.features)
        return {"share": np.zeros(self.classes), "sum": np.zeros(shape), "square": np.zeros(shape)}

    def fit(self, arrays: Arrays, x: Matrix, y: Labels, config: TrainConfig, seed: int) -> Arrays:
        """Return the readings' means, mixed with the old arrays; nothing here is random, and no step is taken."""
        weights = config.sample_weight(y, self.classes)
        member = np.eye(self.classes)[y] * (1.0 if weights is None else weights[:, np.newaxis])  # (n, classes)
        own = {"share": member.mean(axis=0), "sum": member.T @ x / len(y), "square": member.T @ (x * x) / len(y)}
        kept = self.memory if arrays["share"].any() else 0.0
        return {name: kept * arrays[name] + (1 - kept) * own[name] for name in arrays}

    def predict(self, arrays: Arrays, x: Matrix) -> Matrix:
        """Return each class's probability by Bayes' rule; while nothing is known, all are equally probable."""
        share = arrays["share"]
        if not share.any():
            return np.full((len(x), self.classes), 1 / self.classes)
        count = np.where(share > 0, share, 1.0)[:, np.newaxis]
        mean = arrays["sum"] / count
        variance = np.maximum(arrays["square"] / count - mean**2, SMALLEST_VARIANCE)
        distance = ((x[:, np.newaxis, :] - mean) ** 2 / variance + np.log(variance)).sum(axis=2)  # (n, classes)
        known = share > 0
        logs = np.where(known, np.log(np.where(known, share, 1.0)) - distance / 2, -np.inf)
        odds = np.exp(logs - logs.max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))
