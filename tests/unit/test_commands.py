"""The commands, against topics that a real federation has filled."""

from __future__ import annotations

import csv
import json
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from fake_topics import NODES, Stack, Topics
from rich.console import Console

from fedstream.commands import curves, registry
from fedstream.commands.cli import main
from fedstream.commands.curves import central_curve, measured_rounds, read_readings
from fedstream.commands.watch import event_row, round_row, view
from fedstream.learning.models import TrainConfig, make_model
from fedstream.learning.scores import MEASURES
from fedstream.learning.training import train
from fedstream.messages.door import decode
from fedstream.messages.rounds import Event, model_update
from fedstream.messages.topics import EVENTS, GLOBAL_MODEL, MODEL_VERSIONS, MODEL_WEIGHTS, sensor_topic
from fedstream.settings import Settings

BY_NAME = main.commands


@pytest.fixture
def topics(monkeypatch):
    for name in ("STRATEGY", "STRATEGY_OPTIONS", "MODEL", "SEED", "LOCAL_EPOCHS", "KAFKA_BOOTSTRAP_SERVERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WAIT_TIMEOUT_SECONDS", "0.2")
    return Topics().install(monkeypatch)


def call(*words):
    result = CliRunner().invoke(BY_NAME[words[0]], list(map(str, words[1:])))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def call_json(*words):
    result = call(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def edit(topics, topic, index, change):
    record = topics.records[topic][index]
    message = json.loads(record.value)
    change(message)
    record.value = json.dumps(message).encode()


def test_each_command_has_help_with_an_example():
    assert set(BY_NAME) >= {"models", "watch", "history", "verify", "replay", "plot", "alerts", "latency", "simulate"}
    for command in (*BY_NAME.values(), *BY_NAME["models"].commands.values()):
        output = CliRunner().invoke(command, ["--help"]).output
        assert command is BY_NAME["models"] or "    fedstream " in output


# --- models


def test_list_shows_each_version_with_its_own_score(topics):
    Stack(topics).run(3)
    rows = call_json("models", "list")
    rounds = {each["base_version"]: each["metrics"] for each in topics.messages(GLOBAL_MODEL) if "metrics" in each}
    assert [row["version"] for row in rows] == [0, 1, 2, 3]
    assert [row["f1"] for row in rows] == [rounds[0]["f1"], rounds[1]["f1"], rounds[2]["f1"], None]
    assert [row["num_examples"] for row in rows] == [rounds[0]["num_examples"], 120, 120, None]
    top = max((0, 1, 2), key=lambda version: (rounds[version]["f1"], version))
    assert [row["version"] for row in rows if row["best"]] == [top]
    assert [row["version"] for row in rows if row["current"]] == [3]
    output = call("models", "list").output
    [line] = [line for line in output.splitlines() if "* best" in line]
    assert f"{rounds[top]['f1']:.4f}" in line
    *_, newest, note = filter(str.strip, output.splitlines())
    assert "current" in newest
    assert note.strip() == "F1, recall, false alarms: of label 1 (trouble)"
    assert [row["positive_class"] for row in rows] == [1, 1, 1, None]


def test_list_writes_its_rows_into_a_table_that_a_spreadsheet_opens(topics, tmp_path):
    Stack(topics).run(2)
    rows, file = call_json("models", "list"), tmp_path / "versions.csv"
    assert call("models", "list", "--output", file).output == f"3 versions of run run-a are in {file}.\n"
    with file.open(newline="") as lines:
        found = list(csv.DictReader(lines))
    assert list(found[0]) == list(rows[0])
    as_text = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
    assert found == as_text


def test_show_tells_scores_arrays_and_nodes(topics):
    Stack(topics).run(3)
    about = call_json("models", "show", 2)
    message = topics.models(MODEL_VERSIONS)[2]
    assert about["metrics"] == topics.messages(MODEL_VERSIONS)[3]["metrics"]
    assert set(about["node_metrics"]) == set(NODES)
    assert [each["node_id"] for each in about["updates"]] == list(NODES)
    coef = message.arrays["coef"]
    assert about["arrays"][0] == {"name": "coef", "shape": [1, 2], "norm": pytest.approx(float(np.linalg.norm(coef)))}
    text = call("models", "show", "2").output
    assert about["positive_class"] == 1
    parts = ("Version 2 of run run-a", "fog-1", "accepted: 2", "1 x 2", "Scaler: mean", "all nodes", "of label 1")
    for part in parts:
        assert part in text
    assert "Not measured yet" in call("models", "show", "current").output


def test_an_unknown_version_or_run_is_an_error_with_the_known_ones(topics):
    Stack(topics).run(2)
    result = call("models", "show", 99)
    assert (result.exit_code, result.stderr) == (1, "Error: there is no version 99 of run run-a; known: 0..2\n")
    result = call("models", "list", "--run", "run-b")
    assert (result.exit_code, result.stderr) == (1, "Error: there is no run run-b; known: run-a\n")


def test_rollback_publishes_the_version_and_waits_for_the_clouds_answer(topics):
    stack = Stack(topics).run(3)

    def obey(topic, key, command):
        stack.federation.rollback(command.model, stack.clock)
        stack.send()

    topics.on_publish = obey
    result = call("models", "rollback", 1)
    assert result.output == "Version 1 of run run-a is back as version 4.\n"
    [(topic, key, command)] = topics.published
    assert (topic, key) == ("round-control", "run-a")
    assert abs(command.pop("sent_at") / 1000 - time.time()) < 60
    kept = topics.messages(MODEL_VERSIONS)[1]
    assert command == {"command": "rollback", "run_id": "run-a", "model": kept, "current": 3}
    assert topics.messages(MODEL_VERSIONS)[4]["arrays"] == topics.messages(MODEL_VERSIONS)[1]["arrays"]
    assert "= version 1" in call("models", "list").output


def test_a_rollback_goes_to_the_run_that_is_named_whatever_else_says_that_it_is_newer(topics):
    stack = Stack(topics).run(2)
    forged = topics.messages(GLOBAL_MODEL)[-1] | {"run_id": "forged", "opened_at": 2**60}
    topics.add(GLOBAL_MODEL, b"mlp", forged)
    assert "Run forged" in call("models", "list").output
    topics.on_publish = lambda topic, key, command: (
        stack.federation.rollback(command.model, stack.clock),
        stack.send(),
    )
    result = call("models", "rollback", 1, "--run", "run-a")
    assert result.output == "Version 1 of run run-a is back as version 3.\n"


def test_a_rollback_that_nobody_obeys_ends_with_what_was_waited_for(topics):
    Stack(topics).run(2)
    result = call("models", "rollback", 1)
    assert result.exit_code == 1
    assert "no model with restored_from 1 came on topic global-model within 0.2 s" in result.stderr
    assert len(topics.published) == 1
    assert call("models", "rollback", 7).exit_code == 1
    assert len(topics.published) == 1


def test_export_writes_the_version_asked_for(topics, tmp_path):
    Stack(topics).run(3)
    file = tmp_path / "model.json"
    assert call("models", "export", "best", "--format", "json", "--output", file).exit_code == 0
    [best] = [row["version"] for row in call_json("models", "list") if row["best"]]
    assert json.loads(file.read_text())["version"] == best
    assert call("models", "export", "1", "--format", "skops", "--output", tmp_path / "m.skops").exit_code == 0
    assert (tmp_path / "m.skops").stat().st_size > 0


# --- watch


def play(topics, steps):
    """Let the stack do a step whenever the command reads the models."""
    steps = iter(steps)

    def on_read(topic):
        if topic == GLOBAL_MODEL and (step := next(steps, None)):
            step()

    topics.on_read = on_read


def test_watch_prints_a_line_of_json_per_round_and_event(topics):
    stack = Stack(topics).run(2)

    def event():
        topics.add(
            EVENTS, b"run-a", {"kind": "drift", "run_id": "run-a", "round": 3, "node_id": "fog-1", "detail": "x"}
        )

    def weight():
        topics.add(GLOBAL_MODEL, b"weight", {"global_weight": 1.0})

    play(topics, [lambda: None, event, lambda: stack.run(1), weight, lambda: stack.run(3)])
    result = call("watch", "--json", "--rounds", 2)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(line["type"], line["round"]) for line in lines] == [("event", 3), ("round", 3), ("round", 4)]
    message = next(each for each in topics.messages(GLOBAL_MODEL) if each.get("round") == 4)
    assert lines[1]["f1"] == message["metrics"]["f1"]
    assert (lines[1]["version"], lines[1]["base_version"], lines[1]["nodes"]) == (3, 2, 2)
    assert lines[1]["counts"]["accepted"] == 2


