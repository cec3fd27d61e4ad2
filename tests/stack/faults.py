"""What may happen to a part of the stack while it works, on either runner.

Each fault is a context manager: it stands within the block, and its end is over when the block is left. What this
machine cannot do raises NotRunError, which names the reason.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaError

from tests.stack import clocks, disks
from tests.stack.machine import NotRunError, need, pids, run
from tests.stack.stack import ENV, Stack

TABLE = "inet fedstream_chaos"
LOST_PERCENT = 5
SLOW_FSYNC_US = 500_000
AHEAD_SECONDS = 3600

# On the local runner all parts share one network: only what has ports of its own can be told by its packets.
PORTS = {
    "kafka": ("KAFKA_PORT", "KAFKA_NETWORK_PORT"),
    "zookeeper": ("ZOOKEEPER_PORT",),
    "spark-master": ("SPARK_MASTER_PORT",),
}


def prepare(stack: Stack, kinds: Collection[str]) -> None:
    """Do what these faults need before a stack is started; where that fails they are not run."""
    disks.take_away(stack)
    stack.make("clean")
    for kind, make in (("clock", clocks.make), ("full-disk", disks.make)):
        if kind in kinds:
            with suppress(NotRunError):
                make(stack)


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
    need("nft", "nftables")
    if stack.runner == "docker":
        inside = ["nsenter", "--net", "--target", str(pids(stack, part)[0])]
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
    run(*inside, "nft", f"table {TABLE} {{ {'; '.join(chains)}; }}")
    try:
        yield
    finally:
        run(*inside, "nft", f"delete table {TABLE}")


@contextmanager
def slow_disk(stack: Stack, part: str) -> Iterator[None]:
    """Have each fsync of a part take half a second more."""
    need("strace", "strace")
    calls = "fsync,fdatasync"
    command = ["strace", "-qq", "-f", "-o", "/dev/null", "-e", f"trace={calls}"]
    command += ["-e", f"inject={calls}:delay_enter={SLOW_FSYNC_US}"]
    command += [word for pid in pids(stack, part) for word in ("-p", str(pid))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracing:
        try:
            yield
        finally:
            tracing.send_signal(signal.SIGINT)
            try:
                _, said = tracing.communicate(timeout=30)
            except subprocess.TimeoutExpired:  # it waits for a process that was about to be forked
                tracing.kill()
                _, said = tracing.communicate()
    if "not permitted" in said:
        raise NotRunError(said.splitlines()[0])


@contextmanager
def full_disk(stack: Stack, part: str) -> Iterator[None]:
    """Have no room on the disk of a part."""
    folder = disks.folder_of(stack, part)
    if not folder.is_mount():
        raise NotRunError("no file system of its own could be mounted for it")
    if part == "spark-master":  # it writes only when a driver begins
        stack.kill("squares-kafka")
        time.sleep(2)  # the master forgets this driver, which would leave room; the next one begins later
    disks.fill(folder)
    try:
        if part == "zookeeper":  # it writes only what changes
            _make_topic(stack)
        yield
    finally:
        disks.make_room(folder)


def _make_topic(stack: Stack) -> None:
    """Ask for a topic of so many partitions that ZooKeeper needs more than a rest of a page for it."""
    with suppress(KafkaError):
        admin = KafkaAdminClient(bootstrap_servers=stack.bootstrap)
        admin.create_topics([NewTopic(f"made-at-{time.time_ns()}", 16, 1)])
        admin.close()


@contextmanager
def clock(stack: Stack, part: str) -> Iterator[None]:
    """Have the wall clock of a part be an hour ahead."""
    clocks.expect_own(stack, part)
    clocks.put_ahead(stack, part, AHEAD_SECONDS)
    try:
        yield
    finally:
        clocks.put_ahead(stack, part, 0)


FAULTS: dict[str, Callable[[Stack, str], AbstractContextManager[None]]] = {
    "kill": kill,
    "pause": pause,
    "cut": cut,
    "loss": loss,
    "slow-disk": slow_disk,
    "full-disk": full_disk,
    "clock": clock,
}


def is_to_be_seen(kind: str, part: str) -> bool:
    """Return whether a part that suffers this does not work, so that health must say so.

    A driver on a full disk ends and is started anew, as after a kill.
    """
    return kind in ("pause", "cut") or (kind, part) == ("full-disk", "kafka")
