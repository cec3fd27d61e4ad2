"""The maths of the bench on plain arrays: matching, percentiles, counting, error bounds, throughput, growth.

All times are LogAppendTime: milliseconds since 1970 by the broker's clock, on the input and on the output.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
WEIGHT_TOLERANCE = 6e-5  # weights may be rounded to 4 decimals
PROBABILITY_TOLERANCE = 1e-9
WARM_SHARE = 0.1  # of a back-log, before the clock of the throughput starts


@dataclass(frozen=True)
class Matched:
    """Each input's latency (ms; NaN: no result), and what was wrong with the results.

    `late` are inputs without a result behind the last one that has a result: not lost, but not done in time.
    """

    latency_ms: Floats
    lost: int
    late: int
    duplicated: int
    wrong: int


def match_squares(sent_ms: Ints, n: Floats, square: Floats, at_ms: Ints) -> Matched:
    """Match squares, as they came at `at_ms`, to the numbers 1, 2, 3, ... sent at `sent_ms`; NaN: unreadable."""
    return match_each(sent_ms, n, square == n * n, at_ms)


def probabilities(temperature: Floats, vibration: Floats, arrays: Mapping[str, Floats]) -> Floats:
    """Return an MLP's probability of class 1 for each reading: 1 / (1 + exp(-(max(0, x W0 + b0) W1 + b1)))."""
    x = np.column_stack([temperature, vibration])
    hidden = np.maximum(0.0, x @ arrays["coefs_0"] + arrays["intercepts_0"])
    return 1 / (1 + np.exp(-(hidden @ arrays["coefs_1"] + arrays["intercepts_1"])[:, 0]))


def match_alerts(sent_ms: Ints, expected: Floats, offset: Floats, probability: Floats, at_ms: Ints) -> Matched:
    """Match scores to the readings that were sent at `sent_ms`, by the readings' offsets; NaN: unreadable."""
    known = (offset >= 0) & (offset < len(expected))
    good = known.copy()
    right = expected[offset[known].astype(np.int64)]
    good[known] = np.abs(probability[known] - right) <= PROBABILITY_TOLERANCE
    return match_each(sent_ms, offset + 1, good, at_ms)


def match_each(sent_ms: Ints, n: Floats, is_right: npt.NDArray[np.bool_], at_ms: Ints) -> Matched:
    """Match results to inputs 1, 2, 3, ..., one to one; of several right results the first one counts."""
    count = len(sent_ms)
    good = (n >= 1) & (n <= count) & is_right
    order = np.argsort(at_ms[good], kind="stable")
    numbers, first = np.unique(n[good][order].astype(np.int64), return_index=True)
    latency = np.full(count, np.nan)
    latency[numbers - 1] = at_ms[good][order][first] - sent_ms[numbers - 1]
    last = int(numbers[-1]) if len(numbers) else 0
    return Matched(
        latency_ms=latency,
        lost=last - len(numbers),
        late=count - last,
        duplicated=int(good.sum()) - len(numbers),
        wrong=int((~good).sum()),
    )


def running_weights(temperature: Floats, vibration: Floats) -> Floats:
    """Return the weight after each reading: (mean temperature + 100 * mean vibration) / 2 (°C, g)."""
    count = np.arange(1, len(temperature) + 1)
    return (np.cumsum(temperature) + 100 * np.cumsum(vibration)) / count / 2


def match_weights(sent_ms: Ints, expected: Floats, samples: Floats, weight: Floats, at_ms: Ints) -> Matched:
    """Match each reading to the first weight that counts it: the first with at least as many samples as its place.

    Args:
        sent_ms: time of each reading, in the order of the topic's only partition.
        expected: the right weight after each reading.
        samples: readings behind each weight, in the order of the output topic; NaN: unreadable.
        weight: the weights that came.
        at_ms: their times.
    """
    count = len(sent_ms)
    known = (samples >= 1) & (samples <= count)
    good = known.copy()
    good[known] = np.abs(weight[known] - expected[samples[known].astype(np.int64) - 1]) <= WEIGHT_TOLERANCE
    latency = counted_after(sent_ms, samples[good].astype(np.int64), at_ms[good])
    return Matched(
        latency_ms=latency,
        lost=0,  # a reading left out makes every later weight wrong
        late=int(np.isnan(latency).sum()),
        duplicated=max(0, int(np.nanmax(samples, initial=0)) - count),
        wrong=int((~good).sum()),
    )


def counted_after(sent_ms: Ints, samples: Ints, at_ms: Ints) -> Floats:
    """Return for each reading how long (ms) it took until a weight counted it; NaN: none does.

    Args:
        sent_ms: time of each reading, in the order in which they are counted.
        samples: readings behind each weight, at most as many as there are, in the order of the output topic.
        at_ms: times of the weights.
    """
    reached = np.maximum.accumulate(samples) if len(samples) else samples
    last = int(reached[-1]) if len(reached) else 0
    latency = np.full(len(sent_ms), np.nan)
    latency[:last] = at_ms[np.searchsorted(reached, np.arange(1, last + 1))] - sent_ms[:last]
    return latency


