"""The strategies: hand-made sums, the papers' formulas, and Flower's own loop say what a round has to give."""

from __future__ import annotations

import gc
import json
import logging
import os
import random
import sys
from collections import Counter

import numpy as np
import pytest

from fedstream.errors import SettingError
from fedstream.rounds.strategies import (
    Reply,
    StrategyError,
    aggregate,
    make_strategy,
    node_number,
    open_round,
    restore_strategy,
    strategy_state,
)

FIXED, ADAPTIVE = (f"DifferentialPrivacyServerSide{kind}Clipping" for kind in ("Fixed", "Adaptive"))
SILENT = {"noise_multiplier": 0.0, "num_sampled_clients": 7}
NOISY = {"noise_multiplier": 0.5, "num_sampled_clients": 7}
EVERY_STRATEGY = {
    "FedAvg": {},
    "FedProx": {"proximal_mu": 0.1},
    "FedAvgM": {"server_learning_rate": 0.5, "server_momentum": 0.9},
    "FedAdam": {"eta": 0.05},
    "FedYogi": {"eta": 0.05},
    "FedAdagrad": {"eta": 0.05},
    "FedMedian": {},
    "FedTrimmedAvg": {"beta": 0.2},
    "Krum": {"num_malicious_nodes": 1},
    "MultiKrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 3},
    "Bulyan": {"num_malicious_nodes": 1},
    "QFedAvg": {"client_learning_rate": 0.1, "q": 0.2},
    FIXED: SILENT | {"clipping_norm": 0.5, "strategy": "FedAvg"},
    ADAPTIVE: SILENT | {"strategy": "FedAdam", "strategy.eta": 0.05},
}
WITH_NOISE = {
    FIXED: NOISY | {"clipping_norm": 0.5, "strategy": "FedAvgM", "strategy.server_momentum": 0.9},
    ADAPTIVE: NOISY | {"clipped_count_stddev": 1.0, "strategy": "FedYogi"},
}
RUNS = [*EVERY_STRATEGY.items(), *WITH_NOISE.items()]
NODES = [f"node-{number}" for number in range(1, 8)]
# Names out of order, an array without an axis, one with two: whatever pairs arrays by position shows itself.
START = {"weights": np.array([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]]), "bias": np.array(0.125), "a": np.array([4.0])}
A_USERS_OWN = """
import math
from flwr.serverapp.strategy import FedAvg


class Slowing(FedAvg):
    def __init__(self, *args, step: float = 0.5, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.step = step
        self.best = math.inf
        self.seen = {}
        self.past = None

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        arrays, metrics = super().aggregate_train(server_round, replies)
        self.best = min(self.best, metrics["loss"]) if server_round > 1 else self.best
        self.seen[server_round] = (len(replies), [metrics["loss"]])
        for message in replies:
            self.seen[message.metadata.src_node_id] = self.seen.get(message.metadata.src_node_id, 0) + 1
        if self.past is not None:
            from flwr.app import Array, ArrayRecord
            arrays = ArrayRecord({
                name: Array(self.step * array.numpy() + (1 - self.step) * self.past[name])
                for name, array in arrays.items()
            })
        self.past = {name: array.numpy() for name, array in arrays.items()}
        return arrays, metrics


class Nothing(FedAvg):
    def aggregate_train(self, server_round, replies):
        self.touched = True
        self.min_train_nodes = 5
        return None, None


class Greedy(FedAvg):
    def configure_train(self, server_round, arrays, config, grid):
        from flwr.serverapp.strategy.strategy_utils import sample_nodes
        return sample_nodes(grid, 99, 99)


NOT_A_CLASS = 3
"""


def reply(node, values, num_examples=1.0, **metrics):
    return Reply(node, {"w": np.array(values, dtype=float)}, num_examples, metrics)


def close(name, options, *replies, start=None):
    strategy = make_strategy(name, options)
    open_round(strategy, 1, start or {"w": np.zeros_like(replies[0].arrays["w"])}, [one.node_id for one in replies])
    return aggregate(strategy, 1, replies)


