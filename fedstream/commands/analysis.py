"""Looking back on a run: its history as a file, and a replay that shows whether its models follow from its updates."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import click
import numpy as np

from fedstream.broker import kafka
from fedstream.commands import registry
from fedstream.commands.registry import GLOBAL, Message, Run, read_messages
from fedstream.commands.terminal import MEASURES, make_console, make_table, measures, run_option
from fedstream.errors import BadMessage, StackError
from fedstream.learning import arrays as wire
from fedstream.learning.arrays import Arrays
from fedstream.messages.rounds import GlobalModel, ModelUpdate
from fedstream.messages.topics import EVENTS, MODEL_WEIGHTS
from fedstream.rounds import strategies
from fedstream.rounds.strategies import StrategyError
from fedstream.settings import Settings, command_help

Place = tuple[int, int]  # partition and offset in topic model-weights

IDENTICAL, DIFFERENT, NOT_REPLAYED = "identical", "different", "not replayed"


class _GoneError(Exception):
    """What a replay needs is no longer on its topic; the text names it."""


def history_rows(run: Run) -> list[Message]:
    """Return a row for each closed round and node, and one for all nodes together, which has the round's counts too.

    A round that closed without a score (it failed, or was ended by a rollback) has the last kind of row only.
    """
    rows = []
    for _, message in sorted(run.rounds.items()):
        note = message.get("failed")
        if "restored_from" in message:
            note = f"rollback to version {message['restored_from']}"
        if "metrics" not in message and note is None:
            continue  # opens the run's first round
        about = {
            "run_id": run.run_id,
            "round": message["round"] - 1,
            "base_version": message.get("base_version"),
            "version": message["version"],
        }
        by_node = {**message.get("node_metrics", {}), GLOBAL: message.get("metrics")}
        for node, score in by_node.items():
            counts = {kind: count if node == GLOBAL else None for kind, count in message.get("counts", {}).items()}
            rows.append(about | {"node": node} | measures(score) | counts | {"note": note})
    return rows


def write_history(rows: Sequence[Message], path: Path) -> None:
    """Write rows as JSON lines or Parquet, as the file's name says.

    Raises:
        StackError: its name ends otherwise, or it cannot be written.
    """
    if path.suffix not in (".jsonl", ".parquet"):
        raise StackError(f"--output is {path}; expected a name that ends in .jsonl or .parquet")
    try:
        if path.suffix == ".jsonl":
            path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = dict.fromkeys(MEASURES, pa.float64()) | dict.fromkeys(("run_id", "node", "note"), pa.string())
        schema = pa.schema([(name, kinds.get(name, pa.int64())) for name in rows[0]])
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
    except OSError as error:
        raise StackError(f"cannot write {path}: {error.strerror or error}") from error


@click.command(
    help=command_help(
        "Write a run's rounds to a file: a row per round and node.\n\n"
        'Node "global" stands for all nodes together; its row has the round\'s counts (late, missing, ...), too. The\n'
        "scores are those of base_version, the version the round started from.\n\n"
        "Examples:\n    fedstream history --output rounds.parquet\n    fedstream history --output rounds.jsonl"
    )
)
@click.option("--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="*.jsonl or *.parquet")
@run_option
def history(output: Path, run_id: str | None) -> None:
    """Write a run's history."""
    run = registry.load_run(Settings.from_env(os.environ), run_id)
    rows = history_rows(run)
    if not rows:
        raise StackError(f"no round of run {run.run_id} has closed yet; see: fedstream watch")
    write_history(rows, output)
    click.echo(f"{len(rows)} rows of run {run.run_id} are in {output}.")


def replay_run(run: Run, settings: Settings) -> list[Message]:
    """Return `replay_rows` of a run, with its updates and events from the topics."""
    named = {tuple(each.get("place") or ()) for message in run.versions.values() for each in message.get("updates", [])}
    records = [r for r in kafka.follow_topic(settings, MODEL_WEIGHTS)(0) if (r.partition, r.offset) in named]
    updates = {(r.partition, r.offset): message for r in records for message in read_messages([r])}
    events = read_messages(kafka.follow_topic(settings, EVENTS)(0))
    return replay_rows(run, updates, events, settings)


