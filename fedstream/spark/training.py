"""Training on the executors: a round's readings in, one trained group for each node and partition out.

records --> [labelled readings] --> [group by node and partition] --> test, then train --> merge per node --> updates
"""

from __future__ import annotations

import functools
import json
import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.streaming.readwriter import DataStreamWriter

from fedstream.broker import models
from fedstream.broker.position import now_ms
from fedstream.errors import StackError
from fedstream.learning import arrays as wire
from fedstream.learning.models import configured_model
from fedstream.learning.scores import Score
from fedstream.learning.training import Trained, merge_trained, train, train_config, train_seed
from fedstream.messages.rounds import GlobalModel, TooLargeError, check_size, fit_model, model_update
from fedstream.messages.topics import GLOBAL_MODEL, MODEL_WEIGHTS
from fedstream.messages.weights import NodeWeight
from fedstream.settings import Settings
from fedstream.spark import session
from fedstream.spark.readings import LABELLED, RECORD, NodeReadings
from fedstream.spark.state import BatchState, Publish

GROUP_DDL = "node INT, partition INT, num_examples LONG, result STRING"


# --- on the executors


@dataclass(frozen=True)
class Task:
    """What an executor needs to train a group: the round's model and this stack's settings."""

    model: GlobalModel
    settings: Settings

    def train_group(self, key: tuple[Any, ...], readings: pa.Table) -> pa.Table:
        """Train on one group's readings (LABELLED), in the order of their offsets.

        Whatever fails is the result of this group, and ends nothing.
        """
        node, partition = (part.as_py() for part in key)
        result: dict[str, Any]
        try:
            trained = self._train(readings, node, partition)
            named = wire.to_wire(trained.arrays)  # refuses NaN and infinity
            result = msgspec.to_builtins({"arrays": named, "score": trained.score})
            found = wire.layout(trained.arrays)
            if found != wire.layout(self.model.arrays):
                msg = f"the trained arrays are {found!s:.200}; expected {wire.layout(self.model.arrays)!s:.200}"
                raise ValueError(msg)
            if not math.isfinite(trained.score.loss_sum):
                msg = f"loss_sum of a score is {trained.score.loss_sum}; expected a finite number of at least 0"
                raise ValueError(msg)
            num_examples = trained.num_examples
        except (ValueError, FloatingPointError) as error:  # scikit-learn's word for weights that are not finite
            result, num_examples = {"failed": f"{error} (LEARNING_RATE ?)"}, 0
        except Exception as error:  # a model of the user's own may raise anything
            logging.getLogger(__name__).exception("node %s, partition %s", node, partition)
            result, num_examples = {"failed": f"{type(error).__name__}: {error}"}, 0
        return pa.table(
            {
                "node": pa.array([node], pa.int32()),
                "partition": pa.array([partition], pa.int32()),
                "num_examples": pa.array([num_examples], pa.int64()),
                "result": pa.array([json.dumps(result)], pa.string()),
            }
        )

    def _train(self, readings: pa.Table, node: int, partition: int) -> Trained:
        settings, opened = self.settings, self.model
        ordered = readings.sort_by("offset")
        x = np.array(ordered.column("values").to_pylist(), dtype=np.float64)
        y = ordered.column("label").to_numpy().astype(np.int64)
        model = configured_model(settings)
        config = train_config(settings, opened.config)
        seed = train_seed(settings, opened.round, node, partition)
        return train(model, opened.arrays, opened.scaler, x, y, config, seed, settings.decision_threshold)


def train_groups(records: DataFrame, readings: NodeReadings, task: Task) -> DataFrame:
    """Train each node's readings, partition by partition in parallel: (node, partition, num_examples, result).

    The readings stay on the executors; a result is JSON of arrays and score.
    """
    found = records.select(*RECORD).mapInArrow(readings.labelled, from_arrow_schema(LABELLED))
    if task.model.participants:
        found = found.where(F.concat(F.lit("fog-"), "node").isin(*task.model.participants))
    return found.groupBy("node", "partition").applyInArrow(lambda key, table: task.train_group(key, table), GROUP_DDL)


# --- on the driver


def merge_groups(rows: Iterable[Row]) -> dict[str, Trained]:
    """Return what each node has learned: its partitions' arrays averaged by their examples.

    A partition whose training failed is told on the console and counts for nothing.
    """
    parts: dict[str, list[Trained]] = {}
    for row in sorted(rows, key=lambda row: (row.node, row.partition)):
        result = json.loads(row.result)
        if "failed" in result:
            print(f"Fog-{row.node} -> rien d'appris : {result['failed']}", flush=True)
            continue
        arrays = wire.from_wire(msgspec.convert(result["arrays"], wire.NamedArrays))
        trained = Trained(arrays, row.num_examples, msgspec.convert(result["score"], Score))
        parts.setdefault(f"fog-{row.node}", []).append(trained)
    return {node: merge_trained(trained) for node, trained in parts.items()}