def train(arrays, round_number, node):
    """Return what a node makes of the model: a change that only its number and the round decide."""
    rng = np.random.default_rng([round_number, NODES.index(node)])
    changed = {name: array + rng.normal(0.1, 0.5, array.shape) for name, array in arrays.items()}
    return Reply(node, changed, 1 + NODES.index(node) * 1.5, {"loss": rng.uniform(0.1, 2.0)})


def rounds(strategy, numbers, arrays, seed=0):
    for number in numbers:
        _, nodes = open_round(strategy, number, arrays, NODES, seed=seed)
        arrays, _ = aggregate(strategy, number, [train(arrays, number, node) for node in nodes], seed=seed)
    return arrays


def bits(arrays):
    return {name: (array.shape, array.tobytes()) for name, array in arrays.items()}


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "a_users_own.py").write_text(A_USERS_OWN)
    (tmp_path / "broken_module.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    yield "a_users_own"
    sys.modules.pop("a_users_own", None)


def test_fedavg_weighs_each_update_by_its_examples():
    arrays, metrics = close("FedAvg", {}, reply("a", [1, 2], 1, loss=4.0), reply("b", [5, 10], 3, loss=8.0))
    np.testing.assert_array_equal(arrays["w"], [(1 + 3 * 5) / 4, (2 + 3 * 10) / 4])
    assert metrics == {"loss": (4 + 3 * 8) / 4}


@pytest.mark.parametrize("name", ["FedAvgM", "QFedAvg", "Krum", FIXED])
def test_arrays_are_paired_by_name_and_come_back_in_the_order_of_the_replies(name):
    start, new = {"x": np.array([1.0]), "b": np.array([5.0])}, {"x": np.array([2.0]), "b": np.array([50.0])}
    found = []
    for arrays in (new, dict(reversed(new.items()))):
        strategy = make_strategy(name, EVERY_STRATEGY[name] | ({"num_malicious_nodes": 0} if name == "Krum" else {}))
        open_round(strategy, 1, start, ["a"])
        found.append(aggregate(strategy, 1, [Reply("a", arrays, 1, {"loss": 1.0})])[0])
    assert found[0] == found[1]
    assert (list(found[0]), list(found[1])) == (["x", "b"], ["b", "x"])


def test_examples_may_be_fractions():
    arrays, _ = close("FedAvg", {}, reply("a", [1], 0.5), reply("b", [2], 1.5))
    np.testing.assert_array_equal(arrays["w"], [1.75])


def test_fedmedian_takes_the_middle_of_each_place():
    arrays, _ = close("FedMedian", {}, reply("a", [1, 9], 50), reply("b", [2, 100]), reply("c", [1000, -5]))
    np.testing.assert_array_equal(arrays["w"], [2, 9])


def test_fedtrimmedavg_cuts_a_share_off_both_ends_of_each_place():
    values = [[0, 900], [1, 1], [2, 2], [3, 6], [-800, 0]]  # a fifth of five: the least and the greatest go
    arrays, _ = close("FedTrimmedAvg", {"beta": 0.2}, *[reply(str(node), value) for node, value in enumerate(values)])
    np.testing.assert_array_equal(arrays["w"], [(0 + 1 + 2) / 3, (1 + 2 + 6) / 3])


def test_fedtrimmedavg_always_leaves_a_value():
    for nodes in range(1, 30):
        arrays, _ = close("FedTrimmedAvg", {"beta": 0.4999}, *[reply(f"{node:02}", [7.0]) for node in range(nodes)])
        np.testing.assert_array_equal(arrays["w"], [7.0])


def test_krum_takes_the_update_in_the_midst_and_leaves_the_liar():
    near = [reply(str(node), [value]) for node, value in enumerate([1.0, 1.1, 1.25, 1.6])]
    arrays, _ = close("Krum", {"num_malicious_nodes": 1}, *near, reply("liar", [-1e3]))
    # n - f - 2 = 2 nearest: 1.1 is 0.01 + 0.0225 away from them, 1.0 is 0.01 + 0.0625, 1.25 is 0.0225 + 0.0625.
    np.testing.assert_array_equal(arrays["w"], [1.1])


@pytest.mark.parametrize("name", ["FedAdam", "FedYogi", "FedAdagrad"])
def test_two_rounds_of_an_adaptive_strategy_follow_its_paper(name):
    eta, tau, beta_1, beta_2 = 0.1, 1e-3, 0.9, 0.99
    options = {"eta": eta, "tau": tau} | ({} if name == "FedAdagrad" else {"beta_1": beta_1, "beta_2": beta_2})
    beta_1 = 0.0 if name == "FedAdagrad" else beta_1
    strategy = make_strategy(name, options)
    x, m, v = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    for number, new in ((1, [2.0, -1.5]), (2, [0.5, 4.0])):
        open_round(strategy, number, {"w": x}, ["a"])
        found, _ = aggregate(strategy, number, [reply("a", new)])
        delta = np.array(new) - x
        m = beta_1 * m + (1 - beta_1) * delta
        if name == "FedAdam":
            v = beta_2 * v + (1 - beta_2) * delta**2
        elif name == "FedYogi":
            v = v - (1 - beta_2) * delta**2 * np.sign(v - delta**2)
        else:
            v = v + delta**2
        # Flower's Adam corrects the bias as Kingma and Ba do, with the rounds counted from 1 and one on top.
        corrected = np.sqrt(1 - beta_2 ** (number + 1)) / (1 - beta_1 ** (number + 1)) if name == "FedAdam" else 1.0
        x = x + eta * corrected * m / (np.sqrt(v) + tau)
        np.testing.assert_allclose(found["w"], x, rtol=1e-12)
        x = found["w"]


def test_two_rounds_of_fedavgm_follow_its_paper():
    rate, momentum = 0.5, 0.9
    strategy = make_strategy("FedAvgM", {"server_learning_rate": rate, "server_momentum": momentum})
    x, velocity = np.array([1.0, -2.0]), np.zeros(2)
    for number, new in ((1, [2.0, -1.5]), (2, [0.5, 4.0])):
        open_round(strategy, number, {"w": x}, ["a"])
        found, _ = aggregate(strategy, number, [reply("a", new)])
        velocity = momentum * velocity + (x - np.array(new))
        x = x - rate * velocity
        np.testing.assert_allclose(found["w"], x, rtol=1e-12)


def flowers_own_loop(name, options):
    """Run two rounds as Flower does without us: its class, its start(), nodes behind a grid."""
    from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.serverapp import Grid
    from flwr.serverapp import strategy as flower

    class Nodes(Grid):
        run = None

        def set_run(self, run): ...
        def create_message(self, *args, **kwargs): ...
        def push_messages(self, messages): ...
        def pull_messages(self, message_ids): ...

        def get_node_ids(self):
            return range(1, len(NODES) + 1)

        def send_and_receive(self, messages, *, timeout=None):
            replies = []
            for message in messages:
                arrays = {key: START[key] * 0 + message.content["arrays"][key].numpy() for key in START}
                arrays = {key: np.asarray(array).reshape(START[key].shape) for key, array in arrays.items()}
                number = message.content["config"]["server-round"]
                found = train(arrays, number, NODES[message.metadata.dst_node_id - 1])
                content = {
                    "arrays": ArrayRecord({key: Array(np.atleast_1d(found.arrays[key])) for key in START}),
                    "metrics": MetricRecord({"num-examples": found.num_examples, **found.metrics}),
                }
                replies.append(Message(RecordDict(content), reply_to=message))
            return replies

    if "strategy" in options:
        inner = {key.split(".")[1]: value for key, value in options.items() if "." in key}
        outer = {key: value for key, value in options.items() if "." not in key}
        inner_strategy = getattr(flower, options["strategy"])(fraction_evaluate=0.0, **inner)
        strategy = getattr(flower, name)(**outer | {"strategy": inner_strategy})
    else:
        extra = {"train_loss_key": "loss"} if name == "QFedAvg" else {}
        strategy = getattr(flower, name)(fraction_evaluate=0.0, **extra, **options)
    start = ArrayRecord({key: Array(np.atleast_1d(START[key])) for key in START})
    return {key: array.numpy() for key, array in strategy.start(Nodes(), start, num_rounds=2).arrays.items()}


@pytest.mark.parametrize(("name", "options"), EVERY_STRATEGY.items(), ids=list(EVERY_STRATEGY))
def test_two_rounds_equal_those_of_flowers_own_loop(name, options):
    found = rounds(make_strategy(name, options), (1, 2), START)
    expected = flowers_own_loop(name, options)
    assert list(found) == list(START)
    for key in START:
        assert found[key].shape == START[key].shape
        np.testing.assert_allclose(found[key], expected[key].reshape(START[key].shape), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "options"), RUNS, ids=[name for name, _ in RUNS])
