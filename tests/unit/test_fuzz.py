"""Seeded fuzzing of all topics: whatever a record holds, nothing fails, and what is rejected changes nothing.

    pytest tests/unit/test_fuzz.py --fuzz-seconds 600 --fuzz-seed 7
"""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import contextmanager
from random import Random
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from fake_topics import Stack, Topics
from msgspec.structs import replace
from mutations import mutated

from fedstream.learning.models import configured_model
from fedstream.learning.scores import Score
from fedstream.messages.dead_letters import dead_letter
from fedstream.messages.door import encode
from fedstream.messages.rounds import Deadline, GlobalModel, Rollback, fit_model, model_update, read_global
from fedstream.messages.topics import EVENTS, GLOBAL_MODEL, MODEL_VERSIONS, MODEL_WEIGHTS, ROUND_CONTROL, sensor_topic
from fedstream.messages.weights import NodeWeight, RunningSums
from fedstream.rounds.cloud_state import INITIAL, Rounds
from fedstream.rounds.drift import PageHinkley
from fedstream.settings import Settings

RECORDS_A_BATCH = 20
BATCHES_A_RUN = 60  # then the cloud begins anew, or most of its nodes would be kept out in the end


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
        self.random, self.seen = random, {f"fog-{n}": RunningSums(10, (750.0, 0.6), (57_000.0, 0.042)) for n in (1, 2, 3)}

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
        self.own = self.rounds.model.initial_arrays(settings.seed)
        self.old = [(topic, json.loads(r.value)) for topic, log in old.records.items() for r in log if r.value]
        self.donors = [message for _, message in self.old]
        self.number, self.kinds, self.offset = 0, Counter(), 0

    def begin(self):
        """Begin anew."""
        self.state, self.nodes, self.versions = self.script.read_state(INITIAL), Nodes(self.random), []

    def record(self, opened):
        """Return the next record."""
        random = self.random
        if random.random() < 0.75:
            topic, message = self.nodes.message(opened, self.versions)
            message = json.loads(encode(message))
        else:
            topic, message = random.choice(self.old)
        value = encode(message) if random.random() < 0.25 else mutated(message, self.donors, random)
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
        aggregator = self.script.CloudAggregator(self.state, self.rounds.open(self.state), self.settings)
        self.records, now = [], self.random.choice((1000, 10**12, 2000)) + self.number
        for _ in range(RECORDS_A_BATCH):
            record = self.record(aggregator.federation.run.opened.model)
            self.records.append(record)
            self.number += 1
            with told(self.fuzz, self.number, record, self.settings):
                before = self.kept(aggregator), len(aggregator.rejected)
                aggregator.take(record, now)
                self.kinds["rejected" if len(aggregator.rejected) > before[1] else "taken"] += 1
                if len(aggregator.rejected) > before[1]:
                    self.check_rejected(aggregator, before[0], now)
        with told(self.fuzz, self.number, *self.records, self.settings):
            self.check_outcome(aggregator)

    def check_rejected(self, aggregator, before, now):
        """A rejected record has changed nothing, beside the offences and what a quarantine makes of the round."""
        record, reason = aggregator.rejected[-1]
        assert is_printable(reason), reason
        assert len(reason) < 2000
        encode(dead_letter(record.value, reason, (record.topic, record.partition, record.offset), now))
        after = self.kept(aggregator)
        if after == before:
            return
        (old_latest, old_run, old_missing, old_out), (latest, run, missing, out) = map(msgspec.json.decode, (before, after))
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

    def check_outcome(self, aggregator):
        """What goes out can be read, models can be trained, and a restarted cloud goes on from the same state."""
        kept, outbox = self.kept(aggregator), aggregator.federation.outbox
        for topic, _, message in outbox:
            assert msgspec.json.decode(encode(message))
            if isinstance(message, GlobalModel):
                fit_model(read_global(encode(message)), self.own, self.settings, len(self.settings.table))
                self.versions = [*self.versions[-9:], message]
                self.kinds["versions"] += topic == MODEL_VERSIONS
            else:
                assert is_printable(message.detail), message
                self.kinds[message.kind] += 1
        state = aggregator.outcome()
        assert all(map(is_printable, state.said)), state.said
        value = json.loads(json.dumps(msgspec.to_builtins(state, str_keys=True), allow_nan=False))
        self.state = self.script.read_state(value)
        again = self.script.CloudAggregator(self.state, self.rounds.open(self.state), self.settings)
        again.federation.outbox = outbox
        assert self.kept(again) == kept


CLOUDS = {
    "sync": {"drift_threshold": 0.3, "drift_action": "boost"},
    "async": {"round_mode": "async", "max_staleness": 3},
    "sampled": {"strategy": "FedAdam", "strategy_options": "fraction_train=0.5", "known_nodes": "fog-*", "model": "mlp"},
}


@pytest.mark.parametrize("name", CLOUDS)
def test_the_cloud_takes_in_whatever_comes(script, fuzz, name, capsys):
    settings = Settings(**{"model": "logistic", "quarantine_rounds": 2, "model_options": ""} | CLOUDS[name])
    cloud = FuzzedCloud(script, fuzz, settings, history())
    end, started = time.monotonic() + fuzz.seconds / len(CLOUDS) / 3, time.monotonic()
    while time.monotonic() < end:
        cloud.begin()
        for _ in range(BATCHES_A_RUN):
            cloud.batch()
    seconds = time.monotonic() - started
    with capsys.disabled():
        print(f"\ncloud {name}: {cloud.number} messages, {cloud.number / seconds:.0f}/s, {dict(cloud.kinds)}")
