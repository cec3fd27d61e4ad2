"""The simulation: what comes out of the rounds, who is counted how, and that one seed gives one result."""

from __future__ import annotations

import json
import platform

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import accuracy_score, f1_score, log_loss, recall_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from fedstream.commands.cli import main
from fedstream.errors import SettingError, StackError
from fedstream.messages.door import encode
from fedstream.settings import Settings
from fedstream.simulation import scenario as scenarios
from fedstream.simulation import simulate as simulation
from fedstream.simulation.scenario import Scenario
from fedstream.simulation.simulate import simulate

LOGISTIC = {"model": "logistic", "local_epochs": 5, "learning_rate": 0.01}
CANCER = {"data": "breast_cancer", "nodes": 10, "rounds": 5}
OWN_MODEL = """
import numpy as np


class Shares:
    def __init__(self, features, classes, bias=0.0):
        self.classes, self.bias = classes, bias

    def initial_arrays(self, seed):
        return {"shares": np.full(self.classes, 1 / self.classes)}

    def fit(self, arrays, x, y, config, seed):
        return {"shares": np.bincount(y, minlength=self.classes) / len(y) + self.bias}

    def predict(self, arrays, x):
        return np.tile(arrays["shares"] / arrays["shares"].sum(), (len(x), 1))
"""


def run(settings=None, baselines=False, **scenario):
    return simulate(Settings(**(LOGISTIC | (settings or {}))), Scenario(**(CANCER | scenario)), baselines=baselines)


def accuracy(result):
    return result["final"]["test"]["accuracy"]


def counts(result):
    return {kind: count for kind, count in result["final"]["counts"].items() if count}


def test_a_federation_learns_and_says_so_round_by_round():
    seen = []
    result = simulate(Settings(**LOGISTIC), Scenario(**CANCER), on_round=seen.append)
    assert seen == result["rounds"]
    assert [entry["round"] for entry in seen] == [entry["version"] for entry in seen] == [1, 2, 3, 4, 5]
    assert accuracy(result) > 0.95
    assert seen[0]["prequential"]["loss"] == pytest.approx(np.log(2))  # a model of zeros knows nothing
    assert seen[-1]["prequential"]["accuracy"] > 0.95
    assert all(entry["prequential"]["num_examples"] == 426 for entry in seen)
    assert counts(result) == {"accepted": 50}
    assert json.loads(json.dumps(result)) == result
    assert (result["settings"]["model"], result["scenario"]["nodes"], result["data"]["test"]) == ("logistic", 10, 143)


def test_one_node_without_noise_is_plain_scikit_learn():
    result = run({"local_epochs": 3}, nodes=1, rounds=1, baselines=True)
    x, benign = load_breast_cancer(return_X_y=True)
    y = 1 - benign  # malignant, of which there are fewer, is class 1
    train, test = train_test_split(np.arange(len(y)), test_size=0.25, stratify=y, random_state=1)
    scaler = StandardScaler().fit(x[train])
    [order] = simulation.gather(Settings(), Scenario(data="breast_cancer", nodes=1)).parts
    scaled, labels = scaler.transform(x[train])[order], y[train][order]
    for seed, found in (
        (1 * 1_000_003 + 1009 + 31, result["final"]["test"]),  # as the node of round 1
        (1 * 1_000_003, None),
    ):
        sgd = SGDClassifier(
            loss="log_loss", learning_rate="constant", eta0=0.01, alpha=0.0, random_state=np.random.RandomState(seed)
        )
        for _ in range(3):
            sgd.partial_fit(scaled, labels, classes=[0, 1])
        probabilities = sgd.predict_proba(scaler.transform(x[test]))
        predicted = probabilities.argmax(axis=1)
        expected = {
            "num_examples": 143,
            "loss": log_loss(y[test], probabilities),
            "accuracy": accuracy_score(y[test], predicted),
            "f1": f1_score(y[test], predicted),
            "recall": recall_score(y[test], predicted),
            "false_alarm_rate": 1 - recall_score(y[test], predicted, pos_label=0),
        }
        if found is None:
            found = result["baselines"]["centralised"]
        assert found == pytest.approx(expected, rel=1e-9)


def machines(tmp_path, name="machines.csv", labels=("ok", "trouble"), rows=240):
    """Write a file of machines 2, 10 and 9, each of which shakes on a scale of its own; a sixth is trouble."""
    random, lines = np.random.RandomState(3), ["machine,heat,shake,state"]
    for row in range(rows):
        machine, failed = (2, 10, 9)[row % 3], row % 6 == row // 6 % 6
        heat, shake = random.normal(60 + machine + 8 * failed, 3), random.normal(machine * (1 + failed), 0.1)
        lines.append(f"{machine},{heat:.2f},{shake:.3f},{labels[failed]}")
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    return str(tmp_path / name)