def test_watch_prints_plain_rows_without_a_terminal(topics):
    stack = Stack(topics).run(1)
    play(topics, [lambda: None, lambda: stack.run(1)])
    note, heading, row = call("watch", "--rounds", 1).output.splitlines()
    assert note == "F1, recall, false alarms: of label 1 (trouble)"
    assert heading.split()[:4] == ["round", "version", "nodes", "examples"]
    metrics = topics.messages(GLOBAL_MODEL)[-1]["metrics"]
    assert row.split() == ["2", "2", "2", "120", *(f"{metrics[measure.name]:.4f}" for measure in MEASURES)]


def test_watch_that_waits_in_vain_names_what_it_waited_for(topics):
    stack = Stack(topics).run(1)
    play(topics, [lambda: None, lambda: stack.run(1)])
    result = call("watch", "--rounds", 5, "--timeout", 0.1)
    assert result.exit_code == 1
    assert "no round closed within 0.1 s on topic global-model at localhost:9092" in result.stderr
    assert "(the last one was round 2 of run run-a, 1 of 5 rounds seen)" in result.stderr


def test_watch_ends_quietly_on_ctrl_c(topics):
    def interrupt():
        raise KeyboardInterrupt

    play(topics, [lambda: None, interrupt])
    assert call("watch").exit_code == 0


