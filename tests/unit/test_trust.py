"""What the cloud, the doors and the commands do not believe of a message, one rule at a time."""

from __future__ import annotations

import json
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from fake_topics import Stack, Topics
from msgspec.structs import replace
from test_rounds import (
    RUN,
    TwoNumbers,
    close,
    hear,
    joined,
    models,
    place,
    resume,
    rollback,
    start,
    update,
    wire_models,
)

from fedstream.broker.deadline import DeadlineTimer
from fedstream.commands.cli import main
from fedstream.commands.curves import draw, model_of
from fedstream.commands.latency import weight_of
from fedstream.commands.verify import versions_and_gaps
from fedstream.errors import BadMessage, SettingError, StackError
from fedstream.features import parse_features
from fedstream.learning import training
from fedstream.learning.arrays import NamedArray
from fedstream.learning.models import make_model
from fedstream.learning.scores import Score
from fedstream.learning.training import Scaler
from fedstream.messages.door import decode, encode
from fedstream.messages.rounds import Event, fit_model, global_model
from fedstream.messages.topics import GLOBAL_MODEL, MODEL_VERSIONS
from fedstream.messages.weights import NodeWeight
from fedstream.rounds.admission import check_growth, check_sums
from fedstream.rounds.federation import resumable
from fedstream.rounds.nodes import Nodes
from fedstream.rounds.runs import Run, read_runs, scores
from fedstream.rounds.strategies import StrategyError, make_strategy, restore_strategy
from fedstream.settings import Settings
from fedstream.spark.scoring import scorable
from fedstream.texts import printable

# --- running weights


def weighing(samples: int, source: str = "") -> NodeWeight:
    return NodeWeight("a", 40.0, samples, source=source)


def test_samples_may_grow_by_a_thousand_millions_at_once():
    latest = {"a": weighing(5)}
    check_growth(weighing(1_000_000_005), latest)
    check_growth(weighing(10**13, source="from earliest"), latest)  # it counts anew
    with pytest.raises(BadMessage, match="samples is 1000000006 after 5; expected at most 1000000000 more at once"):
        check_growth(weighing(1_000_000_006), latest)


def test_one_name_more_than_ten_thousand_is_refused():
    latest = {f"fog-{number}": weighing(1) for number in range(9999)}
    check_growth(weighing(1), latest)
    latest["fog-9999"] = weighing(1)
    with pytest.raises(BadMessage, match="node_id is 'a', a new name; expected one of the 10000 known nodes"):
        check_growth(weighing(1), latest)
    check_growth(NodeWeight("fog-1", 40.0, 2), latest)


@pytest.mark.parametrize(
    ("sums", "squares", "reason"),
    [
        # Of 10 readings each; FEATURES allow -100 to 1000 and 0 to 1000.
        ((10_001.0, 0.5), (1.1e7, 0.1), "the mean of temperature is 1000.1; expected a number from -100"),
        ((-1001.0, 0.5), (1.1e6, 0.1), "the mean of temperature is -100.1"),
        ((750.0, 0.5), (56_240.0, 0.1), "the mean square of temperature is 5624; expected at least 5625, the square"),
        ((750.0, 0.5), (1.1e7, 0.1), r"the mean square of temperature is 1.1e\+06; expected .* at most 1e\+06"),
        ((1e149, 0.5), (0.0, 0.1), "the mean of temperature is 1e"),
        ((750.0,), (57_000.0,), "sums has 1 numbers; expected 2"),
    ],
)
def test_sums_that_no_readings_have_are_refused(sums, squares, reason):
    with pytest.raises(BadMessage, match=reason):
        check_sums(NodeWeight("a", 40.0, 10, 0, sums, squares), Settings())


def test_sums_of_readings_at_the_limits_are_taken():
    check_sums(NodeWeight("a", 40.0, 10, 0, (10_000.0, 0.0), (1e7, 0.0)), Settings())
    check_sums(NodeWeight("a", 40.0, 3, 0, (0.3, 0.3), (0.03, 0.03)), Settings())  # 0.1 three times, rounded
    check_sums(NodeWeight("stranger", 40.0, 1, 0, (9e9, 0.0), (0.0, 0.0)), Settings(known_nodes="fog-*"))