def test_every_order_of_arrival_gives_the_same_bytes(name, options):
    shuffle = random.Random(5).shuffle
    seen = set()
    for _ in range(10):
        strategy = make_strategy(name, options)
        open_round(strategy, 1, START, NODES)
        replies = [train(START, 1, node) for node in NODES]
        shuffle(replies)
        seen.add(repr((bits(aggregate(strategy, 1, replies)[0]), strategy_state(strategy))))
    assert len(seen) == 1


@pytest.mark.parametrize(("name", "options"), RUNS, ids=[name for name, _ in RUNS])
def test_a_run_that_stopped_between_rounds_goes_on_bit_by_bit(name, options):
    whole = rounds(make_strategy(name, options), (1, 2, 3), START)
    first = make_strategy(name, options)
    arrays = rounds(first, (1, 2), START)
    second = make_strategy(name, options)
    restore_strategy(second, json.loads(json.dumps(strategy_state(first), allow_nan=False)))
    assert strategy_state(second) == strategy_state(first)
    assert bits(rounds(second, (3,), arrays)) == bits(whole)


@pytest.mark.parametrize(("name", "options"), RUNS, ids=[name for name, _ in RUNS])
def test_a_run_that_stopped_within_a_round_goes_on_bit_by_bit(name, options):
    whole = rounds(make_strategy(name, options), (1, 2), START)
    first = make_strategy(name, options)
    arrays = rounds(first, (1,), START)
    open_round(first, 2, arrays, NODES)
    second = make_strategy(name, options)
    restore_strategy(second, json.loads(json.dumps(strategy_state(first), allow_nan=False)))
    assert bits(aggregate(second, 2, [train(arrays, 2, node) for node in NODES])[0]) == bits(whole)


