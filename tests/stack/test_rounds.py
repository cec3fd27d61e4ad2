"""Federated learning on the real stack: rounds that learn, and that go on whatever is killed, silent or wrong."""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path

import pytest

from tests.stack.conftest import ENV, Stack, eventually

READINGS = 12_000
QUICK = {"UPDATE_MAX_WAIT_SECONDS": "1", "ROUND_DEADLINE_SECONDS": "4", "MAX_READINGS_PER_UPDATE": "400"}
QUICK |= {"LOCAL_EPOCHS": "5", "TRAIN_BATCH_SIZE": "64", "UPDATE_MIN_READINGS": "100"}
QUICK |= {"UPDATE_INTERVAL_MS": "200", "CLOUD_INTERVAL_MS": "200"}
START = {"weight": 40.5, "samples": 1, "schema_version": 1, "metrics": {"loss_sum": 1.0, "confusion": [[1, 0], [0, 0]]}}


def fedstream(stack: Stack, *words: str, code: int = 0) -> str:
    """Run the command `fedstream` inside the stack and return what it printed."""
    done = stack.run("spark-master", "fedstream", *words)
    assert done.returncode == code, done
    return done.stdout


def learned(stack: Stack, node: int) -> int:
    """Return how many readings a node has learned from, over all its updates."""
    return sum(update["num_examples"] for update in stack.learned(node))


def send_readings(stack: Stack, count: int, seed: int, *more: str) -> None:
    arguments = ["--count", str(count), "--rate", "0", "--seed", str(seed), *more]
    sent = stack.python("producer/sensor_producer.py", *arguments)
    assert f"{count} readings sent, all acknowledged" in sent.stdout, sent


def closed(stack: Stack) -> list[dict]:
    """Return the models that closed a round with scores."""
    return [model for model in stack.rounds() if "metrics" in model]


@pytest.mark.smoke
def test_rounds_learn_the_rule_and_each_reading_is_learned_once_though_drivers_are_killed(stack: Stack) -> None:
    assert stack.rounds() == []  # the stack is new, or the tests before have left it empty
    stack.make("-j2", "run-fog", "run-cloud", **QUICK)
    send_readings(stack, READINGS, seed=3)
    for job in ("fog-1", "cloud"):
        count = len(closed(stack))
        eventually("two more rounds", lambda: len(closed(stack)), lambda seen, c=count: seen >= c + 2, 200)
        stack.kill(job)
    for node in (1, 2):
        eventually(
            f"all readings learned by fog-{node}", lambda n=node: learned(stack, n), lambda n: n == READINGS / 2, 300
        )
    rounds = stack.rounds()
    assert len({model["run_id"] for model in rounds}) == 1
    assert [model["round"] for model in rounds] == list(range(1, len(rounds) + 1))  # none skipped
    versions = [model["version"] for model in rounds if "failed" not in model]
    assert versions == sorted(set(versions))
    scores = [model["metrics"] for model in closed(stack)]
    assert scores[0]["f1"] < 0.8
    assert max(score["f1"] for score in scores[-5:]) >= 0.95  # on readings that the model had not seen
    # What the cloud took in is what the nodes have sent, each update at most once.
    taken = [(each["node_id"], tuple(each["place"])) for model in rounds for each in model.get("updates", [])]
    assert len(taken) == len(set(taken))


def test_an_update_has_all_fields_of_the_contract_and_of_the_protocol(stack: Stack) -> None:
    update = stack.learned(1)[-1]
    assert update["node_id"] == "fog-1"
    assert 40 < update["weight"] < 41
    assert 0 < update["samples"] <= READINGS / 2
    assert 0 < update["num_examples"] <= 400
    assert [array["shape"] for array in update["arrays"]] == [[2, 16], [16], [16, 1], [1]]
    assert update["metrics"]["num_examples"] == update["num_examples"]
    model = next(model for model in stack.rounds() if model["round"] == update["round"])
    assert (update["run_id"], update["base_version"]) == (model["run_id"], model["version"])
    assert {"global_weight", "samples", "nodes", "arrays", "scaler", "strategy_state"} <= set(model)
    # Uniform on 60 to 90: mean 75, variance 30² / 12 = 75.
    assert abs(model["scaler"]["mean"][0] - 75) < 1
    assert abs(model["scaler"]["std"][0] - 75**0.5) < 0.5


