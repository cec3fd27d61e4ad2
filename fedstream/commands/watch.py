"""The command that shows the rounds as they close."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
import msgspec
from rich.console import Group
from rich.live import Live
from rich.text import Text

from fedstream.broker import kafka
from fedstream.commands.terminal import json_option
from fedstream.errors import StackError
from fedstream.messages.door import decode
from fedstream.messages.rounds import Event
from fedstream.messages.topics import EVENTS, GLOBAL_MODEL
from fedstream.rounds.runs import Row, read_messages, read_models, round_row
from fedstream.settings import Settings
from fedstream.tables import HEADINGS, cells, make_console, make_table, positive_note, unusual_counts
from fedstream.terminal import Command

COLUMNS = ("round", "version", "nodes", "examples", *HEADINGS)
PLAIN = "{:>6} {:>8} {:>6} {:>9} {:>8} {:>9} {:>7} {:>7} {:>13}  {}"
ROWS_SHOWN = 15
EVENTS_SHOWN = 5
LOOK_BACK = 200  # records: in them the live table finds the rounds before it was started
POLL_SECONDS = 0.5


def event_row(event: Event) -> Row:
    """Return the row of an event."""
    return {"type": "event", **msgspec.to_builtins(event)}


def remarks(row: Row) -> str:
    """Return what is out of the ordinary in a round."""
    found = unusual_counts(row["counts"])
    found += [f"failed: {row['failed']}"] if row["failed"] else []
    found += [f"rollback to version {row['restored_from']}"] if row["restored_from"] is not None else []
    return ", ".join(found)


def event_text(event: Row) -> str:
    """Return an event as one line."""
    return " ".join(str(event[part]) for part in ("kind", "node_id", "detail") if event[part])


def texts(row: Row) -> list[str]:
    """Return a row's cells, in the order of COLUMNS and with the remarks at the end."""
    return [str(row["round"]), str(row["version"]), str(row["nodes"]), *cells(row), remarks(row)]


def view(rows: Sequence[Row], events: Sequence[Row], classes: int = 2) -> Group:
    """Return the live table and the events below it."""
    run = rows[-1]["run_id"] if rows else "not known yet: waiting for a round to close"
    table = make_table(f"Run {run}", *COLUMNS, "")
    for row in rows:
        table.add_row(*texts(row))
    table.caption = positive_note(classes)
    return Group(table, *(Text(f"round {event['round']}: {event_text(event)}") for event in events))


def follow(
    read: Callable[[float], list[Any]],
    rounds: int | None,
    timeout_seconds: float | None,
    where: str,
    seen: set[tuple[str, int]],
) -> Iterator[Row]:
    """Yield the rows of rounds and the events as they come, until so many rounds have closed.

    `read` waits so many seconds for a model and returns the records of models and events; `seen` has the rounds,
    each (run, number), that were there before.

    Raises:
        StackError: no round has closed for `timeout_seconds`; the text says what came before and where it waited.
    """
    last, closed, heard_at = "none came before", 0, time.monotonic()
    while rounds is None or closed < rounds:
        left = POLL_SECONDS if timeout_seconds is None else heard_at + timeout_seconds - time.monotonic()
        if left <= 0:
            wanted = "" if rounds is None else f", {closed} of {rounds} rounds seen"
            msg = f"no round closed within {timeout_seconds:g} s on {where} ({last}{wanted})"
            msg += "; are the fog nodes and the cloud running (make ps)?"
            raise StackError(msg)
        for record in read(min(left, POLL_SECONDS)):
            if record.topic == EVENTS:
                yield from map(event_row, read_messages([record], lambda value: decode(Event, value)))
                continue
            for model in read_models([record]):
                if model.closes_round and (place := (model.run_id, model.round)) not in seen:
                    seen.add(place)  # the cloud says a round's message again and again
                    closed, heard_at = closed + 1, time.monotonic()
                    last = f"the last one was round {model.round - 1} of run {model.run_id}"
                    yield round_row(model)
                    if closed == rounds:
                        return


def _print_live(coming: Iterator[Row], past: Sequence[Row], classes: int) -> None:
    rows, events = deque(past, ROWS_SHOWN), deque[Row](maxlen=EVENTS_SHOWN)
    with Live(view(rows, events, classes), console=make_console(), auto_refresh=False) as live:
        for entry in coming:
            (rows if entry["type"] == "round" else events).append(entry)
            live.update(view(rows, events, classes), refresh=True)


def _print_plain(coming: Iterator[Row], classes: int) -> None:
    click.echo(positive_note(classes))
    click.echo(PLAIN.format(*COLUMNS, "").rstrip())
    for entry in coming:
        is_round = entry["type"] == "round"
        click.echo(PLAIN.format(*texts(entry)).rstrip() if is_round else f"event: {event_text(entry)}")
        sys.stdout.flush()


def _print_json(coming: Iterator[Row]) -> None:
    for entry in coming:
        click.echo(json.dumps(entry))
        sys.stdout.flush()


@click.command(cls=Command)
@json_option
@click.option("--rounds", type=click.IntRange(1), help="End after so many rounds.  [default: go on]")
@click.option(
    "--timeout",
    "timeout_seconds",
    type=click.FloatRange(0, min_open=True),
    help="Longest wait for the next round to close, in seconds.  [default: no limit]",
)
def watch(is_json: bool, rounds: int | None, timeout_seconds: float | None) -> None:
    """Show each round as it closes, and the events.

    The scores are prequential: those of the version a round started from. In a terminal it is a live table,
    elsewhere a row per round, with --json a line of JSON per round and event. Ctrl-C ends it.

    Examples:
        fedstream watch
        fedstream watch --json --rounds 10 --timeout 60 | jq .f1
    """
    settings = Settings.from_env(os.environ)
    read_events = kafka.follow_topic(settings, EVENTS, last=0)
    read_global = kafka.follow_topic(settings, GLOBAL_MODEL, last=LOOK_BACK)
    past = {
        (model.run_id, model.round): round_row(model) for model in read_models(read_global(0)) if model.closes_round
    }
    where = f"topic {GLOBAL_MODEL} at {settings.kafka_bootstrap_servers}"

    def read(seconds: float) -> list[Any]:
        models = list(read_global(seconds))
        # An event is sent before the model of its round, so it is there already; sorting is stable and puts it first.
        return sorted([*read_events(0), *models], key=lambda record: record.timestamp)

    coming = follow(read, rounds, timeout_seconds, where, set(past))
    try:
        if is_json:
            _print_json(coming)
        elif sys.stdout.isatty():
            _print_live(coming, list(past.values()), settings.classes)
        else:
            _print_plain(coming, settings.classes)
    except KeyboardInterrupt:  # how one ends it
        return
