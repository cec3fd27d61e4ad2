"""Drift: has a node's prequential error risen for good, and what follows?"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedstream.messages.rounds import ModelUpdate

if TYPE_CHECKING:
    from fedstream.rounds.federation import Federation

BOOST_ROUNDS = 5
MOST_ERRORS = 500  # rounds that the detector looks back


def watch_for_drift(federation: Federation, update: ModelUpdate) -> None:
    """Note a node's error in the round that closes; if it completes a drift, report it and do DRIFT_ACTION."""
    settings, errors = federation.settings, federation.errors.setdefault(update.node_id, [])
    errors.append(1 - update.score.accuracy)
    del errors[:-MOST_ERRORS]
    if not has_drifted(errors, settings.drift_threshold):
        return
    detail = f"prequential error {errors[-1]:.3f} in round {federation.round}; action: {settings.drift_action}"
    federation.event("drift", detail, update.node_id)
    errors.clear()
    if settings.drift_action == "reset":
        federation.arrays = federation.model.initial_arrays(settings.seed + federation.round)
        federation.strategy = federation.new_strategy()
    elif settings.drift_action == "boost":
        federation.boost_until = federation.round + BOOST_ROUNDS


def has_drifted(errors: Sequence[float], threshold: float) -> bool:
    """Tell whether the newest of a node's errors (0 to 1, one a round) completes a drift.

    Page-Hinkley test (Page 1954) of river: the errors' excess over their mean, less 0.02 a round, has added up to the
    threshold. It is computed anew from the errors, so that a restart needs no more than them.
    """
    if not threshold or len(errors) < 6:
        return False
    detector = detector_class()(min_instances=5, delta=0.02, threshold=threshold, mode="up")
    for error in errors:
        detector.update(error)
    return bool(detector.drift_detected)


@functools.cache
def detector_class() -> Any:
    """Return river's PageHinkley. Its import takes seconds, so that the cloud does it while Spark starts."""
    from river.drift import PageHinkley

    return PageHinkley
