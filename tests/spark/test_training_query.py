"""Training on the executors: the same as without Spark, once for each reading, and sent again after a crash."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from msgspec import convert
from msgspec.structs import replace
from pyspark.sql import DataFrame, Row
from pyspark.sql.streaming.query import StreamingQuery

from fedstream.errors import StackError
from fedstream.learning import arrays as wire
from fedstream.learning.models import TrainConfig, make_model
from fedstream.learning.scores import Score
from fedstream.learning.training import Scaler, Trained, train, train_seed
from fedstream.messages.rounds import GlobalModel, ModelUpdate, global_model
from fedstream.messages.weights import NodeWeight
from fedstream.settings import Settings
from fedstream.spark import training as training_module
from fedstream.spark.readings import NodeReadings
from fedstream.spark.state import BatchState
from fedstream.spark.training import Task, Trainer, build_training_query, is_next, merge_groups, train_groups
from tests.spark.conftest import RECORD_DDL, Recorder

# Nothing as it is by default, so that a setting that does not arrive is seen.
SETTINGS = Settings(
    model="mlp",
    model_options="hidden_units=3",
    local_epochs=2,
    train_batch_size=8,
    learning_rate=0.02,
    class_weight="balanced",
    decision_threshold=0.4,
    seed=7,
)
CONFIG = TrainConfig(epochs=2, batch_size=8, learning_rate=0.02, class_weight="balanced")
MLP = make_model("mlp", {"hidden_units": 3})
SCALER = Scaler((75.0, 0.06), (9.0, 0.03))
ROUND = global_model("run-1", 3, 2, MLP.initial_arrays(5), scaler=SCALER)


def readings_of(node: int, partition: int, number: int) -> list[tuple[float, float, int]]:
    """Return that many readings (temperature, vibration, label), other ones for each node and partition."""
    random = np.random.default_rng([node, partition])
    pairs = zip(random.normal(75, 9, number).tolist(), random.uniform(0, 0.12, number).tolist(), strict=True)
    return [(temperature, vibration, int(temperature > 85 or vibration > 0.08)) for temperature, vibration in pairs]


def record(values: tuple[float, float, int]) -> bytes:
    """Return a reading as it stands on a topic; JSON keeps every bit of a float."""
    temperature, vibration, label = values
    text = {"sensor_id": "s", "temperature": temperature, "vibration": vibration, "label": label}
    return json.dumps(text).encode()


def trained_by_hand(
    readings: list[tuple[float, float, int]], node: int, partition: int, model: GlobalModel = ROUND, config=CONFIG
) -> Trained:
    """Train on readings without Spark."""
    x = np.array([reading[:2] for reading in readings])
    y = np.array([reading[2] for reading in readings], dtype=np.int64)
    seed = train_seed(SETTINGS, model.round, node, partition)
    return train(MLP, model.arrays, model.scaler, x, y, config, seed, threshold=0.4)


def same_bits(arrays: wire.Arrays, others: wire.Arrays) -> bool:
    """Tell whether two models are the same, bit by bit."""
    return wire.layout(arrays) == wire.layout(others) and all(
        array.tobytes() == others[name].tobytes() for name, array in arrays.items()
    )


# --- on the executors

READINGS = {place: readings_of(*place, number) for place, number in {(1, 0): 30, (2, 0): 40, (2, 1): 13}.items()}


NODE_READINGS = NodeReadings(SETTINGS, None, lambda letters: None)


@pytest.fixture(scope="module")
def records(spark) -> DataFrame:
    """Return READINGS as records in no order, with a bad one and one without a label after each good one."""
    rows = []
    for (node, partition), good in READINGS.items():
        for place, values in enumerate(good):
            bad = record((2000.0, 1.0, 1)), record((70.0, 1.0, 1)).replace(b'"label"', b'"mark"')
            for turn, value in enumerate((record(values), *bad)):
                rows.append((bytearray(value), f"sensor-data-node-{node}", partition, 3 * place + turn))
    rows += [(bytearray(b"hello"), "sensor-data-node-3", 0, 0)]
    shuffled = np.random.default_rng(0).permutation(len(rows))
    return spark.createDataFrame([rows[place] for place in shuffled], RECORD_DDL).repartition(3).cache()


@pytest.fixture(scope="module")
def groups(records) -> list[Row]:
    """Return what the executors have made of the records."""
    return train_groups(records, NODE_READINGS, Task(ROUND, SETTINGS)).collect()


def test_a_group_is_trained_as_without_spark_in_the_order_of_the_offsets_on_good_readings_only(groups):
    found = {(row.node, row.partition): row for row in groups}
    assert found.keys() == READINGS.keys(), "node 3 has only a bad record"
    for place, row in found.items():
        expected = trained_by_hand(READINGS[place], *place)
        assert row.num_examples == len(READINGS[place]) == expected.num_examples
        result = json.loads(row.result)
        assert same_bits(wire.from_wire(convert(result["arrays"], wire.NamedArrays)), expected.arrays)
        assert convert(result["score"], Score) == expected.score


def test_the_training_by_hand_depends_on_order_scaler_config_and_seed():
    # Else the test above would say little.
    good = READINGS[1, 0]
    others = [
        trained_by_hand(good[::-1], 1, 0),
        trained_by_hand(good, 1, 0, replace(ROUND, scaler=None)),
        trained_by_hand(good, 1, 0, config=TrainConfig(epochs=2, batch_size=8, learning_rate=0.02)),
        trained_by_hand(good, 2, 0),
        trained_by_hand(good, 1, 1),
    ]
    expected = trained_by_hand(good, 1, 0)
    assert not any(same_bits(other.arrays, expected.arrays) for other in others)


def test_the_driver_gets_one_row_a_group_and_no_reading_with_it(groups):
    assert len(groups) == 3
    for row in groups:
        assert row.__fields__ == ["node", "partition", "num_examples", "result"]
        numbers = {repr(number) for reading in READINGS[row.node, row.partition] for number in reading[:2]}
        assert not [number for number in numbers if number in row.result]
        # 4 arrays of 6 + 3 + 3 + 1 numbers, whatever the number of readings.
        assert sum(len(array["values"]) for array in json.loads(row.result)["arrays"]) == 13


def test_two_partitions_of_a_node_are_averaged_by_their_readings_and_their_scores_added(groups):
    merged = merge_groups(groups)
    assert sorted(merged) == ["fog-1", "fog-2"]
    first, second = (trained_by_hand(READINGS[2, partition], 2, partition) for partition in (0, 1))
    assert merged["fog-2"].num_examples == 53
    for name, array in merged["fog-2"].arrays.items():
        mean = (40 * first.arrays[name] + 13 * second.arrays[name]) / 53
        np.testing.assert_allclose(array, mean, rtol=1e-12, atol=1e-14)
    score = merged["fog-2"].score
    assert score.loss_sum == pytest.approx(first.score.loss_sum + second.score.loss_sum, rel=1e-12)
    matrices = np.array(first.score.confusion) + np.array(second.score.confusion)
    assert score.confusion == tuple(map(tuple, matrices.tolist()))
    assert same_bits(merged["fog-1"].arrays, trained_by_hand(READINGS[1, 0], 1, 0).arrays)


def test_the_order_in_which_groups_come_back_changes_no_bit(groups):
    expected = merge_groups(groups)
    for order in itertools.permutations(groups):
        for node, trained in merge_groups(order).items():
            assert same_bits(trained.arrays, expected[node].arrays)


def test_participants_and_the_config_of_the_round_reach_the_training(records, groups):
    config = {"proximal-mu": 0.5, "learning-rate-factor": 3.0, "server-round": 3}
    model = replace(ROUND, config=config, participants=("fog-1", "fog-9"))
    (row,) = train_groups(records, NODE_READINGS, Task(model, SETTINGS)).collect()
    assert (row.node, row.partition, row.num_examples) == (1, 0, 30)
    found = wire.from_wire(convert(json.loads(row.result)["arrays"], wire.NamedArrays))
    by_hand = {"epochs": 2, "batch_size": 8, "class_weight": "balanced"}
    expected = TrainConfig(learning_rate=0.02 * 3.0, proximal_mu=0.5, **by_hand)
    assert same_bits(found, trained_by_hand(READINGS[1, 0], 1, 0, config=expected).arrays)
    others = [{"learning_rate": 0.06}, {"learning_rate": 0.02, "proximal_mu": 0.5}, {"learning_rate": 0.02}]
    for other in (TrainConfig(**by_hand, **changes) for changes in others):
        assert not same_bits(found, trained_by_hand(READINGS[1, 0], 1, 0, config=other).arrays)


# --- which round is the next


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"round": 3}, False),  # trained for already
        ({"round": 2}, True),  # the cloud's: round 3 was a forged one, or the cloud's state was restored
        ({"round": 4}, True),
        ({"round": 9}, True),
        ({"round": 1, "run_id": "another"}, True),
        ({"round": 3, "mode": "async"}, True),
        ({"round": 4, "participants": ("fog-1",)}, True),
        ({"round": 4, "participants": ("fog-7", "fog-2")}, True),
        ({"round": 4, "participants": ("fog-7",)}, False),
        ({"round": 3, "participants": ("fog-1",)}, False),
        ({"round": 1, "run_id": "another", "participants": ("fog-7",)}, False),
        ({"round": 3, "mode": "async", "participants": ("fog-7",)}, False),
    ],
    ids=str,
)
def test_the_next_round_is_another_one_that_wants_a_node_of_this_driver(changes, expected):
    last = {"run_id": "run-1", "round": 3, "updates": {}}
    assert is_next(replace(ROUND, **changes), last, ["fog-1", "fog-2"]) is expected


def test_before_the_first_update_any_round_will_do():
    assert is_next(replace(ROUND, round=1), {"run_id": None, "round": 0}, [])


# --- the query


def opened(number: int, **changes) -> GlobalModel:
    """Return the model of a round, another one for each round."""
    arrays = wire.to_wire(MLP.initial_arrays(100 + number))
    return replace(ROUND, **{"round": number, "version": number - 1, "named_arrays": arrays} | changes)


class Driver:
    """A driver's training query on topics of files, and all that it asks for."""

    def __init__(self, records: DataFrame, folder: Path, recorder: Recorder, run_driver: Callable) -> None:
        """Prepare a driver that has not run yet."""
        self.records = records
        self.folder = folder
        self.recorder = recorder
        self.run_driver = run_driver
        self.settings = SETTINGS
        self.models = [opened(number) for number in range(1, 10)]
        self.hosted = ["fog-1", "fog-2", "fog-3"]
        self.waited_for: list[GlobalModel] = []
        self.is_training = False

    @property
    def updates(self) -> list[ModelUpdate]:
        """The published updates, as the cloud reads them from the wire."""
        found = [convert(message, ModelUpdate) for *_, message in self.recorder.published]
        assert [("model-weights", update.node_id) for update in found] == [
            (topic, key) for topic, key, _ in self.recorder.published
        ]
        return found

    def wait(self, last: dict, hosted: Callable[[], Collection[str]]) -> GlobalModel:
        """Return the first model that will do; those before it are past."""
        while not is_next(self.models[0], last, hosted()):
            del self.models[0]
        self.waited_for.append(self.models[0])
        self.is_training = True
        return self.waited_for[-1]

    def weights(self) -> dict[str, NodeWeight]:
        """Return the running weights; the driver may die here, after the training and before it is kept."""
        if self.is_training:
            self.is_training = False
            self.recorder.step("before the updates are kept")
        return {node: NodeWeight(node, 37.5, 99, 0, (1.0, 2.0), (3.0, 4.0)) for node in self.hosted}

    def run(self) -> StreamingQuery:
        """Start a driver and let it process all there is."""
        state = BatchState(self.folder, Trainer.initial())
        trainer = Trainer(self.settings, state, self, self.weights, self.recorder.publish)
        return self.run_driver(build_training_query(self.records, NODE_READINGS, trainer), self.folder)