def test_a_new_option_holds_although_the_state_is_an_old_one():
    old = make_strategy("FedAdam", {"eta": 0.5})
    rounds(old, (1,), START)
    new = make_strategy("FedAdam", {"eta": 0.25})
    restore_strategy(new, strategy_state(old))
    assert new.eta == 0.25
    np.testing.assert_array_equal(new.m_t["weights"], old.m_t["weights"])


def test_the_state_of_another_strategy_is_refused():
    state = strategy_state(make_strategy("FedAdam", {}))
    with pytest.raises(StrategyError, match="state is that of strategy FedAdam, not of FedYogi; set STRATEGY back"):
        restore_strategy(make_strategy("FedYogi", {}), state)


def test_the_noise_comes_from_the_seed_and_the_round():
    def noise(seed, number):
        strategy = make_strategy(FIXED, NOISY | {"clipping_norm": 0.5})
        return repr(bits(rounds(strategy, (number,), START, seed)))

    assert noise(1, 1) == noise(1, 1)
    assert len({noise(1, 1), noise(2, 1), noise(1, 2)}) == 3


def test_the_global_random_numbers_are_as_before():
    before = random.getstate(), repr(np.random.get_state())
    rounds(make_strategy(*RUNS[-1]), (1,), START)
    assert (random.getstate(), repr(np.random.get_state())) == before


def records():
    """Return how many of Flower's records and messages are in memory."""
    kinds = Counter(type(each).__qualname__ for each in gc.get_objects())
    return sum(
        kinds[kind] for kind in ("Array", "ArrayRecord", "ConfigRecord", "Message", "MetricRecord", "RecordDict")
    )


