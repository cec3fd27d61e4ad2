"""Every setting of the jobs: one frozen dataclass, read once from the environment in `main()`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import click


class StackError(click.ClickException):
    """An error whose text tells the user what to do: the command line shows it without a traceback, exit code 1."""


class SettingError(StackError):
    """A setting has a value that cannot be used; the text names the setting, its value and what is expected."""


# A function, so that a field's default, meaning and limits stand on one line.
def _setting(default: Any, about: str, low: float = -math.inf, high: float = math.inf) -> Any:
    return field(default=default, metadata={"about": about, "low": low, "high": high})


def command_help(docstring: str | None) -> str:
    """Return a module's docstring as click's help text, with its lines kept as they are."""
    return (docstring or "").replace("\n\n", "\n\n\b\n")


@dataclass(frozen=True)
class Settings:
    """The jobs' settings; each is the environment variable of the same name in capitals."""

    kafka_bootstrap_servers: str = _setting("localhost:9092", "brokers, `host:port`, separated by commas")
    checkpoint_dir: Path = _setting(Path(".run/checkpoints"), "folder of all checkpoints, one subfolder a job")
    wait_timeout_seconds: float = _setting(60.0, "longest wait for Kafka, Spark or a result", low=0.1)
    temperature_min_celsius: float = _setting(-100.0, "a reading below this is rejected")
    temperature_max_celsius: float = _setting(1000.0, "a reading above this is rejected")
    vibration_max_g: float = _setting(1000.0, "a reading above this is rejected", low=0.001)
    max_value_bytes: int = _setting(65_536, "a longer record value is rejected", low=1, high=2**20)
    max_offsets_per_trigger: int = _setting(500_000, "most records of one micro-batch: bounds memory", low=1)
    max_updates_per_trigger: int = _setting(1_000, "most node updates of one micro-batch of the cloud", low=1)
    fetch_max_wait_ms: int = _setting(10, "longest the broker holds back a fetch", low=0, high=60_000)
    trigger_interval_ms: int = _setting(0, "time between micro-batches of fog and cloud; 0 = at once", low=0)
    topic_partitions: int = _setting(1, "partitions of a topic made by the stack", low=1, high=1000)
    numbers_host: str = _setting("localhost", "host of the socket producer")
    numbers_port: int = _setting(9999, "port of the socket producer", low=1, high=65_535)

    def __post_init__(self) -> None:
        """Check the limits that involve two settings."""
        if self.temperature_min_celsius >= self.temperature_max_celsius:
            msg = (
                f"TEMPERATURE_MIN_CELSIUS is {self.temperature_min_celsius}; expected less than "
                f"TEMPERATURE_MAX_CELSIUS, which is {self.temperature_max_celsius}"
            )
            raise SettingError(msg)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings from environment variables; an unset or empty one keeps its default.

        Raises:
            SettingError: a value is of the wrong type or outside its range.
        """
        given = {}
        for setting in fields(cls):
            name = setting.name.upper()
            if text := environ.get(name, "").strip():
                given[setting.name] = _parse(name, text, type(setting.default), setting.metadata)
        return cls(**given)


def _parse(name: str, text: str, kind: type, limits: Mapping[str, Any]) -> Any:
    if kind not in (int, float):
        return kind(text)
    expected = f"a {'whole ' if kind is int else ''}number"
    if limits["low"] > -math.inf:
        expected += f" of at least {limits['low']}"
    if limits["high"] < math.inf:
        expected += f" and at most {limits['high']}"
    try:
        value = kind(text)
        good = math.isfinite(value) and limits["low"] <= value <= limits["high"]
    except (ValueError, OverflowError):  # OverflowError: an integer beyond every float
        good = False
    if not good:
        msg = f"{name} is {text!r}; expected {expected}. Set it in the environment or in .env."
        raise SettingError(msg)
    return value
