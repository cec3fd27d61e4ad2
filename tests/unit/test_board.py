"""The board's state, from recorded topics (tests/board/topics.jsonl) whose numbers are worked out by hand here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fedstream.board.learning import MOST_ROUNDS, MOST_ROUNDS_OF_NODES
from fedstream.board.metrics import FAMILIES, make_registry
from fedstream.board.state import MOST_EVENTS, MOST_LETTERS, Board
from fedstream.board.streams import MOST_TRAININGS, Growth, durations
from fedstream.last_word import LastWord
from fedstream.settings import Settings
from tests.board.recorded import NOW, lines, play, play_many, record

STATIC = Path(__file__).parents[2] / "fedstream" / "board" / "static"


@pytest.fixture
def snapshot():
    return next(play(Board(Settings())))


def by(rows, name):
    return {row[name]: row for row in rows}


# --- topics and queries


def test_a_rate_is_the_growth_of_the_last_ten_seconds(snapshot):
    # node 1 from 1000 to 2000 and node 2 from 1000 to 1500 within 10 s
    assert snapshot["rates"]["readings"] == 150
    assert by(snapshot["topics"], "topic")["sensor-data-node-2"]["per_second"] == 50


def test_the_lag_of_a_dead_driver_is_what_came_since_it_was_last_heard(snapshot):
    queries = by(snapshot["queries"], "query")
    assert queries["fog-1"]["lag_records"] == {"sensor-data-node-1": 10}  # 2000 - 1990
    # fog-2 was at 1100. The end was 1000 ten seconds ago, 1250 five seconds ago, and is 1500.
    assert queries["fog-2"]["lag_records"] == {"sensor-data-node-2": 400}
    assert queries["fog-2"]["lag_seconds"] == 5


def test_a_driver_that_says_nothing_is_red_after_ten_seconds(snapshot):
    jobs = by(snapshot["jobs"], "name")
    assert jobs["fog-1"]["trouble"] is None
    assert jobs["fog-2"]["trouble"] == {"kind": "silent", "seconds": 30, "query": "", "behind": 400}


def test_a_driver_whose_file_is_gone_has_ended_and_its_lag_goes_on():
    board = Board(Settings())
    next(play(board))
    board.take_progress(NOW + 1, [])
    board.take_ends(NOW + 1, {"sensor-data-node-1": {"0": 2500}})
    after = board.snapshot(NOW + 2)
    assert by(after["jobs"], "name")["fog-1"]["trouble"]["kind"] == "ended"
    assert by(after["queries"], "query")["fog-1"]["lag_records"] == {"sensor-data-node-1": 510}  # 2500 - 1990


def test_a_job_that_was_stopped_on_purpose_is_not_missed():
    board = Board(Settings())
    next(play(board))
    board.take_progress(NOW + 1, [])
    board.take_stopped({"fog-1", "squares"})
    after = board.snapshot(NOW + 2)
    assert "fog-1" not in by(after["jobs"], "name")
    assert "fog-1" not in {row["job"] for row in after["queries"]}
    assert by(after["jobs"], "name")["fog-2"]["trouble"]["kind"] == "ended"


def test_a_job_that_was_silent_for_an_hour_is_forgotten():
    board = Board(Settings())
    next(play(board))
    board.take_progress(NOW + 3700, [])
    after = board.snapshot(NOW + 3700)
    assert (after["jobs"], after["queries"]) == ([], [])


def test_a_job_that_has_ended_with_an_error_is_red_with_its_own_words_until_it_begins_anew():
    board = Board(Settings())
    next(play(board))
    board.take_progress(NOW, [])  # the drivers' files are gone, all have ended
    board.take_last_words(NOW, {"fog-2": LastWord(NOW - 29, "topic t was made anew"), "cloud": LastWord(NOW, "x")})
    row = by(board.snapshot(NOW)["jobs"], "name")["fog-2"]
    assert row["trouble"] == {"kind": "failed", "seconds": 29, "query": "", "behind": 400}
    assert row["error"] == {"text": "topic t was made anew", "seconds": 29}
    board.take_last_words(NOW + 1, {"cloud": LastWord(NOW, "x")})  # fog-2 has begun anew
    row = by(board.snapshot(NOW + 1)["jobs"], "name")["fog-2"]
    assert (row["trouble"]["kind"], row["error"]["text"]) == ("ended", "topic t was made anew")
    board.take_last_words(NOW + 32, {"cloud": LastWord(NOW, "x")})  # a minute after its end
    assert by(board.snapshot(NOW + 32)["jobs"], "name")["fog-2"]["error"] is None


def test_a_job_that_never_worked_is_known_by_its_last_word():
    board = Board(Settings())
    board.take_last_words(NOW, {"sensors": LastWord(NOW - 3, "RATE is 'x'"), "old": LastWord(NOW - 3601, "y")})
    (row,) = board.snapshot(NOW)["jobs"]
    assert (row["name"], row["trouble"]["kind"], row["trouble"]["seconds"]) == ("sensors", "failed", 3)


def test_an_error_of_an_earlier_life_is_not_why_a_driver_is_silent_now():
    board = Board(Settings())
    next(play(board))  # fog-2 said something 30 s ago
    board.take_last_words(NOW, {"fog-2": LastWord(NOW - 36, "x")})
    assert by(board.snapshot(NOW)["jobs"], "name")["fog-2"]["trouble"]["kind"] == "silent"


def test_counts_are_set_against_the_offsets_that_were_read_at_the_same_time(snapshot):
    # Node 1 had read 1990 records when micro-batch 102 ended, and counted 1990 readings and 3 rejected ones a second
    # before: not its offsets. Node 2 had read and counted 1100, and its later weights do not matter.
    assert snapshot["gaps"] == {"fog-1": -3, "fog-2": 0}


def test_the_ends_of_trainings_are_kept_until_they_begin_anew():
    board = Board(Settings())
    query = {"name": "training", "may_wait": True, "finished_at": NOW, "behind": 0, "moved_at": NOW, "lines": 0}
    driver = {"job": "fog-1", "at": NOW, "pause_seconds": 0.0}

    def numbers(number):
        said = query | {"micro_batch": number, "offsets": {"t": {"0": 10 * number}}, "seconds": 0.1}
        board.take_progress(NOW, [driver | {"queries": [said]}])
        return [each.number for each in board.snapshot(NOW)["micro_batches"]["fog-1/training"]]

    assert [numbers(number) for number in (3, 3, 4, 6)][-1] == [3, 4, 6]
    assert numbers(0) == [0]
    assert [numbers(number) for number in range(1, MOST_TRAININGS + 2)][-1] == list(range(2, MOST_TRAININGS + 2))


def test_durations_of_micro_batches_are_summed_up_as_in_report_b(snapshot):
    # fog-1 took 0.1, 0.2 and 0.3 s: the 95th percentile of three is the largest
    assert by(snapshot["queries"], "query")["fog-1"]["batch_seconds"] == {
        "mean": pytest.approx(0.2),
        "p95": 0.3,
        "count": 3,
    }
    assert durations([i / 100 for i in range(1, 101)]) == {"mean": pytest.approx(0.505), "p95": 0.95, "count": 100}


def test_lines_of_a_socket_are_counted_though_it_is_no_topic(snapshot):
    row = by(snapshot["queries"], "query")["squares"]
    assert (row["lag_records"], row["records"]) == ({}, 15)  # micro-batch 2, five lines each


def test_a_topic_made_anew_has_no_negative_rate():
    growth = Growth()
    for at, end in ((0, 500), (1, 600), (2, 10), (3, 30)):
        growth.take(at, end)
    assert growth.rate(3) == 20


# --- learning


def test_a_round_shows_the_scores_of_the_version_it_started_from(snapshot):
    first, second = snapshot["rounds"]
    # Both nodes: 95 true alarms, 30 false, 35 missed: 2 * 95 / (190 + 30 + 35); losses (50 + 210) / 400
    assert first["f1"] == pytest.approx(190 / 255)
    assert first["loss"] == pytest.approx(0.65)
    # Node 1: 2 * 45 / (90 + 10 + 5); node 2: 2 * 50 / (100 + 20 + 30)
    assert first["node_scores"]["fog-1"]["f1"] == pytest.approx(90 / 105)
    assert first["node_scores"]["fog-2"]["f1"] == pytest.approx(100 / 150)
    assert second["counts"] == {"accepted": 1, "missing": 1}


def test_the_best_version_is_the_one_measured_best(snapshot):
    # Round 2 started from version 1 and had no mistake; version 2 is not measured yet.
    assert snapshot["run"]["best"] == {"version": 1, "f1": 1.0}
    versions = by(snapshot["versions"], "version")
    assert [versions[n]["f1"] for n in (2, 1, 0)] == [None, 1.0, pytest.approx(190 / 255)]
    assert [versions[n]["current"] for n in (2, 1, 0)] == [True, False, False]


def test_bytes_that_stayed_are_set_against_bytes_that_were_sent(snapshot):
    sizes = {
        (line["take"], line["offset"]): len(json.dumps(line["value"], separators=(",", ":")))
        for line in lines()
        if "take" in line
    }
    readings = [len('{"sensor_id":"node-1","temperature":72.48,"vibration":0.071,"label":0}'), 69]
    mean = sum(readings) / 2
    nodes = by(snapshot["nodes"], "node")
    # Node 1 learned from 100 readings in each of two rounds, node 2 from 300 in the first.
    assert nodes["fog-1"]["bytes"] == {
        "readings": round(200 * mean),
        "updates": sizes["model-weights", 2] + sizes["model-weights", 4],
        "models": sizes["global-model", 0] + sizes["global-model", 1],
    }
    assert nodes["fog-2"]["bytes"] == {
        "readings": round(300 * mean),
        "updates": sizes["model-weights", 3],
        "models": sizes["global-model", 0],
    }
    assert snapshot["bytes"]["readings"] == round(500 * mean)


def test_who_answered_and_who_is_late_or_silent(snapshot):
    states = {row["node"]: (row["state"], row["answered"]) for row in snapshot["nodes"]}
    # Round 3 has been open for 77 s of 10 s; node 2 was heard 40 s ago.
    assert states == {"fog-1": ("late", 2), "fog-2": ("silent", 1)}


def test_a_node_in_quarantine_is_kept_out_for_its_rounds():
    board = Board(Settings(quarantine_rounds=10))
    next(play(board))
    event = {"kind": "quarantine", "run_id": "run-a", "round": 3, "node_id": "fog-1", "detail": "three bad updates"}
    board.take(record("events", {"offset": 2, "at": NOW, "value": event}))
    row = by(board.snapshot(NOW)["nodes"], "node")["fog-1"]
    assert (row["state"], row["kept_out_until"]) == ("quarantined", 13)


def test_a_new_run_begins_with_no_round_and_an_older_one_changes_nothing():
    board = Board(Settings())
    next(play(board))
    (model,) = [line["value"] for line in lines() if line.get("take") == "global-model" and line["offset"] == 0]
    for offset, run_id, opened_at in ((5, "run-0", 1000), (6, "run-b", NOW * 1000)):
        value = model | {"run_id": run_id, "opened_at": opened_at}
        board.take(record("global-model", {"offset": offset, "at": NOW, "value": value}))
        if run_id == "run-0":
            assert board.snapshot(NOW)["run"]["run_id"] == "run-a"
    after = board.snapshot(NOW)
    assert (after["run"]["run_id"], after["run"]["round"], after["rounds"]) == ("run-b", 1, [])


# --- samples, dead letters, events


def test_squares_and_alerts_are_judged_by_their_samples(snapshot):
    assert snapshot["squares"]["checked"] == 3
    assert snapshot["squares"]["wrong"] == 1  # (5, 26)
    alerts = snapshot["alerts"]
    assert alerts["share"] == 0.25
    assert alerts["delay_seconds"]["p95"] == 0.008  # of 2, 4, 6 and 8 ms the fourth
    assert alerts["model_age_seconds"] == 77  # version 1 scored them, version 2 came 77 s ago


def test_a_dead_letter_shows_its_reason_and_its_original_text(snapshot):
    letter = snapshot["letters"][0]
    assert letter["text"] == '{"sensor_id":"node-1","temperature":"hot"}'
    assert letter["reason"] == 'temperature is "hot"; expected a number from -100 to 1000'
    assert snapshot["letter_counts"] == {"sensor-data-node-1": 2}


def test_what_is_no_message_is_counted_and_changes_nothing_else(snapshot):
    board = Board(Settings())
    next(play(board))
    for topic in ("model-weights", "global-model", "events", "dead-letter"):
        line = {"offset": 1000, "at": NOW, "value": {"node_id": 7, "round": "x"}}
        board.take(record(topic, line))
    after = board.snapshot(NOW)
    assert after.pop("unusable") == dict.fromkeys(("model-weights", "global-model", "events", "dead-letter"), 1) | {
        "model-versions": 0
    }
    snapshot.pop("unusable")
    assert after == snapshot


# --- the fold as a whole


def test_records_that_are_read_again_change_nothing(snapshot):
    board = Board(Settings())
    first = next(play(board))
    for line in lines():
        if "take" in line and line["at"] <= NOW:
            board.take(record(line["take"], line))
    assert first == snapshot
    assert board.snapshot(NOW) == first


def test_the_order_of_the_topics_does_not_matter_to_what_was_learned(snapshot):
    board = Board(Settings())
    taken = [line for line in lines() if "take" in line and line["at"] <= NOW]
    samples = next(line["samples"] for line in lines() if "samples" in line)
    board.take_samples([record(each["topic"], each) for each in samples])
    for line in sorted(taken, key=lambda line: (line["take"], line["offset"])):  # all models before all updates
        board.take(record(line["take"], line))
    after = board.snapshot(NOW)
    for name in ("run", "weight", "nodes", "bytes", "versions", "rounds", "letters", "events"):
        assert after[name] == snapshot[name], name


def test_memory_is_bounded():
    board = Board(Settings())
    for i in range(MOST_ROUNDS + 50):
        model = {
            "schema_version": 1, "run_id": "r", "round": i + 1, "version": i, "model": "m", "mode": "sync",
            "arrays": [],
            "scaler": None, "config": {}, "participants": [], "opened_at": i, "strategy_state": {}, "strategy": "s",
            "strategy_options": "", "seed": 1, "counts": {}, "base_version": i - 1 if i else None,
            "metrics": {"loss_sum": 1, "confusion": [[1, 0], [0, 1]]} if i else None,
            "node_metrics": {"fog-1": {"loss_sum": 1, "confusion": [[1, 0], [0, 1]]}} if i else {},
        }  # fmt: skip
        board.take(record("global-model", {"offset": i, "at": i, "value": model}))
        event = {"kind": f"kind-{i}", "run_id": "r", "round": i, "node_id": None, "detail": ""}
        board.take(record("events", {"offset": i, "at": i, "value": event}))
        letter = {"value": "eA==", "reason": "r", "topic": f"t{i}", "partition": 0, "offset": i, "time": i}
        board.take(record("dead-letter", {"offset": i, "at": i, "value": letter}))
        board.take(
            record("model-weights", {"offset": i, "at": i, "value": {"node_id": f"n{i}", "weight": 1, "samples": 1}})
        )
    after = board.snapshot(2000)
    assert [len(after[name]) for name in ("rounds", "events", "letters")] == [MOST_ROUNDS, MOST_EVENTS, MOST_LETTERS]
    assert len(after["event_counts"]) == len(after["letter_counts"]) == len(after["nodes"]) == 1000
    assert sum(bool(row["node_scores"]) for row in after["rounds"]) == MOST_ROUNDS_OF_NODES
    assert after["rounds"][-1]["round"] == MOST_ROUNDS + 49


def test_fifty_nodes_are_told_apart():
    after = play_many(Board(Settings()), 50, 30)
    nodes = by(after["nodes"], "node")
    assert len(nodes) == 50
    # Node 3 was heard 41 s ago, in round 9; node 7 has sent a weight since, but no answer.
    assert {name: nodes[name]["state"] for name in ("fog-1", "fog-3", "fog-7")} == {
        "fog-1": "answered", "fog-3": "silent", "fog-7": "learning",
    }  # fmt: skip
    assert after["gaps"]["fog-1"] == 0  # it has counted 100 readings in each of 30 rounds, and read as many
    assert after["rates"]["readings"] == 500


# --- metrics


def metrics_of(snapshot):
    """Return the metrics as Prometheus' own parser reads them."""
    text = generate_latest(make_registry(lambda: snapshot)).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
    }, families