@pytest.fixture
def trainer(spark, topic, tmp_path, recorder, run_driver, monkeypatch) -> Driver:
    """Return a driver that has not run yet; its nodes are fog-1, fog-2 and fog-3."""
    seconds = itertools.count(1)
    monkeypatch.setattr(training_module, "now_ms", lambda: 1000 * next(seconds))
    return Driver(topic.read(spark), tmp_path / "training", recorder, run_driver)


def test_an_update_waits_for_the_sums_of_its_node_and_an_error_names_the_missing_ones(trainer):
    first, second = NodeWeight("fog-1", 37.5, 1), NodeWeight("fog-2", 40.5, 1)
    seen = itertools.chain([{}, {"fog-1": first}], itertools.repeat({"fog-1": first, "fog-2": second}))
    state = BatchState(trainer.folder, Trainer.initial())
    training = Trainer(Settings(wait_timeout_seconds=0.1), state, trainer, lambda: next(seen), trainer.recorder.publish)
    assert training.weights_with({"fog-1"}) == {"fog-1": first, "fog-2": second}, "of all nodes, once fog-1 is there"
    with pytest.raises(StackError, match=r"the sums of fog-3, fog-4 are not there after 0\.1 s"):
        training.weights_with({"fog-4", "fog-1", "fog-3"})


