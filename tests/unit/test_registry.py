"""The registry of versions: what it finds, which is best, and what others can do with an exported one."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import skops.io
from click.testing import CliRunner
from fake_topics import Stack, Topics
from msgspec import to_builtins
from msgspec.structs import replace

from fedstream.broker.models import follow_models
from fedstream.commands.export import as_json, export, pipeline_of
from fedstream.commands.models import models
from fedstream.commands.registry import find, load_run, pick_run, pick_version
from fedstream.commands.watch import watch
from fedstream.errors import StackError
from fedstream.learning import arrays as wire
from fedstream.learning.models import make_model
from fedstream.learning.scores import Score
from fedstream.learning.training import Scaler
from fedstream.messages.door import encode
from fedstream.messages.rounds import UsedUpdate, fit_model, global_model
from fedstream.messages.topics import GLOBAL_MODEL, MODEL_VERSIONS
from fedstream.rounds.runs import best, newest_of_keys, read_runs, scores
from fedstream.settings import Settings

SETTINGS = Settings()


def scored(tp, fp, fn, tn, loss=0.5):
    return Score(loss * (tp + fp + fn + tn), ((tn, fp), (fn, tp)))


def model(version, measured=None, run_id="run-a", round=None, base=None, staleness=0, **more):
    about = {"opened_at": 100 + version, "model": "logistic"}
    if measured:
        about |= {"base_version": version - 1 if base is None else base, "metrics": measured}
        about["node_metrics"] = {"fog-1": measured}
        about["updates"] = (UsedUpdate("fog-1", 10, staleness, (0, 1)),)
    return global_model(run_id, round or version + 1, version, more.pop("arrays", {}), **about | more)


def run_of(*messages):
    return pick_run(read_runs([m for m in messages if m.failed is None], messages))


def trained(**settings):
    topics = Topics()
    Stack(topics, **settings).run(3)
    return pick_run(read_runs(topics.models(MODEL_VERSIONS), topics.models(GLOBAL_MODEL)))


# Version 0: F1 2*1/(2*1+1+1) = 0.5; version 1: F1 0.8, recall 2/3, 0 false alarms; version 2: F1 2*3/(6+2) = 0.75,
# recall 1, accuracy 8/10 as version 1 has 9/10.
RUN = (
    model(0),
    model(1, scored(1, 1, 1, 7, loss=0.9)),
    model(2, scored(2, 0, 1, 7, loss=0.4)),
    model(3, scored(3, 2, 0, 5, loss=0.3)),
)


@pytest.mark.parametrize(
    ("metric", "expected"), [("f1", 1), ("accuracy", 1), ("recall", 2), ("loss", 2), ("false_alarm_rate", 1)]
)
def test_the_best_version_is_the_one_a_later_round_measured_as_best(metric, expected):
    assert best(run_of(*RUN), metric) == expected


def test_versions_that_are_no_longer_kept_are_not_listed(monkeypatch):
    topics = Topics()
    Stack(topics, versions_kept=2).run(5)
    kept = newest_of_keys(topics.records[MODEL_VERSIONS])
    assert all(record.value for record in kept)
    assert {record.key for record in kept} >= {"run-a/4", "run-a/5"}
    assert len(kept) <= 3  # the newest two, and the best one
    topics.install(monkeypatch)
    topics.records[GLOBAL_MODEL] = topics.records[GLOBAL_MODEL][-1:]
    assert set(load_run(SETTINGS).versions) == {int(record.key.rpartition("/")[2]) for record in kept}


def test_a_version_without_a_score_has_none_and_is_not_the_best():
    measured = scores(run_of(*RUN))
    assert sorted(measured) == [0, 1, 2]
    assert measured[1]["global"].f1 == pytest.approx(0.8)
    assert measured[1]["fog-1"] == measured[1]["global"]
    assert best(run_of(model(0))) is None
    with pytest.raises(StackError, match="no version of run run-a has been measured yet"):
        pick_version(run_of(model(0)), "best")


def test_a_failed_round_measures_its_version_too_and_brings_no_new_one():
    failed = model(0, scored(1, 1, 1, 7), round=2, base=0, failed="too wild")
    run = run_of(model(0), failed, model(1, scored(3, 0, 0, 7), round=3, base=0))
    assert sorted(run.versions) == [0, 1]
    assert run.versions[0].failed is None
    assert scores(run)[0]["global"].confusion == ((14, 1), (1, 4))


def test_a_stale_update_of_mode_async_measures_the_version_it_started_from():
    run = run_of(model(0), model(1, scored(1, 1, 1, 7)), model(2, scored(3, 0, 0, 7), staleness=1))
    assert scores(run)[0]["global"].num_examples == 20
    assert 1 not in scores(run)


def test_after_a_rollback_the_new_version_is_the_current_one():
    run = run_of(*RUN, model(4, restored_from=1))
    assert run.current == 4
    assert find(run, 4).restored_from == 1


def test_the_later_record_of_a_version_wins():
    old, new = model(0, strategy="FedAvg"), model(0, strategy="FedAdam")
    assert pick_run(read_runs([old, new], [])).versions[0].strategy == "FedAdam"


def test_the_newest_run_is_the_default_and_others_are_found_by_name():
    runs = read_runs([model(0, run_id="new", opened_at=500), model(0, run_id="old", opened_at=10)], [])
    assert pick_run(runs).run_id == "new"
    assert pick_run(runs, "old").run_id == "old"
    with pytest.raises(StackError, match="there is no run other; known: old, new"):
        pick_run(runs, "other")


def test_running_weights_and_unusable_records_are_left_out(monkeypatch, caplog):
    topics = Topics().install(monkeypatch)
    for value in (None, b"{", {"global_weight": 1.0}, {"run_id": "x", "round": "1", "version": 0}, model(0)):
        topics.add(GLOBAL_MODEL, b"", value)
    run = load_run(SETTINGS)
    assert (run.run_id, list(run.versions)) == ("run-a", [0])
    assert [re.search(r"global-model\[0\]@\d", record.getMessage())[0][-1] for record in caplog.records] == ["1", "3"]


def test_no_run_at_all_says_how_one_starts(monkeypatch):
    Topics().install(monkeypatch)
    with pytest.raises(StackError, match="hold no model yet; a run starts when"):
        load_run(SETTINGS)


def test_an_unknown_version_names_the_known_ones():
    run = run_of(*RUN, model(6, scored(1, 1, 1, 1)))
    with pytest.raises(StackError, match=r"^there is no version 99 of run run-a; known: 0\.\.3, 6$"):
        find(run, 99)
    with pytest.raises(StackError, match="version is 'newest'; expected best, current or a number"):
        pick_version(run, "newest")


def test_a_real_run_gives_a_score_to_every_version_but_the_last():
    run = trained()
    assert sorted(run.versions) == [0, 1, 2, 3]
    assert sorted(scores(run)) == [0, 1, 2]
    assert set(scores(run)[2]) == {"fog-1", "fog-2", "global"}
    f1 = {version: run.rounds[version + 2].metrics.f1 for version in range(3)}
    assert best(run) == max(f1, key=lambda version: (f1[version], version))


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, {}),
        ({"feature_scaling": "none"}, {}),
        ({"model": "mlp"}, {}),
        ({"model": "mlp", "model_options": "hidden_units=7"}, {"hidden_units": 7}),
    ],
    ids=["logistic", "unscaled", "mlp", "small mlp"],
)
def test_an_exported_pipeline_predicts_as_the_federation_and_needs_no_trust(tmp_path, settings, options):
    message = trained(**settings).versions[3]
    path = tmp_path / "model.skops"
    export(message, {}, "skops", path, SETTINGS)
    assert skops.io.get_untrusted_types(file=path) == []
    pipeline = skops.io.load(path)
    x = np.random.RandomState(5).uniform([60, 0.02], [90, 0.1], (50, 2))
    assert (message.scaler is None) == (settings.get("feature_scaling") == "none")
    scaled = message.scaler.apply(x) if message.scaler else x
    own = make_model(settings.get("model", "logistic"), options)
    expected = own.predict(message.arrays, scaled)
    np.testing.assert_allclose(pipeline.predict_proba(x), expected, rtol=0, atol=1e-12)
    assert list(pipeline.classes_) == [0, 1]


def test_three_classes_and_two_hidden_layers_are_told_from_the_arrays(tmp_path):
    for name, options in (("mlp", {"hidden_units": "5,4"}), ("logistic", {})):
        own = make_model(name, options, features=3, classes=3)
        arrays = {key: array + 0.1 for key, array in own.initial_arrays(2).items()}
        message = model(0, arrays=arrays, scaler=Scaler((1.0, 2.0, 3.0), (1.0, 0.5, 2.0)))
        x = np.random.RandomState(5).normal(size=(20, 3))
        found = pipeline_of(replace(message, model=name), SETTINGS).predict_proba(x)
        expected = own.predict(arrays, (x - [1, 2, 3]) / [1, 0.5, 2])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_an_exported_json_is_enough_to_predict_without_this_project(tmp_path):
    run = trained()
    export(run.versions[2], scores(run)[2], "json", tmp_path / "model.json", SETTINGS)
    saved = json.loads((tmp_path / "model.json").read_text())
    assert (saved["model"], saved["version"], saved["run_id"]) == ("logistic", 2, "run-a")
    assert saved["metrics"]["f1"] == run.rounds[4].metrics.f1
    assert set(saved["node_metrics"]) == {"fog-1", "fog-2"}
    x = np.array([[80.0, 0.05], [89.0, 0.09]])
    z = (x - saved["scaler"]["mean"]) / saved["scaler"]["std"]
    by_hand = 1 / (1 + np.exp(-(z @ np.array(saved["arrays"]["coef"])[0] + saved["arrays"]["intercept"][0])))
    own = make_model("logistic", {}).predict(run.versions[2].arrays, z)[:, 1]
    np.testing.assert_allclose(by_hand, own, atol=1e-12)


def test_nothing_exact_is_exported_beside_a_model_with_the_noise_of_privacy(tmp_path):
    options = "noise_multiplier=0.1,clipping_norm=1,num_sampled_clients=2"
    run = trained(strategy="DifferentialPrivacyServerSideFixedClipping", strategy_options=options)
    export(run.versions[2], scores(run)[2], "json", tmp_path / "model.json", SETTINGS)
    saved = json.loads((tmp_path / "model.json").read_text())
    assert (saved["metrics"], saved["node_metrics"], saved["positive_class"]) == (None, {}, None)
    assert all(float(std).hex().startswith("0x1.0000000000000p") for std in saved["scaler"]["std"]), "powers of two"
    assert all(mean % std == 0 for mean, std in zip(*saved["scaler"].values(), strict=True))
    assert pipeline_of(run.versions[2], SETTINGS).named_steps["scaler"].n_samples_seen_ == 1


def test_an_own_model_has_json_only_and_an_unwritable_file_is_an_error(tmp_path):
    message = replace(trained().versions[1], model="my.module:Net")
    assert as_json(message, {})["metrics"] is None
    with pytest.raises(StackError, match=r"model my\.module:Net is not one of scikit-learn's; export it with --format"):
        export(message, {}, "skops", tmp_path / "x", SETTINGS)
    with pytest.raises(StackError, match=r"cannot write .*: No such file or directory"):
        export(message, {}, "json", tmp_path / "none" / "x", SETTINGS)


# --- what is said again


def say_again(topics):
    """Put the newest model on its topic once more."""
    topics.add(GLOBAL_MODEL, b"logistic", topics.records[GLOBAL_MODEL][-1].value)


def test_a_round_that_is_said_again_is_one_round_of_the_run(monkeypatch):
    topics = Topics().install(monkeypatch)
    stack = Stack(topics)
    for _ in range(3):
        stack.run(1)
        say_again(topics)
    run = load_run(SETTINGS)
    assert sorted(run.rounds) == [1, 2, 3, 4]
    assert scores(run)[0]["global"].num_examples == 120  # two nodes of 60 readings


def test_watch_shows_and_counts_a_round_once_though_it_is_said_again(monkeypatch):
    topics = Topics().install(monkeypatch)
    stack = Stack(topics).run(2)
    do = [lambda: None, say_again, lambda: stack.run(1), say_again, say_again, lambda: stack.run(1)]
    steps = iter([step if step is not say_again else lambda: say_again(topics) for step in do])
    topics.on_read = lambda topic: next(steps)() if topic == GLOBAL_MODEL else None
    lines = CliRunner().invoke(watch, ["--json", "--rounds", "2"], catch_exceptions=False).stdout.splitlines()
    assert [json.loads(line)["round"] for line in lines] == [3, 4]


def test_an_earlier_rollback_that_is_said_again_answers_no_command(monkeypatch):
    topics = Topics().install(monkeypatch)
    stack = Stack(topics).run(2)

    def obey(topic, key, command):
        if topics.messages(GLOBAL_MODEL)[-1].get("restored_from") == 1:
            say_again(topics)  # the round that is open
        stack.federation.rollback(command.model, stack.clock)
        stack.send()

    topics.on_publish = obey
    for new in (3, 4):
        result = CliRunner().invoke(models, ["rollback", "1"], catch_exceptions=False)
        assert result.stdout == f"Version 1 of run run-a is back as version {new}.\n"


# --- the model door


MLP = make_model("mlp", {}).initial_arrays(1)


def opened(number=1, **changes):
    """Return the message with which a round opens."""
    message = global_model("run-a", number, number - 1, MLP, scaler=Scaler((75.0, 0.06), (9.0, 0.03)))
    return json.loads(encode(message)) | changes


def fit(model):
    """Take the models that fit the default settings."""
    return fit_model(model, make_model("mlp", {}), SETTINGS)


HUGE = opened()["arrays"] + [{"name": "a", "shape": [0, 2**62], "dtype": "float64", "values": []}]
DEEP = [{"name": "a", "shape": [1] * 65, "dtype": "float64", "values": [1]}]
MISFITS = {
    "another model": ({"model": "logistic"}, "MODEL is 'mlp', but the cloud's run is of 'logistic'; set the same in"),
    "no arrays": ({"arrays": []}, r"the model's arrays are {}; expected {'coefs_0': (2, 16), "),
    "other options": (
        {"arrays": to_builtins(wire.to_wire(make_model("mlp", {"hidden_units": "32,16"}).initial_arrays(1)))},
        "as MODEL_OPTIONS say here; set the same in .env",
    ),
    "a text in the config": ({"config": {"learning-rate-factor": "x"}}, "config is {'learning-rate-factor': 'x'}; exp"),
    "a list in the config": (
        {"config": {"proximal-mu": [1]}},
        "expected true or false or a whole number or a number or a text",
    ),
    "a number beyond all": ({"config": {"proximal-mu": 10**400}}, "expected numbers that a training can use; it says:"),
    "a large scaler": ({"scaler": {"mean": [1.0] * 3, "std": [1.0] * 3}}, "the scaler has 3 numbers; expected 2, one"),
    "65 dimensions": ({"arrays": DEEP}, "array a has 65 dimensions; expected at most 8"),
    "nothing times 2^62": ({"arrays": HUGE}, "array a has shape [0, 4611686018427387904] and 0 values; expected sizes"),
}


@pytest.mark.parametrize(("changes", "reason"), MISFITS.values(), ids=MISFITS)
def test_a_model_that_does_not_fit_is_told_once_and_the_one_before_stays(monkeypatch, capsys, changes, reason):
    topics = Topics().install(monkeypatch)
    topics.add(GLOBAL_MODEL, b"mlp", opened(1))
    topics.add(GLOBAL_MODEL, b"mlp", opened(2, **changes))
    newest = follow_models(SETTINGS, fit, "Fog")
    assert newest(0).round == 1
    topics.add(GLOBAL_MODEL, b"mlp", opened(3, **changes))
    assert newest(0).round == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Fog -> modèle ignoré : ")
    assert line.endswith("(global-model[0]@1)")
    assert reason in line
    topics.add(GLOBAL_MODEL, b"mlp", opened(4))
    assert newest(0).round == 4


def test_the_arrays_of_a_model_are_put_into_the_own_models_order(monkeypatch):
    topics = Topics().install(monkeypatch)
    topics.add(GLOBAL_MODEL, b"mlp", opened(1, arrays=opened()["arrays"][::-1]))
    found = follow_models(SETTINGS, fit, "Fog")(0)
    assert list(found.arrays) == ["coefs_0", "intercepts_0", "coefs_1", "intercepts_1"]
    assert all(found.arrays[name].tobytes() == array.tobytes() for name, array in MLP.items())


def test_a_model_that_fits_is_found_behind_many_that_do_not(monkeypatch, capsys):
    topics = Topics().install(monkeypatch)
    topics.add(GLOBAL_MODEL, b"mlp", opened(1))
    for number in range(2, 203):
        topics.add(GLOBAL_MODEL, b"mlp", opened(number, model="logistic"))
        topics.add(GLOBAL_MODEL, b"weight", {"global_weight": 40.5, "samples": 1, "nodes": 1})
    assert follow_models(SETTINGS, fit, "Fog")(0).round == 1
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_an_error_that_nobody_foresaw_skips_the_record_and_is_logged(monkeypatch, capsys, caplog):
    topics = Topics().install(monkeypatch)
    for number in (1, 2, 3):
        topics.add(GLOBAL_MODEL, b"mlp", opened(number))

    def fails_at_two(model):
        return {}["odd"] if model.round == 2 else model

    assert follow_models(SETTINGS, fails_at_two, "Fog")(0).round == 3
    assert capsys.readouterr().out == "Fog -> modèle ignoré : internal: KeyError: 'odd' (global-model[0]@1)\n"
    (logged,) = caplog.records
    assert "global-model[0]@1" in logged.getMessage()
    assert logged.exc_info
