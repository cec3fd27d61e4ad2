"""Writes the dashboard of Grafana, python deploy/monitoring/dashboards.py: its panels are listed here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).parent / "grafana" / "dashboards" / "fedstream.json"
SOURCE = {"type": "prometheus", "uid": "fedstream"}  # of grafana/datasources.yml
WIDTH, HEIGHT = 8, 7  # three panels side by side


class Panel(NamedTuple):
    """A chart: what it shows, its unit as Grafana calls it, and what Prometheus is asked, each with its legend."""

    title: str
    about: str
    unit: str
    queries: dict[str, str]  # query: legend


ROWS = {
    "Flow": [
        Panel(
            "Records a second",
            "What comes on each topic.",
            "short",
            {"rate(fedstream_topic_records_total[1m])": "{{topic}}"},
        ),
        Panel(
            "Running weights",
            "Report A's number: of each node, and of all.",
            "short",
            {"fedstream_node_weight": "{{node}}", "fedstream_global_weight": "global"},
        ),
        Panel("Parts that are well", "1: well, 0: not.", "short", {"fedstream_service_up": "{{service}}"}),
    ],
    "Learning": [
        Panel(
            "F1",
            "Of the newest version that was measured, on readings it had not seen; and of the best one.",
            "percentunit",
            {
                "fedstream_model_f1_ratio": "newest",
                "fedstream_model_best_f1_ratio": "best",
                "fedstream_node_f1_ratio": "{{node}}",
            },
        ),
        Panel(
            "Rounds a minute",
            "How many rounds ended, and how.",
            "short",
            {"60 * rate(fedstream_rounds_total[1m])": "{{result}}"},
        ),
        Panel(
            "What learning at the fog saves",
            "Bytes of readings that stayed at the nodes, of updates they sent, and of models they received.",
            "bytes",
            {"sum by (kind) (fedstream_learning_bytes)": "{{kind}}"},
        ),
    ],
    "Streams": [
        Panel(
            "Lag in records",
            "Records that wait, also for a driver that is dead.",
            "short",
            {"fedstream_query_lag_records": "{{query}} {{topic}}"},
        ),
        Panel(
            "Lag in time", "How long the oldest of them has waited.", "s", {"fedstream_query_lag_seconds": "{{query}}"}
        ),
        Panel(
            "Duration of a micro-batch",
            "Of the last hundred; 95 of 100 are within p95.",
            "s",
            {"fedstream_query_batch_seconds": "{{query}} {{stat}}"},
        ),
    ],
    "Spark": [
        Panel("Workers alive", "As the master sees it.", "short", {"metrics_master_aliveWorkers_Value": "workers"}),
        Panel("Slots in use", "Of each worker.", "short", {"metrics_worker_coresUsed_Value": "{{instance}}"}),
        Panel(
            "Tasks a second",
            "Of all executors of an application.",
            "short",
            {"sum by (application_name) (rate(metrics_executor_completedTasks_total[1m]))": "{{application_name}}"},
        ),
    ],
}


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    for place, (row, members) in enumerate(ROWS.items()):
        top = place * (HEIGHT + 1)
        panels.append({"type": "row", "title": row, "gridPos": {"x": 0, "y": top, "w": 3 * WIDTH, "h": 1}})
        for column, panel in enumerate(members):
            panels.append(
                {
                    "type": "timeseries",
                    "title": panel.title,
                    "description": panel.about,
                    "datasource": SOURCE,
                    "gridPos": {"x": column * WIDTH, "y": top + 1, "w": WIDTH, "h": HEIGHT},
                    "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
                    "targets": [
                        {"refId": chr(65 + i), "datasource": SOURCE, "expr": query, "legendFormat": legend}
                        for i, (query, legend) in enumerate(panel.queries.items())
                    ],
                }
            )
    for number, each in enumerate(panels, start=1):
        each["id"] = number
    about = {"uid": "fedstream", "title": "Edge, fog and cloud", "tags": ["fedstream"], "schemaVersion": 39}
    return about | {"refresh": "5s", "time": {"from": "now-15m", "to": "now"}, "panels": panels}


def text() -> str:
    """Return the file."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
