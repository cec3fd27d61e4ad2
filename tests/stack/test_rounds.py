"""Federated learning on the real stack: rounds that learn, and that go on whatever is killed, silent or wrong."""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.stack.stack import ENV, QUICK, Stack, eventually

START = {"weight": 40.5, "samples": 1, "schema_version": 1, "metrics": {"loss_sum": 1.0, "confusion": [[1, 0], [0, 0]]}}
FORGED = "forged"  # the run of models that a test invents
SCORED = "scored"  # a topic of readings that no node learns from


@pytest.fixture(scope="module")
def new_run(one_stack: Stack) -> Stack:
    """Return a stack on which a run has begun: no weights at first, and by now those of two rounds."""
    one_stack.empty()
    one_stack.make("-j2", "run-fog", "run-cloud", **QUICK)
    one_stack.send_readings(1200, "--seed", "3")
    eventually("two rounds", lambda: closed(one_stack), lambda seen: len(seen) >= 2)
    return one_stack


@pytest.fixture
def learning(stack: Stack, new_run: Stack) -> Stack:
    """Return the stack of this run, with both nodes in it and no reading that is not learned."""
    stack.make("run-fog", **QUICK)
    learned_all(stack)
    return stack


def rounds(stack: Stack) -> list[dict[str, Any]]:
    """Return the models that opened a round."""
    return [model for model in stack.rounds() if model["run_id"] != FORGED]


def closed(stack: Stack) -> list[dict[str, Any]]:
    """Return the models that closed a round with scores."""
    return [model for model in rounds(stack) if "metrics" in model]


def learned_all(stack: Stack) -> None:
    """Wait until each reading on the nodes' own topics is learned, once."""
    for node in (1, 2):
        wanted = stack.end_offset(f"sensor-data-node-{node}")
        eventually(
            f"all readings learned by fog-{node}",
            lambda n=node: stack.learned(n),
            lambda seen, w=wanted: seen == w,
            200,
        )


def test_rounds_learn_the_rule_and_each_reading_is_learned_once_though_drivers_are_killed(learning: Stack) -> None:
    stack = learning
    stack.send_readings(6000, "--seed", "13")
    for job in ("fog-1", "cloud"):
        count = len(closed(stack))
        eventually("two more rounds", lambda: len(closed(stack)), lambda seen, c=count: seen >= c + 2, 200)
        stack.kill(job)
    learned_all(stack)
    models = rounds(stack)
    assert len({model["run_id"] for model in models}) == 1
    assert [model["round"] for model in models] == list(range(1, len(models) + 1))  # none skipped
    versions = [model["version"] for model in models if "failed" not in model]
    assert versions == sorted(set(versions))
    scores = [model["metrics"] for model in closed(stack)]
    assert scores[0]["f1"] < 0.8
    assert max(score["f1"] for score in scores[-5:]) >= 0.95  # on readings that the model had not seen
    # What the cloud took in is what the nodes have sent, each update at most once.
    taken = [(each["node_id"], tuple(each["place"])) for model in models for each in model.get("updates", [])]
    assert len(taken) == len(set(taken))


def test_an_update_has_all_fields_of_the_contract_and_of_the_protocol(learning: Stack) -> None:
    stack = learning
    update = stack.trained(1)[-1]
    assert update["node_id"] == "fog-1"
    assert 40 < update["weight"] < 41
    assert 0 < update["samples"] <= stack.end_offset("sensor-data-node-1")
    assert 0 < update["num_examples"] <= 400
    assert [array["shape"] for array in update["arrays"]] == [[2, 16], [16], [16, 1], [1]]
    assert update["metrics"]["num_examples"] == update["num_examples"]
    model = next(model for model in rounds(stack) if model["round"] == update["round"])
    assert (update["run_id"], update["base_version"]) == (model["run_id"], model["version"])
    assert {"global_weight", "samples", "nodes", "arrays", "scaler", "strategy_state"} <= set(model)
    # Uniform on 60 to 90: mean 75, variance 30² / 12 = 75.
    assert abs(model["scaler"]["mean"][0] - 75) < 1
    assert abs(model["scaler"]["std"][0] - 75**0.5) < 0.5


def test_every_version_is_kept_and_comes_out_again_from_its_updates(learning: Stack) -> None:
    stack = learning
    versions = json.loads(stack.fedstream("models", "list", "--json"))
    newest = max(model["version"] for model in rounds(stack))
    assert [each["version"] for each in versions] == list(range(newest + 1))
    assert sum(each["best"] for each in versions) == 1
    verified = [row for row in json.loads(stack.fedstream("verify", "--json")) if row["version"] > 0]
    assert {row["result"] for row in verified} == {"identical"}


