"""A reading of a sensor: its fields, and the form in which sensors send it."""

from __future__ import annotations

READING_DDL = "sensor_id STRING, temperature DOUBLE, vibration DOUBLE, label INT, event_time BIGINT"
FEATURES = ("temperature", "vibration")  # what a model learns from, and what the running sums are of
READING_FIELDS = tuple(field.split()[0] for field in READING_DDL.split(", "))
# What json.dumps makes of a good reading, with or without spaces: ASCII, nothing escaped, numbers that every reader of
# JSON takes for the same.
_NUMBER = r"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,15})?"
PLAIN_READING = (
    r'^\{"sensor_id": ?"[ !#-\[\]-~]+", ?"temperature": ?'
    + _NUMBER
    + r', ?"vibration": ?'
    + _NUMBER
    + r', ?"label": ?[01]'
    r'(?:, ?"event_time": ?(?:0|[1-9]\d{0,17}))?\}\z'
)
# The rule behind the simulated labels; it reproduces every labelled reading shown in the course report.
HOT_CELSIUS = 85.0
STRONG_VIBRATION_G = 0.08


def label_of(temperature: float, vibration: float) -> int:
    """Return 1 if the reading shows trouble, else 0 (temperature in °C, vibration in g)."""
    return int(temperature > HOT_CELSIUS or vibration > STRONG_VIBRATION_G)