def test_the_live_table_has_rounds_with_what_is_out_of_the_ordinary_and_events_below(topics):
    stack = Stack(topics).run(2)
    stack.federation.rollback(topics.models(MODEL_VERSIONS)[0], 9)
    stack.send()
    rows = [round_row(each) for each in topics.models(GLOBAL_MODEL) if each.closes_round]
    rows[0]["counts"]["late"] = 3
    console = Console(width=130)
    with console.capture() as capture:
        console.print(view(rows, [event_row(decode(Event, record.value)) for record in topics.records[EVENTS]]))
    text = capture.get()
    assert [row["round"] for row in rows] == [1, 2, 3]
    for part in ("Run run-a", "late: 3", "rollback to version 0", "round 3: rollback version 3 is version 0 again"):
        assert part in text


# --- history


def test_history_is_a_row_per_round_and_node_in_every_format(topics, tmp_path):
    stack = Stack(topics).run(2)
    stack.federation.rollback(topics.models(MODEL_VERSIONS)[0], stack.clock)
    stack.send()
    lines, table = tmp_path / "h.jsonl", tmp_path / "h.parquet"
    assert call("history", "--output", lines).exit_code == 0
    assert call("history", "--output", table).output == f"7 rows of run run-a are in {table}.\n"
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert pq.read_table(table).to_pylist() == rows
    assert call("history", "--output", tmp_path / "h.csv").exit_code == 0
    with (tmp_path / "h.csv").open(newline="") as file:
        assert [row["f1"] for row in csv.DictReader(file)] == [str(row["f1"] or "") for row in rows]
    assert [(row["round"], row["node"]) for row in rows[:6]] == [(r, n) for r in (1, 2) for n in (*NODES, "global")]
    message = topics.messages(GLOBAL_MODEL)[2]
    assert rows[3]["f1"] == message["node_metrics"]["fog-1"]["f1"]
    assert (rows[5]["loss"], rows[5]["accepted"], rows[3]["accepted"]) == (message["metrics"]["loss"], 2, None)
    assert (rows[6]["num_examples"], rows[6]["note"]) == (None, "rollback to version 0")
    assert str(pq.read_schema(table).field("f1").type) == "double"


def test_history_refuses_another_kind_of_file_and_a_run_without_rounds(topics, tmp_path):
    stack = Stack(topics)
    stack.answer("fog-1")  # opens the first round, which waits for fog-2
    for command, name in (("history", "h.jsonl"), ("plot", "h.png")):
        result = call(command, "--output", tmp_path / name)
        assert result.exit_code == 1
        assert "no round of run run-a has closed yet" in result.stderr
    stack.run(2)
    for words in (("history",), ("models", "list"), ("alerts",)):
        result = call(*words, "--output", tmp_path / "h.xlsx")
        assert result.exit_code == 1
        assert "h.xlsx; expected a name that ends in .csv or .parquet or .jsonl" in result.stderr


# --- verify


@pytest.mark.parametrize("strategy", ["FedAvg", "FedAdam", "FedMedian"])
def test_verify_gives_every_version_bit_by_bit(topics, strategy):
    Stack(topics, strategy=strategy).run(4)
    rows = call_json("verify")
    assert [row["result"] for row in rows] == ["not verified"] + ["identical"] * 4
    assert rows[0]["reason"] == "the start of the run"
    assert "identical" in call("verify").output


