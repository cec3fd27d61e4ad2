"""Rounds: what counts, when a round closes, what comes out, and that a restart at any point changes nothing."""

from __future__ import annotations

import contextlib
import itertools
import json

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from fedstream.errors import BadMessage, SettingError
from fedstream.features import Feature
from fedstream.learning import arrays as wire
from fedstream.learning.scores import Score
from fedstream.learning.training import Scaler
from fedstream.messages.door import decode, encode
from fedstream.messages.rounds import (
    GlobalModel,
    ModelUpdate,
    Rollback,
    TooLargeError,
    answering_node,
    model_update,
    read_command,
    read_update,
)
from fedstream.messages.weights import NodeWeight, merge_update
from fedstream.rounds.cloud_state import CloudState, Rounds
from fedstream.rounds.federation import Federation
from fedstream.rounds.nodes import Nodes
from fedstream.rounds.run_state import RunState, new_run
from fedstream.settings import Settings

RUN = "run-1"
NAMES = ("a", "b", "c", "d")


class TwoNumbers:
    """A model of one array of two numbers; the tests say themselves what was learned."""

    def initial_arrays(self, seed):
        """Return (0, seed)."""
        return {"w": np.array([0.0, float(seed)])}


def joined(samples: int = 20, *nodes: str) -> list[NodeWeight]:
    # Means 75 and 0.05; squares such that both variances are 0 or more.
    return [
        NodeWeight(node, 40.0, samples, 0, (75.0 * samples, 0.05 * samples), (5625.5 * samples, 0.01 * samples))
        for node in nodes
    ]


def joining(settings: Settings, model: object) -> Federation:
    """Return a federation before its first round."""
    return Federation(new_run(RUN, settings), settings, model, {})


def hear(federation: Federation, weight: NodeWeight) -> None:
    """Let a federation know of a running weight, as the cloud does."""
    merge_update(federation.latest, weight)
    federation.hear(weight)


def start(*nodes: str, **settings) -> Federation:
    """Return a federation whose first round is open for these nodes."""
    federation = joining(Settings(seed=3, **settings), TwoNumbers())
    for update in joined(20, *nodes):
        hear(federation, update)
    assert federation.settle(1000)
    assert place(federation) == (1, 0)
    return federation


COUNTER = itertools.count(10_000)  # ms: after the start of the run


def score(num_examples: int, wrong: int = 0) -> Score:
    return Score(0.5 * num_examples, ((num_examples - wrong, wrong), (0, 0)))


def update(federation: Federation, node: str, values: list[float], num_examples: int = 10, **changes) -> ModelUpdate:
    learned = {"arrays": {"w": np.array(values)}, "score": score(num_examples)} if num_examples else {}
    learned |= {name: changes.pop(name) for name in ("arrays", "score") if name in changes}
    trained_at, opened = changes.pop("trained_at", None), federation.run.opened.model
    found = model_update(NodeWeight(node, 40.0, 1), opened, trained_at or next(COUNTER), num_examples, **learned)
    return replace(found, **changes)


def place(federation: Federation) -> tuple[int, int]:
    """Return the numbers of the open round and of its version."""
    return federation.run.opened.number, federation.run.opened.version


def models(federation: Federation) -> list[GlobalModel]:
    return [message for topic, _, message in federation.outbox if topic == "global-model"]


def wire_models(federation: Federation) -> list[dict]:
    """Return the models as they stand on the topic."""
    return [json.loads(encode(message)) for message in models(federation)]


def events(federation: Federation) -> list[str]:
    return [message.kind for topic, _, message in federation.outbox if topic == "events"]


def saved(federation: Federation) -> str:
    """Return a federation as a cloud keeps it."""
    return json.dumps(msgspec.to_builtins(federation.run, str_keys=True), allow_nan=False)


def restart(text: str, settings: Settings, federation: Federation) -> Federation:
    """Return the federation that a cloud goes on with from what it has kept."""
    run = msgspec.convert(json.loads(text), RunState, str_keys=True)
    return Federation(run, settings, federation.model, dict(federation.latest))


def again(federation: Federation) -> Federation:
    """Return the federation as a restarted cloud finds it."""
    return restart(saved(federation), federation.settings, federation)


def resume(last: GlobalModel, settings: Settings, federation: Federation) -> Federation:
    """Return the federation of a cloud that has lost its state, and reads the topic of weights from its beginning."""
    last = decode(GlobalModel, encode(last))
    published = {each.version: each.fingerprint for each in models(federation)}
    state = CloudState({}, None, [], [])
    return Rounds(settings, federation.model, "run-2", last, published).open(state)


# --- opening and closing


def test_the_first_round_waits_for_the_quorum_and_for_twenty_readings():
    federation = joining(Settings(round_quorum=2), TwoNumbers())
    hear(federation, joined(30, "a")[0])
    assert not federation.settle(1)
    hear(federation, NodeWeight("b", 40.0, 5))  # without sums it says nothing of features
    assert not federation.settle(1)
    hear(federation, joined(6, "b")[0])
    assert federation.settle(1)
    few = joining(Settings(), TwoNumbers())
    hear(few, joined(19, "a")[0])
    assert not few.settle(1)