def arrive(topic, *places: tuple[int, int, int]) -> dict[tuple[int, int], list[tuple[float, float, int]]]:
    """Let readings of (node, partition, number) arrive as one micro-batch, in turn; return them by partition."""
    given = {(node, partition): readings_of(node, partition, number) for node, partition, number in places}
    turns = itertools.zip_longest(
        *([(f"sensor-data-node-{place[0]}", place[1], record(values)) for values in given[place]] for place in given)
    )
    topic.append_records([each for turn in turns for each in turn if each])
    return given


def test_a_micro_batch_trains_each_node_for_the_round_in_one_job_and_a_node_without_readings_says_so(
    trainer, topic, count_jobs, capsys
):
    given = arrive(topic, (1, 0, 20), (2, 0, 12), (2, 1, 8))
    assert count_jobs(trainer.run()) == 1
    updates = {update.node_id: update for update in trainer.updates}
    assert len(trainer.updates) == len(updates) == 3
    for node, update in updates.items():
        assert (update.run_id, update.round, update.base_version) == ("run-1", 1, 0), node
    first = opened(1)
    alone = trained_by_hand(given[1, 0], 1, 0, first)
    assert same_bits(updates["fog-1"].arrays, alone.arrays)
    assert (updates["fog-1"].num_examples, updates["fog-1"].metrics) == (20, alone.score)
    halves = [trained_by_hand(given[2, partition], 2, partition, first) for partition in (0, 1)]
    for name, array in updates["fog-2"].arrays.items():
        mean = 0.6 * halves[0].arrays[name] + 0.4 * halves[1].arrays[name]  # 12 and 8 of 20
        np.testing.assert_allclose(array, mean, rtol=1e-12, atol=1e-14)
    assert (updates["fog-2"].num_examples, updates["fog-2"].metrics.num_examples) == (20, 20)
    assert (updates["fog-3"].num_examples, updates["fog-3"].arrays, updates["fog-3"].metrics) == (0, {}, Score())
    for *_, message in trainer.recorder.published:
        assert message.items() >= {"weight": 37.5, "samples": 99, "sums": [1.0, 2.0], "squares": [3, 4]}.items()
    lines = [line for line in capsys.readouterr().out.splitlines() if "ronde" in line]
    assert [line[:45] for line in lines] == [f"Fog-{n} -> ronde 1 : appris de 20 mesures ; avant"[:45] for n in (1, 2)]
    assert f"perte {alone.score.loss:.4f}, F1 {alone.score.f1:.4f}" in lines[0]


