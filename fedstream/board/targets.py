"""What Prometheus asks of Spark and Kafka: the parts that run now (HTTP service discovery)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fedstream.stack import health

METRICS, EXECUTORS = "/metrics/prometheus", "/metrics/executors/prometheus"


def targets(jobs: Iterable[str], env: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the targets, each with its path and the name of its part.

    Args:
        jobs: those that run; of a job without pages nothing is asked.
        env: the stack's variables. In Docker each part is a host of its own name.
    """

    def target(part: str, port: str | int, path: str) -> dict[str, Any]:
        host = part if env.get("STACK") == "docker" else "localhost"
        return {"targets": [f"{host}:{port}"], "labels": {"__metrics_path__": path, "part": part}}

    found = [target("spark-master", env["SPARK_MASTER_UI_PORT"], "/metrics/master/prometheus")]
    found += [target(f"spark-worker-{n}", env[f"SPARK_WORKER_{n}_UI_PORT"], METRICS) for n in (1, 2)]
    if port := env.get("KAFKA_METRICS_PORT"):
        found.append(target("kafka", port, "/metrics"))
    for job in (job for job in jobs if health.has_page(job, env)):
        found += [target(job, health.driver_ui_port(job, env), path) for path in (METRICS, EXECUTORS)]
    return found
