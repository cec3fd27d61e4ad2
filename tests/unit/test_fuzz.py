"""Seeded fuzzing of all topics: whatever a record holds, nothing fails, and what is rejected changes nothing.

pytest tests/unit/test_fuzz.py --fuzz-seconds 600 --fuzz-seed 7
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from contextlib import contextmanager, redirect_stdout
from functools import partial
from io import StringIO
from itertools import product
from random import Random
from types import SimpleNamespace
from unittest.mock import patch

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from fake_topics import Stack, Topics
from mutations import mutated

from fedstream import tables
from fedstream.broker import kafka, models
from fedstream.commands import latency
from fedstream.commands.cli import main
from fedstream.commands.watch import event_row, round_row, view
from fedstream.learning.arrays import layout
from fedstream.learning.models import configured_model
from fedstream.learning.scores import Score
from fedstream.learning.training import Trained
from fedstream.messages.dead_letters import dead_letter
from fedstream.messages.door import decode, encode
from fedstream.messages.rounds import (
    Deadline,
    Event,
    GlobalModel,
    Rollback,
    fit_model,
    model_update,
    read_global,
    read_update,
)
from fedstream.messages.topics import (
    ALERTS,
    EVENTS,
    GLOBAL_MODEL,
    MODEL_VERSIONS,
    MODEL_WEIGHTS,
    NUMBERS,
    ROUND_CONTROL,
    SQUARES,
)
from fedstream.messages.weights import LONGEST_NAME, NodeWeight, RunningSums
from fedstream.rounds.aggregator import CloudAggregator, take_in
from fedstream.rounds.cloud_state import INITIAL, Rounds, read_state
from fedstream.rounds.drift import PageHinkley
from fedstream.rounds.federation import Federation, resumable
from fedstream.rounds.nodes import is_known
from fedstream.rounds.run_state import resumed_run
from fedstream.rounds.runs import read_messages, read_models
from fedstream.settings import Settings
from fedstream.spark.scoring import scorable, scoring_ddl, scoring_message
from fedstream.spark.training import OpenRounds, Task, is_next, merge_groups
from fedstream.tables import make_console, round_table

RECORDS_A_BATCH = 20
BATCHES_A_RUN = 60  # then the cloud begins anew, or most of its nodes would be kept out in the end
TABLES = 0.1  # of the closed rounds: to draw one takes as long as twenty records
MOST_DIGESTS = 200_000  # of models that were used before


@pytest.fixture
def fuzz(request):
    """Return the seed and for how many seconds each part goes on."""
    option = request.config.getoption
    return SimpleNamespace(seed=option("--fuzz-seed", 1), seconds=option("--fuzz-seconds", 20.0))


@contextmanager
def told(fuzz, number, *parts):
    """Say with a failure what led to it, so that it can be repeated."""
    try:
        yield
    except BaseException as error:
        shown = "\n".join(f"  {part!r:.3000}" for part in parts)
        error.add_note(f"--fuzz-seed {fuzz.seed}, message {number}:\n{shown}")
        raise


def is_printable(text):
    return all(line.isprintable() for line in text.split("\n"))


# --- valid messages


def history(**settings):
    """Return the topics of a real run: rounds, a drift, a quarantine, a rollback."""
    topics = Topics()
    stack = Stack(topics, **settings).run(3)
    stack.federation.run.drift.tests["fog-1"] = PageHinkley(9, 0.0, 99.0)  # its next error completes a drift
    stack.run(2)
    for _ in range(stack.settings.quarantine_after):
        stack.federation.offend("fog-2", "odd")
    stack.federation.rollback(topics.models(MODEL_VERSIONS)[1], stack.clock)
    stack.send()
    stack.run(2)
    assert {"drift", "quarantine", "rollback"} <= {each["kind"] for each in topics.messages(EVENTS)}
    topics.add(ROUND_CONTROL, b"run-a", Deadline("run-a", 1))
    topics.add(ROUND_CONTROL, b"run-a", Rollback("run-a", 10**15, topics.models(MODEL_VERSIONS)[2]))
    return topics


class Nodes:
    """Fog nodes that answer whatever round is open, with numbers that fit."""

    def __init__(self, random):
        """Start without a reading."""
        self.random, self.seen = (
            random,
            {f"fog-{n}": RunningSums(10, (750.0, 0.6), (57_000.0, 0.042)) for n in (1, 2, 3)},
        )

    def weight(self, node):
        """Return a node's next running weight."""
        count = self.random.randrange(1, 50)
        self.seen[node] += RunningSums(count, (75.0 * count, 0.06 * count), (5700.0 * count, 0.0042 * count))
        seen = self.seen[node]
        return NodeWeight(node, seen.weight((1, 100)), seen.count, seen.rejected, seen.sums, seen.squares)

    def message(self, opened, versions):
        """Return a message that fits the open round."""
        random, node = self.random, self.random.choice(list(self.seen))
        kind = random.randrange(20)
        if kind < 6 or opened is None:
            return MODEL_WEIGHTS, self.weight(node)
        if kind < 16:
            arrays = {name: array + random.uniform(-1, 1) for name, array in opened.arrays.items()}
            wrong, right = random.randrange(20), random.randrange(1, 60)
            score = Score(0.3 * (wrong + right), ((right, wrong), (0, 0)))
            learned = {"arrays": arrays, "score": score} if random.random() < 0.9 else {}
            count = score.num_examples if learned else 0
            return MODEL_WEIGHTS, model_update(self.weight(node), opened, random.randrange(2**40), count, **learned)
        if kind < 18:
            return ROUND_CONTROL, Deadline(opened.run_id, opened.round)
        return ROUND_CONTROL, Rollback(opened.run_id, 2**41, random.choice(versions or [opened]))


