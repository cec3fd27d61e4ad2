"""The jobs of real-time mode, as tables: squares over Kafka and alerts, and what becomes of their bad records."""

from __future__ import annotations

import base64
import functools
import json
import time
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from msgspec import to_builtins
from pyspark.sql import Row, SparkSession

from fedstream.broker import kafka, models
from fedstream.errors import BadMessage
from fedstream.learning import arrays as wire
from fedstream.learning.models import make_model
from fedstream.learning.training import Scaler
from fedstream.messages.door import encode
from fedstream.messages.rounds import GlobalModel, global_model
from fedstream.settings import Settings
from fedstream.spark import realtime
from fedstream.spark.expressions import parse_readings
from fedstream.spark.scoring import LARGEST_MODEL, scorable, scoring_layout

RECORDS_DDL = "key BINARY, value BINARY, topic STRING, partition INT, offset BIGINT, timestamp TIMESTAMP"


def sent(rows: list[Row], topic: str) -> list[tuple[Any, dict[str, Any]]]:
    """Return what goes to a topic: (key, message)."""
    return [(row.key, json.loads(row.value)) for row in rows if row.topic == topic]


# --- squares

# 3037000499 is the largest n whose square is below 2^63: sqrt(2^63 - 1) is 3037000499.97.
SQUARES = {
    b'{"n":59}': 3481,
    b'{"n":0}': 0,
    b'{"n":-7}': 49,
    b'{"n": 59}': 3481,
    b' {"n" : 12 } ': 144,
    b'{"n":5,"more":"x"}': 25,
    b'{"more":{"n":1},"n":6}': 36,
    '{"n":8,"unit":"é"}'.encode(): 64,
    b'{"n":3037000499}': 9_223_372_030_926_249_001,
    b'{"n":-3037000499}': 9_223_372_030_926_249_001,
}
NO_SQUARES = {
    b'{"n":3037000500}': "does not fit 64 bits",
    b'{"n":-9223372036854775808}': "does not fit 64 bits",
    b'{"n":9223372036854775808}': "whole number of 64 bits",
    b'{"n":+5}': "whole number",
    b'{"n":007}': "whole number",
    b'{"n":1.5}': "whole number",
    b'{"n":"59"}': "whole number",
    b'{"n":true}': "whole number",
    b'{"n":null}': "whole number",
    '{"n":5é}'.encode(): "whole number",
    '{"n":٥}'.encode(): "whole number",  # a digit five, but not one of JSON
    b'{"n":}': "whole number",
    b'{"m":59}': "whole number",
    b'[{"n":59}]': "whole number",
    b'{"n":59}{"n":60}': "whole number",
    b'{"n":59} garbage': "whole number",
    b"59": "whole number",
    b"hello": "whole number",
    b"": "whole number",
    None: "whole number",
    b"\xff\xfe": "whole number",
    b'{"n":1' + b" " * 100 + b"}": "longer than MAX_VALUE_BYTES=100",
}


@pytest.fixture(scope="module")
def squared(script, spark) -> dict[bytes | None, Row]:
    """Return what becomes of each record, computed in one job."""
    squares = script("realtime/squares.py")
    values = [*SQUARES, *NO_SQUARES]
    records = [
        (bytearray(b"k%d" % i), v if v is None else bytearray(v), "numbers", i % 5, i, None)
        for i, v in enumerate(values)
    ]
    frame = squares.square_numbers(spark.createDataFrame(records, RECORDS_DDL), "out", 3, max_value_bytes=100)
    return dict(zip(values, frame.collect(), strict=True))


@pytest.mark.parametrize("value", SQUARES, ids=lambda value: value.decode())
def test_a_number_comes_out_with_its_square_and_its_key(squared, value):
    row = squared[value]
    assert row.topic == "out"
    assert json.loads(row.value) == {"n": json.loads(value)["n"], "square": SQUARES[value]}
    assert json.loads(value)["n"] ** 2 == SQUARES[value]
    assert bytes(row.key) == b"k%d" % list(SQUARES).index(value)


def test_a_square_goes_to_its_numbers_partition_or_around_where_the_output_has_fewer(squared):
    assert [squared[value].partition for value in SQUARES] == [0, 1, 2, 0, 1] * 2  # of 0 to 4, into three


@pytest.mark.parametrize("value", NO_SQUARES, ids=lambda value: str(value)[:30])
def test_what_has_no_square_is_kept_with_the_reason(squared, value):
    row = squared[value]
    assert (row.topic, row.key, row.partition) == ("dead-letter", None, None)
    letter = json.loads(row.value)
    assert NO_SQUARES[value] in letter["reason"]
    offset = len(SQUARES) + list(NO_SQUARES).index(value)
    assert (letter["topic"], letter["partition"], letter["offset"]) == ("numbers", offset % 5, offset)
    assert letter["value"] == (None if value is None else base64.b64encode(value).decode())
    assert abs(letter["time"] / 1000 - time.time()) < 600