def percentiles(latency_ms: Floats) -> dict[str, float | None]:
    """Return p50, p95, p99 (each a value that was measured, by nearest rank) and max, without the NaN; None of none."""
    known = latency_ms[~np.isnan(latency_ms)]
    if not len(known):
        return dict.fromkeys(("p50", "p95", "p99", "max"))
    cuts = np.percentile(known, [50, 95, 99, 100], method="inverted_cdf")
    return dict(zip(("p50", "p95", "p99", "max"), map(float, cuts), strict=True))


def latencies(sent_ms: Ints, latency_ms: Floats, dropped_seconds: float) -> dict[str, float | None]:
    """Return the percentiles (ms) of one load without its head, and the rate at which it came (messages a second)."""
    reached = 1000 * (len(sent_ms) - 1) / max(1, int(sent_ms[-1] - sent_ms[0]))
    return percentiles(latency_ms[sent_ms >= sent_ms[0] + 1000 * dropped_seconds]) | {"reached_per_second": reached}


def check_backlog(
    workload: str, backlog: int, is_complete: bool, last_weight: float, done: Floats, result: Floats
) -> dict[str, Any]:
    """Return what was checked while catching up, and what was wrong; of weights only the last one can be checked.

    A node's readings lie in two partitions, so which of them a weight on the way counts is open. Of scores it is
    checked that each input has one, and that it is a probability.
    """
    if workload == "alerts":
        places = len(np.unique(done))
        wrong = int((~((result >= 0) & (result <= 1))).sum())
        lost = backlog - places if is_complete else 0
        return {"checked": len(done), "lost": lost, "duplicated": len(done) - places, "wrong": wrong}
    if workload == "squares":
        matched = match_squares(np.zeros(backlog, np.int64), done, result, np.zeros(len(done), np.int64))
        lost = matched.lost + matched.late if is_complete else 0
        return {"checked": len(done), "lost": lost, "duplicated": matched.duplicated, "wrong": matched.wrong}
    if not is_complete:
        return {"checked": 0, "lost": 0, "duplicated": 0, "wrong": 0}
    is_right = abs(float(result[-1]) - last_weight) <= WEIGHT_TOLERANCE
    more = max(0, int(done[-1]) - backlog)
    return {"checked": 1, "lost": 0, "duplicated": more, "wrong": int(not is_right and not more)}


def upper_bound(errors: int, checked: int) -> float:
    """Return the 95 % upper bound of the error rate (Clopper-Pearson; without errors about 3 / checked).

    Raises:
        ValueError: nothing was checked.
    """
    if checked < 1:
        msg = f"{checked} results checked; expected at least 1"
        raise ValueError(msg)
    return 1.0 if errors >= checked else float(stats.beta.ppf(CONFIDENCE, errors + 1, checked - errors))


def catch_up_rate(done: Ints, at_ms: Ints) -> float | None:
    """Return messages a second from when a tenth was done; None if all came at once.

    `done` are the messages done once each result was there, never falling; `at_ms` are the results' times.
    """
    if not len(done):
        return None
    start = int(np.searchsorted(done, WARM_SHARE * done[-1]))
    milliseconds = int(at_ms[-1] - at_ms[start])
    return 1000 * float(done[-1] - done[start]) / milliseconds if milliseconds > 0 else None


def median_and_spread(values: Sequence[float | None]) -> dict[str, Any] | None:
    """Return median, least and greatest of the repetitions that have a value, and their number; None of none."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {"median": statistics.median(known), "min": min(known), "max": max(known), "n": len(known)}


def growth(minutes: Sequence[float], values: Sequence[float], tolerance: float, allowed_share: float) -> dict[str, Any]:
    """Tell whether a value grows: its Theil-Sen slope is above 0 for sure, and what it adds in the run matters.

    It matters beyond the tolerance, in the value's own unit, and beyond the allowed share of the median.

    Raises:
        ValueError: there are fewer than 3 samples.
    """
    if len(values) < 3:
        msg = f"{len(values)} samples; expected at least 3 to tell a slope"
        raise ValueError(msg)
    slope, _, low, high = stats.theilslopes(values, minutes, alpha=CONFIDENCE)
    added = float(slope) * (minutes[-1] - minutes[0])
    limit = max(tolerance, allowed_share * abs(statistics.median(values)))
    return {
        "first": values[0],
        "last": values[-1],
        "slope_per_minute": float(slope),
        "slope_low": float(low),
        "slope_high": float(high),
        "added": added,
        "grows": bool(low > 0 and added > limit),
    }


def used_cpu_seconds(before: Mapping[Any, float], after: Mapping[Any, float]) -> float:
    """Return the CPU seconds that processes used between two looks; one that is new began at 0."""
    return sum(seconds - before.get(process, 0.0) for process, seconds in after.items())