def test_the_same_data_has_the_same_scores_whatever_its_labels_are_called(tmp_path):
    words, digits, turned = (
        run(data=machines(tmp_path, labels=labels), label="state", nodes=3)
        for labels in (("ok", "trouble"), ("0", "1"), ("tout va bien", "panne"))
    )
    assert words["rounds"] == digits["rounds"] == turned["rounds"]
    assert [result["data"]["positive"] for result in (words, digits, turned)] == ["trouble", "1", "panne"]
    # 240 rows, of which each sixth is trouble; a fourth is held out.
    assert words["data"]["classes"] == {"train": {"ok": 150, "trouble": 30}, "test": {"ok": 50, "trouble": 10}}
    assert words["final"]["test"]["recall"] > 0


def test_the_positive_class_can_be_chosen_and_the_accuracy_stays(tmp_path):
    given = {"data": machines(tmp_path), "label": "state", "nodes": 2, "rounds": 20, "test": ("by:machine=2",)}
    rare, chosen = (run(**given, positive=positive)["final"]["test"] for positive in (None, "ok"))
    assert chosen["accuracy"] == pytest.approx(rare["accuracy"], abs=0.02)
    assert chosen["recall"] == pytest.approx(1 - rare["false_alarm_rate"], abs=0.02)
    assert chosen["f1"] > rare["f1"]  # the large class is the easier one


def test_shifted_sensors_may_have_the_other_class_as_the_positive_one():
    scenario = {"data": "sensors", "nodes": 2, "partition": "shift:10", "rows": 400, "rounds": 1}
    trouble, good = (run(**scenario, positive=positive)["data"] for positive in (None, "good"))
    assert (trouble["labels"], good["labels"]) == (["good", "trouble"], ["trouble", "good"])
    assert trouble["classes"]["train"]["trouble"] == pytest.approx(good["classes"]["train"]["trouble"], abs=20)


@pytest.mark.parametrize(
    ("data", "positive", "words"),
    [
        ("breast_cancer", "sick", "positive is 'sick' of breast_cancer; expected one of its labels malignant, benign"),
        ("iris", "setosa", "expected none, as the scores of 3 classes are their mean"),
    ],
)
def test_a_positive_class_that_is_none_is_refused(data, positive, words):
    with pytest.raises(SettingError, match=words):
        run(data=data, nodes=2, positive=positive)


def test_each_value_of_a_column_is_a_node_and_the_column_no_feature(tmp_path):
    result = run(data=machines(tmp_path), label="state", nodes=None, partition="by:machine")
    assert (result["scenario"]["nodes"], result["data"]["values"]) == (3, ["2", "9", "10"])
    assert (result["data"]["features"], sum(result["data"]["rows_per_node"])) == (2, 180)
    data = simulation.gather(
        Settings(), Scenario(data=machines(tmp_path), label="state", partition="by:machine", scaling="local")
    )
    # Machine m shakes by m or by 2 m, give or take some tenths.
    for machine, rows, held_out in zip((2, 9, 10), data.parts, data.test_parts, strict=True):
        for shakes in (data.train.x[rows, 1], data.test.x[held_out, 1]):
            assert all(min(abs(shake - machine), abs(shake - 2 * machine)) < 0.6 for shake in shakes)


def test_whole_machines_are_held_out(tmp_path):
    given = {"data": machines(tmp_path), "label": "state", "nodes": None}
    tests = ("by:machine=2", "by:machine=10")
    result = run(**given, test=tests, partition="by:machine")
    # 80 rows of each machine.
    assert (result["data"]["values"], result["data"]["train"], result["data"]["test"]) == (["9"], 80, 160)
    assert result["scenario"]["test"] == list(tests)
    assert result["final"]["test"]["num_examples"] == result["majority"]["num_examples"] == 160
    spread_out = run(**given, test=("by:machine=2",))
    assert (spread_out["scenario"]["nodes"], spread_out["data"]["features"]) == (10, 2)


def test_a_second_file_is_held_out_whole_by_the_names_of_its_columns_and_labels(tmp_path):
    first, second = machines(tmp_path), tmp_path / "second.csv"
    second.write_text("state,shake,machine,heat\ntrouble,4.1,2,70\nok,2.1,2,62\nok,1.9,2,61\n")
    data = simulation.gather(Settings(), Scenario(data=first, label="state", test=(str(second),)))
    assert (len(data.train.y), data.test.y.tolist(), data.test.labels) == (240, [1, 0, 0], ("ok", "trouble"))
    assert data.test.x.tolist() == [[2, 70, 4.1], [2, 62, 2.1], [2, 61, 1.9]]


