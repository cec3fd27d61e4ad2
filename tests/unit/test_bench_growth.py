"""What growth costs: one parameter changes at a time, and each table shows the points of its axis."""

from __future__ import annotations

import dataclasses

import pytest


@pytest.fixture(scope="module")
def report(script):
    return script("bench/growth_report.py")


def row(report, cores, memory, **changes):
    point = dataclasses.asdict(dataclasses.replace(report.BASE, **changes))
    weight = {"p50": 100.0, "p95": 200.0, "behind": 0}
    return point | {"cores": cores, "memory_mb": memory, "weight_ms": weight, "round_seconds": 0.5}


def test_each_axis_changes_one_parameter_and_holds_the_base(report):
    for axis in report.AXES:
        points = report.points(axis)
        assert report.BASE in points
        assert all(dataclasses.replace(point, **{axis: getattr(report.BASE, axis)}) == report.BASE for point in points)
        assert [getattr(point, axis) for point in points] == sorted({getattr(point, axis) for point in points})


def test_the_table_shows_each_point_on_its_axis_only(report):
    points = [
        row(report, {"driver": 0.3}, 1100, nodes=4),
        row(report, {"driver": 0.1}, 1000),
        row(report, {"driver": 0.9}, 1900, rate=5000) | {"round_seconds": None, "weight_ms": {"behind": 7}},
    ]
    about = {"cores": 2, "processor": "test"}
    text = report.markdown({"machine": about, "versions": {}, "runner": "local", "seconds": 20, "points": points})
    nodes, _, rate, _ = (part.partition("\n\n")[2] for part in text.split("\n## ")[1:])
    assert "| 2 | 0.10 | 1,000 | 100 | 200 | 0.50 |\n| 4 | 0.30 | 1,100 | 100 | 200 | 0.50 |" in nodes
    assert "5,000" not in nodes
    assert "| 5,000 | 0.90 | 1,900 | behind | behind | - |" in rate


@pytest.mark.parametrize(("seconds", "expected"), [(20, [(4, 1000), (2, 5000), (2, 1000)]), (30, [(2, 1000)])])
def test_a_run_of_one_axis_leaves_the_others_points_if_it_was_made_alike(report, seconds, expected):
    about = {"machine": {"cores": 2, "processor": "X", "load_before": 0.1}, "versions": {}, "runner": "local"}
    later = about | {"machine": {"cores": 2, "processor": "X", "load_before": 0.3}}
    old = [row(report, {}, 1, nodes=4), row(report, {}, 1), row(report, {}, 1, rate=5000)]
    new = [row(report, {}, 2)]
    written = report.added(about | {"seconds": 20, "points": old}, later | {"seconds": seconds, "points": new})
    assert [(point["nodes"], point["rate"]) for point in written["points"]] == expected
    assert [point["memory_mb"] for point in written["points"] if point["nodes"] == 2 and point["rate"] == 1000] == [2]
