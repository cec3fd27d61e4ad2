"""A federation of many nodes in one process: the cloud's rounds, the nodes' training, and time that is only counted.

    open model --(JSON)--> node: test, then train --(JSON)--> Federation --> next round

Every message is written and read as on the topics. What happens when is decided by a queue of events in virtual time,
so that nodes can be silent, slow or hostile; the same seed gives the same result, bit by bit.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

import click
import numpy as np

from fedstream.errors import BadMessage, SettingError, StackError
from fedstream.learning import scores
from fedstream.learning.models import make_model
from fedstream.learning.scores import Score
from fedstream.messages.door import decode, encode
from fedstream.messages.rounds import GlobalModel, ModelUpdate
from fedstream.messages.topics import GLOBAL_MODEL
from fedstream.messages.weights import NodeWeight, merge_update
from fedstream.rounds.admission import KINDS
from fedstream.rounds.federation import FIRST_SAMPLES, Federation
from fedstream.rounds.run_state import new_run
from fedstream.settings import Settings, parse_options
from fedstream.simulation.classes import class_counts, with_positive
from fedstream.simulation.data import FILE, load
from fedstream.simulation.partitions import BY, Spread, as_test, columns_of, hold_out, spread
from fedstream.simulation.scenario import Node, Scenario, World

TEST_FRACTION = 0.25
MEASURES = ("num_examples", *(measure.name for measure in scores.MEASURES))
BYTES = ("readings", "updates", "models")
MOST_SILENCE = 200  # deadlines in a row without a new round, after which there will never be one


def gather(settings: Settings, scenario: Scenario) -> Spread:
    """Return the rows of a scenario, held out and spread over its nodes.

    Raises:
        SettingError: a value of the scenario cannot be used.
    """
    nodes, rows, seed = scenario.known_nodes, scenario.rows, settings.seed
    if scenario.readings_per_round and scenario.data == "sensors" and rows is None and nodes:
        rows = math.ceil(nodes * (scenario.rounds * scenario.readings_per_round + 1) / (1 - TEST_FRACTION))
    # What nodes or tests go by is no feature; the file of a row never is one.
    beside = [name for name in columns_of(scenario.partition, scenario.test) if name not in ("", FILE)]
    reading = replace(scenario.reading, leave_out=(*scenario.reading.leave_out, *beside))
    data = with_positive(load(scenario.data, scenario.label, rows, seed, settings, reading), scenario.positive)
    for remark in data.remarks:
        click.echo(f"Warning: {remark}", err=True)
    files = [test for test in scenario.test if not test.startswith(BY)]
    if files and len(scenario.test) > 1:
        raise SettingError(f"test is {', '.join(scenario.test)}; expected one file, or by:COLUMN=VALUE once or more")
    train, test = data, data
    if files:
        test = as_test(load(files[0], scenario.label, None, seed, settings, reading), data)
    else:
        train, test = hold_out(data, scenario.test, seed, TEST_FRACTION)
    there = [label for label, count in class_counts(train).items() if count]
    if len(there) < 2:
        but = ", that are not held out," if scenario.test else ""
        raise SettingError(f"rows of {data.name}{but} have the labels {there}; expected at least two to train on")
    return spread(train, test, nodes, scenario.partition, seed)


def _run(
    world: World, nodes: list[Node], federation: Federation, latest: dict[str, NodeWeight]
) -> Iterator[tuple[int, GlobalModel]]:
    """Yield every message that opens a round, with its virtual time in ms, until the rows of a stream are used up.

    `latest` is what the federation reads the nodes' newest running weights from.
    """
    queue: list[tuple[int, int, Node | None, Any]] = []  # time, order, a node's message or a round's deadline
    order, random, dropout = itertools.count(), world.random, world.scenario.dropout
    deadline = round(world.settings.round_deadline_seconds * 1000)
    now = silence = 0
    for node in nodes:
        latest[node.name] = world.running(node)
        federation.hear(latest[node.name])
    federation.settle(now)
    while True:
        for topic, _, message in federation.outbox:
            if topic == GLOBAL_MODEL:
                text = encode(message)
                for node in nodes:
                    node.model_bytes += len(text)
                yield now, message
                opened, silence = decode(GlobalModel, text), 0
                heapq.heappush(queue, (now + deadline, next(order), None, opened.round))
                if world.is_over(nodes):
                    return
        federation.outbox.clear()
        for node in nodes:
            if node.is_busy or node.asked >= opened.round or node.name not in (opened.participants or (node.name,)):
                continue
            node.asked = opened.round
            if random.uniform() >= dropout:
                node.is_busy = True
                arrival = now + max(1, round(1000 * node.seconds * random.uniform(0.9, 1.1)))
                text = encode(world.answer(node, opened, now))
                node.update_bytes += len(text)
                heapq.heappush(queue, (arrival, next(order), node, text))
        now, _, sender, content = heapq.heappop(queue)
        if sender:
            sender.is_busy = False
            with suppress(BadMessage):  # counted as rejected
                update = decode(ModelUpdate, content)
                federation.receive(update)
                merge_update(latest, update)
                federation.hear(update)
            federation.settle(now)
        elif content == federation.run.opened.number:
            federation.pass_deadline(federation.run.run_id, content)
            if not federation.settle(now):
                silence += 1
                if silence > MOST_SILENCE:
                    opened_round, kept_out = federation.run.opened, federation.run.nodes.quarantine
                    found = f"{len(opened_round.pending)} updates, {opened_round.counts}, {kept_out}"
                    msg = f"round {content} has not closed in {silence} deadlines; updates, counts, quarantine: {found}"
                    raise StackError(msg)
                heapq.heappush(queue, (now + deadline, next(order), None, content))
                for node in nodes:  # those that were silent are asked again
                    node.asked = min(node.asked, content - (node.name not in federation.run.opened.answered))


def simulate(
    settings: Settings,
    scenario: Scenario,
    *,
    baselines: bool = False,
    on_round: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Run a federation; return every round, the final scores and what they were made with, as JSON values.

    Args:
        settings: model, strategy, training and the rules of a round.
        scenario: nodes, data, and what goes wrong.
        baselines: add `centralised` (one machine with all training rows, as many epochs in all, its own scaler) and
            `local_only` (each node alone in the same way, tested on all held-out rows: mean, lowest, highest).
        on_round: called with each round's entry as soon as it is closed.

    Raises:
        SettingError: a setting or value of the scenario cannot be used.
        StackError: the rounds cannot go on.
    """
    started = time.perf_counter()
    if settings.model == "mean":
        raise SettingError("MODEL is 'mean', which has no rounds; expected logistic, mlp or package.module:Class")
    settings = replace(settings, feature_scaling="shared" if scenario.scaling == "shared" else "none")
    data = gather(settings, scenario)
    scenario = replace(scenario, nodes=len(data.parts))
    if settings.round_quorum > len(data.parts):
        raise SettingError(f"ROUND_QUORUM is {settings.round_quorum}; expected at most the {len(data.parts)} nodes")
    features, classes = data.train.x.shape[1], data.train.classes
    model = make_model(settings.model, parse_options("MODEL_OPTIONS", settings.model_options), features, classes)
    world = World(settings, scenario, data, model, np.random.RandomState(settings.seed % 2**32))
    nodes = world.nodes()
    if (first := sum(node.seen for node in nodes)) < FIRST_SAMPLES:
        raise SettingError(f"the nodes start with {first} rows in all; expected at least {FIRST_SAMPLES}")
    latest: dict[str, NodeWeight] = {}
    # The bound on readings is that of a micro-batch; here all rows train.
    unbound = replace(settings, classes=classes, max_readings_per_update=sys.maxsize)
    federation = Federation(new_run("simulation", unbound), unbound, model, latest)
    history: list[dict[str, Any]] = []
    for now, message in _run(world, nodes, federation, latest):
        if message.round == 1:
            continue
        scalers = [message.scaler]
        if scenario.scaling == "local":
            scalers = [world.sums(node).scaler() for node in nodes]
        history.append(
            {"round": message.round - 1, "version": message.version, "virtual_seconds": now / 1000}
            | {"prequential": _measures(message.metrics) if message.metrics else {}}
            | {"test": _measures(world.test(message.arrays, scalers)), "counts": message.counts}
            | ({"failed": message.failed} if message.failed else {})
        )
        on_round(history[-1])
        if len(history) == scenario.rounds:
            break
    everything = hashlib.sha256(b"".join(array.tobytes() for array in federation.run.opened.arrays.values()))
    totals = {kind: sum(entry["counts"][kind] for entry in history) for kind in KINDS}
    result: dict[str, Any] = {
        "scenario": asdict(scenario) | {"reading": scenario.reading.chosen, "test": list(scenario.test)},
        "settings": dict(itertools.dropwhile(lambda item: item[0] != "model", asdict(settings).items())),
        "versions": {name: version(name) for name in ("flwr", "numpy", "scikit-learn")},
        "data": _about(data) | {"attackers": [node.name for node in nodes if node.is_attacker]},
        "rounds": history,
        "final": {key: history[-1][key] for key in ("version", "virtual_seconds", "prequential", "test")}
        | {"counts": totals, "model_sha256": everything.hexdigest()},
    }
    label, score = world.majority()
    result["majority"] = {"label": label, **_measures(score)}
    result["bytes"] = _bytes(world, nodes)
    if baselines:
        result["baselines"] = _baselines(world, nodes)
    return result | {"seconds": round(time.perf_counter() - started, 3)}