def is_next(model: GlobalModel, last: Mapping[str, Any], hosted: Collection[str]) -> bool:
    """Tell whether the nodes of this driver can train for a round: another one than the last, or any in mode async.

    The newest model tells which round is open. Its number may be a lower one: then the last was not the cloud's.
    """
    if model.participants and not set(model.participants) & set(hosted):
        return False
    return model.mode == "async" or (model.run_id, model.round) != (last.get("run_id"), last["round"])


class OpenRounds:
    """The rounds that the cloud opens, as far as their models fit this stack's."""

    def __init__(self, settings: Settings) -> None:
        """Follow the newest global model; one that does not fit is told and passed over.

        Raises:
            SettingError: MODEL, MODEL_OPTIONS or CLASS_WEIGHT cannot be used.
        """
        train_config(settings, {})
        fit = functools.partial(fit_model, model=configured_model(settings), settings=settings)
        self._newest = models.follow_models(settings, fit, "Fog")
        self._say_seconds = settings.wait_timeout_seconds

    def wait(self, last: Mapping[str, Any], hosted: Callable[[], Collection[str]]) -> GlobalModel:
        """Block until a round is open that the hosted nodes have not answered yet.

        There is no end to that wait, since the cloud may start later; what is waited for is said now and then.
        """
        said_at = time.monotonic()
        while True:
            model = self._newest(0.5)
            if model and is_next(model, last, hosted()):
                return model
            if time.monotonic() - said_at > self._say_seconds:
                said_at = time.monotonic()
                what = f"la ronde après {model.round}" if model else "la première ronde"
                print(f"Fog -> en attente de {what} sur {GLOBAL_MODEL} (make run-cloud ?)", flush=True)


@dataclass(frozen=True)
class Trainer:
    """The training of a driver's nodes: each micro-batch answers one round.

    `weights` gives the running weights of now, which every update carries. The updates are kept before they are sent.
    Spark repeats a micro-batch after a crash: then the same updates are sent again.
    """

    settings: Settings
    state: BatchState
    rounds: OpenRounds
    weights: Callable[[], dict[str, NodeWeight]]
    publish: Publish

    @staticmethod
    def initial() -> dict[str, Any]:
        """Return the state before the first update."""
        return {"run_id": None, "round": 0, "updates": {}}

    def handle_batch(self, batch: DataFrame, batch_id: int, readings: NodeReadings) -> None:
        """Wait for the next round, train from exactly its model, and publish each node's update."""

        def answer(last: dict[str, Any]) -> dict[str, Any]:
            model = self.rounds.wait(last, lambda: self.weights().keys())
            rows = train_groups(batch, readings, Task(model, self.settings)).collect()
            return self.answer(model, merge_groups(rows)) if rows else last | {"updates": {}}

        updates = self.state.advance(batch_id, answer)["updates"]
        self.publish(*((MODEL_WEIGHTS, node, update) for node, update in updates.items()))
        for node, update in updates.items():
            if update["num_examples"]:
                metrics = update["metrics"]
                print(
                    f"{node.capitalize()} -> ronde {update['round']} : appris de {update['num_examples']} mesures ; "
                    f"avant : perte {metrics['loss']:.4f}, F1 {metrics['f1']:.4f}",
                    flush=True,
                )

    def weights_with(self, trained: Set[str]) -> dict[str, NodeWeight]:
        """Return the running weight of each node; wait for the trained ones, whose readings may come here first.

        Raises:
            StackError: a trained node has no weight in time.
        """
        deadline = time.monotonic() + self.settings.wait_timeout_seconds
        while missing := sorted(trained - self.weights().keys()):
            if time.monotonic() > deadline:
                waited = f"after {self.settings.wait_timeout_seconds:g} s; see the log above"
                raise StackError(f"the sums of {', '.join(missing)} are not there {waited}")
            time.sleep(0.05)
        return self.weights()

    def answer(self, model: GlobalModel, trained: Mapping[str, Trained]) -> dict[str, Any]:
        """Return the state with an update of every node, also of those without readings for the round."""
        updates = {}
        for node, weight in self.weights_with(trained.keys()).items():
            result = trained.get(node, Trained({}, 0, Score()))
            learned = {"arrays": result.arrays, "score": result.score}
            update = model_update(weight, model, now_ms(), result.num_examples, **learned)
            try:
                check_size(update, f"the update of {node}", self.settings.max_update_bytes)
            except TooLargeError as error:
                print(f"{node.capitalize()} -> rien d'appris : {error.message}", flush=True)
                update = model_update(weight, model, update.trained_at)
            updates[node] = msgspec.to_builtins(update)
        return {"run_id": model.run_id, "round": model.round, "updates": updates}


def build_training_query(records: DataFrame, readings: NodeReadings, trainer: Trainer) -> DataStreamWriter:
    """Return the unstarted query: the records since the last update in, one update a node and round out."""
    handle = functools.partial(trainer.handle_batch, readings=readings)
    return session.foreach_batch(records, "training", handle, trainer.state.folder, trainer.settings.update_interval_ms)
