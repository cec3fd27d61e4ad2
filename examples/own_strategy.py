"""A strategy of one's own: FedAvg that goes only a part of the way (a learning rate on the server).

STRATEGY=examples.own_strategy:PartWay
STRATEGY_OPTIONS=rate=0.5
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg


class PartWay(FedAvg):
    """The new model is (1 - rate) * old + rate * mean of the nodes' models."""

    def __init__(self, rate: float = 0.5, **options: Any) -> None:
        """Take the rate, and all options of FedAvg."""
        super().__init__(**options)
        self.rate = rate
        self.opened_with = ArrayRecord()  # kept across a restart of the cloud: it is made of arrays

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Open a round as FedAvg does, and remember what it starts from."""
        self.opened_with = arrays.copy()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take the mean of the replies as FedAvg does, and go a part of the way to it."""
        mean, metrics = super().aggregate_train(server_round, replies)
        if mean is None:
            return None, metrics
        new = {
            name: Array((1 - self.rate) * old.numpy() + self.rate * mean[name].numpy())
            for name, old in self.opened_with.items()
        }
        return ArrayRecord(new), metrics