@pytest.mark.smoke
def test_a_rollback_is_followed_by_the_running_nodes(learning: Stack) -> None:
    stack = learning
    old = next(model for model in rounds(stack) if model["version"] == 1)
    stack.fedstream("models", "rollback", "1")
    model = rounds(stack)[-1]
    assert (model["restored_from"], model["arrays"]) == (1, old["arrays"])
    stack.send_readings(800, "--seed", "4")
    updates = eventually(
        "an update of the restored version",
        lambda: [update for update in stack.trained(1) if update["base_version"] == model["version"]],
        lambda seen: len(seen) > 0,
    )
    assert updates[0]["round"] >= model["round"]


def open_round(stack: Stack) -> dict[str, Any]:
    """Return the model of the newest round, which stays open, since no reading is left that could close it."""
    last = max(stack.trained(node)[-1]["round"] for node in (1, 2))
    return eventually("an open round", lambda: rounds(stack)[-1], lambda seen: seen["round"] > last)


def test_bad_updates_go_to_dead_letter_and_the_node_is_kept_out_while_rounds_go_on(learning: Stack) -> None:
    stack, model = learning, open_round(learning)
    letters, events = stack.end_offset("dead-letter"), stack.end_offset("events")
    good = START | {"node_id": "fog-9", "run_id": model["run_id"], "round": model["round"], "num_examples": 1}
    good |= {"base_version": model["version"], "trained_at": model["opened_at"] + 1, "arrays": model["arrays"]}
    infinite = json.dumps(good).replace('"values": [', '"values": [1e999, ', 1).encode()
    bad = {
        json.dumps(good | {"base_version": 10**6}).encode(): "which this round does not know",
        json.dumps(good | {"round": 10**6}).encode(): "which lies in the future",
        json.dumps(good | {"arrays": model["arrays"][:1]}).encode(): "arrays are",
        infinite: "arrays[0].values[0] is Infinity",
    }
    stack.send("model-weights", *bad)
    eventually("dead letters", lambda: len(stack.messages("dead-letter", letters)), lambda seen: seen == len(bad))
    found = {base64.b64decode(letter["value"]): letter["reason"] for letter in stack.messages("dead-letter", letters)}
    assert all(reason in found[value] for value, reason in bad.items()), found
    kinds = [(event["kind"], event["node_id"]) for event in stack.messages("events", events)]
    assert ("quarantine", "fog-9") in kinds
    count = len(closed(stack))
    stack.send_readings(2000, "--seed", "5")
    eventually("rounds go on", lambda: len(closed(stack)), lambda seen: seen >= count + 2)
    assert all("fog-9" not in model["node_metrics"] for model in closed(stack))


def applications(stack: Stack) -> list[str]:
    """Return the names that Spark gave to the drivers of cloud, fog-1 and fog-2 when they started."""
    pages = ("CLOUD_UI_PORT", *(str(int(ENV["FOG_UI_PORT_BASE"]) + node) for node in (1, 2)))
    return [stack.get(page, "/api/v1/applications")[0]["id"] for page in pages]


def test_no_message_of_a_round_ends_a_job_and_the_rounds_go_on(learning: Stack) -> None:
    stack, model = learning, open_round(learning)
    drivers, letters, count = applications(stack), stack.end_offset("dead-letter"), len(closed(stack))
    deep = [model["arrays"][0] | {"shape": [1] * 65, "values": [1.0]}]
    update = START | {"node_id": "fog-8", "run_id": model["run_id"], "round": model["round"], "num_examples": 1}
    update |= {"base_version": model["version"], "trained_at": model["opened_at"] + 1, "arrays": deep}
    sums = {"node_id": "fog-8", "weight": 99.0, "samples": 10**12, "sums": [1, 2, 3], "squares": [1, 2, 3]}
    wide = model | {"scaler": {"mean": [1.0] * 3, "std": [1.0] * 3}}
    rollback = {"command": "rollback", "run_id": model["run_id"], "sent_at": 2**62, "model": wide}
    bad = {
        ("model-weights", json.dumps(update).encode()): "array coefs_0 has 65 dimensions",
        ("model-weights", json.dumps(sums).encode()): "sums has 3 numbers",
        ("round-control", json.dumps(rollback).encode()): "the scaler has 3 numbers",
    }
    for topic, value in bad:
        stack.send(topic, value)
    after = stack.end_offset("global-model")
    forged = {name: value for name, value in model.items() if name != "metrics"} | {"run_id": FORGED}
    for changes in ({"arrays": deep}, {"arrays": []}, {"participants": ["nobody"]}):
        stack.send("global-model", json.dumps(forged | changes).encode())
    stack.send_readings(2000, "--seed", "6")  # the nodes wait for a round behind what was forged
    eventually("dead letters", lambda: stack.end_offset("dead-letter"), lambda seen: seen >= letters + len(bad))
    found = {
        (letter["topic"], base64.b64decode(letter["value"])): letter["reason"]
        for letter in stack.messages("dead-letter", letters)
    }
    assert found.keys() == bad.keys()
    assert all(reason in found[record] for record, reason in bad.items()), found
    eventually("rounds go on", lambda: len(closed(stack)), lambda seen: seen >= count + 2)
    sent = [each for each in stack.messages("global-model", after) if each.get("run_id") == model["run_id"]]
    weight = {"global_weight": 0.0, "samples": 0, "nodes": 0}
    assert sent[0] | weight == model | weight  # said again, word for word, with the weight of now
    assert applications(stack) == drivers
    assert stack.model()["samples"] < 10**12
    assert "Fog -> modèle ignoré : " in stack.log("fog-1")