class Cloud:
    """The cloud's own take of records, without Spark."""

    def __init__(self, script, **settings):
        """Begin without a state."""
        self.script, self.settings = script("cloud/aggregator.py"), Settings(**settings)

    def take(self, *values: bytes):
        """Take records in, all at once."""
        rounds = self.script.Rounds(self.settings, None, RUN)
        records = [SimpleNamespace(value=v, topic="model-weights", partition=0, offset=n) for n, v in enumerate(values)]
        return self.script.take_in(records, self.script.INITIAL, rounds, 1000)


def test_a_node_that_may_not_take_part_changes_no_weight(script):
    cloud = Cloud(script, model="mean", known_nodes="fog-1,fog-2")
    evil = NodeWeight("evil", -1e9, 10**13)
    taken = cloud.take(encode(evil), encode(NodeWeight("fog-1", 40.0, 5)))
    assert list(taken.latest) == ["fog-1"]
    assert (taken.unknown, taken.rejected) == (1, [])


def test_a_jump_of_samples_is_a_dead_letter_without_rounds_too(script):
    taken = Cloud(script, model="mean").take(*(encode(weighing(n)) for n in (5, 2 * 10**9, 6)))
    assert [reason[:34] for _, reason in taken.rejected] == ["samples is 2000000000 after 5; exp"]
    assert taken.latest["a"].samples == 6


# --- answers to a round


def test_an_answer_cannot_claim_more_readings_than_a_training_has():
    federation = start("a", max_readings_per_update=10)
    with pytest.raises(BadMessage, match="num_examples is 11; expected at most MAX_READINGS_PER_UPDATE=10"):
        federation.receive(update(federation, "a", [1.0, 1.0], 11))
    assert federation.receive(update(federation, "a", [1.0, 1.0], 10)) == "accepted"


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_clock_that_steps_back_or_far_ahead_keeps_no_answer_out(mode):
    federation = start("a", round_mode=mode, async_buffer=1)
    for trained_at in (2**63 - 1, 10**6, 5):
        number = federation.run.opened.number
        assert federation.receive(update(federation, "a", [1.0, 1.0], trained_at=trained_at)) == "accepted"
        assert federation.settle(1)
        assert federation.run.opened.number == number + 1


def test_an_answer_that_waits_already_is_a_duplicate_in_mode_async():
    federation = start("a", round_mode="async", async_buffer=9)
    first, second = (update(federation, "a", [1.0, 1.0], trained_at=at) for at in (20_000, 10_000))
    assert [federation.receive(each) for each in (first, second, first, second)] == ["accepted"] * 2 + ["duplicate"] * 2


def test_what_a_node_sends_while_it_is_kept_out_is_no_further_offence():
    nodes, settings = Nodes(), Settings(quarantine_after=2, quarantine_rounds=3)
    assert [nodes.offend("a", 1, settings) for _ in range(4)] == [None, 4, None, None]
    assert (nodes.offences, nodes.quarantine) == ({}, {"a": 4})


def test_a_good_answer_makes_up_for_a_bad_one():
    federation = start("a", quarantine_after=3)

    def is_bad():
        with pytest.raises(BadMessage):
            federation.receive(update(federation, "a", [1.0, 1.0], round=99))

    for number in range(1, 6):  # one bad and one good update in each round
        is_bad()
        close(federation, a=[float(number), 1.0])
        assert federation.run.nodes.offences == {}
    for _ in range(3):
        is_bad()
    assert federation.run.nodes.quarantine == {"a": 16}, "of round 6, and ten more"


def test_offences_are_counted_of_nodes_that_may_take_part_and_of_so_many_names():
    nodes, settings = Nodes(), Settings(known_nodes="fog-*")
    nodes.offend("evil", 1, settings)
    assert nodes.offences == {}
    for number in range(10_050):
        nodes.offend(f"fog-{number}", 1, settings)
    assert len(nodes.offences) == 10_000
    nodes.offend("fog-3", 1, settings)
    assert nodes.offences["fog-3"] == 2


def test_a_round_of_more_answers_than_a_message_holds_fails_with_an_event_and_the_next_one_opens():
    names = [f"{number:0>150}" for number in range(4)]
    federation = start(*names, max_update_bytes=1500)
    for name in names:
        federation.receive(update(federation, name, [1.0, 1.0]))
    assert federation.settle(2000)
    assert place(federation) == (2, 0)
    assert models(federation)[-1].failed.startswith("too many answers for one message: a global model has ")
    assert federation.run.opened.arrays["w"].tolist() == [0.0, 3.0]