def test_the_metrics_say_what_the_snapshot_says(snapshot):
    found, _ = metrics_of(snapshot)
    assert found["fedstream_topic_records_total", ("topic", "sensor-data-node-1")] == 2000
    assert found["fedstream_query_lag_records", ("query", "fog-2"), ("topic", "sensor-data-node-2")] == 400
    assert found["fedstream_service_up", ("service", "fog-1")] == 1
    assert found["fedstream_service_up", ("service", "fog-2")] == 0
    assert found["fedstream_round_open_timestamp_seconds",] == NOW - 77
    assert found["fedstream_model_f1_ratio",] == 1
    assert found["fedstream_rounds_total", ("result", "closed")] == 2
    assert found["fedstream_round_updates_total", ("kind", "missing")] == 1
    assert found["fedstream_dead_letters_total", ("topic", "sensor-data-node-1")] == 2
    assert found["fedstream_squares_wrong_total",] == 1
    assert found["fedstream_query_batches_total", ("query", "fog-1")] == 103  # micro-batches 0 to 102
    assert found["fedstream_node_last_update_timestamp_seconds", ("kind", "weight"), ("node", "fog-2")] == NOW - 40


def test_each_metric_has_values_while_data_flow_and_none_before(snapshot):
    _, families = metrics_of(snapshot)
    names = {family.name.removesuffix("_total") for family in FAMILIES}
    assert names <= families.keys()
    assert [name for name in names if not families[name].samples] == []
    found, _ = metrics_of(Board(Settings()).snapshot(0))
    own = {name for name, *_ in found if name.startswith("fedstream_")}
    assert own == {"fedstream_squares_wrong_total", "fedstream_board_unusable_records_total"}