def test_verify_in_mode_async_moves_stale_updates_as_the_cloud_did(topics):
    stack = Stack(topics, round_mode="async", async_buffer=1).run(2)
    opened = stack.federation.run.opened.model
    stack.answer("fog-2")
    x, y = stack.readings("fog-1", 60)
    trained = train(stack.model, opened.arrays, opened.scaler, x, y, TrainConfig(epochs=1), 5)
    learned = {"arrays": trained.arrays, "score": trained.score}
    update = model_update(stack.weight("fog-1"), opened, stack.clock + 1, 60, **learned)
    stack.federation.receive(update, tuple(topics.add(MODEL_WEIGHTS, b"fog-1", update)))
    stack.federation.settle(stack.clock)
    stack.send()
    assert topics.messages(GLOBAL_MODEL)[-1]["updates"][0]["staleness"] == 1
    assert {row["result"] for row in call_json("verify")[1:]} == {"identical"}


def test_a_tampered_update_is_found_with_the_size_of_the_difference(topics):
    Stack(topics).run(3)
    place = topics.messages(MODEL_VERSIONS)[2]["updates"][0]["place"][1]

    def tamper(message):
        message["arrays"][0]["values"][0] += 1.0

    edit(topics, MODEL_WEIGHTS, place, tamper)
    result = call("verify", "--json")
    rows = json.loads(result.stdout)
    assert [row["result"] for row in rows[1:]] == ["identical", "different", "identical"]
    assert rows[2]["max_difference"] == pytest.approx(0.5)  # one of two nodes with as many examples
    assert result.exit_code == 1
    assert result.stderr == "Error: 1 of 4 versions differ from what their updates give: 2\n"
    assert "different by at most 0.5" in call("verify").output


def test_tampered_arrays_of_a_version_are_found_to_the_last_bit(topics):
    Stack(topics).run(3)

    def tamper(message):
        value = message["arrays"][0]["values"][1]
        message["arrays"][0]["values"][1] = float(np.nextafter(value, 9))

    edit(topics, MODEL_VERSIONS, 3, tamper)
    result = call("verify", "--json")
    assert [row["result"] for row in json.loads(result.stdout)][1:] == ["identical", "identical", "different"]
    assert result.exit_code == 1


def test_a_version_with_an_unreadable_update_is_not_verified(topics):
    Stack(topics).run(2)
    edit(topics, MODEL_WEIGHTS, topics.messages(MODEL_VERSIONS)[1]["updates"][0]["place"][1], lambda m: m.pop("arrays"))
    row = call_json("verify")[1]
    assert (row["result"], row["reason"]) == ("not verified", "1 of 2 updates are no longer on topic model-weights")


def test_what_cannot_be_verified_is_said(topics):
    stack = Stack(topics).run(3)
    stack.federation.rollback(topics.models(MODEL_VERSIONS)[1], stack.clock)
    stack.send()
    stack.run(2)
    place = topics.messages(MODEL_VERSIONS)[2]["updates"][0]["place"][1]
    topics.records[MODEL_WEIGHTS] = [each for each in topics.records[MODEL_WEIGHTS] if each.offset != place]
    topics.records[GLOBAL_MODEL] = [r for r in topics.records[GLOBAL_MODEL] if json.loads(r.value)["round"] != 6]
    del topics.records[MODEL_VERSIONS][5]
    rows = call_json("verify")
    assert [(row["result"], row["reason"]) for row in rows] == [
        ("not verified", "the start of the run"),
        ("identical", ""),
        ("not verified", "1 of 2 updates are no longer on topic model-weights"),
        ("identical", ""),
        ("identical", "rollback to version 1"),
        ("not verified", "it is not on topic model-versions"),
        ("not verified", "the model of round 6 is no longer on topic global-model"),
    ]


def test_a_reset_after_a_drift_is_named(topics):
    Stack(topics).run(3)
    topics.add(EVENTS, b"run-a", Event("drift", "run-a", 3, "fog-2", "error 0.4", "reset"))
    topics.add(EVENTS, b"run-a", Event("drift", "run-a", 2, "fog-2", "its action: reset", "boost"))
    topics.add(EVENTS, b"run-b", Event("drift", "run-b", 2, "fog-2", "error 0.4", "reset"))
    rows = call_json("verify")
    assert [row["result"] for row in rows] == ["not verified", "identical", "identical", "not verified"]
    assert rows[3]["reason"] == "reset after a drift of fog-2"