def test_the_opened_model_carries_all_that_a_node_and_a_restart_need():
    federation = start("a")
    (message,) = wire_models(federation)
    assert decode(GlobalModel, encode(models(federation)[0])) == models(federation)[0]
    assert (message["run_id"], message["round"], message["version"], message["mode"]) == (RUN, 1, 0, "sync")
    assert message["arrays"] == [{"name": "w", "shape": [2], "dtype": "float64", "values": [0.0, 3.0]}]
    # Variance of the temperature: 5625.5 - 75² = 0.5; of the vibration: 0.01 - 0.05² = 0.0075.
    assert message["scaler"]["mean"] == pytest.approx([75.0, 0.05])
    assert message["scaler"]["std"] == pytest.approx([0.5**0.5, 0.0075**0.5])
    assert message["opened_at"] == 1000


def test_a_round_closes_when_all_nodes_have_answered_with_the_mean_weighted_by_num_examples():
    federation = start("a", "b")
    federation.receive(update(federation, "a", [1.0, 0.0], 10))
    assert not federation.settle(2000)
    federation.receive(update(federation, "b", [5.0, 8.0], 30))
    assert federation.settle(3000)
    # (10 * 1 + 30 * 5) / 40 = 4 and (10 * 0 + 30 * 8) / 40 = 6
    assert federation.run.opened.arrays["w"].tolist() == [4.0, 6.0]
    assert (*place(federation), federation.run.opened.model.opened_at) == (
        2,
        1,
        3000,
    )
    message = wire_models(federation)[-1]
    assert message["base_version"] == 0
    assert message["metrics"]["num_examples"] == 40
    assert message["metrics"]["loss"] == 0.5
    assert {node: metrics["num_examples"] for node, metrics in message["node_metrics"].items()} == {"a": 10, "b": 30}
    assert message["counts"]["accepted"] == 2
    assert message["counts"]["missing"] == 0


def test_every_version_goes_to_the_registry_under_its_own_key():
    federation = start("a")
    federation.receive(update(federation, "a", [1.0, 1.0]))
    federation.settle(1)
    keys = [key for topic, key, _ in federation.outbox if topic == "model-versions"]
    assert keys == ["run-1/0", "run-1/1"]


def test_the_registry_keeps_the_newest_versions_and_the_best_one():
    # F1 of versions 0 to 3: 2/(2+1+1) = 0.5, 4/(4+0+1) = 0.8, 6/(6+2+0) = 0.75, 4/4 = 1
    confusions = [((7, 1), (1, 1)), ((7, 0), (1, 2)), ((5, 2), (0, 3)), ((8, 0), (0, 2))]
    federation = start("a", versions_kept=2)
    for confusion in confusions:
        federation = again(federation)
        answer = update(federation, "a", [1.0, 1.0], score=Score(5.0, confusion))
        federation.receive(answer)
        federation.settle(1)
        sent = [(key, message is None) for topic, key, message in federation.outbox if topic == "model-versions"]
        if confusion == confusions[0]:
            assert sent == [("run-1/1", False)]
        if confusion == confusions[1]:
            assert sent == [("run-1/2", False), ("run-1/0", True)]
        if confusion == confusions[2]:
            assert sent == [("run-1/3", False)]  # version 1 is old, and the best
    assert sent == [("run-1/1", True), ("run-1/4", False), ("run-1/2", True)]


def test_a_silent_node_is_waited_for_until_the_deadline_and_counted_missing():
    federation = start("a", "b", "c")
    federation.receive(update(federation, "a", [1.0, 1.0]))
    federation.receive(update(federation, "b", [3.0, 3.0]))
    assert not federation.settle(1)
    federation.pass_deadline(RUN, 1)
    assert federation.settle(2)
    assert federation.run.opened.arrays["w"].tolist() == [2.0, 2.0]
    assert models(federation)[-1].counts["missing"] == 1


def test_a_node_that_stays_silent_is_no_longer_waited_for_and_comes_back_when_it_answers():
    federation = start("a", "b", round_patience=2)
    for number in (1, 2):
        federation.receive(update(federation, "a", [float(number), 0.0]))
        assert not federation.settle(1)
        federation.pass_deadline(RUN, number)
        assert federation.settle(2)
    federation.receive(update(federation, "a", [3.0, 0.0]))
    assert federation.settle(3)  # b was last heard in round 0, which is 3 rounds ago
    federation.receive(update(federation, "b", [9.0, 0.0]))
    assert not federation.settle(4)  # now both are awaited again
    federation.receive(update(federation, "a", [1.0, 0.0]))
    assert federation.settle(5)
    assert federation.run.opened.arrays["w"].tolist() == [5.0, 0.0]


def test_a_deadline_without_the_quorum_closes_nothing_and_the_next_update_does():
    federation = start("a", "b", "c", round_quorum=2)
    federation.receive(update(federation, "a", [2.0, 0.0]))
    federation.pass_deadline(RUN, 1)
    assert not federation.settle(1)
    federation.receive(update(federation, "b", [4.0, 0.0]))
    assert federation.settle(2)
    assert federation.run.opened.arrays["w"].tolist() == [3.0, 0.0]


def test_a_deadline_of_another_round_or_run_says_nothing():
    federation = start("a", "b")
    federation.receive(update(federation, "a", [1.0, 1.0]))
    federation.pass_deadline(RUN, 2)
    federation.pass_deadline("other", 1)
    assert not federation.settle(1)


def test_too_few_examples_make_the_round_void_at_the_deadline_and_the_model_stays():
    federation = start("a", round_min_examples=50)
    federation.receive(update(federation, "a", [7.0, 7.0], 49))
    assert not federation.settle(1)
    federation.pass_deadline(RUN, 1)
    assert federation.settle(2)
    assert (
        federation.run.opened.number,
        federation.run.opened.version,
        federation.run.opened.arrays["w"].tolist(),
    ) == (2, 0, [0.0, 3.0])
    federation.receive(update(federation, "a", [7.0, 7.0], 50))
    assert federation.settle(3)
    assert federation.run.opened.version == 1


