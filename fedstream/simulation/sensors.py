"""What simulated sensors measure: a range for each feature, and the rule behind the labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fedstream.features import (
    REPORT_FEATURES,
    REPORT_RANGES,
    REPORT_RULE,
    Condition,
    parse_features,
    parse_label_rule,
    parse_ranges,
)
from fedstream.settings import Settings

_OF_REPORT = parse_features(REPORT_FEATURES)


def simulated_ranges(settings: Settings) -> list[tuple[float, float]]:
    """Return the range in which simulated sensors measure each feature.

    It is the one in SIMULATED_RANGES, else the reports' one where it lies within the feature's limits, else these.
    """
    given = parse_ranges(settings.simulated_ranges, settings.table)
    of_report = parse_ranges(REPORT_RANGES, _OF_REPORT)
    found = []
    for feature in settings.table:
        low, high = given.get(feature.name) or of_report.get(feature.name) or (feature.low, feature.high)
        is_within = feature.low <= low <= high <= feature.high or feature.name in given
        found.append((low, high) if is_within else (feature.low, feature.high))
    return found


def digits(low: float, high: float) -> int:
    """Return how many decimals a simulated value has: two, or as many as tell at least ten values of the range apart.

    Example:
        >>> digits(60, 90), digits(0.02, 0.1)
        (2, 3)
    """
    return max(2, 1 - math.floor(math.log10(high - low))) if high > low else 2


def label_rule(settings: Settings) -> tuple[Condition, ...]:
    """Return the conditions that label a simulated reading: as many as hold, but at most CLASSES - 1, are its label.

    Without LABEL_RULE those of the reports that speak of the features there are; where none does, the first feature in
    the upper sixth of its simulated range.
    """
    if settings.label_rule:
        return parse_label_rule(settings.label_rule, settings.table)
    names = settings.feature_names
    conditions = parse_label_rule(REPORT_RULE, _OF_REPORT)
    found = [(_OF_REPORT[each.place].name, each) for each in conditions]
    rule = tuple(Condition(names.index(name), each.sign, each.limit) for name, each in found if name in names)
    low, high = simulated_ranges(settings)[0]
    return rule or (Condition(0, ">", low + (high - low) * 5 / 6),)


def label_of(values: Sequence[float], rule: tuple[Condition, ...], classes: int) -> int:
    """Return the label of simulated values: how many conditions of the rule hold, but at most classes - 1."""
    return min(sum(condition.holds(values) for condition in rule), classes - 1)