def test_a_failed_round_between_two_versions_is_no_obstacle(topics):
    stack = Stack(topics, strategy="Krum").run(1)
    stack.federation._open(stack.clock, None, failed="too few updates or examples")
    stack.send()
    stack.run(1)
    rows = call_json("verify")
    assert [(row["version"], row["round"], row["result"]) for row in rows[1:]] == [
        (1, 1, "identical"),
        (2, 3, "identical"),
    ]


# --- plot


def test_plot_draws_a_picture_and_says_where_the_central_curve_ends(topics, tmp_path, monkeypatch):
    Stack(topics).run(3)
    names = []

    def draw(drawn, *about):
        names.append(list(drawn))
        figure = really_draw(drawn, *about)
        assert figure.axes[0].get_ylabel() == "prequential F1\nof label 1 (trouble)"
        return figure

    really_draw = curves.draw
    monkeypatch.setattr(curves, "draw", draw)
    file = tmp_path / "curves.png"
    assert call("plot", "--output", file).exit_code == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    assert names[-1] == ["global", "fog-1", "fog-2", "centralised"]
    assert call("plot", "--output", file, "--max-readings", 130).exit_code == 0
    assert "--max-readings 130" in names[-1][-1]
    del topics.records[sensor_topic(1)][100:]
    assert call("plot", "--output", file).exit_code == 0
    assert names[-1][-1] == "centralised\n(none in round 3 and later:\nno more readings on the topics)"
    assert call("plot", "--output", tmp_path / "x.txt").exit_code == 1


def test_the_central_curve_is_the_same_model_tested_then_trained_on_all_readings(topics):
    Stack(topics).run(2)
    run = registry.load_run(Settings())
    records = [record for node in (1, 2) for record in topics.records[sensor_topic(node)]]
    x, y = read_readings(records, Settings())
    assert x.shape == (240, 2)
    settings = Settings(local_epochs=3, train_batch_size=16, learning_rate=0.05)
    curve = central_curve(run, (x, y), settings)
    model = make_model("logistic", {})
    arrays, start = model.initial_arrays(1), 0
    for number, message in measured_rounds(run).items():
        end = start + message.metrics.num_examples
        scaler = run.rounds[number].scaler
        trained = train(model, arrays, scaler, x[start:end], y[start:end], TrainConfig(3, 16, 0.05), 1 + number)
        assert curve[number] == {"f1": trained.score.f1, "loss": trained.score.loss}
        arrays, start = trained.arrays, end
    assert list(curve) == [1, 2]


def test_readings_are_ordered_by_time_and_bad_ones_left_out(topics):
    good = {"sensor_id": "a", "temperature": 70, "vibration": 0.05, "label": 0}
    bad = [(2, {"temperature": 5000}), (1, {"label": 2}), (1, {"vibration": "x"}), (1, {"sensor_id": 3.5})]
    for node, change in [(2, {}), (1, {"temperature": 71}), *bad, (2, {"temperature": 72, "label": 1})]:
        topics.add(sensor_topic(node), b"a", good | change)
    topics.add(sensor_topic(1), b"a", b"{")
    x, y = read_readings(topics.records[sensor_topic(1)] + topics.records[sensor_topic(2)], Settings())
    assert x.tolist() == [[70, 0.05], [71, 0.05], [72, 0.05]]
    assert y.tolist() == [0, 0, 1]


def test_readings_of_a_curve_are_those_with_a_label_and_have_the_features_of_the_settings(topics):
    settings = Settings(features="x:0:10,y:0:10,z:0:10", fields="x=at.x,label=anomaly", labels="optional", classes=3)
    for message in ({"anomaly": 2}, {}, {"anomaly": 3}, {"anomaly": 0, "z": 5}):
        topics.add(sensor_topic(1), b"a", {"sensor_id": 7, "at": {"x": 1}, "y": 2, "z": 3} | message)
    x, y = read_readings(topics.records[sensor_topic(1)], settings)
    assert x.tolist() == [[1, 2, 3], [1, 2, 5]]
    assert y.tolist() == [2, 0]
    x, y = read_readings([], settings)
    assert (x.shape, y.shape) == ((0, 3), (0,))
