"""A real Prometheus on the real stack: it reaches all it asks, and every panel and rule has data to speak of."""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from typing import Any

import yaml

from tests.stack.stack import ENV, QUICK, ROOT, Stack, eventually

FOLDER = ROOT / "deploy" / "monitoring"
# Of the alerts job, which is not started for this; and what only an incident brings forth.
ABSENT = {"fedstream_alerts_model_age_seconds", "fedstream_dead_letters_total"}
# The broker's own, which an option adds.
OF_KAFKA = {"kafka_topic_messages_in_total", "kafka_request_p99_seconds", "kafka_partition_bytes"}


def ask(path: str) -> Any:
    """Return the data of an answer of Prometheus."""
    with urllib.request.urlopen(f"http://localhost:{ENV['PROMETHEUS_PORT']}/api/v1/{path}", timeout=10) as response:
        return json.load(response)["data"]


def values(query: str) -> list[Any]:
    """Return the series that a query gives now."""
    found: list[Any] = ask(f"query?query={urllib.parse.quote(query)}")["result"]
    return found


def not_up() -> list[str]:
    """Return what Prometheus cannot reach, or says it has not asked yet."""
    targets = ask("targets?state=active")["activeTargets"]
    parts = {each["labels"].get("part", "board") for each in targets}
    missing = {"board", "kafka", "spark-master", "spark-worker-1", "spark-worker-2", "fog-1", "fog-2", "cloud"} - parts
    return sorted(missing) + [f"{each['scrapeUrl']}: {each['lastError']}" for each in targets if each["health"] != "up"]


def followed(offset: int) -> set[str]:
    """Return what the board tells of a reading of node 1."""
    place = f"topic=sensor-data-node-1&partition=0&offset={offset}"
    with urllib.request.urlopen(f"http://localhost:{ENV['BOARD_PORT']}/api/follow?{place}", timeout=30) as response:
        return {step["says"] for step in json.load(response)["steps"]}


def test_every_query_of_the_panels_and_rules_has_data_under_load(stack: Stack, run_sensors) -> None:
    stack.make("-j2", "run-fog", "run-cloud", **QUICK)
    run_sensors(50)
    stack.make("monitoring")
    eventually("all targets are up", not_up, lambda seen: seen == [], 120)
    dashboard = json.loads((FOLDER / "grafana" / "dashboards" / "fedstream.json").read_text())
    queries = {target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])}
    rules = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"][0]["rules"]
    metrics = {name for rule in rules for name in re.findall(r"\b(?:fedstream|metrics)_\w+", rule["expr"])} - ABSENT
    assert len(queries) > 12
    assert len(metrics) > 12
    eventually(
        "each has data", lambda: sorted(query for query in queries | metrics | OF_KAFKA if not values(query)),
        lambda seen: seen == [], 120,
    )  # fmt: skip
    assert values('ALERTS{alertname=~"PartDown|BoardDown|WorkerMissing",alertstate="firing"}') == []
    # On the same stack: a reading of some seconds ago is followed to the version that has learned it. Not each is in
    # one: an update may come too late for its round.
    eventually(
        "one is followed", lambda: followed(stack.end_offset("sensor-data-node-1") - 500),
        {"reading", "learned", "version"}.issubset, 120,
    )  # fmt: skip
    stack.stop("prometheus")
