"""What a driver says when one of its queries fails: one readable paragraph."""

from __future__ import annotations

import pytest

from fedstream.spark.session import cause_of

BEGIN = "[STREAM_FAILED] Query [id = 1, runId = 2] terminated with exception: "
PYTHON = (
    BEGIN
    + """An exception was raised by the Python Proxy. Return Message: Traceback (most recent call last):
  File "pyspark/sql/utils.py", line 1, in call
    raise e
fedstream.errors.BadMessage: samples is 0; expected at least 1

=== Streaming Query ===
"""
)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (BEGIN + "Topic t was lost\n=== Streaming Query ===\nJava trace", "Topic t was lost"),
        (PYTHON, "BadMessage: samples is 0; expected at least 1"),
        ("something else", "something else"),
    ],
)
def test_the_cause_is_the_first_line_or_the_end_of_a_python_trace(text, cause):
    assert cause_of(text) == cause