@pytest.mark.parametrize("name", ["FedAvg", "FedAdam", "Bulyan", "QFedAvg", ADAPTIVE])
def test_nothing_is_left_of_flowers_records_after_a_round(name):
    strategy = make_strategy(name, EVERY_STRATEGY[name])
    arrays = rounds(strategy, (1, 2), START)
    gc.collect()
    before = records()
    rounds(strategy, range(3, 8), arrays)
    assert records() <= before, "only the collector frees them, and it does not come by between two rounds"


@pytest.fixture
def collections():
    """Return a list to which the generation of each collection of garbage is added, at its start and at its end."""
    seen = []

    def note(phase, info):
        seen.append(info["generation"])

    gc.callbacks.append(note)
    yield seen
    gc.callbacks.remove(note)


def test_the_collectors_turn_comes_however_many_rounds_there_are(collections):
    strategy, frozen = make_strategy("FedAvg", {}), gc.get_freeze_count()
    collections.clear()
    rounds(strategy, range(1, 4), START)
    assert gc.isenabled()
    assert len(collections) >= 6
    assert gc.get_freeze_count() == frozen


def test_no_strategy_collects_the_garbage_of_the_whole_process(collections):
    for name in ("Bulyan", "QFedAvg"):
        rounds(make_strategy(name, EVERY_STRATEGY[name]), (1, 2), START)
    assert collections
    assert set(collections) <= {0, 1}


def test_clipping_bounds_the_change_of_an_array_without_an_axis():
    options = {"noise_multiplier": 0, "clipping_norm": 0.5, "num_sampled_clients": 1}
    arrays, _ = close(FIXED, options, reply("a", 100.0))
    assert arrays["w"].shape == ()
    assert arrays["w"] == 0.5


@pytest.mark.parametrize("value", [0.0, 3.0, -1e-300])
@pytest.mark.parametrize("name", [FIXED, ADAPTIVE])
def test_a_node_that_learned_nothing_does_not_stop_a_clipped_round(name, value):
    options = {"noise_multiplier": 0, "num_sampled_clients": 2} | ({"clipping_norm": 1.0} if name == FIXED else {})
    start = {"w": np.array([value])}
    arrays, _ = close(name, options, reply("a", [value]), reply("b", [value]), start=start)
    np.testing.assert_allclose(arrays["w"], [value], rtol=1e-15, atol=1e-140)


def test_fedprox_tells_the_nodes_its_mu():
    config, nodes = open_round(make_strategy("FedProx", {"proximal_mu": 0.25}), 4, START, ["b", "a"])
    assert config == {"proximal-mu": 0.25, "server-round": 4}
    assert nodes == ["a", "b"]