def test_a_node_without_readings_answers_so_and_is_not_averaged():
    federation = start("a", "b")
    assert federation.receive(update(federation, "b", [], 0)) == "abstained"
    federation.receive(update(federation, "a", [6.0, 6.0]))
    assert federation.settle(1)
    assert federation.run.opened.arrays["w"].tolist() == [6.0, 6.0]
    assert models(federation)[-1].counts["abstained"] == 1


def test_a_round_that_nobody_can_answer_any_more_is_void_at_the_deadline():
    federation = start("a", "b", round_quorum=2)
    federation.receive(update(federation, "b", [], 0))
    federation.receive(update(federation, "a", [6.0, 6.0]))
    assert not federation.settle(1)
    federation.pass_deadline(RUN, 1)
    assert federation.settle(2)
    assert place(federation) == (2, 0)


def test_a_new_node_may_join_a_round_that_is_open():
    federation = start("a")
    hear(federation, joined(10, "b")[0])
    federation.receive(update(federation, "a", [1.0, 0.0]))
    assert not federation.settle(1)  # b has joined and is awaited
    federation.receive(update(federation, "b", [3.0, 0.0]))
    assert federation.settle(2)
    assert federation.run.opened.arrays["w"].tolist() == [2.0, 0.0]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::3])
def test_the_order_of_arrival_changes_no_bit(order):
    def run(order) -> bytes:
        federation = start(*NAMES, max_update_norm=1e12)
        values = [[0.1, 0.7], [0.2, 0.11], [0.3, 1e-9], [1e9, 0.3]]
        for place in order:
            federation.receive(update(federation, NAMES[place], values[place], 7 + place, trained_at=100 + place))
        federation.settle(1)
        assert federation.run.opened.version == 1
        return federation.run.opened.arrays["w"].tobytes()

    assert run(order) == run(range(4))


# --- the open round, said again


def said_again(federation: Federation) -> dict:
    """Return the open round's message as a restarted cloud says it."""
    return json.loads(encode(again(federation).run.opened.model))


def test_a_round_is_said_again_word_for_word_whatever_has_come_since():
    federation = start(*NAMES, strategy="FedAdam", strategy_options="fraction_train=0.5")
    for number in range(2, 4):
        values = {node: [float(number), 1 / 3] for node in federation.run.opened.participants}
        close(federation, **values)
        federation.receive(update(federation, federation.run.opened.participants[0], [0.5, 0.5]))
        with contextlib.suppress(BadMessage):
            federation.receive(update(federation, "c", [0.0, 0.0], round=9))
        hear(federation, joined(99, "b")[0])
        opened = wire_models(federation)[-1]
        assert said_again(federation) == opened
        assert opened["round"] == number
        assert {"metrics", "node_metrics", "updates", "counts", "base_version", "strategy_state"} <= set(opened)
        before, federation = models(federation)[-1], again(federation)
        federation.outbox = [("global-model", "", before)]


def test_a_round_that_failed_or_went_back_is_said_again_with_the_reason():
    federation = start("a", round_min_examples=50)
    federation.receive(update(federation, "a", [7.0, 7.0], 49))
    federation.pass_deadline(RUN, 1)
    assert federation.settle(2)
    assert said_again(federation) == wire_models(federation)[-1]
    assert said_again(federation)["failed"] == "too few updates or examples"
    federation.rollback(models(federation)[0], 3)
    assert said_again(federation)["restored_from"] == 0


def test_a_round_is_to_be_said_again_once_its_own_deadline_has_passed():
    federation = start("a", "b")
    federation.pass_deadline(RUN, 2)
    federation.pass_deadline("other", 1)
    assert not federation.is_to_be_said_again
    federation.pass_deadline(RUN, 1)
    assert not federation.settle(2)
    assert federation.is_to_be_said_again
    assert not again(federation).is_to_be_said_again, "by the next micro-batch it is done"
    federation.receive(update(federation, "a", [1.0, 1.0]))
    assert federation.settle(3)
    assert not federation.is_to_be_said_again, "another round is open"


def test_a_cloud_that_lost_its_state_says_again_what_was_on_the_topic():
    federation = start("a")
    close(federation, a=[1.0, 1.0])
    resumed = resume(models(federation)[-1], federation.settings, federation)
    assert said_again(resumed) == wire_models(federation)[-1]


# --- kinds of updates


def close(federation: Federation, **values: list[float]) -> None:
    for node, numbers in values.items():
        federation.receive(update(federation, node, numbers))
    assert federation.settle(5)


def test_a_late_update_is_counted_and_changes_nothing():
    federation = start("a", "b")
    late = update(federation, "b", [9.0, 9.0])
    federation.receive(update(federation, "a", [1.0, 1.0]))
    federation.pass_deadline(RUN, 1)
    federation.settle(1)
    assert federation.receive(late) == "late"
    assert federation.run.opened.counts["late"] == 1
    assert federation.run.opened.arrays["w"].tolist() == [1.0, 1.0]


def test_a_repeated_update_is_a_duplicate_in_the_open_round_and_after_it():
    federation = start("a", "b")
    first = update(federation, "a", [1.0, 1.0])
    assert federation.receive(first) == "accepted"
    assert federation.receive(first) == "duplicate"
    assert federation.receive(update(federation, "a", [100.0, 1.0])) == "duplicate"  # one answer a round
    federation.receive(update(federation, "b", [3.0, 1.0]))
    federation.settle(1)
    assert federation.run.opened.arrays["w"].tolist() == [2.0, 1.0]
    assert federation.receive(first) == "duplicate"
    assert federation.run.opened.pending == []