def replay_rows(
    run: Run, updates: Mapping[Place, Message], events: Sequence[Message], settings: Settings
) -> list[Message]:
    """Aggregate each version's updates anew and compare: a row for each version, in order.

    `result` is identical (bit by bit), different or not replayed, with the `reason`.
    """
    drifts = [event for event in events if (event.get("kind"), event.get("run_id")) == ("drift", run.run_id)]
    resets = {each["round"]: each["node_id"] for each in drifts if each["detail"].endswith("action: reset")}
    rows = []
    for version in range(max(run.versions) + 1):
        message = run.versions.get(version, {})
        result, reason, difference = NOT_REPLAYED, "", None
        if not message:
            reason = "it is not on topic model-versions"
        elif "restored_from" in message:
            old = message["restored_from"]
            reason = f"rollback to version {old}"
            if old in run.versions:
                result, difference = compare(message, wire.from_wire(run.versions[old]["arrays"]))
        elif "base_version" not in message:
            reason = "the start of the run" if version == 0 else "it was not made of updates"
        elif message["round"] - 1 in resets:
            reason = f"reset after a drift of {resets[message['round'] - 1]}"
        else:
            try:
                result, difference = compare(message, aggregate_again(run, message, updates, settings))
            except _GoneError as error:
                reason = str(error)
            except (StrategyError, BadMessage) as error:
                result, reason = DIFFERENT, str(error)
        count = len(message.get("updates", []))
        about = {"version": version, "round": message["round"] - 1 if message else None, "updates": count}
        rows.append(about | {"result": result, "max_difference": difference, "reason": reason})
    return rows


def aggregate_again(run: Run, message: Message, updates: Mapping[Place, Message], settings: Settings) -> Arrays:
    """Return the arrays that a version's updates give, aggregated as in the cloud.

    Raises:
        _GoneError: the model before it or an update is no longer on its topic.
        StrategyError: the strategy cannot merge these updates.
        SettingError: it cannot be made.
        BadMessage: an update cannot be read.
    """
    from fedstream.rounds import snapshot  # scikit-learn takes a second

    before = run.rounds.get(message["round"] - 1)
    if before is None:
        raise _GoneError(f"the model of round {message['round'] - 1} is no longer on topic global-model")
    found = [_update_at(each, updates, run.run_id) for each in message["updates"]]
    if lost := found.count(None):
        raise _GoneError(f"{lost} of {len(found)} updates are no longer on topic {MODEL_WEIGHTS}")
    own = {name: message[name] for name in ("strategy", "strategy_options", "seed")}
    own = {name: value for name, value in own.items() if value is not None}  # a secret seed is not published
    settings = replace(settings, **own, round_mode=message["mode"])
    last = GlobalModel.from_message(before)
    if before["strategy"] != message["strategy"]:
        last = replace(last, strategy_state={})  # the cloud was started again with another one, which began afresh
    federation = snapshot.resume(last, settings, cast("Any", None))  # nothing is trained here: no model is needed
    replies = []
    for update in map(ModelUpdate.from_message, filter(None, found)):
        if update.base_version not in run.versions:
            raise _GoneError(f"version {update.base_version}, which an update started from, is not on its topic")
        federation.bases[update.base_version] = wire.from_wire(run.versions[update.base_version]["arrays"])
        replies.append(federation.reply(update))
    return strategies.aggregate(federation.strategy, federation.round, replies, seed=settings.seed)[0]


def _update_at(named: Mapping[str, Any], updates: Mapping[Place, Message], run_id: str) -> Message | None:
    found = updates.get(tuple(named.get("place") or ()), {})
    # At the place of a topic that was made anew there can be another record.
    return found if (found.get("node_id"), found.get("run_id")) == (named["node_id"], run_id) else None


def compare(message: Message, arrays: Arrays) -> tuple[str, float | None]:
    """Tell whether a version's arrays are these, bit by bit, and the largest difference (None: of another layout)."""
    published = wire.from_wire(message["arrays"])
    if wire.layout(published) != wire.layout(arrays):
        return DIFFERENT, None
    is_same = all(array.tobytes() == arrays[name].tobytes() for name, array in published.items())
    difference = max(float(np.abs(array - arrays[name]).max(initial=0.0)) for name, array in published.items())
    return IDENTICAL if is_same else DIFFERENT, difference


def print_replay(settings: Settings, run_id: str | None, is_json: bool) -> None:
    """Aggregate a run's updates anew and print how the outcome compares with its versions.

    Raises:
        StackError: a version differs.
    """
    run = registry.load_run(settings, run_id)
    rows = replay_run(run, settings)
    wrong = [row for row in rows if row["result"] == DIFFERENT]
    if is_json:
        click.echo(json.dumps(rows))
    else:
        table = make_table(f"Replay of run {run.run_id}", "version", "round", "updates", "")
        for row in rows:
            gap = row["max_difference"]
            size = f"by at most {gap:.3g}" if row["result"] == DIFFERENT and gap is not None else ""
            reason = f"({row['reason']})" if row["reason"] else ""
            result = " ".join(part for part in (row["result"], size, reason) if part)
            table.add_row(str(row["version"]), str(row["round"] or "-"), str(row["updates"]), result)
        make_console().print(table)
    if wrong:
        names = ", ".join(str(row["version"]) for row in wrong)
        raise StackError(f"{len(wrong)} of {len(rows)} versions differ from what their updates give: {names}")
