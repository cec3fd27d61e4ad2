"""How the broker is started, seen by programs that stand in for Java and the disk."""

from __future__ import annotations

import os
import socketserver
import subprocess
import threading
from collections.abc import Iterator

import pytest
from test_contracts import DOTENV, ROOT


@pytest.fixture
def zookeeper() -> Iterator[int]:
    """Return the port of a ZooKeeper that knows no broker."""

    class Answer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.read(4)
            self.wfile.write(b"Sessions with Ephemerals (0):\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_on_a_full_disk_the_broker_waits_for_room(tmp_path, zookeeper):
    """Started there, Kafka 3.9 would write zeros into time indexes, and later delete good segments as too old."""
    looks, disk = tmp_path / "looks", tmp_path / "bin" / "df"
    disk.parent.mkdir()
    disk.write_text(
        f'#!/bin/sh\necho "$@" >> {looks}\necho Avail\n[ $(wc -l < {looks}) -gt 3 ] && echo 100 || echo 99\n'
    )
    java = disk.with_name("java")
    java.write_text(f'#!/bin/sh\nwc -l < {looks}\nprintf "%s\\n" "$@"\n')
    for program in (disk, java):
        program.chmod(0o755)
    env = DOTENV | {"PATH": f"{disk.parent}:{os.environ['PATH']}", "DATA_DIR": str(tmp_path / "data")}
    env |= {"ZOOKEEPER_PORT": str(zookeeper), "KAFKA_JARS": "jars", "LISTEN_ADDRESS": "127.0.0.1"}
    line = [str(ROOT / "deploy" / "kafka" / "start-kafka.sh")]
    started = subprocess.run(line, env=env, check=True, capture_output=True, text=True)
    looked, *words = started.stdout.splitlines()
    assert int(looked) == 4, "99 MB, while it waits, and then 100"
    folder = tmp_path / "data" / "kafka"
    assert f"log.dirs={folder}" in words
    assert looks.read_text().splitlines() == [f"--output=avail --block-size=1M {folder}"] * 4
    (said,) = started.stderr.splitlines()
    assert said.startswith(f"kafka: 99 MB of disk free in {folder}; expected at least 100 MB. Make room: it starts ")
