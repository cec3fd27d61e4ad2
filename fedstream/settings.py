"""Every setting of the jobs: one frozen dataclass, read once from the environment in `main()`."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

import msgspec

from fedstream.errors import SettingError
from fedstream.features import (
    REPORT_FEATURES,
    Feature,
    parse_features,
    parse_fields,
    parse_label_rule,
    parse_ranges,
)

REPLACED = ("TEMPERATURE_MIN_CELSIUS", "TEMPERATURE_MAX_CELSIUS", "VIBRATION_MAX_G")  # limits, in FEATURES now


# A function, so that a field's default, meaning and limits stand on one line.
def _setting(
    default: Any, about: str, low: float = -math.inf, high: float = math.inf, choices: tuple[str, ...] = ()
) -> Any:
    return field(default=default, metadata={"about": about, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True)
class Settings:
    """The jobs' settings; each is the environment variable of the same name in capitals."""

    kafka_bootstrap_servers: str = _setting("localhost:9092", "brokers, `host:port`, separated by commas")
    checkpoint_dir: Path = _setting(Path(".run/checkpoints"), "folder of all checkpoints, one subfolder a job")
    wait_timeout_seconds: float = _setting(60.0, "longest wait for Kafka, Spark or a result", low=0.1)
    stall_timeout_seconds: float = _setting(
        120.0, "a driver that does nothing so long, though records wait, ends", low=1
    )
    features: str = _setting(REPORT_FEATURES, "values of a reading, `name:lowest:highest:factor,...`")
    fields: str = _setting("", "where a producer has them, `label=anomaly,x=features.x`; empty = under their own names")
    labels: str = _setting(
        "required", "optional: a reading without a label counts, and is not learned", choices=("required", "optional")
    )
    classes: int = _setting(2, "labels are whole numbers from 0 to CLASSES - 1", low=2, high=1000)
    label_rule: str = _setting("", "conditions that label a simulated reading; empty = those of the reports")
    simulated_ranges: str = _setting("", "of simulated sensors, `name:from:to,...`; empty = those of the reports")
    max_value_bytes: int = _setting(65_536, "a longer record value is rejected", low=1, high=2**20)
    max_offsets_per_trigger: int = _setting(500_000, "most records of one micro-batch: bounds memory", low=1)
    max_updates_per_trigger: int = _setting(1_000, "most node updates of one micro-batch of the cloud", low=1)
    fetch_max_wait_ms: int = _setting(10, "longest a fetch waits; 0 for micro-batches", low=0, high=60_000)
    trigger_interval_ms: int = _setting(0, "time between a fog node's micro-batches; 0 = at once", low=0)
    cloud_interval_ms: int = _setting(1000, "time between the cloud's micro-batches; 0 = at once", low=0)
    topic_partitions: int = _setting(1, "partitions of a topic made by the stack", low=1, high=1000)
    realtime_interval_seconds: float = _setting(30.0, "time between commits in real-time mode", low=5, high=3600)
    sink_linger_ms: int = _setting(0, "longest that Spark holds back a message for others", low=0, high=60_000)
    numbers_host: str = _setting("localhost", "host of the server of numbers")
    numbers_port: int = _setting(9999, "port of the server of numbers", low=1, high=65_535)

    model: str = _setting("mlp", "mean, logistic, mlp, or package.module:Class")
    model_options: str = _setting("", "the model's keyword arguments, `hidden_units=16,...`")
    local_epochs: int = _setting(5, "passes over the readings of an update", low=1, high=1000)
    train_batch_size: int = _setting(64, "readings of one training step", low=1)
    learning_rate: float = _setting(0.01, "step size of the training on the nodes", low=1e-9, high=100)
    class_weight: str = _setting("none", "none, balanced, or a weight for each class: `0:1,1:5`")
    decision_threshold: float = _setting(0.5, "a probability of class 1 from here on is an alarm", low=0, high=1)
    feature_scaling: str = _setting(
        "shared", "shared: all nodes' mean and deviation; or none", choices=("shared", "none")
    )
    update_min_readings: int = _setting(100, "readings that a node waits for before it trains", low=1)
    update_max_wait_seconds: float = _setting(5.0, "longest wait for these readings", low=0.1)
    update_interval_ms: int = _setting(2000, "time between looks for these readings, so between two trainings", low=50)
    max_readings_per_update: int = _setting(20_000, "most readings of one training: bounds memory", low=1)
    max_update_bytes: int = _setting(1_000_000, "a longer update or global model is refused", low=1000, high=1_400_000)
    max_update_norm: float = _setting(1000.0, "an update farther from its base model is rejected", low=1e-9)
    strategy: str = _setting("FedAvg", "a strategy of Flower, or package.module:Class")
    strategy_options: str = _setting("", "the strategy's keyword arguments, `eta=0.1,...`")
    round_mode: str = _setting("sync", "sync: rounds; async: a buffer of updates", choices=("sync", "async"))
    round_quorum: int = _setting(1, "fewest updates that close a round", low=1)
    round_deadline_seconds: float = _setting(10.0, "longest wait for a node once the round is open", low=0.1)
    round_min_examples: int = _setting(1, "fewest examples that close a round", low=1)
    versions_kept: int = _setting(1000, "newest versions of a run that topic model-versions keeps, and the best", low=2)
    round_patience: int = _setting(3, "rounds without a sign of a node after which none waits for it", low=1)
    known_nodes: str = _setting("", "names or patterns of the nodes that may take part, `fog-*`; empty = all")
    async_buffer: int = _setting(2, "updates that make a new model in mode async", low=1)
    max_staleness: int = _setting(10, "an update of a model older by more versions is dropped (async)", low=0)
    quarantine_after: int = _setting(3, "bad updates after which a node is kept out", low=1)
    quarantine_rounds: int = _setting(10, "rounds that it is then kept out", low=1)
    drift_threshold: float = _setting(0.5, "sum of excess error that counts as drift; 0 = no detector", low=0)
    drift_action: str = _setting(
        "none", "what follows: none, reset (new model) or boost (learning rate)", choices=("none", "reset", "boost")
    )
    drift_boost: float = _setting(3.0, "factor of the learning rate for 5 rounds after a drift", low=1, high=1000)
    seed: int = _setting(1, "of the initial model, the training order and a strategy's sampling", low=0, high=2**31)

    def __post_init__(self) -> None:
        """Check what is written in a form of its own."""
        parse_fields(self.fields, self.table)
        if self.label_rule:
            parse_label_rule(self.label_rule, self.table)
        if self.simulated_ranges:
            parse_ranges(self.simulated_ranges, self.table)

    @property
    def table(self) -> tuple[Feature, ...]:
        """The features of a reading."""
        return parse_features(self.features)

    @property
    def feature_names(self) -> list[str]:
        """Their names, in order."""
        return [feature.name for feature in self.table]

    @property
    def paths(self) -> dict[str, str]:
        """Where each field of a reading stands in a message."""
        return parse_fields(self.fields, self.table)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings from environment variables; an unset or empty one keeps its default.

        Raises:
            SettingError: a value is of the wrong type or outside its range, or a setting was replaced by another.
        """
        for name in REPLACED:
            if environ.get(name, "").strip():
                msg = (
                    f"{name} is no setting any more: write the limits into FEATURES, such as FEATURES={REPORT_FEATURES}"
                )
                raise SettingError(msg)
        given = {}
        for setting in fields(cls):
            if text := environ.get(setting.name.upper(), "").strip():
                given[setting.name] = _parse(setting, text)
        return cls(**given)


def expected(setting: Field[Any]) -> str:
    """Return what a setting's value must be, in words."""
    limits = setting.metadata
    if limits["choices"]:
        return " or ".join(limits["choices"])
    text = {int: "a whole number", float: "a number"}.get(type(setting.default), "a text")
    if limits["low"] > -math.inf:
        text += f" of at least {limits['low']}"
    if limits["high"] < math.inf:
        text += f" and at most {limits['high']}"
    return text


