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

import msgspec

from fedstream.board.state import Board
from fedstream.learning.scores import Score
from fedstream.messages.rounds import global_model, model_update
from fedstream.messages.topics import GLOBAL_MODEL, MODEL_WEIGHTS
from fedstream.messages.weights import NodeWeight

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


def play_many(board: Board, nodes: int, rounds: int) -> dict[str, Any]:
    """Give a board rounds of many nodes, a driver each, and return its snapshot: node 3 is silent, node 7 is late."""
    offsets = {MODEL_WEIGHTS: 0, GLOBAL_MODEL: 0}

    def take(topic: str, at: float, message: Any) -> None:
        line = {"offset": offsets[topic], "at": at, "value": msgspec.to_builtins(message)}
        board.take(record(topic, line))
        offsets[topic] += 1

    names = [f"fog-{n}" for n in range(1, nodes + 1)]
    for number in range(1, rounds + 1):
        at = NOW - 2 * (rounds - number) - 1
        score = Score(100 / number, ((40, 10), (5, 45)))
        scores = {"metrics": score, "node_metrics": dict.fromkeys(names, score), "base_version": number - 2}
        opened = global_model("run-m", number, number - 1, {}, opened_at=at * 1000, **scores if number > 1 else {})
        take(GLOBAL_MODEL, at, opened)
        for name in names:
            if number < rounds - 20 or name not in ("fog-3", "fog-7"):
                take(
                    MODEL_WEIGHTS, at, model_update(NodeWeight(name, 40.5, 100 * number), opened, at, 100, score=score)
                )
    take(MODEL_WEIGHTS, NOW - 1, NodeWeight("fog-7", 40.5, 100 * rounds))
    for at in (NOW - 10, NOW):
        ends = {f"sensor-data-node-{n}": {"0": 10 * (at - NOW) + 100 * rounds} for n in range(1, nodes + 1)}
        board.take_ends(at, ends | {topic: {"0": end} for topic, end in offsets.items()})
    query = {"micro_batch": rounds, "finished_at": NOW - 1, "behind": 0, "moved_at": NOW, "seconds": 0.1, "lines": 0}
    said = [
        {"job": name, "at": NOW - (60 if name == "fog-3" else 1), "pause_seconds": 0.0}
        | {
            "queries": [
                query | {"name": name, "may_wait": False, "offsets": {f"sensor-data-node-{n}": {"0": 100 * rounds}}}
            ]
        }
        for n, name in enumerate(names, 1)
    ]
    board.take_progress(NOW, said)
    board.take_services({"kafka": "", "spark": ""})
    return board.snapshot(NOW)