def test_a_strategy_that_cannot_merge_more_answers_than_a_message_holds_opens_the_next_round():
    names = [f"{number:0>150}" for number in range(4)]  # Krum with one liar needs five
    federation = start(*names, max_update_bytes=1500, strategy="Krum", strategy_options="num_malicious_nodes=1")
    for name in names:
        federation.receive(update(federation, name, [1.0, 1.0]))
    assert federation.settle(2000)
    assert place(federation) == (2, 0)
    assert "needs at least 5 replies" in models(federation)[-1].failed
    assert models(federation)[-1].node_metrics == {}


def test_the_words_of_a_strategy_fill_no_message(monkeypatch):
    def fail(*_, **__):
        raise StrategyError("x" * 10**6)

    federation = start("a", max_update_bytes=3000)
    monkeypatch.setattr("fedstream.rounds.strategies.aggregate", fail)
    close(federation, a=[1.0, 1.0])
    assert models(federation)[-1].failed == "x" * 1000
    assert federation.outbox[-2][2].detail == "x" * 1000


def test_sampled_nodes_whose_names_fill_a_message_are_not_listed_and_all_are_asked():
    names = [f"{number:0>150}" for number in range(20)]
    federation = start(*names, max_update_bytes=2000, strategy_options="fraction_train=0.5")
    assert federation.run.opened.participants == ()
    assert [each.detail for _, _, each in federation.outbox if getattr(each, "kind", "") == "sampling-failed"] == [
        "the names of the sampled nodes fill a message; all are asked"
    ]


def test_a_name_that_never_answers_is_waited_for_in_one_round_only():
    federation = start("a", round_patience=3)
    hear(federation, joined(20, "phantom")[0])
    federation.receive(update(federation, "a", [1.0, 1.0]))
    assert not federation.settle(1), "it may be a node that has just joined"
    federation.pass_deadline(RUN, 1)
    assert federation.settle(2)
    for number in range(2, 6):
        assert place(federation) == (number, number - 1)
        hear(federation, replace(joined(20 + number, "phantom")[0]))
        close(federation, a=[1.0, 1.0])
    late = update(federation, "phantom", [1.0, 1.0], round=5, base_version=4)
    assert federation.receive(late) == "late"
    federation.receive(update(federation, "a", [1.0, 1.0]))
    assert not federation.settle(3), "it has answered, so it is a node"


def test_a_node_that_has_just_joined_may_be_sampled():
    federation = start("a", "b", strategy_options="fraction_train=0.5")
    hear(federation, joined(20, "c")[0])
    asked = set()
    for _ in range(20):
        participants = federation.run.opened.participants
        asked |= set(participants)
        for node in set(participants) - {"c"}:
            federation.receive(update(federation, node, [1.0, 1.0]))
        federation.pass_deadline(RUN, federation.run.opened.number)
        federation.settle(1)
    assert asked >= {"a", "b", "c"}


# --- rollbacks


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"scaler": {"mean": [75e6, 0.1], "std": [1.0, 1.0]}},
            "mean of temperature is 7.5e.07; expected a number from",
        ),
        ({"version": 2}, "version is 2; expected one that there is, at most 1"),
        ({"arrays": [{"name": "w", "shape": [2], "dtype": "float64", "values": [0.0, 3.1]}]}, "has not published"),
        ({"scaler": {"mean": [75.0, 0.1], "std": [1.0, 1.0]}}, "has not published as this version; expected its mess"),
        ({"version": 1}, "version 1 has arrays or a scaler that the cloud has not published as this version"),
    ],
)
def test_a_rollback_to_what_was_no_version_changes_nothing(changes, reason):
    federation = start("a")
    close(federation, a=[1.0, 1.0])
    with pytest.raises(BadMessage, match=reason):
        federation.obey(rollback(wire_models(federation)[0] | changes), 9)
    assert place(federation) == (2, 1)