def test_held_out_rows_without_trouble_tell_accuracy_and_false_alarms(tmp_path):
    healthy = tmp_path / "healthy.csv"
    # The last one is as hot as trouble is, so that an alarm is false.
    healthy.write_text("machine,heat,shake,state\n2,62,2.0,OK\n2,61,2.1,ok\n9,69,9.1,ok\n2,99,20,ok\n")
    given = ("--data", machines(tmp_path), "--label", "state", "--rounds", "5", "--model", "logistic")
    outcome = command(*given, "--test", str(healthy), "--nodes", "2")
    assert outcome.exit_code == 0, outcome.output
    result = json.loads(outcome.stdout)
    assert result["data"]["classes"]["test"] == {"ok": 4, "trouble": 0}
    for scores in (result["final"]["test"], *(result["baselines"][name] for name in ("centralised", "local_only"))):
        assert (scores["f1"], scores["recall"]) == (None, None)
        assert scores["accuracy"] == pytest.approx(1 - scores["false_alarm_rate"])
    assert result["final"]["test"]["false_alarm_rate"] == 0.25
    assert "-: cannot be measured, as no test row is of class trouble" in outcome.stderr
    for row, scores in (("5", result["final"]["test"]), ("always ok", result["majority"])):
        [line] = [line for line in outcome.stderr.splitlines() if line.startswith(f"│ {row} ")]
        shown = [f"{scores['accuracy']:.4f}", "-", "-", f"{scores['false_alarm_rate']:.4f}"]
        assert [cell.strip() for cell in line.split("│")[4:8]] == shown


def test_held_out_rows_of_trouble_alone_tell_no_false_alarms(tmp_path):
    machines(tmp_path)
    lines = [line for line in (tmp_path / "machines.csv").read_text().splitlines() if not line.endswith("trouble")]
    lines += [f"5,{80 + i},{9 + i},trouble" for i in range(9)] + ["2,75,4.1,trouble"] * 20
    (tmp_path / "all.csv").write_text("\n".join(lines))
    test = run(data=str(tmp_path / "all.csv"), label="state", nodes=2, test=("by:machine=5",), baselines=True)
    assert test["data"]["classes"]["test"] == {"ok": 0, "trouble": 9}
    for scores in (test["final"]["test"], test["majority"], test["baselines"]["local_only"]):
        assert scores["false_alarm_rate"] is None
        assert scores["recall"] == scores["accuracy"]


def test_of_more_classes_a_mean_over_all_cannot_be_measured_where_one_is_absent(tmp_path):
    rows = [f"{i % 4},{i % 3}.{i % 7},{i % 3}" for i in range(90) if i % 4 or i % 3 < 2]
    (tmp_path / "kinds.csv").write_text("machine,heat,kind\n" + "\n".join(rows))
    scores = run(data=str(tmp_path / "kinds.csv"), label="kind", nodes=2, test=("by:machine=0",))["final"]["test"]
    assert (scores["f1"], scores["recall"]) == (None, None)
    assert 0 <= scores["false_alarm_rate"] <= 1
    assert scores["accuracy"] > 0.5


@pytest.mark.parametrize("spellings", [("ok", "trouble"), ("OK", "Trouble")])
def test_the_labels_of_a_second_file_may_be_spelled_otherwise(tmp_path, spellings):
    second = machines(tmp_path, "second.csv", spellings, rows=30)
    data = simulation.gather(Settings(), Scenario(data=machines(tmp_path), label="state", test=(second,)))
    assert (data.test.y.tolist(), data.test.labels) == (data.train.y[:30].tolist(), ("ok", "trouble"))


def test_rows_of_one_class_cannot_be_trained_on(tmp_path):
    rows = [f"{i % 2},{i}.{i % 7},{'ok' if i % 2 or i % 4 else 'trouble'}" for i in range(60)]
    (tmp_path / "two.csv").write_text("machine,heat,state\n" + "\n".join(rows))
    words = r"rows of two\.csv, that are not held out, have the labels \['ok'\]; expected at least two to train on"
    with pytest.raises(SettingError, match=words):
        run(data=str(tmp_path / "two.csv"), label="state", nodes=2, test=("by:machine=0",))
    (tmp_path / "one.csv").write_text("heat,state\n1,ok\n2,ok\n3,ok\n4,ok\n")
    with pytest.raises(SettingError, match=r"rows of one\.csv have the labels \['ok'\]; expected at least two"):
        run(data=str(tmp_path / "one.csv"), label="state", nodes=2)


