"""What a cell of a data file says: labels and times, and what is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from fedstream.files.values import MISSING, read_comma_number, read_label, read_number, read_time

# --- numbers


@pytest.mark.parametrize(("cell", "value"), [(3, 3.0), (2.5, 2.5), (Decimal("72.48"), 72.48), (-(2**60), -(2.0**60))])
def test_a_number_of_parquet_or_json_is_read(cell, value):
    assert read_number(cell) == value


@pytest.mark.parametrize(
    "cell", [None, True, float("nan"), float("inf"), 10**400, [1], {}, datetime(2026, 1, 17), date(2026, 1, 17)]
)
def test_what_is_no_finite_number_there_is_refused(cell):
    with pytest.raises((ValueError, TypeError)):
        read_number(cell)


@pytest.mark.parametrize(("text", "value"), [("72,5", 72.5), ("-0,05", -0.05), ("72", 72.0), ("7,2e1", 72.0)])
def test_a_number_with_a_decimal_comma_is_read(text, value):
    assert read_comma_number(text) == value


@pytest.mark.parametrize("text", ["72.5", "1.000,5", "1,000,5", ",", ""])
def test_a_point_or_a_second_comma_is_no_decimal_comma(text):
    with pytest.raises(ValueError, match=r".*"):
        read_comma_number(text)


# --- labels

ONES = ("1", "1.0", "1.", "01", "1e0", "+1", "true", "True", "TRUE", "yes", "YES", "vrai", "Oui", 1, 1.0, True)
ZEROS = ("0", "0.0", "-0", "0e5", "false", "False", "no", "No", "faux", "NON", 0, 0.0, False)


@pytest.mark.parametrize(("cell", "label"), [*((cell, 1) for cell in ONES), *((cell, 0) for cell in ZEROS)])
def test_a_label_is_read_as_people_and_programs_write_it(cell, label):
    assert read_label(cell, 2) == label


@pytest.mark.parametrize("cell", ["2", "-1", "0.5", "7", "ok", "y", "1,0", "1_0", "inf", "\u0661", 2, -1, 0.5])
def test_what_is_no_label_is_refused(cell):
    with pytest.raises(ValueError, match=r".*"):
        read_label(cell, 2)


@pytest.mark.parametrize("cell", [*MISSING, "NA", "Null", None, float("nan")])
def test_a_label_may_be_missing_and_then_means_no_class_even_beside_a_positive_one(cell):
    assert read_label(cell, 2) is None
    assert read_label(cell, 2, "panne") is None


@pytest.mark.parametrize(
    ("positive", "ones", "zeros"),
    [
        ("panne", ["panne", "Panne", "PANNE"], ["ok", "1", "true", 1, "panne?"]),
        ("7", ["7", "7.0", 7, 7.0], ["1", "0", "77", True]),
        ("0", ["0", "0.0", 0], ["1", "no", False]),  # normal is what to look for
        ("true", ["true", True], ["1", 1, False]),
        ("-1", ["-1", -1.0], ["1", 0]),
    ],
)
def test_the_label_that_means_1_can_be_chosen_and_every_other_means_0(positive, ones, zeros):
    assert [read_label(cell, 2, positive) for cell in ones] == [1] * len(ones)
    assert [read_label(cell, 2, positive) for cell in zeros] == [0] * len(zeros)


def test_with_more_classes_a_label_is_a_whole_number_below_their_count():
    assert [read_label(text, 4) for text in ("0", "3", "3.0")] == [0, 3, 3]
    for text in ("4", "-1", "1.5", "true"):
        with pytest.raises(ValueError, match=r".*"):
            read_label(text, 4)


# --- times

AT = 1_768_636_493_000  # 20,470 days of 86,400 s, 7 h 54 min 53 s: 17 January 2026, 07:54:53 UTC


@pytest.mark.parametrize(
    ("cell", "ms"),
    [
        ("1768636493", AT),
        (1768636493, AT),
        ("1768636493.25", AT + 250),
        ("1768636493000", AT),
        ("1768636493000000", AT),
        ("1768636493000000000", AT),
        (1768636493000000000, AT),
        ("631152000", 631_152_000_000),  # 1 January 1990: 7,305 days
        ("4102444799", 4_102_444_799_000),  # the last second before 1 January 2100
    ],
)
def test_seconds_ms_us_and_ns_are_told_apart_by_the_year_they_give(cell, ms):
    assert read_time(cell) == ms


@pytest.mark.parametrize("text", ["0", "700", "20470", "631151999", "4102444800", "45000.5", "-1768636493", "1e30"])
def test_a_number_that_is_a_time_of_1990_to_2100_in_no_unit_is_refused(text):
    with pytest.raises(ValueError, match=r".*"):
        read_time(text)


@pytest.mark.parametrize(
    ("cell", "unit", "ms"),
    [
        ("700", "s", 700_000),
        ("700", "ms", 700),
        ("700000", "us", 700),
        (700_000_000, "ns", 700),
        ("1768636493", "ms", 1_768_636_493),  # as it is said, even if another unit is more likely
        ("17/01/2026 07:54", "%d/%m/%Y %H:%M", AT - 53_000),
        ("17/01/2026 08:54:53 +0100", "%d/%m/%Y %H:%M:%S %z", AT),
        ("20260117", "%Y%m%d", 20_470 * 86_400_000),
        ("2026-01-17T07:54:53Z", "s", AT),
    ],
)
def test_a_unit_or_form_that_is_given_is_taken(cell, unit, ms):
    assert read_time(cell, unit=unit) == ms


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-01-17T07:54:53Z", AT),
        ("2026-01-17T07:54:53", AT),
        ("2026-01-17 07:54:53.100999", AT + 100),
        ("2026-01-17T08:54:53+01:00", AT),
        ("2026-01-17T02:24:53-05:30", AT),
        ("2026-01-17", 20_470 * 86_400_000),
    ],
)
def test_iso_8601_is_read_with_its_zone_or_as_utc(text, ms):
    assert read_time(text) == ms


@pytest.mark.parametrize("text", ["17/01/2026", "01-17-2026", "2026-13-01", "1960-01-01", "07:54:53", "", "now"])
def test_a_time_of_another_form_is_refused(text):
    with pytest.raises(ValueError, match=r".*"):
        read_time(text)


def test_times_of_parquet_are_read_with_their_zone_or_as_utc():
    plain = datetime(2026, 1, 17, 7, 54, 53)
    paris = datetime(2026, 1, 17, 8, 54, 53, tzinfo=timezone(timedelta(hours=1)))
    assert [read_time(cell) for cell in (plain, plain.replace(tzinfo=UTC), paris)] == [AT] * 3
    assert read_time(date(2026, 1, 17)) == 20_470 * 86_400_000
    with pytest.raises(ValueError, match="1960"):
        read_time(datetime(1960, 1, 1))


def test_a_decimal_comma_is_one_of_a_time_too():
    assert read_time("1768636493,25", read_comma_number) == AT + 250
