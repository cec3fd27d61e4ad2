"""Which versions of a run stay on topic `model-versions`: the newest ones, and the best one however old it is."""

from __future__ import annotations

from msgspec import Struct


class Kept(Struct):
    """The best version so far, by its F1 in the round that it was the start of; of equals the newest."""

    best: int | None = None
    f1: float = 0.0

    def rate(self, version: int, f1: float, newest: int, most: int) -> list[int]:
        """Note how good a version was; return those that are not kept any longer.

        Args:
            version: which was measured.
            f1: how good it was.
            newest: the newest version that there is.
            most: how many of the newest are kept.
        """
        if self.best is not None and f1 < self.f1:
            return []
        before, self.best, self.f1 = self.best, version, f1
        return [before] if before is not None and before != version and before <= newest - most else []

    def add(self, version: int, most: int) -> list[int]:
        """Take in a new version; return those that are not kept any longer."""
        old = version - most
        return [old] if old >= 0 and old != self.best else []