@pytest.mark.parametrize(
    ("scenario", "words"),
    [
        ({"partition": "by:factory"}, "factory"),
        ({"partition": "by:"}, "partition is 'by:'; expected iid"),
        (
            {"partition": "by:machine", "nodes": 5},
            "nodes is 5; expected none: partition by:machine has a node for each of 3",
        ),
        ({"partition": "by:heat"}, r"partition is by:heat; heat \d+\.\d+ has 1 row to train on; expected 2 at least"),
        ({"test": ("by:machine=3",)}, "test is 'by:machine=3'; expected a value of machine: 10, 2, 9"),
        ({"test": ("by:machine",)}, "test is 'by:machine'; expected by:COLUMN=VALUE, or one file"),
        (
            {"test": tuple(f"by:machine={m}" for m in (2, 9, 10))},
            "all rows of machines.csv; expected some that are left",
        ),
        ({"test": ("by:machine=2", "second.csv")}, "expected one file, or by:COLUMN=VALUE once or more"),
        ({"test": ("OTHER-COLUMNS",)}, "other.csv has the columns of numbers heat; expected machine, heat, shake"),
        ({"test": ("OTHER-LABELS",)}, "other.csv has the labels dead; expected ok, trouble"),
        ({"partition": "by:machine", "attackers": 4}, "attackers is 4; expected 0 to 3"),
    ],
)
def test_a_partition_or_test_that_the_file_does_not_give_is_refused(tmp_path, scenario, words):
    other = tmp_path / "other.csv"
    if "OTHER-COLUMNS" in scenario.get("test", ()):
        other.write_text("heat,state\n1,ok\n2,trouble\n")
    else:
        other.write_text("machine,heat,shake,state\n1,1,1,ok\n2,2,2,dead\n")
    test = tuple(str(other) if each.startswith("OTHER") else each for each in scenario.get("test", ()))
    given = {"data": machines(tmp_path), "label": "state", "nodes": None} | scenario | {"test": test}
    with pytest.raises(SettingError, match=words):
        run(**given)


@pytest.mark.parametrize("data", ["breast_cancer", "iris"])
def test_the_majority_is_scikit_learns_dummy(data):
    result = run({"decision_threshold": 0.2}, data=data, nodes=2, rounds=1)
    spread = simulation.gather(Settings(), Scenario(data=data, nodes=2))
    dummy = DummyClassifier(strategy="prior").fit(spread.train.x, spread.train.y)
    probabilities, predicted = dummy.predict_proba(spread.test.x), dummy.predict(spread.test.x)
    y, average = spread.test.y, "binary" if data == "breast_cancer" else "macro"
    found = result["majority"]
    assert found["label"] == spread.train.labels[predicted[0]] == {"breast_cancer": "benign", "iris": "setosa"}[data]
    assert found["loss"] == pytest.approx(log_loss(y, probabilities))
    assert found["accuracy"] == pytest.approx(accuracy_score(y, predicted))
    assert found["f1"] == pytest.approx(f1_score(y, predicted, average=average))
    assert found["recall"] == pytest.approx(recall_score(y, predicted, average=average))


def test_the_bytes_are_those_of_readings_that_stay_and_of_messages_that_go_instead(tmp_path, monkeypatch):
    answer, sent = scenarios.World.answer, []
    monkeypatch.setattr(scenarios.World, "answer", lambda *a: sent.append(answer(*a)) or sent[-1])
    (tmp_path / "two.csv").write_text("a b,kind\n" + "1.5,x\n2.5,y\n" * 40)
    result = run(data=str(tmp_path / "two.csv"), label="kind", nodes=2, rounds=2)
    # {"sensor_id":"node-1","a b":1.5,"label":0} has 42 bytes; of 80 rows 60 are spread over two nodes.
    assert [each["readings"] for each in result["bytes"]["nodes"].values()] == [30 * 42, 30 * 42]
    updates = [sum(len(encode(m)) for m in sent if m.node_id == name) for name in ("fog-1", "fog-2")]
    assert [each["updates"] for each in result["bytes"]["nodes"].values()] == updates
    assert result["bytes"]["all"] == {
        "readings": 60 * 42,
        "updates": sum(updates),
        "models": sum(each["models"] for each in result["bytes"]["nodes"].values()),
    }
    # Three models, one for each round and the last one; each has two numbers and much beside them.
    assert 3 * 100 < result["bytes"]["nodes"]["fog-1"]["models"] < 3 * 5000
    stream = run(data="sensors", nodes=2, rounds=3, readings_per_round=15, rows=400)
    # {"sensor_id":"node-1","temperature":72.48,"vibration":0.071,"label":0} has 70 bytes, and a zero at an end less.
    assert 2 * 3 * 15 * 66 < stream["bytes"]["all"]["readings"] <= 2 * 3 * 15 * 70


def test_the_baselines_train_as_long_as_the_federation_and_alone_nodes_do_worse():
    result = run(partition="dirichlet:0.1", baselines=True)
    central, alone = (result["baselines"][name] for name in ("centralised", "local_only"))
    assert alone["accuracy"] < accuracy(result) - 0.1
    assert alone["min_accuracy"] <= alone["accuracy"] <= alone["max_accuracy"]
    assert central["accuracy"] > 0.95
    fewer_rounds = run({"local_epochs": 25}, rounds=1, partition="dirichlet:0.1", baselines=True)
    assert fewer_rounds["baselines"] == result["baselines"]


