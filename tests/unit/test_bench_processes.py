"""What the bench reads of a driver's page: the micro-batches of the query whose results it measures."""

from __future__ import annotations

import pytest

from bench.lab.processes import batch_ms


@pytest.mark.parametrize(
    ("gauges", "expected"),
    [
        # A training lasts longer than the micro-batch that sends the weight.
        ({"spark.streaming.fog-1-2.latency": 140, "spark.streaming.training.latency": 7720}, 140),
        ({"spark.streaming.training.latency": 7720}, None),
        ({"StreamingMetrics.streaming.lastCompletedBatch_processingDelay": 490, "jvm.heap.used": 9000}, 490),
        ({"spark.streaming.fog-1.latency": 0}, None),  # none has ended yet
        ({}, None),
    ],
)
def test_the_micro_batch_is_that_of_the_measured_query(gauges, expected):
    found = batch_ms({f"app-1.driver.{name}": {"value": value} for name, value in gauges.items()})
    assert found == expected