def test_each_metric_is_declared_once_with_its_help_and_a_base_unit():
    names = [family.name for family in FAMILIES]
    assert len(names) == len(set(names))
    assert all(family.about for family in FAMILIES)
    assert not [name for name in names if re.search(r"_(ms|milliseconds|minutes|kb|percent)(_|$)", name)]


def test_counters_do_not_fall_within_a_run():
    snapshots = list(play(Board(Settings())))
    first, second = (metrics_of(each)[0] for each in snapshots)
    counters = [key for key in first if key[0].endswith("_total") and not key[0].startswith("process_")]
    assert len(counters) > 20
    assert [key for key in counters if second[key] < first[key]] == []
    assert second["fedstream_rounds_total", ("result", "closed")] == 3


# --- texts


def test_both_languages_have_the_same_texts_and_placeholders():
    english, french = (json.loads((STATIC / f"{each}.json").read_text(encoding="utf-8")) for each in ("en", "fr"))
    assert english.keys() == french.keys()
    for key, text in english.items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", french[key])), key
    same = {key for key in english if english[key] == french[key]}
    units = {
        "per-second",
        "milliseconds",
        "seconds",
        "minutes",
        "hours",
        "percent",
        "f1-about",
        "alerts-about",
        "lag-cell",
    }
    words = {"topic", "version", "jobs", "micro-batch", "topics-title", "place", "pages"}
    words |= {"partition", "offset", "step-version"}
    assert same <= units | words | {"title-edge", "title-fog", "title-cloud"}


def test_each_text_of_the_page_is_there_and_none_is_unused():
    texts = json.loads((STATIC / "en.json").read_text(encoding="utf-8"))
    shell = (STATIC / "index.html").read_text(encoding="utf-8")
    code = "\n".join(path.read_text(encoding="utf-8") for path in STATIC.glob("*.js"))
    used = set(re.findall(r"\{\{(\S+?)\}\}", shell)) - {"lang", "runner", "token"} | set(
        re.findall(r'\bt\("([\w-]+)"', code)
    )
    assert used <= texts.keys()
    built = r"(trouble|box|state|kind|card|title|squares|follow|step)-.*|live|lost|f1-title|loss-title"
    assert [key for key in texts if key not in used and not re.fullmatch(built, key)] == []


def test_a_fold_of_nothing_is_a_page_without_numbers():
    empty = Board(Settings()).snapshot(5.0)
    assert (empty["run"], empty["weight"], empty["nodes"], empty["jobs"], empty["alerts"]) == (None, None, [], [], None)