EIGHT = ",".join(f"x{i}:{-i}:{i + 1}" for i in range(8))


@pytest.mark.parametrize("model", ["logistic", "mlp"])
def test_sensors_of_eight_features_teach_a_model(model):
    settings = {"model": model, "features": EIGHT, "label_rule": "x7>4 or x2<-0.5"}
    result = run(settings, data="sensors", nodes=3, rounds=6)
    assert result["data"]["features"] == 8
    # x7 is in -7..8 and above 4 in 4/15, x2 in -2..3 and below -0.5 in 3/10: neither holds in 11/15 * 7/10 = 0.513.
    assert accuracy(result) > 0.513 + 0.25


def test_sensors_of_three_classes_teach_a_model():
    result = run({"model": "mlp", "classes": 3, "learning_rate": 0.05}, data="sensors", nodes=3, rounds=10)
    assert result["data"]["labels"] == ["0", "1", "2"]
    # Neither too hot (5/6) nor too strong (6/8): 0.625 of the readings.
    assert accuracy(result) > 0.625 + 0.2


# What the commit 7b8a0bb gave, before a reading was a table of features: the logarithmic loss on the held-out rows and
# the hash of all arrays. The mlp has no hash: its linear algebra rounds as the processor likes.
BEFORE = [
    (
        {"model": "logistic", "seed": 3},
        {},
        0.3663980521875163,
        "e5c55fca89f5bb697347d855f4f625aee25ef710140bfe2d78d9eefd39b2b79b",
    ),
    (
        {"model": "logistic", "seed": 5},
        {"rows": 1200, "readings_per_round": 50, "partition": "shift:3"},
        0.4061134644855296,
        "e62ff714d199648f8e61fc0d81bdf7b39483a1400ec1269fe08252667dbbef21",
    ),
    (
        {"model": "logistic", "strategy": "FedAdam", "seed": 7},
        {"rows": 1200, "dropout": 0.2, "partition": "dirichlet:0.5"},
        0.5667213548726978,
        "9472c0171924ab01dec73f4bc95b2fb5d1ff70841a62973c782ac5eb11468d0d",
    ),
    ({"model": "mlp"}, {"partition": "shift:5"}, 0.05055277811435167, None),
]


@pytest.mark.parametrize(("settings", "scenario", "loss", "sha256"), BEFORE)
def test_two_features_give_the_arrays_that_they_gave_before_there_were_more(settings, scenario, loss, sha256):
    scenario = Scenario(**({"data": "sensors", "nodes": 3, "rounds": 3} | scenario))
    final = simulate(Settings(**settings), scenario)["final"]
    assert final["test"]["loss"] == pytest.approx(loss, rel=1e-6)
    if sha256 and platform.machine() == "x86_64":  # others round a multiplication with an addition once
        assert final["model_sha256"] == sha256


SCRIPT = """
import json
from fedstream.simulation.scenario import Scenario
from fedstream.settings import Settings
from fedstream.simulation.simulate import simulate
settings = Settings(model="mlp", strategy="FedAdam", round_mode="{mode}", seed=7)
scenario = Scenario(nodes=4, rounds=3, rows=400, dropout=0.3, stragglers=1, attackers=1, attack="noise")
result = simulate(settings, scenario, baselines=True)
del result["seconds"]
print(json.dumps(result))
"""


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_two_processes_give_the_same_bits(program, mode):
    texts = []
    for hash_seed in ("1", "2"):
        with program("-c", SCRIPT.format(mode=mode), PYTHONHASHSEED=hash_seed) as process:
            out, err = process.communicate()
        assert process.returncode == 0, err
        texts.append(out)
    assert texts[0] == texts[1]
    assert len(json.loads(texts[0])["rounds"]) == 3


def test_another_seed_gives_another_model_and_other_attackers():
    results = [run({"seed": seed}, rounds=1, attackers=1) for seed in (1, 2, 3, 4)]
    assert len({result["final"]["model_sha256"] for result in results}) == 4
    assert len({tuple(result["data"]["attackers"]) for result in results}) > 1


STRATEGIES = {
    "FedAvg": "",
    "FedProx": "proximal_mu=0.1",
    "FedAvgM": "server_momentum=0.5",
    "FedAdam": "",
    "FedYogi": "",
    "FedAdagrad": "",
    "FedMedian": "",
    "FedTrimmedAvg": "beta=0.2",
    "Krum": "num_malicious_nodes=1",
    "MultiKrum": "num_malicious_nodes=1,num_nodes_to_select=5",
    "Bulyan": "num_malicious_nodes=1",
    "QFedAvg": "client_learning_rate=0.1,q=0.2",
    "DifferentialPrivacyServerSideFixedClipping": "noise_multiplier=0.01,clipping_norm=5.0,num_sampled_clients=10",
}


