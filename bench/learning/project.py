"""This project as the room of learning sees it: the only place here that knows its classes."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from bench.lab.jobs import MODEL_WEIGHTS, SETTINGS, records_of, sensor_topic
from fedstream.learning.models import make_model
from fedstream.learning.scores import score
from fedstream.learning.training import train, train_config, train_seed
from fedstream.messages.rounds import GlobalModel
from fedstream.messages.weights import sums_of
from fedstream.settings import Settings
from fedstream.simulation.data import load
from fedstream.simulation.scenario import Scenario
from fedstream.simulation.simulate import simulate

UNSEEN_SEED = 99
Array = npt.NDArray[Any]


def simulated(given: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return what a simulation gives; the keys are settings and parts of a scenario, and perhaps `baselines`."""
    names = {field.name for field in fields(Scenario)}
    scenario = Scenario(**{name: value for name, value in given.items() if name in names})
    settings = {name: value for name, value in given.items() if name not in names | {"baselines"}}
    return simulate(Settings(**settings, seed=seed), scenario, baselines=given.get("baselines", False))


def score_unseen(name: str, arrays: Any, scaler: Any) -> dict[str, float]:
    """Return a model's scores on 5,000 readings that no node has seen."""
    unseen = load("sensors", None, 5000, UNSEEN_SEED)
    return msgspec.structs.asdict(score(make_model(name, {}).predict(arrays, scaler.apply(unseen.x)), unseen.y))


def score_message(name: str, message: dict[str, Any]) -> dict[str, float]:
    """Return the scores of a global model that stands in a message."""
    model = msgspec.convert(message, GlobalModel)
    return score_unseen(name, model.arrays, model.scaler)


def score_central(name: str, x: Array, y: Array, step: int) -> dict[str, float]:
    """Return the scores of one machine that has all readings in their order, and trains on so many at a time."""
    model, scaler = make_model(name, {}), sums_of(x).scaler()
    arrays = model.initial_arrays(SETTINGS.seed)
    for number, first in enumerate(range(0, len(x), step), start=1):
        chunk = slice(first, first + step)
        seed = train_seed(SETTINGS, number, 0)
        arrays = train(model, arrays, scaler, x[chunk], y[chunk], train_config(SETTINGS, {}), seed).arrays
    return score_unseen(name, arrays, scaler)


def readings(nodes: int) -> tuple[Array, Array]:
    """Return features (n, 2) and labels (n,) of all nodes' readings, dealt out in turn as they were sent."""
    columns = []
    for node in range(1, nodes + 1):
        values = [json.loads(record.value) for record in records_of(sensor_topic(node))]
        columns.append([(each["temperature"], each["vibration"], each["label"]) for each in values])
    table = np.array([row for turn in zip(*columns, strict=True) for row in turn])
    return table[:, :2], table[:, 2].astype(np.int64)


def updates(node: int) -> list[tuple[int, tuple[int, int]]]:
    """Return (num_examples, place) of a node's updates, in order, each once."""
    found: dict[int, tuple[int, tuple[int, int]]] = {}
    for record in records_of(MODEL_WEIGHTS):
        message = json.loads(record.value)
        if "round" in message and message["node_id"] == f"fog-{node}":
            found.setdefault(message["trained_at"], (message["num_examples"], (record.partition, record.offset)))
    return list(found.values())