def _parse(setting: Field[Any], text: str) -> Any:
    kind: Any = type(setting.default)
    limits = setting.metadata
    if issubclass(kind, Path):
        return Path(text)
    try:
        value = msgspec.convert(text, kind, strict=False)
        good = kind is str or (math.isfinite(value) and limits["low"] <= value <= limits["high"])
    except (msgspec.ValidationError, OverflowError):  # OverflowError: an integer beyond every float
        good = False
    good = good and (kind is not int or text.lstrip("+-").isdecimal())  # msgspec takes 1e3 and 2.0, too
    if not good or (limits["choices"] and text not in limits["choices"]):
        msg = f"{setting.name.upper()} is {text!r}; expected {expected(setting)}. Set it in the environment or in .env."
        raise SettingError(msg)
    return value


def given_settings(environ: Mapping[str, str]) -> list[str]:
    """Return the settings that the environment sets, as lines for a shell."""
    names = sorted(setting.name.upper() for setting in fields(Settings))
    return [f"export {name}={shlex.quote(environ[name])}" for name in names if name in environ]


def parse_options(name: str, text: str) -> dict[str, Any]:
    """Return `a=1,b=x` as keyword arguments; numbers, true and false are read as such.

    Raises:
        SettingError: a part is not of the form name=value.
    """
    options = {}
    # A comma inside a value (hidden_units=32,16) is one that no name and equals sign follow.
    for part in filter(None, (part.strip() for part in re.split(r",(?=\s*[\w.]*\s*=)", text))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not key or not equals:
            msg = f"{name} is {text!r}; expected name=value, separated by commas"
            raise SettingError(msg)
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options


if __name__ == "__main__":  # how `make run-JOB NAME=value` hands settings on to a job of the local runner
    import os

    print("\n".join(given_settings(os.environ)))
