"""What a contestant's processes use: CPU, memory, threads, files; and the micro-batches that Spark tells of.

A contestant's are those started for it with all their descendants, and its executors with their Python workers. The
standing services (broker, ZooKeeper, Spark master and workers) and the load generators are nobody's.
"""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import psutil

Key = tuple[int, float]  # process id and start time: ids are used again
BATCH_GAUGES = (".latency", ".lastCompletedBatch_processingDelay")  # Structured Streaming, DStreams
BESIDE = ".training.latency"  # of a fog node's second query, on which no weight waits


def executors(master_port: int) -> list[psutil.Process]:
    """Return the executors under the Spark workers of the master at that port, seen from the host."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "org.apache.spark.deploy.worker.Worker" in line and line[-1].endswith(f":{master_port}"):
            with suppress(psutil.NoSuchProcess):
                # Beside them stands what is left of the shell that started the worker.
                found += [child for child in process.children() if child.name() == "java"]
    return found


def drivers(script: str, master_port: int) -> list[psutil.Process]:
    """Return the drivers that run this script on the master at that port, seen from the host."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "environ"])
        if (process.info["environ"] or {}).get("SPARK_MASTER_PORT") == str(master_port)
        and any(word.endswith(script) for word in process.info["cmdline"] or [])
    ]


def with_descendants(roots: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return these processes and all below them that still run."""
    found: dict[int, psutil.Process] = {}
    for root in roots:
        with suppress(psutil.NoSuchProcess):
            found |= {process.pid: process for process in (root, *root.children(recursive=True))}
    return list(found.values())


def cpu_seconds(processes: Iterable[psutil.Process]) -> dict[Key, float]:
    """Return the CPU time (s, user and system) of each process so far."""
    seconds = {}
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds[process.pid, process.create_time()] = times.user + times.system
    return seconds


def memory_mb(processes: Iterable[psutil.Process]) -> float:
    """Return the memory (MB) of processes: PSS, or RSS where the kernel keeps PSS from us."""
    total = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            try:
                total += process.memory_full_info().pss
            except psutil.AccessDenied:
                total += process.memory_info().rss
    return float(total) / 2**20


def last_batch_ms(page: str) -> float | None:
    """Return how long the last micro-batch took, from the metrics of a driver's page; None if it tells of none."""
    try:
        with urllib.request.urlopen(f"{page}/metrics/json/", timeout=2) as answer:
            return batch_ms(json.load(answer)["gauges"])
    except (OSError, ValueError):
        return None


def batch_ms(gauges: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Return the time of the last micro-batch of the query whose results are measured, by a driver's gauges."""
    names = [name for name in gauges if name.endswith(BATCH_GAUGES) and not name.endswith(BESIDE)]
    return max((float(gauges[name]["value"]) for name in names), default=0) or None


class Sampler:
    """Looks at a contestant's processes now and then, in a thread, until it is closed: each look has its cost."""

    def __init__(
        self, roots: Callable[[], list[psutil.Process]], page: Callable[[], str | None], every_seconds: float = 3.0
    ) -> None:
        """Start looking at the descendants of `roots()`, and at the driver's `page()`, if it has micro-batches."""
        self._roots, self._page, self._every = roots, page, every_seconds
        self._seconds: dict[Key, float] = {}
        self._looks_mb: list[float] = []
        self._batches: list[float] = []
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        processes = with_descendants(self._roots())
        seconds, megabytes = cpu_seconds(processes), memory_mb(processes)
        page = self._page()
        batch = last_batch_ms(page) if page else None
        with self._lock:
            self._seconds |= seconds  # of a process that has ended the last look counts
            self._looks_mb.append(round(megabytes))
            self._batches += [batch] if batch else []

    def _run(self) -> None:
        while not self._closing.wait(self._every):
            self._look()

    def take(self) -> dict[str, Any]:
        """Look once more; return the CPU seconds of each process so far, and memory and batches since the last take."""
        self._look()
        with self._lock:
            taken = {"cpu": dict(self._seconds), "memory_mb": max(self._looks_mb), "batches_ms": self._batches}
            self._looks_mb, self._batches = [], []
        return taken

    def close(self) -> None:
        """Stop looking."""
        self._closing.set()
        self._thread.join(timeout=10)