def test_half_of_the_nodes_are_sampled_and_the_same_half_again():
    def sample(number, nodes, seed=0):
        return tuple(open_round(make_strategy("FedAvg", {"fraction_train": 0.5}), number, START, nodes, seed=seed)[1])

    nodes = [f"node-{number}" for number in range(20)]
    first = sample(1, nodes)
    assert len(set(first)) == 10
    assert set(first) < set(nodes)
    assert list(first) == sorted(first)
    assert sample(1, nodes[::-1]) == first
    assert len({sample(number, nodes) for number in range(1, 6)} | {sample(1, nodes, seed=1)}) == 6


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"min_available_nodes": 3}, "demands 3 nodes"),
        ({"min_train_nodes": 4}, "demands 4 nodes"),
        ({"fraction_train": 2.0}, "demands 4 nodes"),
        ({"fraction_train": 0.0}, "selects no node"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_strategy_that_wants_more_nodes_than_there_are_does_not_wait(monkeypatch, options, reason, wrapped):
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it waits"))
    if wrapped:
        inner = {f"strategy.{option}": value for option, value in options.items()}
        strategy = make_strategy(FIXED, SILENT | {"clipping_norm": 1.0} | inner)
    else:
        strategy = make_strategy("FedAvg", options)
    with pytest.raises(StrategyError, match=f"cannot open round 1 with 2 nodes: it {reason}.*STRATEGY_OPTIONS"):
        open_round(strategy, 1, START, ["a", "b"])


def test_a_users_strategy_that_waits_for_nodes_is_stopped(monkeypatch, own):
    waits = []
    strategy = make_strategy(f"{own}:Greedy", {"min_available_nodes": 1, "min_train_nodes": 1})
    monkeypatch.setattr("flwr.serverapp.strategy.strategy_utils.sleep", waits.append)
    with pytest.raises(StrategyError, match="Greedy cannot open round 1 with 1 nodes: it waits for more than the 1"):
        open_round(strategy, 1, START, ["a"])
    assert len(waits) <= 10


@pytest.mark.parametrize(
    ("name", "malicious", "least"),
    [("Krum", 1, 5), ("Krum", 2, 7), ("MultiKrum", 1, 5), ("Bulyan", 0, 3), ("Bulyan", 1, 7)],
)
def test_a_robust_strategy_refuses_too_few_replies_and_takes_just_enough(name, malicious, least):
    replies = [reply(str(node), [node]) for node in range(least)]
    options = {"num_malicious_nodes": malicious}
    match = f"{name} cannot close round 1 with {least - 1} replies: .*{malicious} needs at least {least} .*_OPTIONS"
    with pytest.raises(StrategyError, match=match):
        close(name, options, *replies[1:])
    close(name, options, *replies)


def test_krum_without_malicious_nodes_takes_a_single_reply():
    arrays, _ = close("Krum", {}, reply("a", [2.0]))
    np.testing.assert_array_equal(arrays["w"], [2.0])


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("FedSum", {}, "STRATEGY is 'FedSum', .*one of Bulyan, .*FedAvg.*QFedAvg"),
        ("", {}, "STRATEGY is '', "),
        ("Strategy", {}, "no strategy of Flower"),
        ("Result", {}, "no strategy of Flower"),
        ("json:JSONDecoder", {}, "STRATEGY is 'json:JSONDecoder', .*no strategy of Flower"),
        ("json:nothing", {}, "STRATEGY is 'json:nothing', .*no strategy of Flower"),
        ("a_users_own:NOT_A_CLASS", {}, "which is 3 and no strategy of Flower"),
        ("not_there_at_all:Mine", {}, "cannot be imported .*No module named 'not_there_at_all'"),
        ("broken_module:Mine", {}, "cannot be imported .ZeroDivisionError"),
        ("DifferentialPrivacyClientSideFixedClipping", {}, "needs a Flower mod on the nodes"),
        ("DifferentialPrivacyClientSideAdaptiveClipping", {}, "needs a Flower mod on the nodes"),
        ("FedXgbBagging", {}, "merges XGBoost trees, which are no arrays"),
        ("flwr.serverapp.strategy:FedXgbCyclic", {}, "merges XGBoost trees, which are no arrays"),
        ("FedAvg", {"fraction": 1}, "STRATEGY_OPTIONS has fraction; .*FedAvg, which are: fraction_train, .*"),
        ("FedAvg", {"train_metrics_aggr_fn": "sum"}, "STRATEGY_OPTIONS has train_metrics_aggr_fn; "),
        ("FedAvg", {"fraction_train": "half"}, "STRATEGY_OPTIONS sets fraction_train to 'half'; expected float"),
        ("FedAvg", {"min_train_nodes": True}, "sets min_train_nodes to True; expected int"),
        ("FedTrimmedAvg", {"beta": 0.5}, "STRATEGY_OPTIONS is .*'beta': 0.5.* FedTrimmedAvg refuses it: .*range"),
        ("QFedAvg", {}, "QFedAvg refuses it: .*client_learning_rate"),
        (FIXED, {"strategy": "FedSum"}, "strategy in STRATEGY_OPTIONS is 'FedSum'"),
        (FIXED, {"strategy.fraction": 1}, "has strategy.fraction; .*strategy.fraction_train"),
        (FIXED, {"eta": 1}, "STRATEGY_OPTIONS has eta; .*clipping_norm"),
        (ADAPTIVE, {"noise_multiplier": 1.0, "num_sampled_clients": 5}, "refuses it: .*clipped_count_stddev"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_expected(own, name, options, reason):
    with pytest.raises(SettingError, match=reason):
        make_strategy(name, options)


def test_a_users_strategy_works_unchanged_and_its_state_survives(own):
    name, options = f"{own}:Slowing", {"step": 0.25, "min_train_nodes": 1}
    whole = rounds(make_strategy(name, options), (1, 2, 3), START)
    first = make_strategy(name, options)
    arrays = rounds(first, (1,), START)
    plain = rounds(make_strategy("FedAvg", {}), (1,), START)
    assert bits(arrays) == bits(plain)
    state = json.loads(json.dumps(strategy_state(first), allow_nan=False))
    second = make_strategy(name, options)
    restore_strategy(second, state)
    assert (second.best, second.seen) == (float("inf"), first.seen)
    assert second.seen[node_number("node-1")] == 1
    assert bits(rounds(second, (2, 3), arrays)) == bits(whole)


def test_a_strategy_that_returns_nothing_is_refused_and_left_as_it_was(own):
    strategy = make_strategy(f"{own}:Nothing", {"min_available_nodes": 1})
    before = strategy_state(strategy)
    with pytest.raises(StrategyError, match="Nothing cannot close round 3 with 1 replies: it returned no arrays"):
        aggregate(strategy, 3, [reply("a", [1])])
    assert strategy_state(strategy) == before
    assert not hasattr(strategy, "touched")


@pytest.mark.parametrize("name", ["FedAvg", "FedAdam", "FedAvgM"])
def test_a_model_that_is_not_finite_is_refused_and_the_strategy_left_as_it_was(name):
    strategy = make_strategy(name, {"server_momentum": 0.9} if name == "FedAvgM" else {})
    arrays = rounds(strategy, (1,), {"w": np.array([1.0])})
    open_round(strategy, 2, arrays, ["a", "b"])
    before = strategy_state(strategy)
    with pytest.raises(StrategyError, match=f"{name} cannot close round 2 with 2 replies: .'w'. would be NaN or inf"):
        aggregate(strategy, 2, [reply("a", [np.inf]), reply("b", [-np.inf])])
    assert strategy_state(strategy) == before


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        ([], "nothing to merge"),
        ([reply("a", [1]), reply("a", [2])], "node a replied twice"),
        ([reply("a", [1]), reply("b", [1, 2])], "node b sent arrays"),
        ([reply("a", [1], loss=1), reply("b", [1])], "InconsistentMessageReplies: .*same keys"),
        ([reply("a", [1], 0), reply("b", [1], 0)], "ZeroDivisionError"),
    ],
)
def test_replies_that_do_not_go_together_are_refused(replies, reason):
    with pytest.raises(StrategyError, match=f"FedAvg cannot close round 1 with {len(replies)} replies: .*{reason}"):
        aggregate(make_strategy("FedAvg", {}), 1, replies)


