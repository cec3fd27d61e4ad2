"""The command that shows whether the models of a run follow from its updates: they are computed again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import click
import numpy as np

from fedstream.broker import kafka
from fedstream.commands import registry
from fedstream.commands.terminal import json_option, run_option
from fedstream.errors import BadMessage, SettingError, StackError
from fedstream.learning import arrays as wire
from fedstream.learning.arrays import Arrays
from fedstream.messages.door import decode
from fedstream.messages.rounds import Event, GlobalModel, ModelUpdate, UsedUpdate, read_update
from fedstream.messages.topics import EVENTS, MODEL_WEIGHTS
from fedstream.rounds import strategies
from fedstream.rounds.open_round import OpenRound
from fedstream.rounds.runs import Run, read_messages
from fedstream.rounds.strategies import StrategyError
from fedstream.settings import Settings
from fedstream.tables import make_console, make_table
from fedstream.terminal import Command

Row = dict[str, Any]  # of a file or a table

Place = tuple[int, int]  # partition and offset in topic model-weights

MOST_MISSING = 1000  # versions in a row that have a row of the table each
IDENTICAL, DIFFERENT, NOT_VERIFIED = "identical", "different", "not verified"


class _GoneError(Exception):
    """What a replay needs is no longer on its topic; the text names it."""


def verify_run(run: Run, settings: Settings) -> list[Row]:
    """Return `verify_rows` of a run, with its updates and events from the topics."""
    named = {each.place for message in run.versions.values() for each in message.updates}
    updates = {
        (r.partition, r.offset): update
        for r in kafka.read_topic(settings, MODEL_WEIGHTS)
        if (r.partition, r.offset) in named
        for update in read_messages([r], read_update)
        if isinstance(update, ModelUpdate)
    }
    events = read_messages(kafka.read_topic(settings, EVENTS), lambda value: decode(Event, value))
    return verify_rows(run, updates, events, settings)


def verify_rows(
    run: Run, updates: Mapping[Place, ModelUpdate], events: Iterable[Event], settings: Settings
) -> list[Row]:
    """Aggregate each version's updates anew and compare: a row for each version, in order.

    `result` is identical (bit by bit), different or not verified, with the `reason`.
    """
    resets = {each.round: each.node_id for each in events if each.run_id == run.run_id and each.action == "reset"}
    rows = []
    for version, gap in versions_and_gaps(run):
        message = run.versions.get(version)
        result, reason, difference = NOT_VERIFIED, "", None
        if message is None:
            reason = "it is not on topic model-versions" + (f", nor are the {gap} after it" if gap else "")
        elif message.restored_from is not None:
            old = message.restored_from
            reason = f"rollback to version {old}"
            if old in run.versions:
                result, difference = compare(message, run.versions[old].arrays)
        elif message.base_version is None:
            reason = "the start of the run" if version == 0 else "it was not made of updates"
        elif message.round - 1 in resets:
            reason = f"reset after a drift of {resets[message.round - 1]}"
        else:
            try:
                result, difference = compare(message, aggregate_again(run, message, updates, settings))
            except _GoneError as error:
                reason = str(error)
            except (StrategyError, BadMessage) as error:
                result, reason = DIFFERENT, str(error)
            except SettingError as error:
                reason = error.message
        count = len(message.updates) if message else 0
        about = {"version": version, "round": message.round - 1 if message else None, "updates": count}
        rows.append(about | {"result": result, "max_difference": difference, "reason": reason})
    return rows


def versions_and_gaps(run: Run) -> Iterator[tuple[int, int]]:
    """Yield the versions up to the newest one; of many missing ones the first, with the number of those after it."""
    expected = 0
    for version in sorted(run.versions):
        if version - expected > MOST_MISSING:
            yield expected, version - expected - 1
        else:
            yield from ((missing, 0) for missing in range(expected, version))
        yield version, 0
        expected = version + 1


def aggregate_again(run: Run, message: GlobalModel, updates: Mapping[Place, ModelUpdate], settings: Settings) -> Arrays:
    """Return the arrays that a version's updates give, aggregated as in the cloud.

    Raises:
        _GoneError: the model before it or an update is no longer on its topic.
        StrategyError: the strategy cannot merge these updates.
        BadMessage: the updates are of another layout, or start from a later version.
        SettingError: the strategy cannot be made, or is the user's own and not that of STRATEGY.
    """
    from fedstream.rounds.federation import reply_of, strategy_of  # scikit-learn takes a second

    before = run.rounds.get(message.round - 1)
    if before is None:
        raise _GoneError(f"the model of round {message.round - 1} is no longer on topic global-model")
    found = [_update_at(each, updates, run.run_id) for each in message.updates]
    there = [update for update in found if update]
    if lost := len(found) - len(there):
        raise _GoneError(f"{lost} of {len(found)} updates are no longer on topic {MODEL_WEIGHTS}")
    if ":" in message.strategy and message.strategy != settings.strategy:  # else a message would name code to run
        msg = f"STRATEGY {message.strategy!r:.100} is not this stack's {settings.strategy!r}"
        raise SettingError(f"{msg}; set STRATEGY to the same, if you trust it")
    if message.seed is None:
        raise _GoneError("the noise of differential privacy is a secret")
    settings = replace(
        settings, strategy=message.strategy, strategy_options=message.strategy_options, seed=message.seed
    )
    strategy = strategy_of(settings)
    if before.strategy == message.strategy:  # else the cloud was started again with another one, which began afresh
        strategies.restore_strategy(strategy, before.strategy_state)
    replies = []
    for update in there:
        if update.base_version not in run.versions:
            raise _GoneError(f"version {update.base_version}, which an update started from, is not on its topic")
        base = run.versions[update.base_version].named_arrays
        layouts = [wire.layout(arrays) for arrays in (before.arrays, update.arrays, wire.from_wire(base))]
        if layouts[1:] != layouts[:1] * 2 or update.base_version > before.version:
            msg = f"the update of {update.node_id} from version {update.base_version} does not fit round {before.round}"
            raise BadMessage(f"{msg}: layouts of round, update and base are {layouts!s:.300}")
        replies.append(reply_of(update, OpenRound(before), {update.base_version: base}, message.mode))
    return strategies.aggregate(strategy, before.round, replies, seed=message.seed)[0]


def _update_at(named: UsedUpdate, updates: Mapping[Place, ModelUpdate], run_id: str) -> ModelUpdate | None:
    found = updates.get(named.place) if named.place else None
    # At the place of a topic that was made anew there can be another record.
    return found if found and (found.node_id, found.run_id) == (named.node_id, run_id) else None


def compare(message: GlobalModel, arrays: Arrays) -> tuple[str, float | None]:
    """Tell whether a version's arrays are these, bit by bit, and the largest difference (None: of another layout)."""
    published = message.arrays
    if wire.layout(published) != wire.layout(arrays):
        return DIFFERENT, None
    is_same = all(array.tobytes() == arrays[name].tobytes() for name, array in published.items())
    difference = max(float(np.abs(array - arrays[name]).max(initial=0.0)) for name, array in published.items())
    return IDENTICAL if is_same else DIFFERENT, difference


@click.command(cls=Command)
@run_option
@json_option
def verify(run_id: str | None, is_json: bool) -> None:
    """Compute a run's models again from its updates, and compare them with its versions, bit by bit.

    The updates come from topic model-weights; strategy, state and seed from the models. What cannot be computed
    again is named. Exit code 1 if a version differs.

    Examples:
        fedstream verify
        fedstream verify --run mlp-20270101T120000-ab12 --json
    """
    settings = Settings.from_env(os.environ)
    run = registry.load_run(settings, run_id)
    rows = verify_run(run, settings)
    wrong = [row for row in rows if row["result"] == DIFFERENT]
    if is_json:
        click.echo(json.dumps(rows))
    else:
        table = make_table(f"Verification of run {run.run_id}", "version", "round", "updates", "")
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
