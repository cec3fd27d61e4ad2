"""The drift test of a node's errors, beside river's, and worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from river.drift import PageHinkley as Reference

from fedstream.rounds.drift import ALLOWANCE, LEAST_ROUNDS, Drift, PageHinkley

ERRORS = st.lists(st.integers(0, 100).map(lambda percent: percent / 100), min_size=1, max_size=60)


@given(ERRORS, st.sampled_from([0.05, 0.5, 1.5]))
def test_a_drift_is_seen_in_the_same_round_as_by_river(errors, threshold):
    own = PageHinkley()
    # alpha=1: nothing of the past is forgotten, as in Page's test.
    reference = Reference(min_instances=LEAST_ROUNDS, delta=ALLOWANCE, threshold=threshold, alpha=1.0, mode="up")
    for error in errors:
        rises = own.rises(error, threshold)
        reference.update(error)
        if abs(own.excess - threshold) < 1e-9:
            return  # the two round differently
        assert rises == reference.drift_detected
        if rises:
            return


def test_what_the_test_keeps_is_worked_out_by_hand():
    own = PageHinkley()
    for _ in range(12):
        assert not own.rises(0.02, 0.5)
    assert (own.mean, own.excess) == (pytest.approx(0.02), 0.0)
    # (12 * 0.02 + 0.6) / 13 = 0.0646 and 0.6 - 0.0646 - 0.02 = 0.5154
    assert own.rises(0.6, 0.5)
    assert own.mean == pytest.approx(0.84 / 13)
    assert own.excess == pytest.approx(0.58 - 0.84 / 13)


def test_the_first_rounds_say_nothing():
    drift = Drift()
    found = [drift.watch("a", error, 0.1) for error in (0.0, 0.0, 0.9, 0.9, 0.9, 0.9)]
    assert found == [False] * 5 + [True]
    assert drift.tests == {}, "and then it begins anew"


def test_the_nodes_have_a_test_each_and_a_threshold_of_0_switches_them_off():
    drift = Drift()
    for node, error in (("a", 0.5), ("b", 0.0)):
        drift.watch(node, error, 0.1)
    assert {node: test.mean for node, test in drift.tests.items()} == {"a": 0.5, "b": 0.0}
    off = Drift()
    assert not any(off.watch("a", error, 0.0) for error in [0.0] * 9 + [1.0] * 9)
