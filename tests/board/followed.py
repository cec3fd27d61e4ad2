"""Topics in memory, worked out by hand, on which readings are followed.

Node 1 reads two records a micro-batch and trains after four. Record 4 is no reading.
"""

from __future__ import annotations

from base64 import b64encode
from types import SimpleNamespace

from fedstream.board.follow import Found
from fedstream.board.streams import MicroBatch
from fedstream.messages.door import encode
from fedstream.messages.rounds import UsedUpdate, global_model, model_update
from fedstream.messages.weights import NodeWeight

TOPIC = "sensor-data-node-1"
READING = {"sensor_id": "node-1", "temperature": 70, "vibration": 0.05, "label": 0}


class Log:
    """Topics in memory."""

    def __init__(self):
        """Begin without a record; `most` of a search may be read."""
        self.topics: dict[str, list[SimpleNamespace]] = {}
        self.parts: dict[str, int] = {}
        self.most = 1000
        self.starts: dict[str, int] = {}

    def add(self, topic, at, message, key=None):
        """Put a record on a topic at a second, and return its place on it."""
        records = self.topics.setdefault(topic, [])
        value = message if isinstance(message, bytes) else encode(message)
        place = {"topic": topic, "partition": 0, "offset": len(records), "timestamp": int(at * 1000)}
        records.append(SimpleNamespace(**place, key=key and key.encode(), value=value))
        return 0, len(records) - 1

    def partitions(self, topic):
        return self.parts.get(topic, 1) if topic in self.topics else 0

    def record(self, place):
        records = self.topics.get(place.topic)
        if records is None or place.partition:
            return "none"
        if place.offset < self.starts.get(place.topic, 0):
            return "gone"
        return records[place.offset] if place.offset < len(records) else "to-come"

    def search(self, topic, times_ms, is_wanted, most):
        since, until = times_ms
        later = [each for each in self.topics.get(topic, []) if since <= each.timestamp <= (until or 1e18)]
        found = [each for each in later[: self.most] if is_wanted(each)]
        return Found(found[:most], len(later) <= self.most)


def letter(offset, by, topic=TOPIC):
    value = b64encode(b"x").decode()
    return {"value": value, "reason": "not JSON", "topic": topic, "partition": 0, "offset": offset, "time": 1, "by": by}


def answer(round_number, examples, samples):
    opened = global_model("run-a", round_number, round_number - 1, {})
    return model_update(NodeWeight("fog-1", 40.5, samples, 1), opened, 1, examples)


def make_log():
    log = Log()
    for i in range(12):
        log.add(TOPIC, 100 + i, b"hot" if i == 4 else READING)
    log.add("dead-letter", 105.5, letter(3, "fog-1", "sensor-data-node-2"))
    log.add("dead-letter", 105.6, letter(4, "fog-1"))
    for end in (2, 4, 6, 8, 10):  # two records each, the fifth of which was rejected
        rejected = int(end > 4)
        log.add("model-weights", 100 + end, NodeWeight("fog-2", 1.0, 1000), "fog-2")
        log.add("model-weights", 100 + end, NodeWeight("fog-1", 40.0 + end, end - rejected, rejected), "fog-1")
    for i in (0, 1, 2):
        score = {"sensor_id": "node-1", "probability": 0.25 * (i + 1), "alert": i == 2, "model_version": 7}
        score |= {"run_id": "run-a", "event_time": 1, "scored_at": 2}
        log.add("alerts", 100 + i, score, f"{TOPIC}/0/{i}")
    first = log.add("model-weights", 105, answer(1, 4, 4), "fog-1")
    log.add("model-weights", 109, answer(2, 3, 7), "fog-1")
    log.add("global-model", 105.5, {"global_weight": 1, "samples": 1, "nodes": 1}, "weight")
    used = (UsedUpdate("fog-2", 9, 0, (0, 99)), UsedUpdate("fog-1", 4, 0, first))
    log.add("global-model", 106, global_model("run-a", 2, 1, {}, updates=used), "mlp")
    return log


def make_known():
    trainings = tuple(
        MicroBatch(n, at, {TOPIC: {"0": end}}) for n, at, end in ((3, 99, 0), (4, 105.2, 4), (5, 109.2, 8))
    )
    node = {"node": "fog-1", "source": ""}
    return {"nodes": [node], "gaps": {"fog-1": 0}, "micro_batches": {"fog-1/training": trainings}}