def test_each_micro_batch_answers_the_next_round_with_its_model_and_a_new_run_from_its_beginning(trainer, topic):
    trainer.models = [opened(4), opened(4), opened(6), opened(1, run_id="run-2"), opened(2, run_id="run-2")]
    trainer.hosted = ["fog-1"]
    sizes = (10, 11, 12, 13)
    given = [arrive(topic, (1, 0, size))[1, 0] for size in sizes]
    assert trainer.run().name == "training"
    answered = [(update.run_id, update.round, update.base_version, update.num_examples) for update in trainer.updates]
    assert answered == [("run-1", 4, 3, 10), ("run-1", 6, 5, 11), ("run-2", 1, 0, 12), ("run-2", 2, 1, 13)]
    for update, readings, model in zip(trainer.updates, given, trainer.waited_for, strict=True):
        assert same_bits(update.arrays, trained_by_hand(readings, 1, 0, model).arrays)


def test_in_mode_async_the_same_version_may_be_trained_from_again(trainer, topic):
    trainer.models = [opened(4, mode="async")]
    trainer.hosted = ["fog-1"]
    for size in (10, 11):
        arrive(topic, (1, 0, size))
    trainer.run()
    assert [(update.round, update.num_examples) for update in trainer.updates] == [(4, 10), (4, 11)]
    first, second = trainer.updates
    assert first.trained_at < second.trained_at, "else the second would be a duplicate"