def test_every_version_is_kept_and_comes_out_again_from_its_updates(stack: Stack) -> None:
    versions = json.loads(fedstream(stack, "models", "list", "--json"))
    newest = max(model["version"] for model in stack.rounds())
    assert [each["version"] for each in versions] == list(range(newest + 1))
    assert sum(each["best"] for each in versions) == 1
    replayed = [row for row in json.loads(fedstream(stack, "replay", "--json")) if row["version"] > 0]
    assert {row["result"] for row in replayed} == {"identical"}


@pytest.mark.smoke
def test_a_rollback_is_followed_by_the_running_nodes(stack: Stack) -> None:
    old = next(model for model in stack.rounds() if model["version"] == 1)
    fedstream(stack, "models", "rollback", "1")
    model = stack.rounds()[-1]
    assert (model["restored_from"], model["arrays"]) == (1, old["arrays"])
    send_readings(stack, 800, seed=4)
    updates = eventually(
        "an update of the restored version",
        lambda: [update for update in stack.learned(1) if update["base_version"] == model["version"]],
        lambda seen: len(seen) > 0,
    )
    assert updates[0]["round"] >= model["round"]


def test_bad_updates_go_to_dead_letter_and_the_node_is_kept_out_while_rounds_go_on(stack: Stack) -> None:
    for node in (1, 2):  # until no round can close any more, and the newest one stays open
        wanted = READINGS / 2 + 400
        eventually(f"all readings learned by fog-{node}", lambda n=node: learned(stack, n), lambda n, w=wanted: n == w)
    last = stack.learned(1)[-1]["round"], stack.learned(2)[-1]["round"]
    model = eventually("an open round", lambda: stack.rounds()[-1], lambda seen: seen["round"] > max(last))
    letters, events = stack.end_offset("dead-letter"), stack.end_offset("events")
    good = START | {"node_id": "fog-9", "run_id": model["run_id"], "round": model["round"], "num_examples": 1}
    good |= {"base_version": model["version"], "trained_at": model["opened_at"] + 1, "arrays": model["arrays"]}
    infinite = json.dumps(good).replace('"values": [', '"values": [1e999, ', 1).encode()
    bad = {
        json.dumps(good | {"run_id": "another"}).encode(): "expected the present run",
        json.dumps(good | {"round": 10**6}).encode(): "which lies in the future",
        json.dumps(good | {"arrays": model["arrays"][:1]}).encode(): "arrays are",
        infinite: "array coefs_0",
    }
    stack.send("model-weights", *bad)
    eventually("dead letters", lambda: stack.end_offset("dead-letter"), lambda seen: seen == letters + len(bad))
    found = {base64.b64decode(letter["value"]): letter["reason"] for letter in stack.messages("dead-letter", letters)}
    assert all(reason in found[value] for value, reason in bad.items()), found
    kinds = [(event["kind"], event["node_id"]) for event in stack.messages("events", events)]
    assert ("quarantine", "fog-9") in kinds
    count = len(closed(stack))
    send_readings(stack, 2000, seed=5)
    eventually("rounds go on", lambda: len(closed(stack)), lambda seen: seen >= count + 2)
    assert all("fog-9" not in model["node_metrics"] for model in closed(stack))


def applications(stack: Stack) -> list[str]:
    """Return the names that Spark gave to the drivers of cloud, fog-1 and fog-2 when they started."""
    return [stack.get(port, "/api/v1/applications")[0]["id"] for port in ("CLOUD_UI_PORT", "14051", "14052")]