@pytest.mark.parametrize(("strategy", "options"), STRATEGIES.items(), ids=list(STRATEGIES))
def test_every_strategy_learns(strategy, options):
    result = run({"strategy": strategy, "strategy_options": options}, rounds=3)
    assert accuracy(result) > 0.9
    assert [entry["version"] for entry in result["rounds"]] == [1, 2, 3]


def test_a_strategy_that_samples_hears_only_the_nodes_it_asked():
    result = run({"strategy": "FedAvg", "strategy_options": "fraction_train=0.5"}, rounds=3)
    assert counts(result) == {"accepted": 15}


def test_a_strategy_with_too_few_nodes_keeps_the_model_and_says_why():
    result = run({"strategy": "Bulyan", "strategy_options": "num_malicious_nodes=3"}, rounds=2)
    assert [entry["version"] for entry in result["rounds"]] == [0, 0]
    assert all("needs at least 15 replies" in entry["failed"] for entry in result["rounds"])


@pytest.mark.parametrize("attack", ["sign-flip", "scale:-10"])
def test_attackers_ruin_the_mean_and_not_the_median(attack):
    mean, median = (
        accuracy(run({"strategy": s}, rounds=8, attackers=3, attack=attack)) for s in ("FedAvg", "FedMedian")
    )
    assert mean < 0.5
    assert median > 0.93


def test_flipped_labels_and_noise_hurt_the_mean_and_less_the_median():
    def loss(strategy, **scenario):
        return run({"strategy": strategy}, rounds=8, **scenario)["final"]["test"]["loss"]

    for attack in ("label-flip", "noise"):
        mean, median = (loss(strategy, attackers=4, attack=attack) for strategy in ("FedAvg", "FedMedian"))
        assert mean > 1.05 * loss("FedAvg"), attack
        assert mean > median, attack


def test_an_attacker_sends_what_its_attack_says(monkeypatch):
    answer, steps = scenarios.World.answer, {}
    for attack in ("honest", "sign-flip", "scale:3", "noise"):
        sent = []

        def spy(world, node, opened, now, sent=sent):
            message = answer(world, node, opened, now)
            if node.number == 1:
                start = np.concatenate([array.ravel() for array in opened.arrays.values()])
                sent.append(np.concatenate([array.ravel() for array in message.arrays.values()]) - start)
            return message

        monkeypatch.setattr(scenarios.World, "answer", spy)
        hostile = {} if attack == "honest" else {"attackers": 2, "attack": attack}
        run({"model": "mlp"}, rounds=1, nodes=2, rows=100, **hostile)
        [steps[attack]] = sent
    honest, length = steps["honest"], np.linalg.norm
    assert steps["sign-flip"] == pytest.approx(-4 * honest)
    assert steps["scale:3"] == pytest.approx(3 * honest)
    assert length(steps["noise"]) == pytest.approx(4 * length(honest))
    assert abs(steps["noise"] @ honest) < 0.5 * length(steps["noise"]) * length(honest)


def test_an_absurdly_large_update_is_rejected_and_its_node_kept_out():
    result = run(rounds=6, attackers=1, attack="scale:1e6")
    assert result["data"]["attackers"]
    assert (counts(result)["rejected"], counts(result)["accepted"]) == (3, 54)
    assert accuracy(result) > 0.95
    assert result["final"]["virtual_seconds"] == pytest.approx(2 * 10 + 4, abs=1)  # with its third one it is out


def test_a_silent_node_is_missing_and_its_round_closes_by_the_deadline():
    result = run(nodes=3, rounds=20, dropout=1 / 3)
    assert len(result["rounds"]) == 20
    missing, accepted = counts(result)["missing"], counts(result)["accepted"]
    assert 60 * 0.2 < missing < 60 * 0.5
    assert missing + accepted <= 60
    times = np.diff([0, *(entry["virtual_seconds"] for entry in result["rounds"])])
    for entry, took in zip(result["rounds"], times, strict=True):
        if entry["counts"]["accepted"] == 3:
            assert took < 2
        elif entry["counts"]["missing"]:
            assert took > 9.99


def test_unlike_nodes_count_by_their_examples(monkeypatch):
    answer, test, sent, merged = scenarios.World.answer, scenarios.World.test, [], []
    monkeypatch.setattr(scenarios.World, "answer", lambda *a: sent.append(answer(*a)) or sent[-1])
    monkeypatch.setattr(
        scenarios.World, "test", lambda world, arrays, *a: merged.append(arrays) or test(world, arrays, *a)
    )
    run(rounds=1, nodes=4, partition="dirichlet:0.5")
    weights = [message.num_examples for message in sent]
    assert len(set(weights)) == 4
    for name in merged[0]:
        values = [message.arrays[name].ravel() for message in sent]
        assert merged[0][name].ravel() == pytest.approx(np.average(values, axis=0, weights=weights))


