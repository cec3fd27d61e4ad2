"""The bench's maths: matching results to inputs, counting errors, percentiles, bounds, throughput, growth."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier

from bench.lab import measures


def ints(*values):
    return np.array(values, np.int64)


def floats(*values):
    return np.array(values, np.float64)


# --- squares


def test_each_number_is_matched_to_its_square():
    # 1, 2, 3 sent at 100, 200, 300 ms; results of 2, 1, 3 at 215, 230, 301 ms: 130, 15 and 1 ms.
    found = measures.match_squares(ints(100, 200, 300), floats(2, 1, 3), floats(4, 1, 9), ints(215, 230, 301))
    assert found.latency_ms.tolist() == [130, 15, 1]
    assert (found.lost, found.late, found.duplicated, found.wrong) == (0, 0, 0, 0)


def test_of_two_results_the_first_one_counts_and_the_second_is_a_duplicate():
    # The results of the second partition stand behind those of the first, although 1 came earlier there.
    found = measures.match_squares(ints(10, 10), floats(1, 2, 1), floats(1, 4, 1), ints(50, 60, 20))
    assert found.latency_ms.tolist() == [10, 50]
    assert (found.lost, found.duplicated, found.wrong) == (0, 1, 0)


def test_a_missing_number_before_the_last_result_is_lost_and_one_behind_it_is_late():
    found = measures.match_squares(ints(0, 0, 0, 0, 0), floats(1, 3), floats(1, 9), ints(5, 7))
    assert (found.lost, found.late) == (1, 2)  # 2 is lost, 4 and 5 are late
    assert np.isnan(found.latency_ms).tolist() == [False, True, False, True, True]


@pytest.mark.parametrize(
    ("n", "square"),
    [(2, 5), (2, 4.5), (0, 0), (4, 16), (math.nan, math.nan), (2, math.nan)],
    ids=["wrong", "a fraction", "before the first", "never sent", "unreadable", "without a square"],
)
def test_a_result_that_no_number_has_is_wrong_and_answers_nothing(n, square):
    found = measures.match_squares(ints(0, 0, 0), floats(1, n, 3), floats(1, square, 9), ints(1, 1, 1))
    assert (found.wrong, found.lost) == (1, 1)
    assert math.isnan(found.latency_ms[1])


def test_without_any_result_all_numbers_are_late():
    found = measures.match_squares(ints(1, 2), floats(), floats(), ints())
    assert (found.lost, found.late, found.duplicated, found.wrong) == (0, 2, 0, 0)


# --- weights


def test_the_probability_of_an_mlp_is_that_of_scikit_learn():
    network = MLPClassifier(hidden_layer_sizes=(3,), max_iter=5, random_state=1)
    x = np.array([[60.0, 0.02], [90.0, 0.05], [75.0, 0.11], [88.0, 0.2]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged
        network.fit(x, [0, 1, 1, 1])
    arrays = {f"coefs_{i}": each for i, each in enumerate(network.coefs_)}
    arrays |= {f"intercepts_{i}": each for i, each in enumerate(network.intercepts_)}
    found = measures.probabilities(x[:, 0], x[:, 1], arrays)
    assert found == pytest.approx(network.predict_proba(x)[:, 1], abs=1e-12)


def test_a_score_belongs_to_the_reading_at_its_offset_and_the_first_right_one_counts():
    expected, offsets = floats(0.25, 0.5, 0.75), floats(1, 0, 1, 2, 7)
    # The second reading is scored twice (7 and 9 ms after it), the third one wrongly, and there is no eighth.
    found = measures.match_alerts(
        ints(10, 10, 10), expected, offsets, floats(0.5, 0.25, 0.5, 0.75001, 0.5), ints(19, 12, 17, 11, 11)
    )
    assert list(found.latency_ms[:2]) == [2, 7]
    assert np.isnan(found.latency_ms[2])
    assert (found.lost, found.late, found.duplicated, found.wrong) == (0, 1, 1, 2)


def test_a_backlog_of_scores_is_checked_for_what_is_missing_twice_or_no_probability():
    # Readings 0 and 1 of partition 0 and reading 0 of partition 1; one of them twice, one with 1.5.
    found = measures.check_backlog("alerts", 4, True, 0.0, floats(0, 1, 1, 1e12), floats(0.5, 0.5, 0.5, 1.5))
    assert found == {"checked": 4, "lost": 1, "duplicated": 1, "wrong": 1}


def test_the_running_weight_is_the_mean_of_the_means():
    # (60 + 100 * 0.1) / 2 = 35; mean of 60 and 80 is 70, of 0.1 and 0.02 is 0.06: (70 + 6) / 2 = 38.
    assert measures.running_weights(floats(60, 80), floats(0.1, 0.02)) == pytest.approx([35, 38])


def test_a_reading_waits_for_the_first_weight_that_counts_it():
    # Readings at 0, 10, 20, 30 ms; a weight of 1 at 5 ms, one of 3 at 32 ms, one of 4 at 40 ms.
    expected = floats(40, 41, 42, 43)
    found = measures.match_weights(ints(0, 10, 20, 30), expected, floats(1, 3, 4), floats(40, 42, 43), ints(5, 32, 40))
    assert found.latency_ms.tolist() == [5, 22, 12, 10]
    assert (found.lost, found.late, found.duplicated, found.wrong) == (0, 0, 0, 0)


def test_readings_behind_the_last_weight_are_late():
    found = measures.match_weights(ints(0, 0, 0), floats(1, 2, 3), floats(2), floats(2), ints(9))
    assert found.late == 1
    assert math.isnan(found.latency_ms[2])


def test_a_weight_may_be_rounded_to_four_decimals_and_no_further():
    def wrong(weight):
        return measures.match_weights(ints(0), floats(40.00005), floats(1), floats(weight), ints(1)).wrong

    assert wrong(40.0001) == 0  # off by 0.00005
    assert wrong(40.00015) == 1  # off by 0.0001


def test_a_wrong_weight_answers_no_reading():
    # The weight of 3 readings is wrong at first, at 2 ms; the right one comes at 8 ms, after that of 2 readings.
    samples, weights = floats(1, 3, 2, 3), floats(40, 40.5, 41, 42)
    found = measures.match_weights(ints(0, 0, 0), floats(40, 41, 42), samples, weights, ints(1, 2, 5, 8))
    assert found.wrong == 1
    assert found.latency_ms.tolist() == [1, 5, 8]


def test_more_samples_than_readings_are_duplicates():
    found = measures.match_weights(ints(0, 0), floats(40, 41), floats(1, 5), floats(40, 41), ints(1, 2))
    assert found.duplicated == 3
    assert found.wrong == 1


def test_an_unreadable_weight_is_wrong():
    found = measures.match_weights(ints(0), floats(40), floats(math.nan, 1), floats(math.nan, 40), ints(1, 2))
    assert (found.wrong, found.duplicated) == (1, 0)
    assert found.latency_ms.tolist() == [2]


# --- percentiles and loads


def test_percentiles_are_values_that_were_measured():
    # Of 1 to 200, the nearest ranks: 0.5, 0.95 and 0.99 times 200 are the 100th, 190th and 198th.
    found = measures.percentiles(np.append(np.arange(200.0, 0, -1), np.nan))
    assert found == {"p50": 100, "p95": 190, "p99": 198, "max": 200}


def test_there_are_no_percentiles_of_nothing():
    assert measures.percentiles(floats(math.nan)) == {"p50": None, "p95": None, "p99": None, "max": None}


def test_the_head_of_a_load_is_left_out():
    # 5 messages in 4 s: 1 a second from first to last. Without the first second the latency of 900 ms is gone.
    found = measures.latencies(ints(0, 1000, 2000, 3000, 4000), floats(900, 1, 2, 3, 4), 1.0)
    assert found == {"p50": 2, "p95": 4, "p99": 4, "max": 4, "reached_per_second": 1.0}


# --- error rate


def test_the_bound_without_errors_solves_its_definition():
    # With p = 1 - 0.05^(1/n) it is just 5 % likely to see n results without an error.
    assert measures.upper_bound(0, 100) == pytest.approx(1 - 0.05 ** (1 / 100))
    assert measures.upper_bound(0, 3_600_000) == pytest.approx(3 / 3_600_000, rel=0.002)  # the rule of three


@pytest.mark.parametrize(("errors", "checked"), [(1, 20), (3, 50), (7, 1000)])
def test_at_the_bound_so_few_errors_are_five_percent_likely(errors, checked):
    p = measures.upper_bound(errors, checked)
    likely = sum(math.comb(checked, k) * p**k * (1 - p) ** (checked - k) for k in range(errors + 1))
    assert likely == pytest.approx(0.05)


def test_the_bound_is_one_if_all_is_wrong_and_unknown_if_nothing_was_checked():
    assert measures.upper_bound(5, 5) == 1
    with pytest.raises(ValueError, match="0 results checked; expected at least 1"):
        measures.upper_bound(0, 0)


# --- catching up


def test_throughput_starts_when_a_tenth_is_done():
    # 100 messages; 10 are done at 5,000 ms, all at 5,450 ms: 90 in 0.45 s are 200 a second.
    assert measures.catch_up_rate(ints(4, 10, 60, 100), ints(0, 5000, 5200, 5450)) == pytest.approx(200)


def test_what_came_all_at_once_has_no_throughput():
    assert measures.catch_up_rate(ints(100), ints(7)) is None
    assert measures.catch_up_rate(ints(50, 100), ints(7, 7)) is None
    assert measures.catch_up_rate(ints(), ints()) is None


def test_a_back_log_of_numbers_is_checked_one_by_one():
    # 3 numbers: 1 comes twice, the square of 2 is wrong, 3 is right; so 2 is lost.
    found = measures.check_backlog("squares", 3, True, 0.0, floats(1, 1, 2, 3), floats(1, 1, 5, 9))
    assert found == {"checked": 4, "lost": 1, "duplicated": 1, "wrong": 1}


def test_in_a_back_log_that_was_not_ended_nothing_counts_as_lost():
    found = measures.check_backlog("squares", 9, False, 0.0, floats(1, 3), floats(1, 9))
    assert found == {"checked": 2, "lost": 0, "duplicated": 0, "wrong": 0}


@pytest.mark.parametrize(
    ("samples", "weight", "duplicated", "wrong"), [(100, 40.5, 0, 0), (100, 40.4, 0, 1), (102, 40.5, 2, 0)]
)
def test_of_a_back_log_of_readings_the_last_weight_is_checked(samples, weight, duplicated, wrong):
    found = measures.check_backlog("weights", 100, True, 40.5, floats(60, samples), floats(1, weight))
    assert found == {"checked": 1, "lost": 0, "duplicated": duplicated, "wrong": wrong}


# --- repetitions, growth, CPU


def test_repetitions_have_a_median_and_a_spread():
    found = measures.median_and_spread([4.0, None, 1.0, 2.0])
    assert found == {"median": 2.0, "min": 1.0, "max": 4.0, "n": 3}
    assert measures.median_and_spread([None]) is None


MINUTES = list(range(60))
NOISE = [0, 7, -4, 3, -6, 5] * 10


def test_what_rises_steadily_grows():
    # 2 MB a minute on 100 MB, with noise: 118 MB more after 59 minutes.
    found = measures.growth(MINUTES, [100 + 2 * m + n for m, n in zip(MINUTES, NOISE, strict=True)], 5, 0.05)
    assert found["slope_per_minute"] == pytest.approx(2, abs=0.1)
    assert found["added"] == pytest.approx(118, abs=6)
    assert found["grows"]


def test_noise_does_not_grow_and_one_peak_does_not_either():
    values = [100.0 + n for n in NOISE]
    values[-1] = 900
    found = measures.growth(MINUTES, values, 5, 0.05)
    assert not found["grows"]


def test_a_slope_that_noise_could_have_made_is_no_growth():
    # Slopes of the 10 pairs: -250, -120, -36.7, -25, 5, 22.5, 70, 70, 200, 260; median 13.75, so 55 more in 4 minutes.
    found = measures.growth([0, 1, 2, 3, 4], [100, 300, 50, 310, 190], 5, 0.05)
    assert found["added"] == pytest.approx(55)
    assert not found["grows"]


def test_growth_within_the_tolerance_is_none():
    # 0.05 a minute for sure, but 2.95 in all: below 3 files, above 2.
    values = [100 + 0.05 * m for m in MINUTES]
    assert not measures.growth(MINUTES, values, 3, 0)["grows"]
    assert measures.growth(MINUTES, values, 2, 0)["grows"]
    assert not measures.growth(MINUTES, values, 2, 0.05)["grows"]  # 5 % of about 101


def test_what_falls_does_not_grow():
    assert not measures.growth(MINUTES, [100 - m for m in MINUTES], 0, 0)["grows"]


def test_two_samples_tell_no_slope():
    with pytest.raises(ValueError, match="2 samples; expected at least 3"):
        measures.growth([0, 1], [1, 2], 0, 0)


def test_a_new_process_used_all_its_cpu_time_and_one_that_ended_keeps_what_it_had():
    before = {(1, 0.0): 10.0, (2, 0.0): 5.0}
    after = {(1, 0.0): 12.5, (2, 0.0): 5.5, (3, 9.0): 1.0}
    assert measures.used_cpu_seconds(before, after) == pytest.approx(2.5 + 0.5 + 1.0)


def test_a_reading_is_counted_by_the_first_weight_with_at_least_as_many_samples():
    sent = np.array([0, 10, 20, 30], np.int64)
    # 2 samples at 100 ms, then a late 1, then 3 at 300 ms; nothing counts the fourth.
    latency = measures.counted_after(sent, np.array([2, 1, 3]), np.array([100, 150, 300]))
    assert latency[:3].tolist() == [100, 90, 280]
    assert np.isnan(latency[3])
    assert np.isnan(measures.counted_after(sent, np.zeros(0, np.int64), np.zeros(0, np.int64))).all()