def test_the_features_of_a_node_that_counts_from_another_source_are_those_of_this_source():
    federation = start("a")
    noon = NodeWeight("a", 40.0, 2, 0, (140.0, 0.125), (9_800.5, 0.25), source="from 2026-11-22T12:00:00Z")
    hear(federation, noon)
    federation = again(federation)
    hear(federation, NodeWeight("a", 40.0, 1, 0, (1.0, 1.0), (1.0, 1.0), source=noon.source))
    close(federation, a=[1.0, 1.0])
    # 140 / 2 and 0.125 / 2: of one source, more samples are later.
    assert federation.run.opened.model.scaler.mean == (70.0, 0.0625)


def test_an_unknown_node_is_counted_and_not_let_in():
    federation = start("fog-1", known_nodes="fog-*, edge-7")
    scaler = federation.run.opened.model.scaler
    assert federation.receive(update(federation, "stranger", [9.0, 9.0])) == "unknown"
    hear(federation, NodeWeight("stranger", 1.0, 1000, 0, (9.0, 9.0), (99.0, 99.0)))
    assert federation.missing == {"fog-1"}
    assert federation.receive(update(federation, "edge-7", [9.0, 9.0])) == "accepted"
    close(federation, **{"fog-1": [1.0, 1.0]})
    assert federation.run.opened.model.scaler == scaler, "the stranger's readings are not in it"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"round": 2}, "round is 2, which lies in the future; the open one is 1"),
        ({"base_version": 1}, "base_version is 1, which this round does not know; expected 0"),
        ({"arrays": {"w": np.zeros(3)}}, r"arrays are {'w': \(3,\)}; expected {'w': \(2,\)}"),
        ({"arrays": {"v": np.zeros(2)}}, r"arrays are {'v': \(2,\)}; expected {'w': \(2,\)}"),
        ({"arrays": {"w": np.array([0.0, 1004.0])}}, "1001 away .*; expected at most MAX_UPDATE_NORM=1000"),
        ({"score": Score(1.0, ((1,),))}, "metrics are of 1 classes and 1 readings; expected 2 classes"),
        ({"score": score(9)}, "num_examples=10"),
    ],
)
def test_a_bad_update_is_refused_with_the_reason_and_the_round_goes_on(changes, reason):
    federation = start("a", "b")
    with pytest.raises(BadMessage, match=reason):
        federation.receive(update(federation, "b", [5.0, 5.0], **changes))
    assert federation.run.nodes.offences == {"b": 1}
    federation.receive(update(federation, "b", [3.0, 3.0]))
    federation.receive(update(federation, "a", [1.0, 1.0]))
    assert federation.settle(1)
    assert federation.run.opened.arrays["w"].tolist() == [2.0, 2.0]
    assert models(federation)[-1].counts["rejected"] == 1


def test_an_answer_that_cannot_be_read_tells_its_node_all_the_same():
    value = encode(update(start("a"), "a", [1.0, 1.5])).replace(b"1.5]", b"1e999]")  # JSON's way to infinity
    with pytest.raises(BadMessage, match=r"arrays\[0\].values\[1\] is Infinity; expected a number that fits"):
        read_update(value)
    assert answering_node(value) == "a"
    assert answering_node(encode(NodeWeight("a", 40.0, 1))) is None, "no answer"
    assert answering_node(value.replace(b'"samples":1', b'"samples":0')) is None, "nor is it a good weight"
    assert answering_node(b"hello") is None


def array_of(shape: list[int], values: list[float]) -> dict:
    """Return an array as it travels."""
    return {"name": "w", "shape": shape, "dtype": "float64", "values": values}


@pytest.mark.parametrize(
    ("shape", "values", "reason"),
    [
        ([1] * 65, [1.0], "array w has 65 dimensions; expected at most 8"),
        ([1] * 9, [1.0], "array w has 9 dimensions; expected at most 8"),
        (
            [0, 2**62],
            [],
            r"array w has shape \[0, 4611686018427387904\] and 0 values; expected sizes that fit in memory",
        ),
        ([0, 10**100], [], r"shape\[1\] is 1000.*; expected a whole number of at most 9223372036854775807"),
        ([2, 2], [1.0], r"array w has shape \[2, 2\] and 1 values; expected as many numbers as the shape holds"),
    ],
    ids=["65 dimensions", "9 dimensions", "nothing times 2^62", "nothing times 10^100", "too few values"],
)
def test_a_shape_that_no_array_can_have_is_refused_by_the_arrays_name(shape, values, reason):
    with pytest.raises(BadMessage, match=reason):
        decode(wire.NamedArray, json.dumps(array_of(shape, values)).encode())


def test_an_array_may_have_eight_dimensions_or_no_values():
    shapes = ([1, 1, 1, 2, 1, 1, 1, 1], [0, 5], [])
    for shape in shapes:
        zeros = [0.0] * int(np.prod(shape))
        assert list(decode(wire.NamedArray, json.dumps(array_of(shape, zeros)).encode()).array.shape) == shape


def test_a_node_with_too_many_bad_updates_is_kept_out_and_let_in_again():
    federation = start("a", "b", quarantine_after=2, quarantine_rounds=2)
    for _ in range(2):
        with pytest.raises(BadMessage):
            federation.receive(update(federation, "b", [0.0, 0.0], round=9))
    assert events(federation)[-1] == "quarantine"
    assert federation.receive(update(federation, "b", [9.0, 9.0])) == "quarantined"
    assert federation.missing == {"a"}
    close(federation, a=[1.0, 1.0])  # round 1: nobody waits for b
    close(federation, a=[1.0, 1.0])  # round 2
    assert federation.receive(update(federation, "b", [9.0, 9.0])) == "quarantined"  # round 3 = 1 + 2
    close(federation, a=[1.0, 1.0])
    assert federation.receive(update(federation, "b", [9.0, 9.0])) == "accepted"  # round 4