# --- the cloud


class FuzzedCloud:
    """The cloud, record by record, with all that must hold checked around each."""

    def __init__(self, script, fuzz, settings, old):
        """Begin without a state; `old` are the topics of another run."""
        self.script, self.fuzz, self.settings = script("cloud/aggregator.py"), fuzz, settings
        self.random = Random(f"{fuzz.seed} {settings}")
        self.rounds = Rounds(settings, configured_model(settings), "run-a")
        self.old = [(topic, r.value) for topic, log in old.records.items() for r in log if r.value]
        self.donors = [json.loads(value) for _, value in self.old]
        self.number, self.kinds, self.offset = 0, Counter(), 0

    def begin(self):
        """Begin anew."""
        self.value, self.nodes, self.versions = INITIAL, Nodes(self.random), []
        self.aggregator = self.started()

    def started(self):
        """Return a cloud that goes on from the kept value, as after a crash."""
        state = read_state(self.value)
        return CloudAggregator(state, self.rounds.open(state), self.settings)

    def record(self, opened):
        """Return the next record."""
        random = self.random
        if random.random() < 0.75:
            topic, message = self.nodes.message(opened, self.versions)
            value = encode(message)
        else:
            topic, value = random.choice(self.old)
        if random.random() < 0.75:
            value = mutated(value, self.donors, random)
        if topic not in (MODEL_WEIGHTS, ROUND_CONTROL) or random.random() < 0.03:
            topic = random.choice((MODEL_WEIGHTS, ROUND_CONTROL))
        self.offset += 1
        return SimpleNamespace(value=value, topic=topic, partition=0, offset=self.offset)

    def kept(self, aggregator):
        """Return what is kept, as JSON."""
        federation = aggregator.federation
        latest = dict(sorted(aggregator.latest.items()))
        return msgspec.json.encode([latest, federation.run, sorted(federation.missing), len(federation.outbox)])

    def batch(self):
        """Take in a micro-batch, and go on from what has come out of it."""
        aggregator, self.records = self.aggregator, []
        now, before = self.random.choice((1000, 10**12, 2000)) + self.number, self.kept(aggregator)
        for _ in range(RECORDS_A_BATCH):
            record = self.record(aggregator.federation.run.opened.model)
            self.records.append(record)
            self.number += 1
            with told(self.fuzz, self.number, record, self.settings):
                count = len(aggregator.rejected)
                aggregator.take(record, now)
                after = self.kept(aggregator)
                self.kinds["rejected" if len(aggregator.rejected) > count else "taken"] += 1
                if len(aggregator.rejected) > count:
                    self.check_rejected(aggregator, before, after, now)
                before = after
        with told(self.fuzz, self.number, *self.records, self.settings):
            self.check_outcome(aggregator, now)

    def check_rejected(self, aggregator, before, after, now):
        """A rejected record has changed nothing, beside the offences and what a quarantine makes of the round."""
        record, reason = aggregator.rejected[-1]
        assert is_printable(reason), reason
        assert len(reason) < 2000
        encode(dead_letter(record.value, reason, (record.topic, record.partition, record.offset), now, "cloud"))
        if after == before:
            return
        self.kinds["offences"] += 1
        (old_latest, old_run, old_missing, old_out), (latest, run, missing, out) = map(
            msgspec.json.decode, (before, after)
        )
        assert latest == old_latest
        if old_run["nodes"]["quarantine"] != run["nodes"]["quarantine"]:
            self.kinds["quarantined"] += 1
            assert old_out + 1 <= out  # the event; and the round may have closed, since nobody is waited for any more
            return
        assert (missing, out) == (old_missing, old_out)
        for each in (old_run, run):
            each["nodes"].pop("offences")
            each["opened"]["counts"].pop("rejected", None)
        assert run == old_run

    def check_outcome(self, aggregator, now):
        """What goes out can be read, models can be trained, and a restarted cloud goes on from the same state."""
        kept, outbox = self.kept(aggregator), aggregator.federation.outbox
        for topic, key, message in outbox:
            if message is None:  # a version that is no longer kept
                assert topic == MODEL_VERSIONS, key
                self.kinds["removed"] += 1
                continue
            assert msgspec.json.decode(encode(message))
            if isinstance(message, GlobalModel):
                fit_model(read_global(encode(message)), self.rounds.model, self.settings)
                self.versions = [*self.versions[-9:], message]
                means = zip(self.settings.table, message.scaler.mean, strict=True)
                assert all(each.low - 1e-6 <= mean <= each.high + 1e-6 for each, mean in means), message.scaler
                self.kinds["versions"] += topic == MODEL_VERSIONS
            else:
                assert is_printable(message.detail), message
                self.kinds[message.kind] += 1
        with patch.object(tables, "round_table", self.table):
            state = self.script.outcome(aggregator)
        assert all(map(is_printable, state.said)), state.said
        names = {*state.latest, *state.run.nodes.heard, *state.run.nodes.offences, *state.run.nodes.quarantine}
        assert all(is_known(name, self.settings) and len(name) <= LONGEST_NAME for name in names)
        if self.random.random() < 0.1:  # the driver's own way, one topic after the other
            taken = take_in(self.records, self.value, self.rounds, now)
            assert not any("internal:" in reason for _, reason in taken.rejected), taken.rejected
            encode(self.script.outcome(taken))
        self.value = json.loads(json.dumps(msgspec.to_builtins(state, str_keys=True), allow_nan=False))
        self.aggregator = again = self.started()
        again.federation.outbox = outbox
        assert self.kept(again) == kept
        again.federation.outbox = []

    def table(self, model):
        """Return a closed round's table, or mostly none."""
        return round_table(model) if self.random.random() < TABLES else ""