def test_a_round_that_was_not_opened_is_refused():
    with pytest.raises(StrategyError, match=r"FedAdam cannot close round 1 with 1 replies: .*configure_train"):
        aggregate(make_strategy("FedAdam", {}), 1, [reply("a", [1])])


def test_the_weight_may_have_another_name():
    arrays, _ = close("FedAvg", {"weighted_by_key": "readings"}, reply("a", [1], 1), reply("b", [5], 3))
    np.testing.assert_array_equal(arrays["w"], [4.0])


def test_flower_reports_nothing_and_logs_nothing(program):
    code = (
        "import sys, logging, fedstream.rounds.strategies as s, numpy as np; assert 'flwr' not in sys.modules\n"
        "strategy = s.make_strategy('FedAvg', {})\n"
        "s.open_round(strategy, 1, {'w': np.ones(1)}, ['a'])\n"
        "s.aggregate(strategy, 1, [s.Reply('a', {'w': np.ones(1)}, 1, {})])\n"
        "from flwr.supercore import telemetry; assert telemetry.FLWR_TELEMETRY_ENABLED == '0'\n"
        "assert not logging.getLogger().handlers and logging.getLogger().level == logging.WARNING\n"
    )
    with program("-c", code) as process:
        out, err = process.communicate()
    assert (process.returncode, out, err) == (0, "", "")


def test_flowers_warnings_are_still_heard():
    make_strategy("FedAvg", {})
    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
    assert logging.getLogger("flwr").level == logging.WARNING