def test_no_message_of_a_round_ends_a_job_and_the_rounds_go_on(stack: Stack) -> None:
    for node in (1, 2):  # the newest round stays open, as above
        wanted = READINGS / 2 + 400 + 1000
        eventually(f"all readings learned by fog-{node}", lambda n=node: learned(stack, n), lambda n, w=wanted: n == w)
    last = stack.learned(1)[-1]["round"], stack.learned(2)[-1]["round"]
    model = eventually("an open round", lambda: stack.rounds()[-1], lambda seen: seen["round"] > max(last))
    drivers, letters, count = applications(stack), stack.end_offset("dead-letter"), len(closed(stack))
    deep = [model["arrays"][0] | {"shape": [1] * 65, "values": [1.0]}]
    update = START | {"node_id": "fog-8", "run_id": model["run_id"], "round": model["round"], "num_examples": 1}
    update |= {"base_version": model["version"], "trained_at": model["opened_at"] + 1, "arrays": deep}
    sums = {"node_id": "fog-8", "weight": 99.0, "samples": 10**12, "sums": [1, 2, 3], "squares": [1, 2, 3]}
    rollback = {"command": "rollback", "model": model | {"scaler": {"mean": [1.0] * 3, "std": [1.0] * 3}}}
    bad = {
        ("model-weights", json.dumps(update).encode()): "array coefs_0 has 65 dimensions",
        ("model-weights", json.dumps(sums).encode()): "sums has 3 numbers",
        ("round-control", json.dumps(rollback).encode()): "the scaler has 3 numbers",
    }
    for topic, value in bad:
        stack.send(topic, value)
    after = stack.end_offset("global-model")
    forged = {name: value for name, value in model.items() if name != "metrics"} | {"run_id": "forged"}
    for changes in ({"arrays": deep}, {"arrays": []}, {"participants": ["nobody"]}):
        stack.send("global-model", json.dumps(forged | changes).encode())
    send_readings(stack, 2000, seed=6)  # the nodes wait for a round behind what was forged
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


def test_rounds_close_by_the_deadline_when_a_node_is_silent(stack: Stack) -> None:
    stack.make("run-producer", "ARGS=--rate 50")
    both = eventually("both nodes in a round", lambda: closed(stack)[-1:], lambda seen: len(seen[0]["updates"]) == 2)
    stack.stop("fog-2")
    models = eventually(
        "four more rounds", lambda: [each for each in closed(stack) if each["round"] > both[0]["round"] + 1],
        lambda seen: len(seen) >= 4,
    )  # fmt: skip
    assert any(each["counts"]["missing"] == 1 for each in models)
    gaps = [later["opened_at"] - sooner["opened_at"] for sooner, later in itertools.pairwise(models)]
    assert max(gaps) < 4000 + 6000  # the deadline, and a micro-batch or two on a busy machine


def test_the_curves_are_drawn_and_the_newest_model_leaves_as_a_file(stack: Stack, tmp_path: Path) -> None:
    stack.stop("sensors")
    stack.make("plot", f"OUTPUT={tmp_path}/curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    model = json.loads(fedstream(stack, "models", "show", "best", "--json"))
    assert model["run_id"] == stack.rounds()[-1]["run_id"]


def test_four_nodes_share_one_topic_without_a_new_file(stack: Stack) -> None:
    """The report's drawing, one topic for all sensors; each driver hosts two nodes."""
    stack.make("stop-jobs")
    before, letters = {node: learned(stack, node) for node in range(1, 5)}, stack.end_offset("dead-letter")
    stack.make("run-cloud")
    stack.make("run-fog", "NODES=4", "NODES_PER_DRIVER=2", "ARGS=--topic sensor-data")
    arguments = ["--nodes", "4", "--count", "42", "--rate", "0", "--topic", "sensor-data"]
    sent = stack.python("producer/sensor_producer.py", *arguments)
    assert sent.returncode == 0, sent
    stack.send("sensor-data", b"no reading of anybody")
    dealt = {1: 11, 2: 11, 3: 10, 4: 10}  # 42 in turn
    for node, samples in dealt.items():
        eventually(f"fog-{node}", lambda n=node: stack.samples(n), lambda seen, s=samples: seen == s)
    eventually("one dead letter", lambda: stack.end_offset("dead-letter"), lambda seen: seen == letters + 1)
    assert stack.end_offset("dead-letter") == letters + 1  # kept once, though two drivers read it
    for node, samples in dealt.items():
        wanted = before[node] + samples
        eventually(f"all learned by fog-{node}", lambda n=node: learned(stack, n), lambda seen, w=wanted: seen == w)
    assert ENV["NODES"] == "2"  # the topics made at start-up; the rest came with the nodes
