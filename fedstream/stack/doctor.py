"""What is wrong with this machine or this stack, and the remedy: `make doctor`.

Runs before anything is installed, so it needs Python's standard library only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from fedstream.stack import health, parts, processes

MIN_MEMORY_GB = 6
MIN_DISK_GB = 5
MIN_TOPICS_GB = 1


class Trouble(Exception):
    """A finding: what is wrong, and what to do about it."""

    def __init__(self, finding: str, remedy: str) -> None:
        """Keep both parts."""
        super().__init__(finding)
        self.remedy = remedy


def _output(*command: str) -> str | None:
    """Return what a command prints on both streams, or None if it is missing, fails or takes over 10 s."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout + done.stderr if done.returncode == 0 else None


def check_python() -> str:
    """Find a Python that can make a virtual environment."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 11):  # noqa: UP036 - this is where an older one is found
        raise Trouble(f"Python {version}; expected 3.11 or newer", "install a newer python3 and put it first in PATH")
    if _output(sys.executable, "-c", "import venv, ensurepip") is None:
        raise Trouble(f"Python {version} has no venv", "Debian: apt-get install python3-venv")
    return f"Python {version}"


def check_java() -> str:
    """Find Java 17 or newer."""
    version = re.search(r'version "(\d+)([^"]*)"', _output("java", "-version") or "")
    if not version:
        raise Trouble("no java in PATH", "Debian: apt-get install openjdk-17-jdk-headless")
    if int(version[1]) < 17:
        raise Trouble(
            f"Java {version[1]}{version[2]}; Spark needs 17 or newer", "install Java 17 and put it first in PATH"
        )
    return f"Java {version[1]}{version[2]}"


def check_maven() -> str:
    """Find Maven, which fetches the jars."""
    version = re.search(r"Apache Maven ([\d.]+)", _output("mvn", "-v") or "")
    if not version:
        raise Trouble("no mvn in PATH", "Debian: apt-get install maven")
    return f"Maven {version[1]}"


def check_docker() -> str:
    """Find a Docker engine that answers, with Compose v2."""
    engine = _output("docker", "version", "--format", "{{.Server.Version}}")
    if engine is None:
        raise Trouble("no Docker engine answers", "start it, or on Debian 12: deploy/docker/install-engine.sh")
    compose = _output("docker", "compose", "version", "--short")
    if compose is None or compose.lstrip("v").startswith("1."):
        raise Trouble(f"Docker {engine.strip()} without Compose v2", "on Debian 12: deploy/docker/install-engine.sh")
    return f"Docker {engine.strip()}, Compose {compose.strip()}"


def check_base_image() -> str:
    """Find the image that the stack's images are built from."""
    image = os.environ["BASE_IMAGE"]
    if _output("docker", "image", "inspect", image) is None:
        raise Trouble(f"image {image} is not here yet", "make up pulls it; where no registry answers: make base-image")
    return f"base image {image}"


def check_memory() -> str:
    """Compare the memory that is free with what the stack and its jobs take."""
    available = int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) / 2**20  # type: ignore[index]
    if available < MIN_MEMORY_GB and not _stack_runs():
        raise Trouble(
            f"{available:.1f} GB of memory available; all jobs at once take {MIN_MEMORY_GB}",
            "close other programs, run fewer jobs, or lower the *_HEAP sizes in .env",
        )
    return f"{available:.1f} GB of memory available"


def check_disk() -> str:
    """Compare the free disk with what packages, jars or images take."""
    free = shutil.disk_usage(".").free / 2**30
    if free < MIN_DISK_GB:
        raise Trouble(f"{free:.1f} GB of disk free here; expected {MIN_DISK_GB}", "free some, or clone to another disk")
    return f"{free:.1f} GB of disk free"


def check_topics_disk() -> str:
    """Find out how much room the broker has for its topics: on a full disk it ends."""
    if os.environ["STACK"] == "docker":
        table = _output("docker", "exec", f"{os.environ['CONTAINER_PREFIX']}kafka", "df", "-Pk", "/data")
        free = int(table.splitlines()[-1].split()[3]) / 2**20 if table else None
    else:
        folder = Path(os.environ["RUN_PATH"]) / "data"
        free = shutil.disk_usage(folder).free / 2**30 if folder.exists() else None
    if free is None:
        return "no broker that keeps topics yet"
    if free < MIN_TOPICS_GB:
        raise Trouble(
            f"{free:.1f} GB of disk free for the topics; expected {MIN_TOPICS_GB}: on a full disk the broker ends",
            "free some, or have it keep less: a smaller TOPIC_BYTES in .env, then make down up",
        )
    return f"{free:.1f} GB of disk free for the topics"


