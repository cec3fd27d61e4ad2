"""The files of `examples/` do what docs/tutorials/your-own-model.md says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import accuracy_score
from sklearn.naive_bayes import GaussianNB

from fedstream.commands.cli import main
from fedstream.learning.models import TrainConfig, make_model
from fedstream.rounds.strategies import Reply, aggregate, make_strategy, open_round, restore_strategy, strategy_state
from fedstream.settings import Settings
from fedstream.simulation.data import load, split
from fedstream.simulation.scenario import Scenario
from fedstream.simulation.simulate import simulate

ROOT = Path(__file__).parents[2]


def simulated(*arguments: str) -> dict:
    """Return the result of `fedstream simulate`."""
    result = CliRunner().invoke(main, ["simulate", *arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# --- a model of one's own


@pytest.mark.parametrize("partition", ["iid", "dirichlet:0.3"])
def test_naive_bayes_of_many_nodes_is_that_of_one_machine(partition):
    options = ["--model", "examples.own_model:NaiveBayes", "--partition", partition, "--nodes", "4", "--rounds", "1"]
    train, test = split(load("sensors", None, None, 1))
    oracle = GaussianNB().fit(train.x, train.y).predict(test.x)

    accuracy = simulated(*options)["final"]["test"]["accuracy"]

    assert accuracy == accuracy_score(test.y, oracle)
    assert accuracy > 0.85


def test_naive_bayes_keeps_the_part_of_the_old_arrays_that_memory_says():
    model = make_model("examples.own_model:NaiveBayes", {"memory": 0.75}, features=1)
    config, x = TrainConfig(), np.array([[2.0], [4.0], [6.0], [10.0]])
    first = model.fit(model.initial_arrays(1), x, np.array([0, 0, 0, 1]), config, seed=1)
    # Means over all four readings: class 0 is 3 of 4, its sum 2 + 4 + 6 = 12, its squares 4 + 16 + 36 = 56.
    assert {name: array.tolist() for name, array in first.items()} == {
        "share": [0.75, 0.25],
        "sum": [[3.0], [2.5]],
        "square": [[14.0], [25.0]],
    }
    second = model.fit(first, x, np.array([1, 1, 1, 1]), config, seed=2)
    # 0.75 * 0.75 + 0.25 * 0; 0.75 * 0.25 + 0.25 * 1
    assert second["share"].tolist() == [0.5625, 0.4375]


def test_naive_bayes_that_knows_nothing_or_one_class_gives_probabilities():
    model = make_model("examples.own_model:NaiveBayes", {}, features=1)
    empty, x = model.initial_arrays(1), np.array([[1.0], [3.0]])
    assert model.predict(empty, x).tolist() == [[0.5, 0.5], [0.5, 0.5]]
    one = model.fit(empty, x, np.array([1, 1]), TrainConfig(), seed=1)
    assert model.predict(one, x).tolist() == [[0.0, 1.0], [0.0, 1.0]]


# --- a strategy of one's own


def test_part_way_goes_half_the_way_to_the_mean():
    strategy = make_strategy("examples.own_strategy:PartWay", {})
    open_round(strategy, 1, {"w": np.array([1.0])}, ["fog-1", "fog-2"])
    replies = [Reply("fog-1", {"w": np.array([2.0])}, 1, {}), Reply("fog-2", {"w": np.array([6.0])}, 3, {})]
    # The mean is (2 * 1 + 6 * 3) / 4 = 5; half the way from 1 to 5 is 3.
    assert aggregate(strategy, 1, replies)[0]["w"].tolist() == [3.0]


def test_part_way_goes_on_after_a_restart_of_the_cloud():
    strategy, other = (make_strategy("examples.own_strategy:PartWay", {"rate": 0.25}) for _ in range(2))
    open_round(strategy, 1, {"w": np.array([8.0])}, ["fog-1"])
    restore_strategy(other, json.loads(json.dumps(strategy_state(strategy))))
    # 0.75 * 8 + 0.25 * 4
    assert aggregate(other, 1, [Reply("fog-1", {"w": np.array([4.0])}, 1, {})])[0]["w"].tolist() == [7.0]


def test_part_way_with_rate_1_is_fedavg_and_with_rate_0_learns_nothing():
    def final(strategy: str, options: str) -> dict:
        settings = Settings(model="logistic", strategy=strategy, strategy_options=options)
        return simulate(settings, Scenario(nodes=3, rounds=3))["final"]

    fedavg = final("FedAvg", "")
    assert final("examples.own_strategy:PartWay", "rate=1")["model_sha256"] == fedavg["model_sha256"]
    # Three coefficients that stay 0: each class is as probable as the other, a loss of ln 2.
    assert final("examples.own_strategy:PartWay", "rate=0")["test"]["loss"] == pytest.approx(np.log(2))
    assert fedavg["test"]["loss"] < final("examples.own_strategy:PartWay", "rate=0.5")["test"]["loss"] < np.log(2)


# --- data of one's own


def test_the_federation_learns_from_the_csv_file():
    csv = str(ROOT / "examples" / "machines.csv")
    result = simulated(*("--data", csv, "--label", "failure", "--nodes", "3", "--rounds", "20", "--model", "logistic"))
    assert result["data"]["train"] + result["data"]["test"] == 60
    assert result["data"]["features"] == 2
    # 4 of the 15 held-out rows are failures: 11/15 = 0.73 is what always saying 0 gives.
    assert result["final"]["test"]["accuracy"] > 0.9
