"""Which versions of a run stay on topic `model-versions`: the newest ones, and the best one however old it is."""

from __future__ import annotations

from msgspec import Struct, field


class Kept(Struct):
    """The best version so far, by its F1 in the round that it was the start of; of equals the newest.

    Of each version that is kept it has the fingerprint, so that nobody can bring another model as this version.
    """

    best: int | None = None
    f1: float = 0.0
    since: int = 0  # the version with which the cloud went on when its state was lost
    fingerprints: dict[int, str] = field(default_factory=dict)

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
        return self._drop(before) if before is not None and before != version and before <= newest - most else []

    def add(self, version: int, fingerprint: str, most: int) -> list[int]:
        """Take in a new version; return those that are not kept any longer."""
        self.fingerprints[version] = fingerprint
        old = version - most
        return self._drop(old) if old >= 0 and old != self.best else []

    def _drop(self, version: int) -> list[int]:
        self.fingerprints.pop(version, None)
        return [version]
