"""The drift detector's library is loaded while the cloud starts: in a round it would hold all nodes up."""

from __future__ import annotations

import threading

import pytest

from fedstream.broker import kafka
from fedstream.errors import StackError
from fedstream.rounds import drift


def no_broker(*_):
    """Stand for a broker that is away: the cloud ends there."""
    msg = "no broker"
    raise StackError(msg)


def test_the_cloud_loads_the_detector_while_it_starts(script, monkeypatch):
    loaded = threading.Event()
    monkeypatch.setattr(drift, "detector_class", loaded.set)
    monkeypatch.setattr(kafka, "ensure_topics", no_broker)
    with pytest.raises(StackError, match="no broker"):
        script("cloud/aggregator.py").main.callback(None)
    assert loaded.wait(10)