# --- the mode


@pytest.mark.parametrize(("slots", "partitions", "mode"), [(2, 2, "real-time"), (2, 3, "micro-batch")])
def test_without_a_slot_for_each_partition_there_is_no_real_time_mode(capsys, slots, partitions, mode):
    assert realtime.usable_mode("real-time", slots, partitions) == mode
    assert ("3 partitions pour 2 slot(s)" in capsys.readouterr().out) == (mode == "micro-batch")
    assert realtime.usable_mode("micro-batch", slots, partitions) == "micro-batch"


def test_real_time_mode_has_no_bound_but_small_fetches_that_wait_and_a_micro_batch_is_bounded():
    given = {}
    for mode in realtime.MODES:
        spark = Mock()
        realtime.read_topics(spark, Settings(max_offsets_per_trigger=7000, fetch_max_wait_ms=25), "numbers", mode)
        given[mode] = spark.readStream.format.return_value.options.call_args.kwargs
    real_time, micro_batch = (given[mode].items() for mode in ("real-time", "micro-batch"))
    waiting = {"kafka.max.partition.fetch.bytes": "262144", "kafka.fetch.max.wait.ms": "25"}
    assert dict(real_time - micro_batch) == waiting
    bounded = {"maxOffsetsPerTrigger": "7000", "kafka.fetch.max.wait.ms": "0", "kafka.receive.buffer.bytes": "-1"}
    assert dict(micro_batch - real_time) == bounded


# --- alerts

ARCHITECTURES = {
    "logistic": ("logistic", {}),
    "mlp": ("mlp", {}),
    "two layers": ("mlp", {"hidden_units": "5,3"}),
}


def served_model(name: str, scaler: Scaler | None = None, version: int = 4) -> GlobalModel:
    """Return a model with arrays drawn at random: no zeros, and outputs on both sides of one half."""
    kind, options = ARCHITECTURES[name]
    random = np.random.default_rng(5)
    arrays = {
        each: random.normal(0, 1.5, array.shape) for each, array in make_model(kind, options).initial_arrays(1).items()
    }
    return global_model("run-1", 9, version, arrays, model=kind, scaler=scaler)


def score(
    script, spark: SparkSession, model: GlobalModel, versions: list[GlobalModel], values: list[bytes]
) -> list[Row]:
    """Return what the job makes of readings, after these versions have been put in service."""
    alerts = script("realtime/alerts.py")
    layout = scoring_layout(model, 2)
    served = alerts.served_model(spark, layout)
    for version in versions:
        alerts.serve(spark, scorable(version, Settings().table))
    records = [(None, bytearray(v), "sensor-data-node-3", 1, i, None) for i, v in enumerate(values)]
    readings = parse_readings(spark.createDataFrame(records, RECORDS_DDL), Settings())
    return alerts.score_readings(readings, served, layout, Settings()).collect()


def readings(number: int) -> list[dict[str, Any]]:
    """Return readings within and beyond the simulated ranges."""
    random = np.random.default_rng(8)
    pairs = zip(random.normal(75, 12, number).tolist(), np.abs(random.normal(0.06, 0.05, number)).tolist(), strict=True)
    return [
        {"sensor_id": "s", "temperature": t, "vibration": v, "label": 0, "event_time": 1_700_000_000_007}
        for t, v in pairs
    ]