def test_a_cloud_that_lost_its_state_goes_back_to_what_was_on_the_topic_when_it_went_on_and_to_nothing_else():
    federation = start("a")
    close(federation, a=[1.0, 1.0])
    resumed = resume(models(federation)[-1], federation.settings, federation)
    forged = wire_models(federation)[0]
    forged["arrays"][0]["values"] = [0.0, 2.9]
    with pytest.raises(BadMessage, match="version 0 has arrays or a scaler that the cloud has not published"):
        resumed.obey(rollback(forged, current=1), 9)
    assert place(resumed) == (2, 1)
    resumed.obey(rollback(wire_models(federation)[0], current=1), 9)
    assert place(resumed) == (3, 2)
    assert resumed.run.opened.arrays["w"].tolist() == [0.0, 3.0]


def test_a_version_that_is_no_longer_kept_cannot_be_rolled_back_to():
    federation = start("a", versions_kept=2)
    for number in range(4):
        close(federation, a=[float(number), 1.0])
    assert sorted(federation.run.kept.fingerprints) == [3, 4], "the newest, the best among them"
    with pytest.raises(BadMessage, match="version 1 has arrays or a scaler that the cloud has not published"):
        federation.obey(rollback(wire_models(federation)[1]), 9)


def test_a_rollback_in_the_name_of_another_run_is_refused():
    federation = start("a")
    command = replace(rollback(wire_models(federation)[0]), run_id="anything")
    with pytest.raises(BadMessage, match="run_id is 'anything', that of the model 'run-1'; expected one name"):
        federation.obey(command, 9)


# --- the doors


def test_arrays_that_give_no_probabilities_are_refused():
    model, settings = make_model("mlp", {}), Settings()
    arrays = {name: np.full(array.shape, 1e300) for name, array in model.initial_arrays(1).items()}
    arrays["coefs_1"][::2] *= -1  # infinity less infinity
    found = global_model(RUN, 1, 0, arrays)
    with pytest.raises(BadMessage, match="arrays give no probabilities"):
        fit_model(found, model, settings)
    with pytest.raises(BadMessage, match="numbers overflow for some reading"):
        scorable(found, settings.table)


def test_arrays_that_give_none_only_where_one_value_is_low_and_another_high_are_refused():
    model, settings = make_model("mlp", {}), Settings(features="x:-1:1:1,y:-1:1:1")
    arrays = {name: np.zeros(array.shape) for name, array in model.initial_arrays(1).items()}
    arrays["coefs_0"][0], arrays["coefs_0"][1] = 1e308, -1e308  # x - y is 0 at both ends of both, and 2 between them
    arrays["coefs_1"][::2], arrays["coefs_1"][1::2] = 1, -1
    with pytest.raises(BadMessage, match="arrays give no probabilities"):
        fit_model(global_model(RUN, 1, 0, arrays), model, settings)


def test_the_largest_margin_of_alerts_is_that_of_the_features_limits():
    table = parse_features("x:0:10,y:-1:1")

    def logistic(weight: float):
        arrays = {"coef": np.array([[weight, 0.0]]), "intercept": np.zeros(1)}
        return global_model(RUN, 1, 0, arrays, model="logistic", scaler=Scaler((0.0, 0.0), (1.0, 1.0)))

    assert scorable(logistic(1.7e307), table).version == 0  # 10 x 1.7e307 is still a number
    with pytest.raises(BadMessage, match="overflow"):
        scorable(logistic(1.8e307), table)


def test_no_run_goes_on_from_a_round_that_leaves_no_number_for_the_next():
    arrays = {"w": np.zeros(2)}

    class Pair(TwoNumbers):
        def predict(self, arrays, x):
            return np.full((len(x), 2), 0.5)

    settings = Settings(seed=3)
    last = global_model(RUN, 10**12, 5, arrays)
    assert resumable(last, settings, Pair()).round == 10**12
    with pytest.raises(BadMessage, match="round is 1000000000001, version 5; expected at most 1000000000000"):
        resumable(replace(last, round=10**12 + 1), settings, Pair())


