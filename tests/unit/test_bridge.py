"""The bridge between the numbers' socket and Kafka: a peer that vanishes, and an end on purpose."""

from __future__ import annotations

import select
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest

from fedstream.broker import kafka
from socket_stream import bridge
from tests.conftest import ROOT

# In a network of its own, whose only link is cut: the peer's machine has lost its power. Real times are 15 + 3 x 5 s.
VANISHED = """
import socket, subprocess, threading
from fedstream.spark import lines

lines.KEEP_ALIVE = {socket.TCP_KEEPIDLE: 1, socket.TCP_KEEPINTVL: 1, socket.TCP_KEEPCNT: 2}
set_link = lambda state: subprocess.run(["ip", "link", "set", "lo", state], check=True)
set_link("up")
server = socket.create_server(("127.0.0.1", 0))

def serve():
    peers = []
    for n in (1, 2):
        peers.append(server.accept()[0])
        peers[-1].sendall(b"%d\\n" % n)

threading.Thread(target=serve, daemon=True).start()
followed = lines.follow_lines("127.0.0.1", server.getsockname()[1])
print(next(followed))
set_link("down")
threading.Timer(5, set_link, ["up"]).start()
print(next(followed))
"""


def test_a_peer_that_vanishes_without_a_word_is_noticed_and_connected_again():
    inside = ["unshare", "--user", "--map-root-user", "--net"]
    if not shutil.which("ip") or subprocess.run([*inside, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no network of one's own can be made here: needs ip, and unshare --user --net")
    command = [*inside, sys.executable, "-c", VANISHED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert [line for line in told if line.startswith("b'")] == ["b'1\\n'", "b'2\\n'"]
    assert [line for line in told if "timed out" in line]


class Producer:
    """Holds records back until it is closed, as Kafka's client may."""

    def __init__(self):
        """Start without records."""
        self.waiting, self.sent = [], []
        self.has_all = threading.Event()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.flush()

    def send(self, topic, value):
        """Take a record."""
        self.waiting.append((topic, value))
        if len(self.waiting) == 3:
            self.has_all.set()
        return self

    def add_errback(self, _):
        """Report no failure."""

    def flush(self):
        """Send what waits."""
        self.sent += self.waiting
        self.waiting = []


def test_what_the_bridge_has_taken_is_sent_when_it_is_stopped(monkeypatch):
    producer = Producer()
    monkeypatch.setattr(kafka, "connect_producer", lambda _: producer)
    monkeypatch.setattr(kafka, "ensure_topics", lambda *_: None)
    before = signal.getsignal(signal.SIGTERM)
    with socket.create_server(("127.0.0.1", 0)) as server:
        _, port = server.getsockname()

        def serve_and_stop():
            with server.accept()[0] as peer:
                peer.sendall(b"1\r\n-22\nhello\n")
                assert producer.has_all.wait(30)
                # Python misses a signal that comes just before it waits for the peer, and sees the next one.
                for _ in range(50):
                    signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
                    if select.select([peer], [], [], 0.2)[0]:
                        return  # the bridge has hung up

        peer = threading.Thread(target=serve_and_stop)
        peer.start()
        try:
            with pytest.raises(SystemExit) as ended:
                bridge.main(["--host", "127.0.0.1", "--port", str(port)], standalone_mode=False)
        finally:
            signal.signal(signal.SIGTERM, before)
        peer.join(30)
    assert ended.value.code == 0
    assert producer.sent == [("numbers", b'{"n":1}'), ("numbers", b'{"n":-22}'), ("numbers", b"hello")]