def test_sums_of_another_number_of_features_are_refused():
    federation = start("a")
    with pytest.raises(BadMessage, match="sums has 3 numbers; expected 2"):
        federation.check(NodeWeight("b", 1.0, 5, 0, (1.0, 2.0, 3.0), (1.0, 2.0, 3.0)))
    negative = encode(NodeWeight("b", 1.0, 5, 0, (1.0, 2.0), (-1.0, 0.4)))
    with pytest.raises(BadMessage, match=r"squares\[0\] is -1.0; expected a number of at least 0.0"):
        read_update(negative)


def test_the_scaler_is_that_of_all_nodes_readings_together():
    federation = start("a")
    rng = np.random.default_rng(1)
    parts = {"a": rng.uniform(60, 90, (50, 2)), "b": rng.uniform(90, 120, (30, 2)), "c": rng.uniform(0, 9, (7, 2))}
    for node, x in parts.items():
        hear(federation, NodeWeight(node, 1.0, len(x), 0, tuple(x.sum(axis=0)), tuple((x * x).sum(axis=0))))
    federation.receive(update(federation, "a", [1.0, 1.0]))
    federation.pass_deadline(RUN, 1)
    federation.settle(1)
    together = np.concatenate(list(parts.values()))
    assert federation.run.opened.model.scaler.mean == pytest.approx(together.mean(axis=0), rel=1e-12)
    assert federation.run.opened.model.scaler.std == pytest.approx(together.std(axis=0), rel=1e-9)


def test_without_shared_scaling_no_scaler_travels():
    assert wire_models(start("a", feature_scaling="none"))[0]["scaler"] is None


# --- strategies in rounds


def test_an_aggregation_that_fails_keeps_the_model_and_opens_the_next_round():
    options = {"strategy": "Krum", "strategy_options": "num_malicious_nodes=1"}
    federation = start("a", "b", **options)
    close(federation, a=[1.0, 1.0], b=[2.0, 2.0])
    assert (
        federation.run.opened.number,
        federation.run.opened.version,
        federation.run.opened.arrays["w"].tolist(),
    ) == (2, 0, [0.0, 3.0])
    assert events(federation)[-1] == "aggregation-failed"
    assert "5" in models(federation)[-1].failed  # Krum with one attacker needs 2 * 1 + 3 nodes


def test_optimizer_state_survives_a_restart_bit_by_bit():
    options = {"strategy": "FedAdam", "strategy_options": "eta=0.1,beta_1=0.9,beta_2=0.99"}

    def run(restarts: bool) -> bytes:
        federation = start("a", "b", **options)
        for number in range(1, 5):
            federation.receive(update(federation, "a", [1.0 / number, 0.3], trained_at=10 * number))
            federation = again(federation) if restarts else federation
            federation.receive(update(federation, "b", [0.7, 0.1 * number], trained_at=10 * number))
            assert federation.settle(number)
            federation = again(federation) if restarts else federation
        return federation.run.opened.arrays["w"].tobytes()

    assert run(restarts=True) == run(restarts=False)


def test_a_lost_state_is_resumed_from_the_model_on_the_topic():
    options = {"strategy": "FedAvgM", "strategy_options": "server_momentum=0.9"}
    federation = start("a", **options)
    close(federation, a=[1.0, 1.0])
    close(federation, a=[2.0, 1.0])
    resumed = resume(models(federation)[-1], federation.settings, federation)
    for each in (federation, resumed):
        each.receive(update(each, "a", [4.0, 1.0], trained_at=10**6))
        assert each.settle(9)
    assert resumed.run.opened.arrays["w"].tobytes() == federation.run.opened.arrays["w"].tobytes()
    assert (resumed.run.opened.number, resumed.run.opened.version) == (
        federation.run.opened.number,
        federation.run.opened.version,
    )


def test_another_strategy_after_a_restart_starts_afresh():
    federation = start("a", strategy="FedAdam")
    close(federation, a=[1.0, 1.0])
    restored = restart(saved(federation), Settings(strategy="FedAvg"), federation)
    restored.receive(update(restored, "a", [8.0, 8.0]))
    assert restored.settle(1)
    assert restored.run.opened.arrays["w"].tolist() == [8.0, 8.0]


def test_the_config_of_the_strategy_reaches_the_nodes():
    federation = start("a", strategy="FedProx", strategy_options="proximal_mu=0.5")
    assert models(federation)[0].config["proximal-mu"] == 0.5


def test_a_strategy_may_sample_the_nodes_of_a_round():
    federation = start("a", "b", "c", "d", strategy_options="fraction_train=0.5")
    assert len(federation.run.opened.participants) == 2
    others = sorted(set(NAMES) - set(federation.run.opened.participants))
    assert federation.receive(update(federation, others[0], [9.0, 9.0])) == "unknown"
    close(federation, **{key: [2.0, 2.0] for key in federation.run.opened.participants})
    assert federation.run.opened.arrays["w"].tolist() == [2.0, 2.0]


# --- asynchronous mode