def test_no_run_goes_on_without_the_noise_that_the_options_ask_for():
    class Pair(TwoNumbers):
        def predict(self, arrays, x):
            return np.full((len(x), 2), 0.5)

    private, options = "DifferentialPrivacyServerSideFixedClipping", "noise_multiplier=1.0,clipping_norm=1.0"
    settings = Settings(strategy=private, strategy_options=f"{options},num_sampled_clients=2")
    state = {"class": private, "noise_multiplier": 0.0, "clipping_norm": 1e9}
    named = {"strategy": private, "strategy_options": settings.strategy_options}
    last = replace(global_model(RUN, 3, 2, {"w": np.zeros(2)}), **named)
    assert resumable(last, settings, Pair()).round == 3
    with pytest.raises(BadMessage, match="strategy_state sets noise_multiplier, clipping_norm; expected no option"):
        resumable(replace(last, strategy_state=state), settings, Pair())
    inner = {"class": private, "strategy": {"strategy": {"class": "FedAvg", "fraction_train": 0.1}}}
    with pytest.raises(BadMessage, match=r"strategy_state sets strategy\.fraction_train; expected no option"):
        resumable(replace(last, strategy_state=inner), settings, Pair())


@pytest.mark.parametrize(
    "state",
    [
        {"m_t": {"x": 1}},
        {"m_t": {"array": [1]}},
        {"m_t": {}},
        {"m_t": {"array": ["<f8", [2], "!"]}},
        {"a": {"strategy": {}}},
    ],
)
def test_a_state_that_is_none_is_refused_and_leaves_the_strategy_as_it_is(state):
    strategy = make_strategy("FedAdam", {})
    before = dict(vars(strategy))
    with pytest.raises(StrategyError, match="the saved state of FedAdam cannot be read"):
        restore_strategy(strategy, {"class": "FedAdam"} | state)
    assert vars(strategy) == before


@pytest.mark.parametrize("opened_at", [2**63 - 1, 10**15])
def test_a_model_of_the_future_delays_no_deadline(monkeypatch, opened_at):
    timer, waits = DeadlineTimer(Settings(round_deadline_seconds=7.0), print), []
    monkeypatch.setattr(timer, "_start", lambda seconds, command: waits.append(seconds))
    timer.arm(global_model(RUN, 1, 0, {}, opened_at=opened_at))
    assert waits == [7.0]


# --- what people see


def test_a_reason_is_one_line_that_can_be_printed():
    assert printable("é fog-1") == "é fog-1"
    assert str(BadMessage("a\x1b[2J\x9b\nb\ud800")) == r"a\x1b[2J\x9b\nb\ud800"
    assert len(str(BadMessage("x" * 5000))) == 1000
    assert StackError("there is no run \x1b]0;x\x07").message == r"there is no run \x1b]0;x\x07"


@pytest.mark.parametrize("text", ["\x1b[2J", "a\n", "\x9b1m", "\u202eabc", "\u2028", "\ufeff"])
def test_an_event_or_an_array_with_what_a_terminal_obeys_is_no_message(text):
    event = {"kind": "drift", "run_id": "r", "round": 1, "node_id": None, "detail": text}
    with pytest.raises(BadMessage, match=r"detail is .*; expected printable characters"):
        decode(Event, json.dumps(event).encode())
    array = {"name": text, "shape": [0], "dtype": "float64", "values": []}
    with pytest.raises(BadMessage, match=r"name is .*; expected printable characters"):
        decode(NamedArray, json.dumps(array).encode())


def test_a_name_with_the_brackets_of_markup_is_shown_as_it_is(monkeypatch):
    topics = Topics().install(monkeypatch)
    Stack(topics, run_id="[/x] :smile:").run(2)
    for words in (["list"], ["show", "1"]):
        result = CliRunner().invoke(main.commands["models"], words, catch_exceptions=False)
        assert "[/x] :smile:" in result.output


# --- the commands


def version(number: int, **about) -> object:
    return global_model(RUN, number + 1, number, {"w": np.zeros(2)}, **about)


def test_many_missing_versions_are_one_row_of_verify():
    run = Run(RUN, versions={number: version(number) for number in (1, 3, 10**15)})
    assert list(versions_and_gaps(run)) == [(0, 0), (1, 0), (2, 0), (3, 0), (4, 10**15 - 5), (10**15, 0)]


def test_a_run_of_failed_rounds_alone_is_no_run():
    assert read_runs([], [version(0, failed="odd")]) == []


def test_scores_of_another_number_of_classes_are_left_out():
    about = [{"base_version": 0, "metrics": Score(1.0, confusion)} for confusion in (((1, 0), (0, 1)), ((1,),))]
    run = Run(RUN, rounds={number: version(number, **each) for number, each in enumerate(about, 1)})
    assert scores(run)[0]["global"].confusion == ((1, 0), (0, 1))