@pytest.mark.parametrize("scaler", [Scaler((75.0, 0.06), (9.0, 0.03)), None], ids=["scaled", "as it is"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_probability_is_that_of_the_python_model(script, spark, name, scaler):
    model, given = served_model(name, scaler), readings(200)
    rows = score(script, spark, model, [model], [encode(reading) for reading in given])
    kind, options = ARCHITECTURES[name]
    x = np.array([[reading["temperature"], reading["vibration"]] for reading in given])
    expected = make_model(kind, options).predict(model.arrays, scaler.apply(x) if scaler else x)[:, 1]
    found = [message["probability"] for _, message in sent(rows, "alerts")]
    assert np.abs(np.array(found) - expected).max() < 1e-9
    assert [message["alert"] for _, message in sent(rows, "alerts")] == (expected >= 0.5).tolist()
    assert len(set(found)) > 100 or not scaler  # unscaled, the temperature drowns all else


def test_an_alert_has_the_fields_of_the_contract_and_tells_its_reading(script, spark):
    model, before = served_model("mlp", SCALER, version=5), time.time()
    first, second = readings(2)
    rows = score(script, spark, model, [model], [encode(first), encode({**second, "event_time": 1_700_000_000.012})])
    (key, message), (other_key, other) = sent(rows, "alerts")
    assert (key, other_key) == ("sensor-data-node-3/1/0", "sensor-data-node-3/1/1")
    assert set(message) == {"sensor_id", "probability", "alert", "model_version", "run_id", "event_time", "scored_at"}
    assert (message["sensor_id"], message["model_version"], message["run_id"]) == ("s", 5, "run-1")
    assert (message["event_time"], other["event_time"]) == (1_700_000_000_007, 1_700_000_000_012)
    assert before - 1 <= message["scored_at"] / 1000 <= time.time() + 1


SCALER = Scaler((75.0, 0.06), (9.0, 0.03))


def test_the_newest_version_is_in_service(script, spark):
    old, new = served_model("mlp", SCALER, version=5), served_model("mlp", None, version=6)
    rows = score(script, spark, new, [old, new], [encode(reading) for reading in readings(3)])
    assert {message["model_version"] for _, message in sent(rows, "alerts")} == {6}


def test_a_bad_reading_is_kept_and_gets_no_probability(script, spark):
    model = served_model("logistic", SCALER)
    rows = score(script, spark, model, [model], [b"hello", encode(readings(1)[0])])
    ((_, letter),) = sent(rows, "dead-letter")
    assert (letter["offset"], base64.b64decode(letter["value"])) == (0, b"hello")
    assert "not one JSON object" in letter["reason"]
    assert len(sent(rows, "alerts")) == 1


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        ("logistic", {"coef": (3, 2), "intercept": (3,)}),
        ("mlp", {"coefs_0": (2, 4), "intercepts_0": (4,), "coefs_1": (4, 3), "intercepts_1": (3,)}),
        ("mlp", {"coefs_0": (2, 700), "intercepts_0": (700,), "coefs_1": (700, 1), "intercepts_1": (1,)}),
        ("examples.own_model:Own", {"means": (2,)}),
    ],
    ids=["three classes", "an MLP of three classes", "too large", "a class of one's own"],
)
def test_a_model_that_is_no_column_expression_is_refused(kind, shapes):
    model = global_model("run-1", 1, 1, {name: np.ones(shape) for name, shape in shapes.items()}, model=kind)
    with pytest.raises(BadMessage, match=f"MODEL is '{kind}'.*at most {LARGEST_MODEL} weights"):
        scoring_layout(model, 2)


def message_of(model: GlobalModel, *order: int, **changes: Any) -> dict[str, Any]:
    """Return a model's message, with its arrays in another order or with other fields."""
    message = json.loads(encode(model))
    return message | {"arrays": [message["arrays"][place] for place in order] or message["arrays"]} | changes


def deep(layers: int) -> list[dict[str, Any]]:
    """Return the arrays of a network with so many layers of one unit."""
    shapes = {}
    for i in range(layers):
        shapes |= {f"coefs_{i}": (1 if i else 2, 1), f"intercepts_{i}": (1,)}
    return to_builtins(wire.to_wire({name: np.ones(shape) for name, shape in shapes.items()}))


MLP_MESSAGE = json.loads(encode(served_model("mlp", SCALER)))
UNSCORABLE = {
    "no arrays": ({"arrays": []}, "MODEL is 'mlp' with 0 weights in arrays {}; alerts take logistic or mlp of 2 feat"),
    "other arrays": ({"model": "logistic"}, "MODEL is 'logistic' with 65 weights in arrays {'coefs_0': (2, 16), "),
    "65 dimensions": (
        {"arrays": [MLP_MESSAGE["arrays"][0] | {"shape": [1] * 65, "values": [1.0]}]},
        "array coefs_0 has 65 dimensions; expected at most 8",
    ),
    "a matrix for a list": (
        {"arrays": to_builtins(wire.to_wire({"coefs_0": np.ones((2, 3, 2)), "intercepts_0": np.ones((3, 2))}))},
        "MODEL is 'mlp' with 18 weights",
    ),
    "five features": (
        {"arrays": to_builtins(wire.to_wire(make_model("mlp", {}, features=5).initial_arrays(1)))},
        "MODEL is 'mlp' with 113 weights in arrays {'coefs_0': (5, 16), ",
    ),
    "a large scaler": ({"scaler": {"mean": [1.0] * 3, "std": [1.0] * 3}}, "the scaler has 3 numbers; expected 2"),
    "hundreds of layers": ({"arrays": deep(450)}, "MODEL is 'mlp' with 901 weights"),
}