def test_a_round_that_samples_none_of_the_drivers_nodes_is_passed_over(trainer, topic):
    trainer.models = [opened(1, participants=("fog-9",)), opened(2, participants=("fog-2", "fog-9"))]
    arrive(topic, (1, 0, 5), (2, 0, 6))
    trainer.run()
    assert {u.node_id: u.num_examples for u in trainer.updates if u.num_examples} == {"fog-2": 6}
    assert {update.round for update in trainer.updates} == {2}


def test_a_batch_of_bad_records_only_answers_nothing_and_leaves_the_round_to_the_next_batch(trainer, topic):
    trainer.hosted = ["fog-1"]
    topic.append_records([("sensor-data-node-1", 0, b"hello")])
    arrive(topic, (1, 0, 5))
    trainer.run()
    assert [(update.round, update.num_examples) for update in trainer.updates] == [(1, 5)]


def test_an_update_that_is_too_large_is_told_and_answered_without_arrays(trainer, topic, capsys):
    trainer.settings = Settings(**{**vars(SETTINGS), "max_update_bytes": 700})
    arrive(topic, (1, 0, 5))
    trainer.run()
    sent = [(update.node_id, update.round, update.num_examples, update.arrays) for update in trainer.updates]
    assert sent == [(node, 1, 0, {}) for node in ("fog-1", "fog-2", "fog-3")]
    out = capsys.readouterr().out
    wanted = r"Fog-1 -> rien d'appris : the update of fog-1 has \d+ bytes; expected at most MAX_UPDATE_BYTES=700: "
    assert re.search(wanted, out)
    assert "ronde" not in out
    trainer.settings = SETTINGS
    arrive(topic, (1, 0, 6))
    trainer.run()
    assert [(update.round, update.num_examples) for update in trainer.updates[3:]] == [(2, 6), (2, 0), (2, 0)]


def test_a_round_of_a_forged_number_does_not_stop_the_training_after_it(trainer, topic):
    trainer.models = [opened(10**9), opened(1), opened(2)]
    trainer.hosted = ["fog-1"]
    for size in (4, 5, 6):
        arrive(topic, (1, 0, size))
    trainer.run()
    assert [(update.round, update.num_examples) for update in trainer.updates] == [(10**9, 4), (1, 5), (2, 6)]


WIDE = {name: np.full_like(array, 1e308) for name, array in MLP.initial_arrays(1).items()}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"named_arrays": ()}, "KeyError: 'coefs_0'"),
        ({"named_arrays": wire.to_wire(make_model("mlp", {"hidden_units": "3,2"}).initial_arrays(1))}, ""),
        ({"named_arrays": wire.to_wire(WIDE)}, ""),
        ({"config": {"learning-rate-factor": "x"}}, "could not convert string to float: 'x'"),
        ({"config": {"learning-rate-factor": [1]}}, "TypeError: float() argument must be"),
        ({"config": {"proximal-mu": 10**400}}, "OverflowError: int too large to convert to float"),
        ({"scaler": Scaler((1.0,) * 3, (1.0,) * 3)}, "could not be broadcast together"),
    ],
    ids=["no arrays", "other options", "huge weights", "a text", "a list", "a number beyond all", "a large scaler"],
)
def test_a_model_that_cannot_be_trained_ends_no_driver(trainer, topic, capsys, changes, reason):
    trainer.models = [opened(1, **changes), opened(2)]
    trainer.hosted = ["fog-1"]
    arrive(topic, (1, 0, 10))
    arrive(topic, (1, 0, 7))
    trainer.run()
    assert [(update.round, update.num_examples) for update in trainer.updates] == [(1, 0), (2, 7)]
    out = capsys.readouterr().out
    assert "Fog-1 -> rien d'appris : " in out
    assert reason in out


# --- crashes