def _about(data: Spread) -> dict[str, Any]:
    labels, rows = data.train.labels, {"train": len(data.train.y), "test": len(data.test.y)}
    return (
        rows
        | {"features": data.train.x.shape[1], "labels": list(labels)}
        | {"positive": labels[1] if len(labels) == 2 else None}
        | {"classes": {"train": class_counts(data.train), "test": class_counts(data.test)}}
        | {"values": list(data.values), "rows_per_node": [len(part) for part in data.parts]}
    )


def _measures(result: Score) -> dict[str, Any]:
    """Return the measures of a score; None is one that its rows cannot tell."""
    return {name: None if name in result.unmeasured else getattr(result, name) for name in MEASURES}


def _bytes(world: World, nodes: list[Node]) -> dict[str, Any]:
    """Return the bytes of the readings that stay at each node, and of the updates and models that go instead."""
    each = {
        node.name: {"readings": world.reading_bytes(node), "updates": node.update_bytes, "models": node.model_bytes}
        for node in nodes
    }
    return {"nodes": each, "all": {kind: sum(one[kind] for one in each.values()) for kind in BYTES}}


def _baselines(world: World, nodes: list[Node]) -> dict[str, Any]:
    used = [node.rows[: node.trained] if world.scenario.readings_per_round else node.rows for node in nodes]
    epochs = world.settings.local_epochs * (1 if world.scenario.readings_per_round else world.scenario.rounds)
    alone = [_measures(world.alone(rows, epochs)) for rows in used if len(rows)]
    values = {name: [each[name] for each in alone] for name in MEASURES}
    return {
        "centralised": _measures(world.alone(np.concatenate(used), epochs)),
        "local_only": {name: None if None in found else math.fsum(found) / len(found) for name, found in values.items()}
        | {f"{edge.__name__}_accuracy": edge(values["accuracy"]) for edge in (min, max)},
    }
