"""What simulated sensors measure, and the rule behind their labels."""

from __future__ import annotations

import pytest

from fedstream.settings import Settings
from fedstream.simulation.sensors import digits, label_of, label_rule, simulated_ranges
from tests.unit import report

THREE = Settings(features="speed:0:3000,heat:-40:120:1,load:0:1")


def label(*values, settings=Settings()):  # noqa: B008 - frozen
    return label_of(values, label_rule(settings), settings.classes)


@pytest.mark.parametrize(("temperature", "vibration", "expected"), report.READINGS)
def test_the_label_rule_gives_the_label_that_the_report_shows(temperature, vibration, expected):
    assert label(temperature, vibration) == expected
    assert report.label_of(temperature, vibration) == expected


def test_all_21_readings_of_the_report_are_here():
    assert len(set(report.READINGS)) == 21


@pytest.mark.parametrize(
    ("temperature", "vibration", "expected"),
    [
        (84.99, 0.079, 0),  # neither
        (85.0, 0.08, 0),  # both on the limit: the rule says more than
        (85.01, 0.08, 1),  # hot only
        (85.0, 0.081, 1),  # shaking only
        (85.01, 0.081, 1),  # both
        (-300.0, 0.0, 0),
        (85.00000000000001, 0.0, 1),  # the next number after 85
        (0.0, 0.08000000000000002, 1),  # the next number after 0.08
    ],
)
def test_the_label_is_1_above_85_celsius_or_above_0_08_g(temperature, vibration, expected):
    assert label(temperature, vibration) == expected
    assert report.label_of(temperature, vibration) == expected


def test_with_more_classes_the_label_is_how_many_conditions_hold():
    three = Settings(classes=3)
    assert [label(*values, settings=three) for values in ((84, 0.05), (86, 0.05), (84, 0.09), (86, 0.09))] == [
        *(0, 1, 1, 2)
    ]
    rule = Settings(classes=3, label_rule="temperature>=60 or temperature>=70 or temperature>=80 or vibration<0.01")
    # 80 °C fulfils three conditions, and with 0 g a fourth; there is no class above 2.
    cases = ((59, 0.01), (60, 0.01), (69.9, 0), (80, 0.01), (80, 0))
    assert [label(*values, settings=rule) for values in cases] == [0, 1, 2, 2, 2]


def test_a_rule_of_ones_own_takes_the_place_of_the_reports():
    own = Settings(label_rule="temperature<=0, vibration >= 2e-1")
    assert [label(*values, settings=own) for values in ((0, 0), (0.1, 0.19), (90, 0.1), (20, 0.2))] == [1, 0, 0, 1]


def test_features_are_compared_whatever_their_place_in_the_table():
    turned = Settings(features="vibration:0:1000,x:0:1,temperature:-100:1000")
    cases = ((0.05, 1, 85), (0.05, 0, 85.5), (0.081, 0, 20))
    assert [label(*values, settings=turned) for values in cases] == [0, 1, 1]
    hot = Settings(features="x:0:1,temperature:-100:1000")  # of the reports' rule, what speaks of a feature there is
    assert [label(*values, settings=hot) for values in ((1, 85), (0, 86))] == [0, 1]


def test_without_a_feature_of_the_reports_the_upper_sixth_of_the_first_is_trouble():
    # 5/6 of 0 to 3000 is 2500; of 1200 to 1800, 1700.
    assert [label(speed, 120, 1, settings=THREE) for speed in (0, 2500, 2500.1)] == [0, 0, 1]
    narrow = Settings(features=THREE.features, simulated_ranges="speed:1200:1800")
    assert [label(speed, 0, 0, settings=narrow) for speed in (1700, 1701)] == [0, 1]


def test_simulated_sensors_measure_in_the_reports_ranges_or_those_given_or_within_the_limits():
    assert simulated_ranges(Settings()) == [(60, 90), (0.02, 0.1)]
    assert simulated_ranges(THREE) == [(0, 3000), (-40, 120), (0, 1)]
    mixed = Settings(features="load:0:1,vibration:0:9,temperature:-5:99")
    assert simulated_ranges(mixed) == [(0, 1), (0.02, 0.1), (60, 90)]
    given = Settings(features=mixed.features, simulated_ranges="load:0.25:0.75, temperature:20:20")
    assert simulated_ranges(given) == [(0.25, 0.75), (0.02, 0.1), (20, 20)]
    assert simulated_ranges(Settings(features="temperature:0:50")) == [(0, 50)], "the reports' range is too hot"


@pytest.mark.parametrize(
    ("edges", "expected"),
    [((60, 90), 2), ((0.02, 0.1), 3), ((0, 1), 2), ((0, 0.01), 3), ((5, 5), 2), ((0, 3000), 2), ((0, 2e-7), 8)],
)
def test_a_simulated_value_has_decimals_enough_to_tell_ten_values_of_its_range_apart(edges, expected):
    assert digits(*edges) == expected
