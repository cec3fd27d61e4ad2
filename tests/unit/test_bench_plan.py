"""Who takes part in the bench, in which order, at which loads, and whether the quick plan fits its time."""

from __future__ import annotations

import dataclasses

import pytest


@pytest.fixture(scope="module")
def plan(script):
    return script("bench/plan.py")


def test_each_repetition_begins_with_another_contestant(plan):
    a, b, c = plan.CONTESTANTS[:3]
    assert plan.turns([a, b, c], 4) == [[a, b, c], [b, c, a], [c, a, b], [a, b, c]]


def test_a_resumed_run_does_what_is_left_in_the_order_it_had(plan):
    a, b, c = plan.CONTESTANTS[:3]
    done = {(1, a.name), (1, b.name), (1, c.name), (2, b.name)}
    assert plan.remaining([[a, b, c], [b, c, a], [c, a, b]], done) == [[], [c, a], [c, a, b]]


def test_a_resumed_run_keeps_its_turns_and_tells_when_it_went_on(plan):
    about = {"plan": "full", "runner": "local", "machine": {}, "versions": {"spark": "4.2.0"}}
    begun = plan.begin_or_resume(None, about | {"started": "Monday"})
    assert (begun["runs"], begun["ceiling"], begun["resumed"]) == ([], [], [])
    begun["runs"].append("a turn")
    resumed = plan.begin_or_resume(begun, about | {"started": "Tuesday"})
    assert (resumed["runs"], resumed["started"], resumed["resumed"]) == (["a turn"], "Monday", ["Tuesday"])


@pytest.mark.parametrize("other", [{"plan": "quick"}, {"runner": "docker"}, {"versions": {"spark": "4.3.0"}}])
def test_a_run_of_another_kind_is_not_resumed(plan, other):
    about = {"plan": "full", "runner": "local", "machine": {}, "versions": {"spark": "4.2.0"}, "started": "Monday"}
    begun = plan.begin_or_resume(None, about)
    with pytest.raises(ValueError, match=rf"--resume: {next(iter(other))} was .* leave --resume out"):
        plan.begin_or_resume(begun, about | other)


def test_loads_rise_and_the_share_takes_its_place_among_them(plan):
    chosen = dataclasses.replace(
        plan.PLANS["quick"], rates=(112, 1000, 10_000), load_seconds=10, with_share=True, most_rate=50_000
    )
    # 80 % of 2,000 is 1,600 a second, for 10 seconds.
    loop = plan.Contestant("loop", "squares", "python", (), 3)
    assert plan.loads(chosen, loop, 2000.0) == [
        (112, 1120, False), (1000, 10_000, False), (1600, 16_000, True), (10_000, 100_000, False)
    ]  # fmt: skip
    assert plan.loads(chosen, loop, 1e6)[-1] == (50_000, 500_000, True)  # more than the generator can send
    assert [is_share for _, _, is_share in plan.loads(chosen, loop, None)] == [False, False, False]


def test_an_intervals_end_is_in_the_reference_load_of_the_full_plan_alone(plan):
    job = plan.Contestant("job", "squares", "job", (), 3, interval_seconds=30)
    full = dataclasses.replace(plan.PLANS["full"], dropped_seconds=2, load_seconds=10)
    # 2 s of head, an interval of 30 s, 3 s for its end.
    assert [count for _, count, _ in plan.loads(full, job, None)] == [1120, 35_000, 100_000]
    assert plan.loads(plan.PLANS["quick"], job, None)[0] == (1000, 1000 * plan.PLANS["quick"].load_seconds, False)


def test_messages_are_due_on_an_open_schedule(plan):
    # 10 a second: the first at 0 s, the second at 0.1 s; after a pause all that is due, and never more than there are.
    assert [plan.due_at(seconds, 10, 25) for seconds in (0, 0.09, 0.1, 1.0, 9.9)] == [1, 1, 2, 11, 25]


def test_contestants_are_chosen_by_name_and_workload(plan):
    chosen = plan.chosen(["Flink"], ["squares", "weights"])
    assert [(each.name, each.workload) for each in chosen] == [("Flink", "squares"), ("Flink", "weights")]
    assert plan.chosen([], ["weights"]) == [each for each in plan.CONTESTANTS if each.workload == "weights"]


def test_an_unknown_contestant_is_refused_by_name(plan):
    with pytest.raises(ValueError, match=r"no contestant Storm; expected one of: .*Flink"):
        plan.chosen(["Storm"], ["squares"])


def test_a_contestant_stands_once_in_a_workload(plan):
    names = [(each.workload, each.name) for each in plan.CONTESTANTS]
    assert len(names) == len(set(names))


def test_the_estimate_adds_up(plan):
    one = dataclasses.replace(plan.CONTESTANTS[0], start_seconds=10)
    small = dataclasses.replace(
        plan.PLANS["quick"], repetitions=2, rates=(1, 2), load_seconds=5, warm_up_seconds=3, catch_up_seconds=6,
        with_share=False, backlog=(("squares", 300_000), ("weights", 10**9)),
    )  # fmt: skip
    # A turn: 2 starts of 10 s and 2 ends of 4 s, warm-up 3 s, 2 loads of 5 + 1.5 s, 6 s to catch up: 50 s. Twice that;
    # the back-log of the one workload takes 300,000 / 150,000 = 2 s, the stack 60 s.
    assert plan.estimate_seconds(small, [one]) == pytest.approx(2 * 50 + 2 + 60)


def test_a_jvm_is_warmed_up_for_long_and_several_for_longer(plan):
    full = plan.PLANS["full"]
    seconds = {(each.kind, bool(each.beside)): plan.warm_up_seconds(full, each) for each in plan.CONTESTANTS}
    alone = {("job", False): 30, ("report", False): 30, ("java", False): 30, ("python", False): 5}
    assert seconds == alone | {("job", True): 300}
    assert {plan.warm_up_seconds(plan.PLANS["quick"], each) for each in plan.CONTESTANTS} == {2}


def test_loads_are_shortened_when_time_runs_out_but_not_below_half(plan):
    one = dataclasses.replace(plan.CONTESTANTS[0], start_seconds=10)
    small = dataclasses.replace(
        plan.PLANS["quick"], rates=(1, 2), load_seconds=6, dropped_seconds=1, warm_up_seconds=2, catch_up_seconds=6,
        with_share=False,
    )  # fmt: skip
    # A turn: 2 starts and ends of 10 + 4 s, 2 waits of 1.5 s: 31 s; 20 s of load. Two turns need 102 s.
    assert plan.fitted(small, [one, one], 102) == small
    assert plan.fitted(small, [one, one], 500) == small
    # 94 s leave 32 of 40 s of load: 80 %.
    shorter = plan.fitted(small, [one, one], 94)
    found = (shorter.load_seconds, shorter.warm_up_seconds, shorter.long_warm_up_seconds, shorter.catch_up_seconds)
    assert found == pytest.approx((4.8, 1.6, 1.6, 4.8))
    assert plan.fitted(small, [one, one], 0).load_seconds == 3


def test_the_quick_plan_of_all_contestants_fits_its_limit(plan):
    quick = plan.PLANS["quick"]
    assert quick.limit_seconds == 15 * 60
    # On a slow day all starts and ends take longer than estimated.
    assert plan.estimate_seconds(quick, plan.CONTESTANTS) <= 0.9 * quick.limit_seconds
