"""The maths: running totals, a node's weight, the global weight, and which update of a node counts."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstream.errors import BadMessage
from fedstream.messages.door import decode
from fedstream.messages.weights import LARGEST_WEIGHT, NodeWeight, RunningSums, global_weight, merge_update

FACTORS = (1, 100)


def test_the_weight_of_two_readings_is_what_pencil_and_paper_give():
    # Readings 70 °C, 0.05 g and 80 °C, 0.07 g: mean temperature 75, mean vibration 0.06.
    # (75 + 100 * 0.06) / 2 = (75 + 6) / 2 = 40.5
    totals = RunningSums(1, (70.0, 0.05)) + RunningSums(1, (80.0, 0.07))
    assert totals.count == 2
    assert totals.weight(FACTORS) == pytest.approx(40.5, abs=1e-12)


def test_the_weight_of_one_reading_is_its_own():
    # (60 + 100 * 0.02) / 2 = 31
    assert RunningSums(1, (60.0, 0.02)).weight(FACTORS) == 31.0


def test_the_weight_does_not_depend_on_how_many_records_were_rejected():
    assert RunningSums(1, (60.0, 0.02), rejected=99).weight(FACTORS) == 31.0


def test_no_reading_has_no_weight():
    with pytest.raises(ZeroDivisionError):
        RunningSums(rejected=3).weight(FACTORS)


def test_totals_add_up_field_by_field():
    # Halves and quarters are exact in binary, so equality is meant.
    one, ten = RunningSums(1, (2.5, 0.25), (6.25, 0.5), 3), RunningSums(10, (20.25, 0.5), (41.0, 2.0), 30)
    assert one + ten == RunningSums(11, (22.75, 0.75), (47.25, 2.5), 33)


def test_nothing_added_changes_nothing():
    totals = RunningSums(3, (210.5, 0.25), (14_800.5, 0.25), 1)
    assert totals + RunningSums() == RunningSums() + totals == totals
    assert RunningSums(rejected=2) + RunningSums(rejected=3) == RunningSums(rejected=5)


def test_sums_of_other_features_do_not_add_up():
    with pytest.raises(ValueError, match="shorter"):
        RunningSums(1, (1.0, 2.0), (1.0, 4.0)) + RunningSums(1, (1.0,), (1.0,))


def test_the_weight_is_the_mean_over_the_features_of_factor_times_mean():
    # Of four readings: (0.5 * 8 + 2 * 12 + 1 * -4) / 4 / 3 = 24 / 12 = 2.
    assert RunningSums(4, (8.0, 12.0, -4.0)).weight((0.5, 2, 1)) == 2.0
    with pytest.raises(ValueError, match="shorter"):
        RunningSums(4, (8.0, 12.0)).weight((1, 2, 3))


@given(st.integers(1, 10**9), st.floats(-1e12, 1e12), st.floats(0, 1e12))
def test_with_the_reports_factors_the_weight_is_the_reports_bit_for_bit(count, temperatures, vibrations):
    weight = RunningSums(count, (temperatures, vibrations)).weight(FACTORS)
    assert weight == (temperatures + 100 * vibrations) / count / 2


def test_totals_can_be_added_in_any_grouping_and_equal_one_pass():
    source = random.Random(3)
    readings = [(source.uniform(60, 90), source.uniform(0.02, 0.1)) for _ in range(300)]
    parts = [RunningSums(1, (t, v), (t**2, v**2)) for t, v in readings]
    in_batches = [sum(parts[begin : begin + 7], RunningSums()) for begin in range(0, 300, 7)]
    from_the_left = sum(in_batches, RunningSums())
    from_the_right = RunningSums()
    for batch in reversed(in_batches):
        from_the_right = batch + from_the_right
    one_pass = [math.fsum(column) for column in zip(*((t, v, t**2, v**2) for t, v in readings), strict=True)]
    assert [*from_the_left.sums, *from_the_left.squares] == pytest.approx(one_pass, rel=1e-12)
    assert [*from_the_right.sums, *from_the_right.squares] == pytest.approx(one_pass, rel=1e-12)
    assert from_the_left.count == from_the_right.count == 300


def test_a_node_counts_as_often_as_it_has_samples():
    # (40 * 1 + 44 * 3) / (1 + 3) = 172 / 4 = 43; the plain mean would be 42.
    assert global_weight([NodeWeight("a", 40.0, 1), NodeWeight("b", 44.0, 3)]) == 43.0


def test_three_unequal_nodes_worked_out_by_hand():
    # (10 * 5 + 20 * 2 + (-30) * 1) / (5 + 2 + 1) = (50 + 40 - 30) / 8 = 7.5; the plain mean would be 0.
    updates = [NodeWeight("a", 10.0, 5), NodeWeight("b", 20.0, 2), NodeWeight("c", -30.0, 1)]
    assert global_weight(updates) == 7.5


def test_rejected_records_do_not_count_as_samples():
    assert global_weight([NodeWeight("a", 40.0, 1, rejected=100), NodeWeight("b", 44.0, 3)]) == 43.0


def test_the_order_of_the_nodes_changes_no_bit_of_the_global_weight():
    weights_and_samples = [(40.1, 3), (40.7, 1), (0.1, 7), (44.3, 11), (1e-7, 5)]
    updates = [NodeWeight(f"fog-{index}", *pair) for index, pair in enumerate(weights_and_samples)]
    orders = [list(order) for order in itertools.permutations(updates)]
    assert len({global_weight(order) for order in orders}) == 1
    simple = {sum(update.weight * update.samples for update in order) / 27 for order in orders}
    assert len(simple) > 1, "with these numbers a simple sum would do: they show nothing"


@pytest.mark.parametrize("samples", [1, 8, 1024])
def test_the_global_weight_of_one_node_is_its_own(samples):
    # Powers of two, so that neither product nor quotient is rounded.
    assert global_weight([NodeWeight("a", 40.2234, samples)]) == 40.2234


def test_without_any_update_there_is_no_global_weight():
    with pytest.raises(ZeroDivisionError):
        global_weight([])


def test_no_update_that_is_accepted_makes_the_global_weight_infinite():
    # 1e308 * 1000 is beyond what a float holds; a mean is never larger than what it is the mean of.
    with pytest.raises(BadMessage, match="weight"):
        decode(NodeWeight, b'{"node_id":"a","weight":1e308,"samples":1000}')
    most = [NodeWeight(name, LARGEST_WEIGHT, 2**63 - 1) for name in "abc"]
    assert global_weight(most) == pytest.approx(LARGEST_WEIGHT)


def merge_updates(latest, arrived):
    """Return what is the latest of each node then, and how many of the arrived updates were not newer."""
    merged = dict(latest)
    return merged, sum(not merge_update(merged, update) for update in arrived)


def test_the_first_update_of_a_node_is_kept():
    update = NodeWeight("a", 40.0, 1)
    assert merge_updates({}, [update]) == ({"a": update}, 0)


def test_a_new_node_joins_those_that_are_known():
    a, b = NodeWeight("a", 40.0, 5), NodeWeight("b", 44.0, 3)
    assert merge_updates({"a": a}, [b]) == ({"a": a, "b": b}, 0)


def test_an_update_with_more_samples_replaces_the_one_before():
    old, new = NodeWeight("a", 40.0, 5), NodeWeight("a", 41.0, 6)
    assert merge_updates({"a": old}, [new]) == ({"a": new}, 0)


def test_a_replayed_update_changes_nothing_and_is_counted():
    update = NodeWeight("a", 40.0, 5)
    assert merge_updates({"a": update}, [update, update]) == ({"a": update}, 2)


def test_a_late_update_changes_nothing_and_is_counted():
    latest, late = NodeWeight("a", 40.0, 5), NodeWeight("a", 39.0, 4)
    assert merge_updates({"a": latest}, [late]) == ({"a": latest}, 1)


def test_a_node_that_counts_from_another_source_starts_anew_there_and_back():
    all_day, noon = NodeWeight("a", 40.0, 500), NodeWeight("a", 44.0, 3, source="from 2026-11-22T12:00:00Z")
    assert merge_updates({"a": all_day}, [noon]) == ({"a": noon}, 0)
    late = NodeWeight("a", 43.0, 2, source=noon.source)
    assert merge_updates({"a": noon}, [late]) == ({"a": noon}, 1), "of one source, more samples are later"
    assert merge_updates({"a": noon}, [all_day]) == ({"a": all_day}, 0)


def test_of_two_updates_with_equal_samples_the_first_stays():
    first, twin = NodeWeight("a", 40.0, 5), NodeWeight("a", 99.0, 5)
    assert merge_updates({"a": first}, [twin]) == ({"a": first}, 1)


def test_of_several_updates_of_a_node_in_one_batch_the_one_with_most_samples_stays_in_whatever_order_they_come():
    updates = [NodeWeight("a", 40.0 + samples, samples) for samples in (6, 7, 8)]
    other = NodeWeight("b", 1.0, 1)
    for order in itertools.permutations([*updates, other]):
        merged, _ = merge_updates({"a": NodeWeight("a", 40.0, 5)}, order)
        assert merged == {"a": updates[-1], "b": other}
    assert merge_updates({}, updates)[1] == 0
    assert merge_updates({}, updates[::-1])[1] == 2  # 7 and 6 come after 8


def test_a_node_of_less_samples_than_another_is_not_late():
    a, b = NodeWeight("a", 40.0, 500), NodeWeight("b", 44.0, 1)
    assert merge_updates({"a": a}, [b]) == ({"a": a, "b": b}, 0)