def test_nodes_that_were_silent_are_asked_again_after_the_deadline():
    result = run(nodes=1, rounds=6, dropout=0.6)
    assert counts(result)["accepted"] == len(result["rounds"]) == 6
    assert result["final"]["virtual_seconds"] > 10


def test_a_node_that_is_always_too_slow_is_counted_late():
    result = run(nodes=4, rounds=6, stragglers=1)
    assert counts(result)["late"] >= 2
    assert counts(result)["accepted"] == 3 * 6
    assert all(entry["counts"]["accepted"] == 3 for entry in result["rounds"])


def test_async_takes_the_slow_nodes_updates_and_does_not_wait_for_them():
    sync, together = (
        run({"round_mode": mode, "async_buffer": 3, "max_staleness": 20}, nodes=4, rounds=25, stragglers=1)
        for mode in ("sync", "async")
    )
    assert counts(together) == {"accepted": 75}  # three a version
    assert together["final"]["virtual_seconds"] < 40 < 200 < sync["final"]["virtual_seconds"]
    assert accuracy(together) > 0.95


def test_a_stream_gives_each_row_once_and_is_measured_before_it_is_learned_from(monkeypatch):
    batches, seeds = [], set()
    train = scenarios.train
    monkeypatch.setattr(scenarios, "train", lambda *a: batches.append(a[3]) or seeds.add(a[6]) or train(*a))
    result = run({"model": "logistic"}, data="sensors", nodes=3, rounds=4, readings_per_round=20)
    assert [len(batch) for batch in batches] == [20] * 12
    assert len(seeds) == 12  # each training has an order of its own
    assert len({tuple(row) for row in np.concatenate(batches).tolist()}) == 240
    assert all(entry["prequential"]["num_examples"] == 60 for entry in result["rounds"])


def test_a_stream_ends_when_its_rows_are_used_up():
    result = run(nodes=3, rounds=50, rows=120, readings_per_round=10)
    assert len(result["rounds"]) == 3
    assert counts(result) == {"accepted": 9}


def test_shared_scaling_learns_from_shifted_nodes_and_own_scaling_does_not():
    shift = {"data": "sensors", "nodes": 2, "rounds": 6, "partition": "shift:15", "rows": 1600}
    mlp = {"model": "mlp", "train_batch_size": 32}
    shared, local, none = (accuracy(run(mlp, **shift, scaling=how)) for how in ("shared", "local", "none"))
    assert shared > 0.93
    assert shared > local + 0.1
    assert shared > none + 0.1


@pytest.fixture
def own_model(tmp_path, monkeypatch):
    (tmp_path / "own_model_of_simulation.py").write_text(OWN_MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_model_of_simulation:Shares"


def test_a_users_own_model_and_csv_file_take_part(own_model, tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("a,kind\n" + "".join(f"{i % 7},{'x' if i % 4 else 'y'}\n" for i in range(80)))
    settings = {"model": own_model, "model_options": "bias=0.0"}
    result = run(settings, data=str(path), label="kind", nodes=3, rounds=1)
    assert accuracy(result) == 0.75  # always x
    assert result["final"]["test"]["loss"] == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)), abs=1e-9)
    assert (result["data"]["labels"], result["data"]["positive"]) == (["x", "y"], "y")


@pytest.mark.parametrize(
    ("scenario", "words"),
    [
        ({"nodes": 0}, "nodes is 0; expected at least 1"),
        ({"rounds": 0}, "rounds is 0; expected at least 1"),
        ({"attackers": 11}, "attackers is 11; expected 0 to 10"),
        ({"stragglers": -1}, "stragglers is -1; expected 0 to 10"),
        ({"dropout": 1.0}, r"dropout is 1\.0; expected 0 to 0\.95"),
        ({"readings_per_round": 0}, "readings_per_round is 0"),
        ({"scaling": "own"}, "scaling is 'own'; expected shared, local or none"),
        ({"attack": "scale:x"}, "attack is 'scale:x'; expected sign-flip, noise, label-flip, scale:FACTOR"),
        ({"attack": "ddos"}, "attack is 'ddos'"),
    ],
)
def test_a_scenario_out_of_range_is_refused(scenario, words):
    with pytest.raises(SettingError, match=words):
        Scenario(**scenario)