# --- the doors of the fog nodes and the alerts, and of a cloud that has lost its state


class FuzzedDoors:
    """Who follows the global model, with one record after the other."""

    def __init__(self, fuzz, settings, old, monkeypatch):
        """Follow a topic that is empty yet."""
        self.fuzz, self.settings, self.random = fuzz, settings, Random(f"doors {fuzz.seed} {settings}")
        self.model, self.coming = configured_model(settings), []
        self.good = [r.value for r in old.records[GLOBAL_MODEL] if b"arrays" in r.value]
        self.others = [r.value for log in old.records.values() for r in log if r.value]
        self.donors = [json.loads(r.value) for log in old.records.values() for r in log if r.value]
        self.number, self.kinds, self.taken, self.used = 0, Counter(), {}, set()
        corners = np.array(list(product(*((each.low, each.high) for each in settings.table))))
        self.x, self.y = np.vstack([corners, [[75.0, 0.06]]]), np.array([0, 1, 0, 1, 0])
        monkeypatch.setattr(kafka, "follow_topic", lambda settings, topic, last=None: lambda seconds: self.coming)
        monkeypatch.setattr(kafka, "read_backwards", lambda settings, topic: iter(()))
        fog = OpenRounds(settings)
        fit = partial(resumable, settings=settings, model=self.model)
        self.doors = {
            self.check_fog: fog._newest,
            self.check_alerts: models.follow_models(settings, partial(scorable, table=settings.table), "Alertes"),
            self.check_cloud: models.follow_models(settings, fit, "Cloud"),
        }

    def check(self):
        """Send one record; what a door takes can be used, and why it takes none is told in one line."""
        random, self.number = self.random, self.number + 1
        value = mutated(random.choice(self.good if random.random() < 0.9 else self.others), self.donors, random)
        record = SimpleNamespace(value=value, topic=GLOBAL_MODEL, partition=0, offset=self.number)
        with told(self.fuzz, self.number, record, self.settings):
            for check, newest in self.doors.items():
                with redirect_stdout(StringIO()) as said:
                    self.coming[:] = [record]
                    model = newest(0)
                text = said.getvalue()
                assert "internal:" not in text, text
                assert is_printable(text), text
                if model is not self.taken.get(check):
                    assert not text
                    self.taken[check] = model
                    self.kinds[check.__name__] += 1
                    check(model)

    def is_used(self, who, *parts):
        """Tell whether somebody has used a model with the same parts before: the same comes out of it."""
        digest = hash((who, msgspec.json.encode(parts)))
        if digest in self.used:
            return True
        if len(self.used) >= MOST_DIGESTS:
            self.used.clear()
        self.used.add(digest)
        self.kinds[f"used by {who}"] += 1
        return False

    def check_fog(self, model):
        """A node can test and train the model, or tells why not."""
        is_next(model, {"run_id": "run-a", "round": 1}, ["fog-1"])
        if self.is_used("fog", model.named_arrays, model.scaler, model.config):  # in the order in which it came
            return
        x = self.x if model.scaler is None else model.scaler.apply(self.x)
        probabilities = self.model.predict(model.arrays, x)
        assert np.isfinite(probabilities).all()
        assert np.allclose(probabilities.sum(axis=1), 1)
        readings = pa.table({"offset": range(5), "values": self.x.tolist(), "label": self.y})
        [row] = Task(model, self.settings).train_group((pa.scalar(1), pa.scalar(0)), readings).to_pylist()
        with redirect_stdout(StringIO()) as said:
            trained = merge_groups([SimpleNamespace(**row)])
        assert is_printable(said.getvalue()), said.getvalue()
        result = trained.get("fog-1", Trained({}, 0, Score()))
        update = model_update(
            NodeWeight("fog-1", 1.0, 5), model, 1, result.num_examples, arrays=result.arrays, score=result.score
        )
        read_update(encode(update))

    def check_alerts(self, model):
        """Spark can score readings with the model."""
        message = json.loads(encode(scoring_message(model)))
        assert scoring_ddl(layout(model.arrays))
        x = (self.x - np.array(message["mean"])) / np.array(message["std"])
        arrays = list(model.arrays.values())
        if model.model == "logistic":
            arrays[0] = arrays[0].T
        for coefs, intercepts in zip(arrays[::2], arrays[1::2], strict=True):
            x = np.maximum(x, 0) if coefs is not arrays[0] else x
            x = x @ coefs + intercepts
        assert np.isfinite(x).all()

    def check_cloud(self, model):
        """A cloud can go on from the model: it closes a round, and what comes out is read again."""
        told_before = dict.fromkeys(TOLD_OF_THE_ROUND_BEFORE)
        if self.is_used("cloud", msgspec.structs.asdict(model) | told_before):
            return
        run = resumed_run(model, self.settings)
        federation = Federation(run, self.settings, self.model, {})
        for node in ("fog-1", "fog-2"):
            federation.hear(NodeWeight(node, 1.0, 10, 0, (750.0, 0.6), (57_000.0, 0.042)))
        for node in ("fog-1", "fog-2"):
            score = Score(1.0, ((5, 0), (0, 0)))
            learned = {"arrays": model.arrays, "score": score}
            federation.receive(model_update(NodeWeight(node, 1.0, 10), model, 5, 5, **learned))
        federation.pass_deadline(run.run_id, run.opened.number)
        federation.settle(10)
        for _, _, message in federation.outbox:
            if message is None:  # the model says that it is a late version: the earlier ones are not kept
                continue
            (read_global if isinstance(message, GlobalModel) else partial(decode, Event))(encode(message))


