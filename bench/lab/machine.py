"""What figures depend on beside the programs: the machine, versions, the commit; and where results are kept."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.lab.stack import LOGS, ROOT, RUNNER

RESULTS = ROOT / "bench" / "results"  # of whole runs; those of quick and partial ones go to LOGS


def machine() -> dict[str, Any]:
    """Return cores, processor, memory and load."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": models[0] if models else platform.machine(),
        "memory_gb": round(gigabytes),
        "system": platform.platform(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions(packages: Iterable[str], jars: Path | None = None) -> dict[str, str]:
    """Return the versions of Python, the broker and packages: of Python, `spark`, or jars in that folder."""
    dotenv = dict(line.split("=", 1) for line in (ROOT / ".env").read_text().splitlines() if "=" in line)
    found = {"Python": platform.python_version(), "broker": dotenv["KAFKA_VERSION"]}
    for name in sorted(set(packages)):
        if name == "spark":
            found[name] = dotenv["SPARK_VERSION"]
        elif jars and (named := sorted(jars.glob(f"{name}-[0-9]*.jar"))):
            found[name] = named[0].stem.removeprefix(f"{name}-")
        else:
            found[name] = version(name)
    return found


def about(packages: Iterable[str], jars: Path | None = None) -> dict[str, Any]:
    """Return what a run's results begin with."""
    line = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(line, capture_output=True, text=True).stdout.strip()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    own = {"runner": RUNNER, "started": started, "commit": commit or "unknown"}
    return own | {"machine": machine(), "versions": versions(packages, jars)}


def conditions(results: Mapping[str, Any]) -> str:
    """Return in one line when, how and on what results were measured."""
    made_on, used = results["machine"], results["versions"].items()
    return (
        f"{results['runner']} runner, {results['started']}, commit {results.get('commit', 'unknown')}: "
        f"{made_on['cores']} cores of {made_on['processor']}, {made_on['memory_gb']} GB; "
        f"{', '.join(f'{name} {number}' for name, number in used)}."
    )


def file_for(name: str, output: Path | None, is_whole: bool) -> Path:
    """Return the file of a run's results on this runner: by default in RESULTS, if it is a whole one, else in LOGS."""
    folder = output or (RESULTS if is_whole else LOGS)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}{'' if RUNNER == 'local' else f'-{RUNNER}'}.json"


def save(path: Path, results: Mapping[str, Any]) -> None:
    """Write results as JSON."""
    path.write_text(json.dumps(results, indent=1) + "\n")
