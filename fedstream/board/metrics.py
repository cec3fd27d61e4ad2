"""Every metric of the board, declared once with its help; the numbers are those of a snapshot (`Board.snapshot`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Snapshot = Mapping[str, Any]
Samples = Iterator[tuple[tuple[str, ...], float]]  # the values of the labels, and the metric's


class Family(NamedTuple):
    """A metric: a counter if its name ends in _total, else a gauge."""

    name: str
    labels: tuple[str, ...]
    about: str
    read: Callable[[Snapshot], Samples]


def _one(read: Callable[[Snapshot], float | None]) -> Callable[[Snapshot], Samples]:
    """Return how a metric without labels is read; while there is none it is left out."""

    def samples(snapshot: Snapshot) -> Samples:
        value = read(snapshot)
        if value is not None:
            yield (), value

    return samples


def _of_run(read: Callable[[Any], float | None]) -> Callable[[Snapshot], Samples]:
    return _one(lambda snapshot: read(snapshot["run"]) if snapshot["run"] else None)


def _of_alerts(read: Callable[[Any], float | None]) -> Callable[[Snapshot], Samples]:
    return _one(lambda snapshot: read(snapshot["alerts"]) if snapshot["alerts"] else None)


def _of_nodes(read: Callable[[Any], float | None]) -> Callable[[Snapshot], Samples]:
    """Return how a metric with the label node is read; a node without such a value is left out."""

    def samples(snapshot: Snapshot) -> Samples:
        values = ((row["node"], read(row)) for row in snapshot["nodes"])
        return (((node,), value) for node, value in values if value is not None)

    return samples


def _of_queries(read: Callable[[Any], float]) -> Callable[[Snapshot], Samples]:
    return lambda snapshot: (((row["query"],), read(row)) for row in snapshot["queries"])


def _counts(read: Callable[[Snapshot], Mapping[str, float]]) -> Callable[[Snapshot], Samples]:
    return lambda snapshot: (((name,), count) for name, count in read(snapshot).items())


def _services(snapshot: Snapshot) -> Samples:
    return (((part["name"],), not part["trouble"]) for part in (*snapshot["services"], *snapshot["jobs"]))


def _topics(snapshot: Snapshot) -> Samples:
    return (((row["topic"],), row["records"]) for row in snapshot["topics"])


def _last_updates(snapshot: Snapshot) -> Samples:
    for row in snapshot["nodes"]:
        yield (row["node"], "weight"), row["heard_at"]
        if row["answered"]:
            yield (row["node"], "round"), row["answered_at"]


def _run_info(snapshot: Snapshot) -> Samples:
    if run := snapshot["run"]:
        yield (run["run_id"], run["model"], run["strategy"], run["mode"]), 1


def _bytes(snapshot: Snapshot) -> Samples:
    return (((row["node"], kind), size) for row in snapshot["nodes"] for kind, size in row["bytes"].items())


def _lags(snapshot: Snapshot) -> Samples:
    return (((row["query"], topic), lag) for row in snapshot["queries"] for topic, lag in row["lag_records"].items())


def _durations(snapshot: Snapshot) -> Samples:
    for row in snapshot["queries"]:
        for stat in ("mean", "p95") if row["batch_seconds"] else ():
            yield (row["query"], stat), row["batch_seconds"][stat]


def _delays(snapshot: Snapshot) -> Samples:
    if alerts := snapshot["alerts"]:
        for stat in ("mean", "p95"):
            yield (stat,), alerts["delay_seconds"][stat]


FAMILIES = (
    Family("fedstream_service_up", ("service",), "1: Kafka, Spark or a job is well; 0: it is not", _services),
    Family("fedstream_topic_records_total", ("topic",), "sum of the topic's end offsets", _topics),
    Family(
        "fedstream_node_readings_total", ("node",), "good readings it has counted", _of_nodes(lambda n: n["readings"])
    ),
    Family(
        "fedstream_node_rejected_total", ("node",), "its records in dead-letter", _of_nodes(lambda n: n["rejected"])
    ),
    Family("fedstream_node_weight", ("node",), "its running weight", _of_nodes(lambda n: n["weight"])),
    Family(
        "fedstream_node_last_update_timestamp_seconds",
        ("node", "kind"),
        "when it last sent its weight, or an answer to a round",
        _last_updates,
    ),
    Family(
        "fedstream_node_f1_ratio", ("node",), "F1 of the newest version measured there", _of_nodes(lambda n: n["f1"])
    ),
    Family("fedstream_node_loss", ("node",), "log loss of that version, in nats", _of_nodes(lambda n: n["loss"])),
    Family(
        "fedstream_node_quarantined",
        ("node",),
        "1: kept out of the rounds",
        _of_nodes(lambda n: n["state"] == "quarantined"),
    ),
    Family(
        "fedstream_learning_bytes",
        ("node", "kind"),
        "in the known rounds: readings that stayed at the node (about), updates it sent, models it received",
        _bytes,
    ),
    Family("fedstream_run_info", ("run_id", "model", "strategy", "mode"), "the newest run", _run_info),
    Family("fedstream_round", (), "number of the open round", _of_run(lambda run: run["round"])),
    Family(
        "fedstream_model_version", (), "version that the open round starts from", _of_run(lambda run: run["version"])
    ),
    Family(
        "fedstream_round_open_timestamp_seconds",
        (),
        "when the open round was opened",
        _of_run(lambda run: run["opened_at"] / 1000),
    ),
    Family(
        "fedstream_round_deadline_seconds",
        (),
        "longest wait for a node: ROUND_DEADLINE_SECONDS",
        _of_run(lambda run: run["deadline_seconds"]),
    ),
    Family(
        "fedstream_rounds_total",
        ("result",),
        "rounds that ended: closed, failed or rollback",
        _counts(lambda snapshot: snapshot["run"]["rounds"] if snapshot["run"] else {}),
    ),
    Family(
        "fedstream_round_updates_total",
        ("kind",),
        "updates that came in these rounds, by what became of them",
        _counts(lambda snapshot: snapshot["run"]["counts"] if snapshot["run"] else {}),
    ),
    Family(
        "fedstream_model_f1_ratio", (), "F1 of the newest measured version", _of_run(lambda run: run["scores"]["f1"])
    ),
    Family(
        "fedstream_model_recall_ratio", (), "share of true alarms raised", _of_run(lambda run: run["scores"]["recall"])
    ),
    Family(
        "fedstream_model_false_alarm_ratio",
        (),
        "share of negatives with an alarm",
        _of_run(lambda run: run["scores"]["false_alarm_rate"]),
    ),
    Family("fedstream_model_loss", (), "log loss of that version, in nats", _of_run(lambda run: run["scores"]["loss"])),
    Family(
        "fedstream_model_best_f1_ratio",
        (),
        "F1 of the best version",
        _of_run(lambda run: run["best"] and run["best"]["f1"]),
    ),
    Family(
        "fedstream_model_message_bytes",
        (),
        "size of the message that opened the round",
        _of_run(lambda run: run["model_bytes"] or None),
    ),
    Family(
        "fedstream_global_weight",
        (),
        "the global weight",
        _one(lambda snapshot: snapshot["weight"] and snapshot["weight"]["global_weight"]),
    ),
    Family(
        "fedstream_global_readings_total",
        (),
        "good readings behind the global weight",
        _one(lambda snapshot: snapshot["weight"] and snapshot["weight"]["samples"]),
    ),
    Family("fedstream_events_total", ("kind",), "events", _counts(lambda snapshot: snapshot["event_counts"])),
    Family(
        "fedstream_dead_letters_total",
        ("topic",),
        "dead letters, by the topic they come from",
        _counts(lambda snapshot: snapshot["letter_counts"]),
    ),
    Family("fedstream_alerts_delay_seconds", ("stat",), "from reading to score, sampled: mean and p95", _delays),
    Family(
        "fedstream_alerts_model_version", (), "version that scored the newest alert", _of_alerts(lambda a: a["version"])
    ),
    Family(
        "fedstream_alerts_model_age_seconds",
        (),
        "how long ago that version was overtaken; 0: it is the newest",
        _of_alerts(lambda alerts: alerts["model_age_seconds"]),
    ),
    Family(
        "fedstream_squares_wrong_total",
        (),
        "sampled squares that are not n × n",
        _one(lambda snapshot: snapshot["squares"]["wrong"]),
    ),
    Family("fedstream_query_lag_records", ("query", "topic"), "records that wait, also for a dead driver", _lags),
    Family(
        "fedstream_query_lag_seconds",
        ("query",),
        "for how long the oldest of them has waited",
        _of_queries(lambda query: query["lag_seconds"]),
    ),
    Family(
        "fedstream_query_records_total",
        ("query",),
        "records it has finished",
        _of_queries(lambda query: query["records"]),
    ),
    Family(
        "fedstream_query_batches_total",
        ("query",),
        "micro-batches it has finished",
        _of_queries(lambda query: query["micro_batch"] + 1),
    ),
    Family(
        "fedstream_query_batch_seconds",
        ("query", "stat"),
        "duration of the last hundred micro-batches that were seen: mean and p95",
        _durations,
    ),
    Family(
        "fedstream_query_progress_timestamp_seconds",
        ("query",),
        "when it last went on, or had nothing to do",
        _of_queries(lambda query: query["moved_at"]),
    ),
    Family(
        "fedstream_query_interval_seconds",
        ("query",),
        "time that may pass between two micro-batches beside their work",
        _of_queries(lambda query: query["interval_seconds"]),
    ),
    Family(
        "fedstream_board_unusable_records_total",
        ("topic",),
        "records of control topics that are no messages",
        _counts(lambda snapshot: snapshot["unusable"]),
    ),
)


class BoardCollector(Collector):
    """Gives the metrics of the newest snapshot."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        """Take where the newest snapshot is."""
        self._snapshot = snapshot

    def describe(self) -> Iterator[Metric]:
        """Return nothing: the families are known only when there is a snapshot."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield each metric with its values."""
        snapshot = self._snapshot()
        for family in FAMILIES:
            kind: Any = CounterMetricFamily if family.name.endswith("_total") else GaugeMetricFamily
            metric = kind(family.name, family.about, labels=family.labels)
            for labels, value in family.read(snapshot):
                metric.add_metric(labels, value)
            yield metric


def make_registry(snapshot: Callable[[], Snapshot]) -> CollectorRegistry:
    """Return the registry of the board's metrics, and of its own process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(BoardCollector(snapshot))
    ProcessCollector(registry=registry)
    return registry
