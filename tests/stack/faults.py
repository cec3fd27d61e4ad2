"""What may happen to a part of the stack while it works, on either runner.

Each fault is a context manager: it stands within the block, and its end is over when the block is left. What this
machine cannot do raises NotRunError, which names the reason.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.stack.stack import ENV, PREFIX, Stack

TABLE = "inet fedstream_chaos"
LOST_PERCENT = 5
SLOW_FSYNC_US = 500_000

# On the local runner all parts share one network: only what has ports of its own can be told by its packets.
PORTS = {
    "kafka": ("KAFKA_PORT", "KAFKA_NETWORK_PORT"),
    "zookeeper": ("ZOOKEEPER_PORT",),
    "spark-master": ("SPARK_MASTER_PORT",),
}


class NotRunError(Exception):
    """This machine cannot make a fault happen; the text says why."""


@contextmanager
def kill(stack: Stack, part: str) -> Iterator[None]:
    """End all processes of a part at once (-9); its runner starts it again."""
    stack.kill(part)
    yield


def pause(stack: Stack, part: str) -> AbstractContextManager[None]:
    """Have a part say and hear nothing, though its connections stay open."""
    return stack.paused(part)


def cut(stack: Stack, part: str) -> AbstractContextManager[None]:
    """Have no packet reach a part, and none leave it."""
    return _dropping(stack, part, "")


def loss(stack: Stack, part: str) -> AbstractContextManager[None]:
    """Lose some of a part's packets."""
    return _dropping(stack, part, f"numgen random mod 100 < {LOST_PERCENT} ")


@contextmanager
def _dropping(stack: Stack, part: str, some: str) -> Iterator[None]:
    _need("nft", "nftables")
    if stack.runner == "docker":
        inside = ["nsenter", "--net", "--target", str(_pids(stack, part)[0])]
        rules = [("output", 'oifname != "lo"'), ("input", 'iifname != "lo"')]
    elif part in PORTS:
        inside, ports = [], ", ".join(ENV[name] for name in PORTS[part])
        rules = [("output", f"tcp dport {{ {ports} }}"), ("output", f"tcp sport {{ {ports} }}")]
    else:
        raise NotRunError("on the local runner its packets are not told from others'")
    chains = (
        f"chain c{number} {{ type filter hook {hook} priority 0; {match} {some}drop; }}"
        for number, (hook, match) in enumerate(rules)
    )
    _run([*inside, "nft", f"table {TABLE} {{ {'; '.join(chains)}; }}"])
    try:
        yield
    finally:
        _run([*inside, "nft", f"delete table {TABLE}"])


@contextmanager
def slow_disk(stack: Stack, part: str) -> Iterator[None]:
    """Have each fsync of a part take half a second more."""
    _need("strace", "strace")
    calls = "fsync,fdatasync"
    command = ["strace", "-qq", "-f", "-o", "/dev/null", "-e", f"trace={calls}"]
    command += ["-e", f"inject={calls}:delay_enter={SLOW_FSYNC_US}"]
    command += [word for pid in _pids(stack, part) for word in ("-p", str(pid))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracing:
        try:
            yield
        finally:
            tracing.send_signal(signal.SIGINT)
            _, said = tracing.communicate(timeout=30)
    if "not permitted" in said:
        raise NotRunError(said.splitlines()[0])


FAULTS: dict[str, Callable[[Stack, str], AbstractContextManager[None]]] = {
    "kill": kill,
    "pause": pause,
    "cut": cut,
    "loss": loss,
    "slow-disk": slow_disk,
}
TO_BE_SEEN = ("pause", "cut")  # a part that suffers one of these does not work: health must say so


def _pids(stack: Stack, part: str) -> list[int]:
    """Return the processes of a part, the first one first."""
    if stack.runner == "docker":
        listed = _run(["docker", "top", PREFIX + part, "-eo", "pid"]).split()[1:]
    else:
        listed = _run(["pgrep", "--pgroup", str(stack.pid(part))]).split()
    if not listed or not Path(f"/proc/{listed[0]}").exists():
        raise NotRunError("its processes are not to be seen from here")
    return [int(pid) for pid in listed]


def _need(tool: str, package: str) -> None:
    if os.geteuid() != 0:
        raise NotRunError(f"{tool} needs root")
    if not shutil.which(tool) and shutil.which("apt-get"):
        for words in (["update"], ["install", "--yes", "--no-install-recommends", package]):
            subprocess.run(["apt-get", "-qq", *words], capture_output=True)
    if not shutil.which(tool):
        raise NotRunError(f"there is no {tool}")


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NotRunError(f"{' '.join(command)[:80]}: {done.stderr.strip()[:200]}")
    return done.stdout
