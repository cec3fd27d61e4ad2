"""The recorded topics of topics.jsonl: a hundred seconds of two nodes, small enough to work the numbers out by hand.

Each line is what comes: a record of a control topic (`take`), the ends of all topics, what the drivers' files say, some
records of the data topics, or the moment of a snapshot. Times are s since 1970; each topic has one partition.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fedstream.board.state import Board

FILE = Path(__file__).parent / "topics.jsonl"
NOW = 1_796_000_000  # of the first snapshot


def record(topic: str, line: dict[str, Any]) -> SimpleNamespace:
    """Return a line as the Kafka client gives a record."""
    value = json.dumps(line["value"], separators=(",", ":")).encode()
    return SimpleNamespace(
        topic=topic, partition=0, offset=line["offset"], timestamp=line["at"] * 1000, key=None, value=value
    )


def lines() -> list[dict[str, Any]]:
    """Return the lines of the file."""
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def play(board: Board) -> Iterator[dict[str, Any]]:
    """Give a board what was recorded, and yield each snapshot."""
    for line in lines():
        if "take" in line:
            board.take(record(line["take"], line))
        elif "ends" in line:
            board.take_ends(line["at"], line["ends"])
        elif "progress" in line:
            board.take_progress(line["at"], line["progress"])
        elif "samples" in line:
            board.take_samples([record(each["topic"], each) for each in line["samples"]])
        elif "services" in line:
            board.take_services(line["services"])
        else:
            yield board.snapshot(line["snapshot"])