# What a model tells people of the round before it.
TOLD_OF_THE_ROUND_BEFORE = (
    *("global_weight", "samples", "nodes", "opened_at", "counts", "base_version", "metrics", "node_metrics", "updates"),
    *("failed", "restored_from"),
)
MODELS = {"logistic": {"model": "logistic"}, "mlp": {"model": "mlp", "strategy": "FedAdam"}}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_taken_and_can_be_used_or_is_told(fuzz, name, monkeypatch, capsys):
    settings = Settings(**MODELS[name], local_epochs=1)
    doors = FuzzedDoors(fuzz, settings, history(**MODELS[name]), monkeypatch)
    started = time.monotonic()
    while (seconds := time.monotonic() - started) < fuzz.seconds / len(MODELS) / 3:
        doors.check()
    assert doors.kinds.keys() >= {check.__name__ for check in doors.doors}, "each door took some"
    with capsys.disabled():
        print(f"\ndoors {name}: {doors.number} messages, {doors.number / seconds:.0f}/s, {dict(doors.kinds)}")


# --- the commands


class FuzzedCommands:
    """The commands, on topics that hold odd records among good ones."""

    CALLS = (
        *(("models", "list"), ("models", "list", "--json", "--metric", "loss"), ("models", "show", "current")),
        *(("models", "show", "best", "--json"), ("models", "show", "2"), ("models", "rollback", "best")),
        *(("models", "export", "current", "--format", "json"), ("models", "export", "2", "--format", "skops")),
        *(("history", "jsonl"), ("history", "parquet"), ("verify",), ("verify", "--json"), ("alerts",)),
        *(
            ("alerts", "--json"),
            ("watch", "--rounds", "3", "--timeout", "0.001"),
            ("watch", "--json", "--timeout", "0.001"),
        ),
        *(("latency", "--seconds", "0.001"), ("latency", "--seconds", "0.001", "--json"), ("live",)),
        *(("plot", "--max-readings", "0"), ("plot", "--max-readings", "500")),
    )

    def __init__(self, fuzz, old, folder):
        """Have the good topics and the others apart."""
        self.fuzz, self.good, self.folder, self.random = fuzz, old, folder, Random(f"commands {fuzz.seed}")
        for number, log in enumerate((ALERTS, NUMBERS, SQUARES)):
            for each in range(12):
                alert = {"sensor_id": "s", "probability": 0.5, "alert": True, "model_version": 2, "run_id": "run-a"}
                times = {"event_time": 1000 + each, "scored_at": 1010 + each}
                old.add(log, b"k", (alert | times, {"n": each}, {"n": each, "square": each * each})[number])
        for node in (1, 2):  # the running weights that latency looks for
            for samples in (10, 40, 70):
                weight = NodeWeight(
                    f"fog-{node}",
                    40.0,
                    samples,
                    0,
                    (75.0 * samples, 0.06 * samples),
                    (5700.0 * samples, 0.0042 * samples),
                )
                old.add(MODEL_WEIGHTS, b"k", weight)
        self.donors = [json.loads(r.value) for log in old.records.values() for r in log if r.value]
        self.number, self.calls, self.kinds, self.topics = 0, 0, Counter(), Topics()

    def spoil(self):
        """Fill the topics anew: with the good records, and mutations of some among them."""
        random = self.random
        self.topics.clear()  # not others: monkeypatch keeps whatever it has replaced until the test ends
        for name, log in self.good.records.items():
            share = random.choice((0, 0, 0.05, 0.3, 1)) if self.calls else 0  # the first time all is well
            for record in log:
                value = record.value
                if value and random.random() < share:
                    value = mutated(value, self.donors, random)
                    self.number += 1
                    if random.random() < 0.7:
                        self.topics.add(name, record.key, record.value)
                self.topics.add(name, random.choice((record.key, record.key, None, b"\x1b", b"")), value)

    def call(self, words):
        """Call a command; it ends well or with one readable paragraph, and shows nothing that a terminal obeys."""
        arguments, self.calls = list(words[1:]), self.calls + 1
        if words[0] == "history":
            arguments = ["--output", str(self.folder / f"rounds.{words[1]}")]
        if words[0] == "plot" or words[1:2] == ("export",):
            arguments += ["--output", str(self.folder / "file.png")]
        if words == ("live",):
            self.show_live()
            return
        if words[1:2] == ("rollback",) and self.random.random() < 0.8:
            return  # it waits for the cloud
        if words[0] in ("watch", "latency"):
            self.come_later()
        result = CliRunner().invoke(main.commands[words[0]], arguments)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code in (0, 1), result.output
        assert is_printable(result.output), result.output
        if result.exit_code:
            assert result.stderr.startswith("Error: "), result.stderr
            assert result.stderr.count("\n") == 1, result.stderr
        self.kinds[f"{words[0]} {result.exit_code}"] += 1

    def come_later(self):
        """Let the second half of each topic come while a command listens."""
        whole = {topic: list(log) for topic, log in self.topics.records.items()}
        for log in self.topics.records.values():
            del log[len(log) // 2 :]

        def come(topic):
            log = self.topics.records.get(topic, [])
            later = whole.get(topic, [])[len(log) :]
            log += later[: max(1, len(later) // 2)] if seen[topic] else []
            seen[topic] += 1

        seen = Counter()
        self.topics.on_read = come

    def show_live(self):
        """Show what the live table of a terminal would."""
        records = self.topics.records
        rows = [round_row(model) for model in read_models(records[GLOBAL_MODEL]) if model.closes_round]
        events = [event_row(event) for event in read_messages(records[EVENTS], partial(decode, Event))]
        console = make_console()
        with console.capture() as shown:
            console.print(view(rows[-15:], events[-5:]))
        assert is_printable(shown.get()), shown.get()


class Unprintable(logging.Handler):
    """Keeps what nobody should log, and no more: pytest keeps each record, its errors and what these hold in memory."""

    def __init__(self):
        """Start with nothing."""
        super().__init__()
        self.found = []

    def emit(self, record):
        """Look at what is logged."""
        if not is_printable(record.getMessage()):
            self.found.append(record.getMessage())


def test_a_command_ends_well_or_says_why_whatever_is_on_the_topics(fuzz, tmp_path, monkeypatch, capsys, caplog):
    logger, unprintable = logging.getLogger("fedstream"), Unprintable()
    monkeypatch.setattr(logger, "handlers", [unprintable])
    monkeypatch.setattr(logger, "propagate", False)
    for name in ("STRATEGY", "STRATEGY_OPTIONS", "MODEL", "SEED", "KAFKA_BOOTSTRAP_SERVERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WAIT_TIMEOUT_SECONDS", "0.1")
    monkeypatch.setenv("LOCAL_EPOCHS", "1")
    monkeypatch.setattr(latency, "GRACE_SECONDS", 0.0)
    commands, started = FuzzedCommands(fuzz, history(), tmp_path), time.monotonic()
    commands.topics.install(monkeypatch)
    while (seconds := time.monotonic() - started) < fuzz.seconds / 3:
        commands.spoil()
        for words in commands.CALLS:
            with told(fuzz, commands.number, words, commands.topics.records):
                commands.call(words)
        assert not unprintable.found, unprintable.found
        assert all(is_printable(record.getMessage()) for record in caplog.records)  # of other loggers
        caplog.clear()
    assert {f"{words[0]} 0" for words in commands.CALLS if words != ("live",)} <= set(commands.kinds)
    with capsys.disabled():
        print(f"\ncommands: {commands.calls} calls, {commands.calls / seconds:.0f}/s, {commands.number} messages")
        print(dict(commands.kinds))


CLOUDS = {
    "sync": {"drift_threshold": 0.3, "drift_action": "boost"},
    "async": {"round_mode": "async", "max_staleness": 3},
    "sampled": {
        "strategy": "FedAdam",
        "strategy_options": "fraction_train=0.5",
        "known_nodes": "fog-*",
        "model": "mlp",
    },
}


@pytest.mark.parametrize("name", CLOUDS)
def test_the_cloud_takes_in_whatever_comes(script, fuzz, name, capsys):
    settings = Settings(
        **{"model": "logistic", "quarantine_rounds": 2, "versions_kept": 2, "model_options": ""} | CLOUDS[name]
    )
    cloud = FuzzedCloud(script, fuzz, settings, history())
    end, started = time.monotonic() + fuzz.seconds / len(CLOUDS) / 3, time.monotonic()
    while time.monotonic() < end:
        cloud.begin()
        for _ in range(BATCHES_A_RUN):
            cloud.batch()
    seconds = time.monotonic() - started
    assert {"taken", "rejected", "quarantined", "rollback", "versions"} <= set(cloud.kinds), "else nothing was tried"
    with capsys.disabled():
        print(f"\ncloud {name}: {cloud.number} messages, {cloud.number / seconds:.0f}/s, {dict(cloud.kinds)}")
