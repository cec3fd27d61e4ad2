"""What growth costs: one parameter changes at a time, and each table shows the points of its axis."""

from __future__ import annotations

import dataclasses

from rich.console import Console

from bench.endurance import growth


def row(memory: int, driver: float, **changes):
    point = dataclasses.asdict(dataclasses.replace(growth.BASE, **changes))
    weight = {"p50": 100.0, "p95": 200.0, "behind": 0}
    cores = dict.fromkeys(growth.PARTS, 0.2) | {"fog driver": driver}
    return point | {"cores": cores, "memory_mb": memory, "weight_ms": weight, "round_seconds": 0.5}


def test_each_axis_changes_one_parameter_and_holds_the_base():
    for axis in growth.AXES:
        points = growth.points(axis)
        assert growth.BASE in points
        for point in points:
            assert dataclasses.replace(point, **{axis: getattr(growth.BASE, axis)}) == growth.BASE
        assert [getattr(point, axis) for point in points] == sorted({getattr(point, axis) for point in points})


def shown(rows, axis) -> list[list[str]]:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(growth.axis_table(rows, axis))
    return [line.split() for line in captured.get().splitlines() if line.strip()[:1].isdigit()]


def test_the_table_shows_each_point_on_its_axis_only():
    rows = [
        row(1100, 0.3, nodes=4),
        row(1000, 0.1),
        row(1900, 0.9, rate=5000) | {"round_seconds": None, "weight_ms": {"behind": 7}},
    ]
    others = ["0.20", "0.20", "0.20"]
    base = ["0.10", *others, "1,000", "100", "200", "0.50"]
    assert shown(rows, "nodes") == [["2", *base], ["4", "0.30", *others, "1,100", "100", "200", "0.50"]]
    assert shown(rows, "rate") == [
        ["1,000", *base],
        ["5,000", "0.90", *others, "1,900", "behind", "behind", "-"],
    ]