def test_a_message_names_no_code_that_a_command_runs(monkeypatch):
    for name in ("this:s", "unittest.__main__:x"):
        with pytest.raises(SettingError, match=f"MODEL '{name}' of version 0 is not this stack's 'mlp'; set MODEL"):
            model_of(version(0, model=name), Settings())
    topics = Topics().install(monkeypatch)
    Stack(topics).run(2)
    for topic in (MODEL_VERSIONS, GLOBAL_MODEL):
        for record in topics.records[topic]:
            record.value = record.value.replace(b'"strategy":"FedAvg"', b'"strategy":"unittest.__main__:x"')
    result = CliRunner().invoke(main.commands["verify"], ["--json"], catch_exceptions=False)
    reasons = [row["reason"] for row in json.loads(result.stdout)]
    told = "STRATEGY 'unittest.__main__:x' is not this stack's 'FedAvg'; set STRATEGY to the same, if you trust it"
    assert reasons == ["the start of the run", told, told]


@pytest.mark.parametrize(
    ("arrays", "scaler"),
    [
        ({}, None),
        ({"coef": np.zeros(2)}, None),
        ({"coef": np.zeros((1, 2)), "intercept": np.zeros(3)}, None),
        ({"coef": np.zeros((1, 2)), "intercept": np.zeros(1)}, Scaler((1.0,), (1.0,))),
    ],
)
def test_a_version_that_is_not_of_its_model_is_told(arrays, scaler):
    message = global_model(RUN, 1, 0, arrays, model="logistic", scaler=scaler)
    with pytest.raises(StackError, match="version 0 of run run-1 is no logistic model"):
        model_of(message, Settings())


def test_an_update_that_does_not_fit_its_round_is_a_difference_of_verify(monkeypatch):
    topics = Topics().install(monkeypatch)
    Stack(topics).run(2)
    for record in topics.records["model-weights"][:2]:
        record.value = record.value.replace(b'"name":"intercept"', b'"name":"other"')
    result = CliRunner().invoke(main.commands["verify"], ["--json"])
    rows = json.loads(result.stdout)
    assert (result.exit_code, rows[1]["result"]) == (1, "different")
    assert "the update of fog-1 from version 0 does not fit round 1" in rows[1]["reason"]


def test_a_count_of_another_name_is_no_column_of_the_history(monkeypatch, tmp_path):
    topics = Topics().install(monkeypatch)
    Stack(topics).run(2)
    for record in topics.records[GLOBAL_MODEL]:
        record.value = record.value.replace(b'"accepted":2', b'"accepted":2,"node":7')
    words = ["--output", str(tmp_path / "rounds.parquet")]
    assert CliRunner().invoke(main.commands["history"], words, catch_exceptions=False).exit_code == 0


def test_a_weight_with_sums_of_other_features_is_not_measured():
    record = SimpleNamespace(value=encode(NodeWeight("fog-1", 40.0, 5, 0, (1.0, 2.0, 3.0), (1.0, 2.0, 3.0))))
    assert weight_of(record, 1, 2) is None
    assert weight_of(record, 1, 3).samples == 5


def test_a_name_with_dollars_or_of_any_length_is_drawn_as_it_is():
    curve = {1: {"f1": 0.5, "loss": 1.0}}
    figure = draw({"global": curve, "$x^$": curve, "y" * 5000: curve}, "run $x^$")
    figure.savefig(BytesIO())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["global", r"\$x^\$", "y" * 100]


def test_a_centralised_training_that_fails_says_how_to_draw_without_it(monkeypatch, tmp_path):
    Stack(Topics().install(monkeypatch)).run(2)

    def fail(*_):
        raise FloatingPointError("weights are \x1b[1m infinite")

    monkeypatch.setattr(training, "train", fail)
    result = CliRunner().invoke(main.commands["plot"], ["--output", str(tmp_path / "f.png")])
    why = r"(FloatingPointError: weights are \x1b[1m infinite); --max-readings 0 draws the other curves"
    assert (result.exit_code, result.stderr) == (1, f"Error: the centralised training fails in round 1 {why}\n")