def test_a_buffer_of_k_updates_makes_a_version_and_a_stale_one_weighs_less():
    federation = start("a", "b", round_mode="async", async_buffer=2)
    stale = update(federation, "b", [8.0, 3.0])  # from version 0, which is (0, 3): a step of (8, 0)
    federation.receive(update(federation, "a", [2.0, 3.0]))
    assert not federation.settle(1)
    federation.receive(update(federation, "a", [4.0, 3.0]))
    assert federation.settle(2)
    assert federation.run.opened.arrays["w"].tolist() == [3.0, 3.0]
    federation.receive(stale)
    federation.receive(update(federation, "a", [3.0, 3.0]))
    assert federation.settle(3)
    # The stale step (8, 0), shrunk by sqrt(1 + 1), from (3, 3); the mean with (3, 3) halves it.
    assert federation.run.opened.arrays["w"][0] == pytest.approx(3 + 8 / 2**0.5 / 2, rel=1e-15)
    assert federation.run.opened.arrays["w"][1] == 3.0


def test_an_update_that_is_too_stale_is_dropped():
    federation = start("a", "b", round_mode="async", async_buffer=1, max_staleness=1)
    old = update(federation, "b", [8.0, 3.0])
    close(federation, a=[1.0, 1.0])
    close(federation, a=[1.0, 1.0])
    assert federation.receive(old) == "stale"
    assert sorted(federation.run.bases) == [1, 2]


def test_asynchronous_rounds_survive_a_restart():
    federation = start("a", "b", round_mode="async", async_buffer=1)
    stale = update(federation, "b", [8.0, 3.0])
    close(federation, a=[1.0, 1.0])
    restored = again(federation)
    for each in (federation, restored):
        assert each.receive(stale) == "accepted"
        each.settle(7)
    assert restored.run.opened.arrays["w"].tobytes() == federation.run.opened.arrays["w"].tobytes()


# --- many nodes


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_round_is_complete_just_when_all_whom_it_waits_for_have_answered_whatever_comes(mode):
    random = np.random.RandomState(5)
    nodes = [f"node-{i}" for i in range(12)]
    settings = {"round_mode": mode, "async_buffer": 9, "quarantine_after": 2, "quarantine_rounds": 2}
    federation = start(*nodes[:4], **settings, round_patience=2)
    complete = 0
    for now in range(2500):
        node, fate = nodes[random.randint(12)], random.uniform()
        late = {"round": federation.run.opened.number - 1} if fate < 0.1 and federation.run.opened.number > 1 else {}
        with contextlib.suppress(BadMessage):  # they lead to a quarantine
            bad = {"round": 10**6} if 0.1 < fate < 0.2 else {}
            examples = 0 if 0.2 < fate < 0.3 else 10
            federation.receive(update(federation, node, [1.0, 1.0], examples, **late, **bad))
        if 0.3 < fate < 0.5:
            hear(federation, joined(20, node)[0])
        if fate > 0.95:
            federation.pass_deadline(RUN, federation.run.opened.number)
        run = federation.run
        expected = {
            node
            for node, last in run.nodes.heard.items()
            if last >= run.opened.number - (0 if node in run.nodes.newcomers else 2)
            and run.nodes.quarantine.get(node, 0) < run.opened.number
        }
        assert federation.missing == expected - set(run.opened.answered)
        complete += not federation.missing
        federation.settle(now)
        if 0.5 < fate < 0.55:
            federation = again(federation)
    assert complete > 10
    assert federation.run.opened.number > 20


def test_a_message_costs_the_same_with_many_nodes(monkeypatch):
    nodes = [f"node-{i}" for i in range(500)]
    federation = start("node-0")
    for waiting in joined(20, *nodes):
        hear(federation, waiting)
    looks = []
    awaited = Nodes.awaited
    monkeypatch.setattr(Nodes, "awaited", lambda *arguments: looks.append(1) or awaited(*arguments))
    for node in nodes:
        federation.receive(update(federation, node, [1.0, 1.0]))
        federation.settle(1)
    assert federation.run.opened.number == 2
    assert len(looks) < 10  # each goes through all nodes


# --- rollback and drift


def test_a_rollback_opens_a_new_version_with_the_old_arrays():
    federation = start("a")
    close(federation, a=[1.0, 1.0])
    old = models(federation)[-1]
    close(federation, a=[2.0, 2.0])
    federation.receive(update(federation, "a", [50.0, 50.0]))
    federation.rollback(old, 9)
    assert (
        federation.run.opened.number,
        federation.run.opened.version,
        federation.run.opened.arrays["w"].tolist(),
    ) == (4, 3, [1.0, 1.0])
    assert federation.run.opened.pending == []
    assert models(federation)[-1].restored_from == 1
    other = replace(models(federation)[-1], run_id="another")
    with pytest.raises(BadMessage, match="version 3 of run another does not fit; expected one of run run-1"):
        federation.rollback(other, 9)


def rollback(model: dict, current: int = 0) -> Rollback:
    """Return the command to go back to a model, as it is read from its topic; `current` is the newest version then."""
    command = {"command": "rollback", "run_id": RUN, "sent_at": 1, "model": model, "current": current}
    return read_command(json.dumps(command).encode())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scaler": {"mean": [1.0] * 3, "std": [1.0] * 3}}, "the scaler has 3 numbers; expected 2"),
        ({"arrays": []}, "version 0 of run run-1 does not fit"),
    ],
    ids=["scaler", "arrays"],
)
def test_a_rollback_that_does_not_fit_changes_nothing(changes, reason):
    federation = start("a", strategy="FedAdam")
    close(federation, a=[1.0, 1.0])
    before, published = saved(federation), len(federation.outbox)
    command = rollback(wire_models(federation)[0] | changes)
    with pytest.raises(BadMessage, match=reason):
        federation.obey(command, 2000)
    assert saved(federation) == before
    assert len(federation.outbox) == published


