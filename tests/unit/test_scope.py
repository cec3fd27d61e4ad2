"""Which topics a fog driver reads, and where it keeps what it has counted of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedstream.spark.scope import Scope, folder_of, parse_nodes


def test_two_lists_of_topics_that_begin_alike_have_no_folder_in_common():
    one, other = (Scope.of(parse_nodes(nodes), None, None) for nodes in ("1-10,20-50", "1-50"))
    assert one.name == other.name == "fog-1-50"
    assert one.topics[:100] == other.topics[:100]
    folders = {scope.folder(Path("/data"), None) for scope in (one, other)}
    assert len(folders) == 2
    assert all(len(folder.name) == 100 for folder in folders)


@pytest.mark.parametrize(
    ("topics", "folder"),
    [("sensor-data-node-1", "sensor-data-node-1"), ("sensor-data-node-.*", "sensor-data-node-._"), ("a,b", "a,b")],
)
def test_a_folder_has_the_name_of_its_topics(topics, folder):
    assert folder_of(topics) == folder


def test_blanks_between_sensors_are_no_part_of_their_names():
    assert Scope.of([1], "sensor-data", "s1, s2").node_of_sensor == {"s1": 1, "s2": 1}
