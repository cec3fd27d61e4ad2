"""Training on the executors: a round's readings in, one trained group for each node and partition out.

readings --> [group by node and partition] --> test, then train --> merge per node --> updates
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql.streaming.readwriter import DataStreamWriter

from fedstream.learning import arrays as wire
from fedstream.learning.models import make_model
from fedstream.learning.scores import Score
from fedstream.learning.training import Trained, merge_trained, train, train_config, train_seed
from fedstream.messages.readings import FEATURES
from fedstream.messages.rounds import GlobalModel, TooLargeError, check_size, model_update
from fedstream.messages.weights import NodeWeight
from fedstream.settings import Settings, parse_options
from fedstream.spark.state import BatchState

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Task:
    """What an executor needs to train a group: the round's model and this stack's settings."""

    model: GlobalModel
    settings: Settings

    def train_group(self, key: tuple[Any, ...], readings: pa.Table) -> pa.Table:
        """Train on one group's readings, in the order of their offsets: (temperature, vibration, label, offset).

        Whatever fails is the result of this group, and ends nothing.
        """
        import pyarrow as pa

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
        x = np.column_stack([ordered.column(name).to_numpy() for name in FEATURES])
        y = ordered.column("label").to_numpy().astype(np.int64)
        model = make_model(settings.model, parse_options("MODEL_OPTIONS", settings.model_options))
        config = train_config(settings, opened.config)
        seed = train_seed(settings, opened.round, node, partition)
        return train(model, opened.arrays, opened.scaler, x, y, config, seed, settings.decision_threshold)


def train_groups(readings: DataFrame, task: Task) -> DataFrame:
    """Train each node's readings, partition by partition in parallel: (node, partition, num_examples, result).

    The readings stay on the executors; a result is JSON of arrays and score.
    """
    good = readings.where("reason IS NULL").select("node", "partition", "offset", *FEATURES, "label")
    if task.model.participants:
        good = good.where(F.concat(F.lit("fog-"), "node").isin(*task.model.participants))
    return good.groupBy("node", "partition").applyInArrow(
        lambda key, table: task.train_group(key, table), "node INT, partition INT, num_examples LONG, result STRING"
    )


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


def build_training_query(
    readings: DataFrame,
    folder: Path,
    settings: Settings,
    wait_for_round: Callable[[Callable[[GlobalModel], bool]], GlobalModel],
    node_messages: Callable[[Collection[str]], dict[str, dict[str, Any]]],
    publish: Callable[..., None],
    clock_ms: Callable[[], int],
) -> DataStreamWriter:
    """Return the unstarted query: parsed readings with their node in, one update a node and round to `publish`.

    A micro-batch holds the readings since the last update: it waits for the next round, trains from exactly its
    model, and keeps the updates before they are sent. Spark repeats a micro-batch after a crash: then the same
    updates are sent again. `node_messages` gives the running weight and samples that every update carries, of the
    named nodes at least.
    """
    state = BatchState(folder, initial={"run_id": None, "round": 0, "updates": {}})

    def handle_batch(batch: DataFrame, batch_id: int) -> None:
        def compute(last: dict[str, Any]) -> dict[str, Any]:
            model = wait_for_round(lambda model: is_next(model, last, node_messages(())))
            rows = train_groups(batch, Task(model, settings)).collect()
            if not rows:
                return last | {"updates": {}}
            trained = merge_groups(rows)
            updates = {}
            for node, message in node_messages(trained).items():
                result = trained.get(node, Trained({}, 0, Score()))  # no readings in this micro-batch
                weight, now = msgspec.convert(message, NodeWeight), clock_ms()
                learned = {"arrays": result.arrays, "score": result.score}
                update = model_update(weight, model, now, result.num_examples, **learned)
                try:
                    check_size(update, f"the update of {node}", settings.max_update_bytes)
                except TooLargeError as error:
                    print(f"{node.capitalize()} -> rien d'appris : {error.message}", flush=True)
                    update = model_update(weight, model, now)
                updates[node] = msgspec.to_builtins(update)
            return {"run_id": model.run_id, "round": model.round, "updates": updates}

        updates = state.advance(batch_id, compute)["updates"]
        publish(*updates.items())
        for node, update in updates.items():
            if update["num_examples"]:
                metrics = update["metrics"]
                print(
                    f"{node.capitalize()} -> ronde {update['round']} : appris de {update['num_examples']} mesures ; "
                    f"avant : perte {metrics['loss']:.4f}, F1 {metrics['f1']:.4f}",
                    flush=True,
                )

    return (
        readings.writeStream.queryName("training")
        .foreachBatch(handle_batch)
        .option("checkpointLocation", str(folder / "spark"))
        .trigger(processingTime=f"{settings.update_interval_ms} milliseconds")
    )