def test_rounds_close_by_the_deadline_when_a_node_is_silent(learning: Stack, run_sensors) -> None:
    stack, before = learning, rounds(learning)[-1]["round"]
    run_sensors(50)
    (both,) = eventually(
        "both nodes in a round", lambda: [each for each in closed(stack) if each["round"] > before][-1:],
        lambda seen: seen and len(seen[0]["updates"]) == 2,
    )  # fmt: skip
    with stack.paused("fog-2"):
        models = eventually(
            "three more rounds", lambda: [each for each in closed(stack) if each["round"] > both["round"]],
            lambda seen: len(seen) >= 4,
        )  # fmt: skip
    # The model that closes a round opens the next one.
    waits = [
        later["opened_at"] - sooner["opened_at"]
        for sooner, later in itertools.pairwise(models)
        if later["counts"]["missing"] == 1
    ]
    assert waits
    assert 4000 <= min(waits) < 4000 + 6000  # the deadline, and a micro-batch or two on a busy machine


def test_the_curves_are_drawn_and_the_newest_model_leaves_as_a_file(learning: Stack, tmp_path: Path) -> None:
    stack = learning
    stack.make("plot", f"OUTPUT={tmp_path}/curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    model = json.loads(stack.fedstream("models", "show", "best", "--json"))
    assert model["run_id"] == rounds(stack)[-1]["run_id"]
    report = stack.fedstream("report", "--output", "-", "--seconds", "0")
    checks = re.findall(r"^\| (\S+) \|.*\| (ok|FAILED) \|$", report, re.M)
    assert dict(checks) == {"fog-1": "ok", "fog-2": "ok", "cloud": "ok", "versions": "ok"}, report


def test_each_reading_is_scored_by_the_model_in_service_though_the_driver_is_killed(learning: Stack) -> None:
    stack = learning
    stack.make("run-alerts", f"ARGS=--topic {SCORED}")

    def send(count: int, seed: int) -> None:
        stack.send_readings(count, "--seed", str(seed), "--topic", SCORED)

    def missing() -> int:
        return stack.end_offset(SCORED) - len({record.key for record in stack.records("alerts")})

    send(1000, seed=21)
    eventually("all readings scored", missing, lambda seen: seen == 0)
    stack.kill("alerts")
    send(1000, seed=22)
    stack.send_readings(2000, "--seed", "12")  # which bring new versions
    eventually("all readings scored", missing, lambda seen: seen == 0)
    newest = rounds(stack)[-1]["version"]

    def is_in_service() -> bool:
        send(1, seed=23)
        return any(message["model_version"] >= newest for message in stack.messages("alerts"))

    eventually("a newer version in service", is_in_service, lambda seen: seen)
    eventually("all readings scored", missing, lambda seen: seen == 0)
    stack.stop("alerts")
    readings, found = stack.messages(SCORED), defaultdict(list)
    for record in stack.records("alerts"):
        message, (topic, partition, offset) = json.loads(record.value), record.key.decode().split("/")
        assert (topic, partition) == (SCORED, "0")
        reading = readings[int(offset)]
        row = (reading["temperature"], reading["vibration"], message["probability"])
        found[message["run_id"], message["model_version"]].append(row)
    models = {(model["run_id"], model["version"]): model for model in rounds(stack)}
    assert len(found) >= 2
    for version, rows in found.items():
        values = np.array(rows)
        assert np.abs(probability(models[version], values[:, :2]) - values[:, 2]).max() < 1e-9


def probability(model: dict[str, Any], values: np.ndarray) -> np.ndarray:
    """Return the probability of class 1: a layer of rectified units, and the logistic function."""
    first, bias, second, offset = (np.reshape(array["values"], array["shape"]) for array in model["arrays"])
    scaled = (values - model["scaler"]["mean"]) / model["scaler"]["std"]
    return 1 / (1 + np.exp(-(np.maximum(scaled @ first + bias, 0) @ second + offset)[:, 0]))
