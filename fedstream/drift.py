"""Drift: has a node's prequential error risen for good?"""

from __future__ import annotations

from collections.abc import Sequence


def has_drifted(errors: Sequence[float], threshold: float) -> bool:
    """Tell whether the newest of a node's errors (0 to 1, one a round) completes a drift.

    Page-Hinkley test (Page 1954) of river: the errors' excess over their mean, less 0.02 a round, has added up to the
    threshold. It is computed anew from the errors, so that a restart needs no more than them.
    """
    if not threshold or len(errors) < 6:
        return False
    from river.drift import PageHinkley  # 1 s to import, and needed by the cloud only

    detector = PageHinkley(min_instances=5, delta=0.02, threshold=threshold, mode="up")
    for error in errors:
        detector.update(error)  # type: ignore[no-untyped-call]
    return bool(detector.drift_detected)