class Models:
    """The topic of global models, for one job."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put an empty topic in the broker's place."""
        self.records: list[SimpleNamespace] = []
        self.read = 0
        monkeypatch.setattr(kafka, "follow_topic", lambda *_, **__: self.take)
        monkeypatch.setattr(kafka, "read_backwards", lambda *_: iter(()))

    def add(self, *messages: dict[str, Any]) -> None:
        """Put messages on the topic."""
        for message in messages:
            place = {"topic": "global-model", "partition": 0, "offset": len(self.records)}
            self.records.append(SimpleNamespace(value=encode(message), **place))

    def take(self, timeout_seconds: float) -> list[SimpleNamespace]:
        """Return what has come since the last call."""
        self.read, new = len(self.records), self.records[self.read :]
        return new


@pytest.mark.parametrize(("changes", "reason"), UNSCORABLE.values(), ids=UNSCORABLE)
def test_a_model_that_cannot_be_scored_is_told_once_and_another_stays(
    script, spark, monkeypatch, capsys, changes, reason
):
    alerts, topic = script("realtime/alerts.py"), Models(monkeypatch)
    topic.add(MLP_MESSAGE | {"version": 3} | changes)
    newest = models.follow_models(Settings(), functools.partial(scorable, table=Settings().table), "Alertes")
    coming = iter([lambda: None, lambda: topic.add(MLP_MESSAGE | {"version": 4})])

    def look(timeout_seconds: float) -> GlobalModel | None:
        next(coming)()
        return newest(timeout_seconds)

    model = alerts.wait_for_model(look, 60)
    assert model.version == 4, "it waits for the first one that it can score"
    topic.add(MLP_MESSAGE | {"version": 5} | changes, MLP_MESSAGE | {"version": 6} | changes)
    query = Mock()
    query.awaitTermination.side_effect = [False, True]
    assert alerts.follow_models(spark, query, model, newest).version == 4
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert out.startswith("Alertes -> modèle ignoré : ")
    assert reason in out


def test_a_model_with_its_arrays_in_another_order_is_scored_as_the_same(script, spark, monkeypatch):
    topic = Models(monkeypatch)
    topic.add(message_of(served_model("two layers", SCALER), 5, 2, 0, 4, 1, 3))
    found = models.follow_models(Settings(), functools.partial(scorable, table=Settings().table), "Alertes")(0)
    given = [encode(reading) for reading in readings(20)]
    expected = score(script, spark, served_model("two layers", SCALER), [served_model("two layers", SCALER)], given)
    rows = score(script, spark, found, [found], given)
    scores = [[message["probability"] for _, message in sent(each, "alerts")] for each in (rows, expected)]
    assert scores[0] == scores[1]
    assert len(set(scores[0])) > 10


def test_the_driver_reads_the_model_once_for_each_plan_and_no_task_does(script, spark):
    """Executors do not have the driver's property; and a job for the model would hold up the next interval."""
    alerts: ModuleType = script("realtime/alerts.py")
    model = served_model("two layers", SCALER)
    layout = scoring_layout(model, 2)
    alerts.serve(spark, model)
    frame = spark.createDataFrame([(None, bytearray(b"{}"), "t", 0, 0, None)], RECORDS_DDL)
    served = alerts.served_model(spark, layout)
    scores = alerts.score_readings(parse_readings(frame, Settings()), served, layout, Settings())
    plan = scores._jdf.queryExecution().executedPlan().toString()
    assert plan.count("LocalTableScan") == 1  # never for each weight
    assert "getProperty" not in plan


def test_eight_features_are_scored_as_by_the_python_model(script, spark):
    settings = Settings(features=",".join(f"f{i}:-10:10" for i in range(8)), labels="optional")
    alerts, random = script("realtime/alerts.py"), np.random.default_rng(3)
    python = make_model("mlp", {}, features=8)
    arrays = {name: random.normal(0, 1, array.shape) for name, array in python.initial_arrays(1).items()}
    model = scorable(global_model("run-1", 1, 0, arrays), settings.table)
    layout = scoring_layout(model, 8)
    alerts.serve(spark, model)
    x = random.uniform(-3, 3, (50, 8))
    values = [encode({"sensor_id": 5} | {f"f{i}": value for i, value in enumerate(row)}) for row in x.tolist()]
    values += [encode({"sensor_id": 5} | {f"f{i}": 11.0 for i in range(8)})]
    records = [(None, bytearray(value), "sensor-data-node-1", 0, i, None) for i, value in enumerate(values)]
    readings = parse_readings(spark.createDataFrame(records, RECORDS_DDL), settings)
    rows = alerts.score_readings(readings, alerts.served_model(spark, layout), layout, settings).collect()
    found = [message["probability"] for _, message in sent(rows, "alerts")]
    assert np.abs(np.array(found) - python.predict(arrays, x)[:, 1]).max() < 1e-9
    ((_, letter),) = sent(rows, "dead-letter")
    assert letter["reason"] == "f0 is 11.0; expected a number from -10 to 10"
