"""The round that is open: the model it started from, and who has answered."""

from __future__ import annotations

from msgspec import Struct, field

from fedstream.learning.arrays import Arrays
from fedstream.messages.rounds import GlobalModel, ModelUpdate, Place


class Pending(Struct, frozen=True):
    """An update that waits for the end of the round, and where it stands on its topic."""

    update: ModelUpdate
    place: Place | None


class OpenRound(Struct):
    """A round. `model` is the message that opened it, word for word; None before a run's first round."""

    model: GlobalModel | None = None
    is_overdue: bool = False
    pending: list[Pending] = field(default_factory=list)
    answered: dict[str, str] = field(default_factory=dict)  # node: accepted or abstained
    counts: dict[str, int] = field(default_factory=dict)  # updates that have come, by kind

    @property
    def number(self) -> int:
        """The round's number; 0 before the first one."""
        return self.model.round if self.model else 0

    @property
    def version(self) -> int:
        """The version of the global model that it started from."""
        return self.model.version if self.model else 0

    @property
    def arrays(self) -> Arrays:
        """The arrays that it started from."""
        return self.model.arrays if self.model else {}

    @property
    def participants(self) -> tuple[str, ...]:
        """The nodes that the strategy has sampled; empty: all."""
        return self.model.participants if self.model else ()

    def count(self, kind: str) -> None:
        """Count an update."""
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def examples(self) -> int:
        """Return how many readings the updates so far have learned from."""
        return sum(each.update.num_examples for each in self.pending)
