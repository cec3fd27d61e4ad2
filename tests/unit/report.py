"""What the course report shows of its sensors, and the rule of their labels, written down a second time."""

from __future__ import annotations

# Every labelled reading that the course report shows (section 8.1.1): temperature in °C, vibration in g, label.
READINGS = [
    (72.48, 0.071, 0),
    (78.48, 0.033, 0),
    (61.51, 0.048, 0),
    (79.58, 0.064, 0),
    (82.33, 0.029, 0),
    (84.95, 0.08, 0),
    (60.9, 0.044, 0),
    (60.81, 0.053, 0),
    (81.62, 0.089, 1),
    (60.44, 0.026, 0),
    (87.91, 0.055, 1),
    (88.09, 0.05, 1),
    (85.97, 0.091, 1),
    (69.72, 0.061, 0),
    (85.49, 0.095, 1),
    (63.7, 0.057, 0),
    (85.61, 0.094, 1),
    (79.83, 0.026, 0),
    (72.55, 0.085, 1),
    (84.88, 0.026, 0),
    (84.64, 0.04, 0),
]


def label_of(temperature: float, vibration: float) -> int:
    """Return the label of a reading: 1 above 85 °C or above 0.08 g."""
    return int(temperature > 85 or vibration > 0.08)