def test_before_the_first_round_there_is_nothing_to_roll_back_to():
    federation = joining(Settings(), TwoNumbers())
    empty = wire_models(start("a"))[0] | {"arrays": []}
    with pytest.raises(BadMessage, match="version 0 of run run-1 does not fit"):
        federation.obey(rollback(empty), 9)
    assert federation.run.opened.number == 0


class TwoArrays(TwoNumbers):
    """A model of two arrays, `b` before `a`."""

    def initial_arrays(self, seed):
        """Return zeros."""
        return {"b": np.zeros(1), "a": np.zeros(2)}


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_the_global_model_keeps_its_order_of_arrays_whatever_comes(mode):
    federation = joining(Settings(round_mode=mode, async_buffer=1), TwoArrays())
    hear(federation, joined(20, "a")[0])
    federation.settle(1)
    first = models(federation)[0]
    swapped = {"a": np.array([1.0, 2.0]), "b": np.array([3.0])}
    federation.receive(update(federation, "a", [], arrays=swapped, num_examples=10, score=score(10)))
    assert federation.settle(2)
    assert {name: array.tolist() for name, array in federation.run.opened.arrays.items()} == {
        "b": [3.0],
        "a": [1.0, 2.0],
    }
    federation.rollback(replace(first, named_arrays=first.named_arrays[::-1]), 3)
    assert [[array["name"] for array in message["arrays"]] for message in wire_models(federation)] == [["b", "a"]] * 3


def drift(federation: Federation) -> int:
    """Answer 12 good rounds, then bad ones until the drift is seen; return how many bad ones that took."""
    for number in range(40):
        wrong = 2 if number < 12 else 60
        federation.receive(update(federation, "a", [1.0, 1.0], 100, score=score(100, wrong)))
        federation.settle(number)
        if "drift" in events(federation):
            return number - 11
    pytest.fail("no drift")


@pytest.mark.parametrize("action", ["none", "reset", "boost"])
def test_a_rise_of_the_prequential_error_is_a_drift_and_the_action_follows(action):
    federation = start("a", drift_action=action, drift_boost=4.0)
    # The mean of 12 errors of 0.02 and one of 0.6 is 0.0646; 0.6 - 0.0646 - 0.02 = 0.515 exceeds 0.5.
    assert drift(federation) == 1
    message = models(federation)[-1]
    if action == "reset":
        assert federation.run.opened.arrays["w"].tolist() == [0.0, 3.0 + message.round - 1]
    else:
        assert federation.run.opened.arrays["w"].tolist() == [1.0, 1.0]
    assert message.config.get("learning-rate-factor") == (4.0 if action == "boost" else None)
    assert federation.run.drift.tests == {}, "the node's test begins anew"
    (event,) = [each for topic, _, each in federation.outbox if topic == "events" and each.kind == "drift"]
    assert (event.node_id, event.action) == ("a", action)


def test_a_falling_or_steady_error_is_no_drift():
    federation = start("a")
    for number in range(40):
        wrong = max(5, 60 - 3 * number) + number % 3
        federation.receive(update(federation, "a", [1.0, 1.0], 100, score=score(100, wrong)))
        federation.settle(number)
    assert "drift" not in events(federation)


def test_the_detector_can_be_switched_off():
    federation = start("a", drift_threshold=0.0)
    with pytest.raises(pytest.fail.Exception, match="no drift"):
        drift(federation)


# --- limits and restarts


def test_a_model_larger_than_the_topics_allow_is_refused_with_the_setting():
    class Large(TwoNumbers):
        def initial_arrays(self, seed):
            return {"w": np.full(2000, 0.1)}

    federation = joining(Settings(max_update_bytes=1000), Large())
    hear(federation, joined(20, "a")[0])
    with pytest.raises(TooLargeError, match=r"a global model has .* bytes; expected at most MAX_UPDATE_BYTES=1000"):
        federation.settle(1)


def test_a_snapshot_is_the_same_after_a_restart():
    federation = start("a", "b", strategy="FedYogi", quarantine_after=5)
    federation.receive(update(federation, "a", [0.1, 1 / 3]))
    with pytest.raises(BadMessage):
        federation.receive(update(federation, "b", [0.0, 0.0], round=9))
    restored = again(federation)
    assert saved(restored) == saved(federation)


def test_an_unknown_strategy_is_a_setting_error():
    with pytest.raises(SettingError, match="STRATEGY"):
        joining(Settings(strategy="FedWhat"), TwoNumbers())


# --- sampling, and settings that change under a run


def test_nodes_that_were_not_asked_are_not_taken_for_silent():
    names = [f"node-{number:02}" for number in range(20)]
    federation = start(*names, strategy_options="fraction_train=0.3")
    for _ in range(15):
        assert len(federation.run.opened.participants) == 6  # 0.3 * 20
        close(federation, **{key: [1.0, 1.0] for key in federation.run.opened.participants})


def test_a_node_that_was_not_asked_may_say_that_it_has_no_readings():
    federation = start(*NAMES, strategy_options="fraction_train=0.5")
    other = min(set(NAMES) - set(federation.run.opened.participants))
    assert federation.receive(update(federation, other, [], 0)) == "abstained"


def test_a_strategy_that_wants_more_nodes_than_there_are_gets_all_and_says_so():
    federation = start("a", strategy_options="min_train_nodes=2")
    assert events(federation)[-1] == "sampling-failed"
    assert federation.run.opened.participants == ()
    close(federation, a=[2.0, 2.0])
    assert federation.run.opened.arrays["w"].tolist() == [2.0, 2.0]


