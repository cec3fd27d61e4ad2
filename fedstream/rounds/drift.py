"""Drift: has a node's prequential error risen for good?"""

from __future__ import annotations

from msgspec import Struct, field

LEAST_ROUNDS = 6  # before that a mean says little
ALLOWANCE = 0.02  # that an error may be above its mean, each round
BOOST_ROUNDS = 5


class PageHinkley(Struct):
    """The Page-Hinkley test (Page 1954) of one node's errors, which lie between 0 and 1, one a round."""

    rounds: int = 0
    mean: float = 0.0
    excess: float = 0.0  # of the errors over their means, less the allowance, since it was last the smallest

    def rises(self, error: float, threshold: float) -> bool:
        """Take in an error; tell whether the errors' excess over their mean has added up to more than the threshold."""
        self.rounds += 1
        self.mean += (error - self.mean) / self.rounds
        self.excess = max(0.0, self.excess + error - self.mean - ALLOWANCE)
        return self.rounds >= LEAST_ROUNDS and self.excess > threshold


class Drift(Struct):
    """The tests of all nodes, and what has followed from the last drift."""

    tests: dict[str, PageHinkley] = field(default_factory=dict)
    boost_until: int = 0  # the last round in which the nodes learn faster

    def watch(self, node: str, error: float, threshold: float) -> bool:
        """Note a node's error in the round that closes; tell whether it completes a drift, and then begin anew.

        A threshold of 0 switches the test off.
        """
        if not threshold or not self.tests.setdefault(node, PageHinkley()).rises(error, threshold):
            return False
        del self.tests[node]
        return True
