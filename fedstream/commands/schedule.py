"""Which record of a replay is due when: partitions merged by time, each record as far behind the first as it was."""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any

import click


def parse_speed(text: str) -> float:
    """Return how many times faster than the original a replay is; infinity for `max`.

    Raises:
        click.BadParameter: it is neither max nor a number above 0 and an x.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)x", text)
    speed = math.inf if text == "max" else float(found[1]) if found else 0.0
    if speed == 0:
        msg = f"{text!r}; expected max, 1x, 10x or another number above 0 and an x"
        raise click.BadParameter(msg)
    return speed


def by_time(partitions: Iterable[Iterable[Any]]) -> Iterator[tuple[int, Any]]:
    """Merge the records of partitions; yield each with its time (ms), which never goes back.

    A partition keeps its order: a record that is older than one before it takes that one's time.
    """

    def timed(records: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        latest_ms = 0
        for record in records:
            latest_ms = max(latest_ms, record.timestamp)
            yield latest_ms, record

    return heapq.merge(*map(timed, partitions), key=itemgetter(0))


def paced(
    records: Iterable[tuple[int, Any]], speed: float, clock: Callable[[], float], sleep: Callable[[float], Any]
) -> Iterator[tuple[float, Any]]:
    """Yield each record when it is due, with the seconds that it is late; a late one does not delay those behind it.

    The first one is due at once, the others as much later as their times say, divided by the speed.
    """
    begin = first_ms = None
    for time_ms, record in records:
        if begin is None or first_ms is None:
            begin, first_ms = clock(), time_ms
        due = begin + (time_ms - first_ms) / 1000 / speed
        if (ahead := due - clock()) > 0:
            sleep(ahead)
        yield max(0.0, clock() - due), record