def test_a_run_goes_on_when_its_mode_is_changed_to_async():
    federation = start("a")
    close(federation, a=[1.0, 1.0])
    changed = restart(saved(federation), Settings(round_mode="async", async_buffer=1), federation)
    close(changed, a=[5.0, 5.0])
    assert changed.run.opened.arrays["w"].tolist() == [5.0, 5.0]


def test_the_seed_of_a_noise_that_protects_is_not_published():
    options = "noise_multiplier=0.1,clipping_norm=1,num_sampled_clients=1"
    hidden = start("a", strategy="DifferentialPrivacyServerSideFixedClipping", strategy_options=options)
    assert wire_models(hidden)[0]["seed"] is None
    assert wire_models(start("a"))[0]["seed"] == 3


def test_the_scaler_beside_a_noise_that_protects_is_rounded():
    options = "noise_multiplier=0.1,clipping_norm=1,num_sampled_clients=1"
    settings = Settings(strategy="DifferentialPrivacyServerSideFixedClipping", strategy_options=options)
    private = Federation(new_run(RUN, settings), settings, TwoNumbers(), {}, lambda: 7)
    hear(private, joined(20, "a")[0])
    assert private.settle(1000)
    # Mean 0.05 and variance 0.01 - 0.05² = 0.0075, so std 0.0866: nearest to 2^-4, of which the mean is 0.8.
    assert (models(private)[0].scaler.mean[1], models(private)[0].scaler.std[1]) == (0.0625, 0.0625)
    assert models(start("a"))[0].scaler.mean[1] == 0.05


def test_a_rounded_scaler_stays_within_the_limits_of_the_features():
    table = [Feature("a", 0.0, 10.0), Feature("b", -1.0, 1.0), Feature("c", 1030.0, 2000.0)]
    # 9.9 is nearest to 16, and 1031 to 2 x 512 = 1024, beyond the limits; -0.9 to -4 x 0.25.
    exact = Scaler((9.9, -0.9, 1031.0), (16.0, 0.3, 512.0))
    assert exact.rounded(table) == Scaler((10.0, -1.0, 1030.0), (16.0, 0.25, 512.0))


def test_noise_that_protects_is_drawn_from_a_secret_and_all_else_from_the_seed():
    options = "noise_multiplier=0.1,clipping_norm=1,num_sampled_clients=1"
    private = {"strategy": "DifferentialPrivacyServerSideFixedClipping", "strategy_options": options}

    def merged(secret: int | None, **settings: str) -> list[float]:
        before = start("a", **settings)
        draw = None if secret is None else lambda: secret
        federation = Federation(before.run, before.settings, before.model, before.latest, draw)
        close(federation, a=[1.0, 1.0])
        return federation.run.opened.arrays["w"].tolist()

    assert merged(None, **private) == merged(None, **private)  # of a simulation
    assert merged(7, **private) == merged(7, **private)
    assert len({str(merged(secret, **private)) for secret in (None, 7, 8)}) == 3
    assert merged(7) == merged(8) == [1.0, 1.0]


@pytest.mark.parametrize("trained_at", [0, 999, 1000, 2**62])
def test_updates_of_another_run_are_late_and_no_offence_whatever_the_nodes_clock_says(trained_at):
    federation = start("a")  # since 1000 ms
    old = update(federation, "a", [1.0, 1.0], run_id="run-0", trained_at=trained_at)
    assert federation.receive(old) == "late"
    assert federation.run.nodes.offences == {}, "a node that answers a forged model is no bad one"
    assert federation.receive(update(federation, "a", [1.0, 1.0])) == "accepted"


def test_a_quarantine_of_all_nodes_ends():
    federation = start("a", quarantine_after=1, quarantine_rounds=2)
    with pytest.raises(BadMessage):
        federation.receive(update(federation, "a", [1.0, 1.0], round=9))
    scaler = federation.run.opened.model.scaler
    for number in (1, 2, 3):  # kept out until round 3
        assert federation.run.opened.number == number
        federation.pass_deadline(RUN, number)
        assert federation.settle(number)
        assert federation.run.opened.model.scaler == scaler
    close(federation, a=[4.0, 4.0])
    assert federation.run.opened.arrays["w"].tolist() == [4.0, 4.0]


def test_a_rollback_that_was_obeyed_before_the_state_was_lost_is_not_obeyed_again():
    federation = start("a")
    close(federation, a=[1.0, 1.0])
    obeyed = rollback(wire_models(federation)[0], current=1)
    federation.obey(obeyed, 50)
    last = models(federation)[-1]
    assert last.version == 2
    resumed = resume(last, federation.settings, federation)
    with pytest.raises(BadMessage, match="current is 1; expected at least 2, the version with which the cloud went on"):
        resumed.obey(obeyed, 50)
    assert resumed.run.opened.number == last.round
    resumed.obey(replace(obeyed, current=2, sent_at=0), 50)  # by a machine whose clock is 50 years slow
    assert resumed.run.opened.number == last.round + 1


def test_a_state_of_another_strategy_is_not_taken_over_from_the_topic():
    federation = start("a", strategy="FedAdam")
    close(federation, a=[1.0, 1.0])
    resumed = resume(models(federation)[-1], Settings(strategy="FedAvg"), federation)
    close(resumed, a=[8.0, 8.0])
    assert resumed.run.opened.arrays["w"].tolist() == [8.0, 8.0]
