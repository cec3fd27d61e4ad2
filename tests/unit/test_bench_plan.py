"""Who takes part in the bench, in which order, at which load, and when messages are due."""

from __future__ import annotations

import dataclasses

import pytest

from bench.lab.load import due_at
from bench.rivals import plan


def test_each_repetition_begins_with_another_contestant():
    a, b, c = plan.CONTESTANTS[:3]
    assert plan.turns([a, b, c], 4) == [[a, b, c], [b, c, a], [c, a, b], [a, b, c]]


def test_an_intervals_end_is_in_the_load_of_the_full_plan_alone():
    job = plan.Contestant("job", "squares", "job", (), interval_seconds=30)
    full = dataclasses.replace(plan.PLANS["full"], dropped_seconds=2, load_seconds=10)
    # 2 s of head, an interval of 30 s, 3 s for its end.
    assert plan.load_seconds(full, job) == 35
    assert plan.load_seconds(full, dataclasses.replace(job, interval_seconds=None)) == 10
    assert plan.load_seconds(dataclasses.replace(full, with_interval=False), job) == 10


def test_only_a_jvm_is_warmed_up_for_long():
    kinds = {kind: plan.Contestant("one", "squares", kind, ()) for kind in ("job", "report", "java", "python")}
    full = dataclasses.replace(plan.PLANS["full"], warm_up_seconds=30)
    found = {kind: plan.warm_up_seconds(full, one) for kind, one in kinds.items()}
    assert found == {"job": 30, "report": 30, "java": 30, "python": 5}
    assert plan.warm_up_seconds(dataclasses.replace(full, warm_up_seconds=2), kinds["python"]) == 2


def test_messages_are_due_on_an_open_schedule():
    # 10 a second: the first at 0 s, the second at 0.1 s; after a pause all that is due, and never more than there are.
    assert [due_at(seconds, 10, 25) for seconds in (0, 0.09, 0.1, 1.0, 9.9)] == [1, 1, 2, 11, 25]


def test_contestants_are_chosen_by_name_and_workload():
    chosen = plan.chosen(["Flink"], ["squares", "weights"])
    assert [(each.name, each.workload) for each in chosen] == [("Flink", "squares"), ("Flink", "weights")]
    assert plan.chosen([], ["weights"]) == [each for each in plan.CONTESTANTS if each.workload == "weights"]


def test_an_unknown_contestant_is_refused_by_name():
    with pytest.raises(ValueError, match=r"no contestant Storm; expected one of: .*Flink"):
        plan.chosen(["Storm"], ["squares"])


def test_a_contestant_stands_once_in_a_workload():
    names = [(each.workload, each.name) for each in plan.CONTESTANTS]
    assert len(names) == len(set(names))