def check_ports() -> str:
    """Look for other programs on the ports of the services."""
    names = [
        name
        for name in os.environ
        if re.fullmatch(r"(ZOOKEEPER|KAFKA|SPARK_(MASTER|WORKER)|NUMBERS|BOARD)\w*_PORT", name) and os.environ[name]
    ]
    if os.environ["STACK"] == "docker":  # without those that are used inside the containers' network only
        names = [name for name in names if name not in ("KAFKA_NETWORK_PORT", "KAFKA_METRICS_PORT")]
    listening = health.listening_ports()
    foreign = []
    for name in sorted(names):
        port = int(os.environ[name])
        if port in listening:
            holder, is_ours = _holder(port, listening[port])
            if not is_ours:
                foreign.append((f"port {port} is held by {holder}", f"{name}={port}"))
    if foreign:
        raise Trouble(
            "; ".join(finding for finding, _ in foreign),
            f"stop that, or change in .env: {', '.join(line for _, line in foreign)}",
        )
    return f"ports {', '.join(sorted((os.environ[name] for name in names), key=int))} are free or the stack's own"


def _holder(port: int, inode: str) -> tuple[str, bool]:
    """Return who listens on a port, container or process, and whether that is this stack."""
    for line in (_output("docker", "ps", "--format", "{{.Names}}\t{{.Ports}}\t{{.Labels}}") or "").splitlines():
        container, ports, labels = line.split("\t")
        ranges = re.findall(r":(\d+)(?:-(\d+))?->", ports)
        if any(int(first) <= port <= int(last or first) for first, last in ranges):
            project = os.environ["COMPOSE_PROJECT_NAME"]
            is_ours = os.environ["STACK"] == "docker" and f"com.docker.compose.project={project}," in f"{labels},"
            return f"container {container}", is_ours
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(fd) == f"socket:[{inode}]" for fd in (process / "fd").iterdir()):
                command = (process / "cmdline").read_text().replace("\0", " ").strip()
                is_ours = int(process.name) in _processes()
                return f"process {process.name} ({command[:80]})", is_ours
        except OSError:
            continue  # ended meanwhile, or another user's
    if health.listening_ports().get(port) != inode:
        return "a process that has just ended", True
    return "a process of another user (look with root: ss -ltnp)", False


def _stack_containers() -> dict[str, str]:
    """Return the status of each container of this stack, by name."""
    project = f"label=com.docker.compose.project={os.environ['COMPOSE_PROJECT_NAME']}"
    listing = _output("docker", "ps", "-a", "--filter", project, "--format", "{{.Names}}\t{{.Status}}") or ""
    return dict(line.split("\t") for line in listing.splitlines())


def _processes() -> processes.Parts:
    """Return the processes of this stack on the local runner."""
    return processes.running(Path(os.environ["RUN_PATH"])) if os.environ["STACK"] == "local" else {}


def _stack_runs() -> bool:
    return bool(_stack_containers() if os.environ["STACK"] == "docker" else _processes())


def check_stack() -> str:
    """Ask each service of a running stack whether it is well."""
    if not _stack_runs():
        return "the stack is not running (make up)"
    if bad := [f"{name}: {reason}" for name, reason in parts.troubles(os.environ).items()]:
        raise Trouble("; ".join(bad), "do what it says; or look at its log (make logs S=name), then make down up")
    return f"the stack is well ({os.environ['STACK']} runner)"


def run(checks: list[Callable[[], str]]) -> int:
    """Print each check's result and return how many found trouble."""
    troubles = 0
    for check in checks:
        try:
            print(f"  ok    {check()}")
        except Trouble as trouble:
            troubles += 1
            print(f"  FAIL  {trouble}\n        remedy: {trouble.remedy}")
    return troubles


def checks_for(stack: str) -> list[Callable[[], str]]:
    """Return the checks that matter for a runner."""
    if stack == "docker":
        return [check_docker, check_base_image, check_memory, check_disk, check_topics_disk, check_ports, check_stack]
    first = [check_python, check_java, check_maven]
    return [*first, check_memory, check_disk, check_topics_disk, check_ports, check_stack]


def main() -> None:
    """Run the checks; exit code 1 if one found trouble. With --ports-only, only look for trouble with ports."""
    if "--ports-only" in sys.argv[1:]:
        try:
            check_ports()
        except Trouble as trouble:
            sys.exit(f"{trouble}\nremedy: {trouble.remedy}")
        return
    print(f"runner: {os.environ['STACK']}")
    troubles = run(checks_for(os.environ["STACK"]))
    print("nothing to mend" if not troubles else f"{troubles} to mend")
    sys.exit(troubles > 0)


if __name__ == "__main__":
    main()