@pytest.mark.parametrize(
    ("settings", "scenario", "words"),
    [
        ({"model": "mean"}, {}, "MODEL is 'mean', which has no rounds"),
        ({"round_quorum": 11}, {}, "ROUND_QUORUM is 11; expected at most the 10 nodes"),
        ({}, {"readings_per_round": 1}, "start with 10 rows in all; expected at least 20"),
        ({"strategy": "FedAverage"}, {}, "STRATEGY is 'FedAverage'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, scenario, words):
    with pytest.raises(SettingError, match=words):
        run(settings, **scenario)


def test_a_round_that_nobody_can_close_ends_the_simulation_with_its_counts(monkeypatch):
    monkeypatch.setattr(simulation, "MOST_SILENCE", 5)
    with pytest.raises(StackError, match=r"has not closed in 6 deadlines; updates, counts, quarantine: 0 updates"):
        run(nodes=2, rounds=50, dropout=0.95)


def test_a_node_whose_numbers_grow_beyond_all_bounds_is_named():
    with pytest.raises(StackError, match=r"fog-\d+ cannot learn in round 1: .*; try a lower LEARNING_RATE"):
        run({"model": "mlp", "learning_rate": 1e200}, nodes=2, rounds=2)


def command(*arguments, env=None):
    return CliRunner().invoke(main, ["simulate", *arguments], env=env)


SMALL = ("--data", "iris", "--model", "logistic", "--rounds", "2", "--nodes", "3", "--partition", "shards:2")


def iris_rows(seed):
    """Return how many rows of each kind of iris scikit-learn leaves to train on."""
    y = load_iris(return_X_y=True)[1]
    return np.bincount(train_test_split(y, test_size=0.25, stratify=y, random_state=seed)[0]).tolist()


def test_the_command_prints_json_to_stdout_and_a_table_to_stderr():
    outcome = command(*SMALL, "--seed", "3", "--strategy", "FedProx", "--strategy-options", "proximal_mu=0.2")
    assert outcome.exit_code == 0, outcome.output
    result = json.loads(outcome.stdout)
    assert (len(result["rounds"]), result["settings"]["seed"], result["scenario"]["partition"]) == (2, 3, "shards:2")
    assert (result["settings"]["strategy"], result["settings"]["strategy_options"]) == ("FedProx", "proximal_mu=0.2")
    for text in (
        "iris, logistic, FedProx: test scores",
        "centralised",
        "local only",
        "always ",
        "mean over the 3 classes",
        "train rows: setosa: {}, versicolor: {}, virginica: {}; test rows: ".format(*iris_rows(seed=3)),
        "readings that stay at the nodes: ",
        "accepted: 6",
        f"{accuracy(result):.4f}",
    ):
        assert text in outcome.stderr


def test_the_command_writes_a_file_and_takes_settings_from_the_environment(tmp_path):
    path = tmp_path / "result.json"
    outcome = command(*SMALL, "--json", str(path), env={"ROUND_QUORUM": "2", "LOCAL_EPOCHS": "1", "SEED": "9"})
    assert (outcome.exit_code, outcome.stdout) == (0, "")
    settings = json.loads(path.read_text())["settings"]
    assert (settings["round_quorum"], settings["local_epochs"], settings["seed"]) == (2, 1, 9)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--partition", "by-day"), "Error: partition is 'by-day'; expected iid"),
        (("--local-epochs", "many"), "Error: LOCAL_EPOCHS is 'many'; expected a whole number"),
        (("--mode", "later"), "Error: ROUND_MODE is 'later'; expected sync or async"),
        (("--data", "nowhere.csv", "--label", "x"), "Error: data is 'nowhere.csv'; expected sensors"),
        (("--strategy", "Average"), "Error: STRATEGY is 'Average'"),
        (("--dropout", "2"), "Error: dropout is 2.0"),
    ],
)
def test_a_wrong_option_is_told_in_one_line_without_a_traceback(arguments, words):
    outcome = command(*arguments)
    assert (outcome.exit_code, outcome.stdout) == (1, "")
    assert words in " ".join(outcome.stderr.split())
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_shows_examples_and_the_settings_defaults(flag):
    text = command(flag).stdout
    assert "fedstream simulate --nodes 100" in text
    assert f"[default: {Settings().strategy}]" in " ".join(text.split())
    assert CliRunner().invoke(main, [flag]).stdout.count("simulate") >= 2


def test_help_needs_neither_scikit_learn_nor_flower_nor_spark(program):
    code = (
        "import sys\nfor name in ('flwr', 'sklearn', 'pyspark'): sys.modules[name] = None\n"
        "from fedstream.commands.cli import main\nmain(['simulate', '--help'])"
    )
    with program("-c", code) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert "--partition" in out


def test_a_simulation_needs_neither_spark_nor_a_kafka_client(program):
    code = "import sys; sys.modules['pyspark'] = sys.modules['kafka'] = None; import fedstream.simulation.simulate"
    with program("-c", code) as process:
        _, err = process.communicate()
    assert process.returncode == 0, err