@pytest.mark.parametrize(
    ("where", "number"),
    [
        ("before publish", 1),
        ("before publish", 2),  # in the middle of the nodes
        ("after publish", 2),
        ("after publish", 3),  # all are sent, and the micro-batch is not committed
        ("before publish", 4),  # of the second batch
        ("after publish", 6),
    ],
)
def test_a_driver_that_dies_sends_the_same_updates_again_and_trains_nothing_twice(trainer, topic, where, number):
    arrive(topic, (1, 0, 10), (2, 0, 20))
    arrive(topic, (1, 0, 7), (3, 0, 5))
    with trainer.recorder.dies(where, number):
        trainer.run()
    before = list(trainer.recorder.published)
    assert len(before) == number - (where == "before publish")
    trainer.run()
    after = trainer.recorder.published[len(before) :]
    repeated = before[-((len(before) - 1) % 3 + 1) :] if before and (where, number) != ("before publish", 4) else []
    assert after[: len(repeated)] == repeated, "bit by bit, and trained at the same time"
    assert len(trainer.waited_for) == 2, "each batch has waited for one round"
    distinct = {json.dumps(sent): convert(sent[-1], ModelUpdate) for sent in trainer.recorder.published}
    assert len(distinct) == 6
    assert len({(update.node_id, update.round, update.trained_at) for update in distinct.values()}) == 6
    examples = {(update.node_id, update.round): update.num_examples for update in distinct.values()}
    assert examples == {
        **{("fog-1", 1): 10, ("fog-2", 1): 20, ("fog-3", 1): 0},
        **{("fog-1", 2): 7, ("fog-2", 2): 0, ("fog-3", 2): 5},
    }


def test_a_driver_that_dies_before_its_updates_are_kept_trains_the_batch_again_for_the_round_then_open(trainer, topic):
    trainer.hosted = ["fog-1"]
    readings = arrive(topic, (1, 0, 10))[1, 0]
    with trainer.recorder.dies("before the updates are kept"):
        trainer.run()
    assert trainer.recorder.published == []
    trainer.models = [opened(8)]  # the cloud has gone on
    trainer.run()
    (update,) = trainer.updates
    assert (update.round, update.base_version, update.num_examples) == (8, 7, 10)
    assert same_bits(update.arrays, trained_by_hand(readings, 1, 0, opened(8)).arrays)


def test_a_restart_without_new_readings_waits_for_nothing_and_sends_nothing(trainer, topic):
    arrive(topic, (1, 0, 10))
    trainer.run()
    assert len(trainer.recorder.published) == 3
    trainer.run()
    trainer.run()
    assert len(trainer.recorder.published) == 3
    assert len(trainer.waited_for) == 1


FAILURES = {
    "scikit-learn says so": "Solver produced non-finite parameter weights. (LEARNING_RATE ?)",
    "infinite weights": "array coefs_0 has a NaN or infinite value; expected finite numbers (LEARNING_RATE ?)",
    "no score": "loss_sum of a score is nan; expected a finite number of at least 0",
    "other arrays": "the trained arrays are {'w': (1,)}; expected {'coefs_0': (2, 3), ",
    "a bug of one's own": "IndexError: list index out of range",
}


@pytest.mark.parametrize(("failure", "reason"), FAILURES.items(), ids=FAILURES)
def test_a_training_that_fails_is_told_and_answered_without_arrays(capsys, monkeypatch, failure, reason):
    def train_too_fast(model, arrays, scaler, x, y, *_):
        good = Score(1.0, ((len(y), 0), (0, 0)))
        if failure == "scikit-learn says so":
            raise ValueError("Solver produced non-finite parameter weights.")
        if failure == "a bug of one's own":
            return [][0]
        if failure == "no score":
            return Trained(arrays, len(y), Score(math.nan, good.confusion))
        if failure == "other arrays":
            return Trained({"w": np.zeros(1)}, len(y), good)
        return Trained({name: np.full_like(array, np.inf) for name, array in arrays.items()}, len(y), good)

    monkeypatch.setattr("fedstream.spark.training.train", train_too_fast)
    table = pa.table({"values": [[75.0, 0.05]] * 9, "label": [0] * 9, "offset": list(range(9))})
    group = Task(ROUND, SETTINGS).train_group((pa.scalar(1), pa.scalar(0)), table)
    (row,) = [Row(**each) for each in group.to_pylist()]
    assert row.num_examples == 0
    assert merge_groups([row]) == {}
    assert f"Fog-1 -> rien d'appris : {reason}" in capsys.readouterr().out
