"""Lines of a TCP peer, for ever: a peer that goes and comes back is connected again, half a line is never one."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable, Iterator

RECONNECT_SECONDS = 1.0
CONNECT_SECONDS = 10.0
CHUNK_BYTES = 65_536
LONGEST_LINE_BYTES = 4096
# A peer that vanishes without a word, such as a machine without power, is noticed after 15 + 3 x 5 s.
KEEP_ALIVE = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}

_END = re.compile(rb"\r\n?|\n")


def complete_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    r"""Yield each line that is not empty, ended by LF, CR LF or CR, with LF.

    Of an over-long one the beginning comes, which is no number and so counted like any other bad line; of a cut-off one
    at the end nothing.

    >>> list(complete_lines([b"1\r2", b"2\n\n3"]))
    [b'1\n', b'22\n']
    """
    rest, is_cut = b"", False  # what has no end yet; whether its beginning was passed on already
    for chunk in chunks:
        *lines, rest = _END.split(rest + chunk)
        for line in lines:
            if line and not is_cut:
                yield line[:LONGEST_LINE_BYTES] + b"\n"
            is_cut = False
        if len(rest) >= LONGEST_LINE_BYTES:
            if not is_cut:
                yield rest[:LONGEST_LINE_BYTES] + b"\n"
            rest, is_cut = b"", True


def follow_lines(host: str, port: int) -> Iterator[bytes]:
    """Yield the producer's lines, connecting again whenever it comes back."""
    while True:
        try:
            with socket.create_connection((host, port), timeout=CONNECT_SECONDS) as producer:
                producer.settimeout(None)  # it may be silent as long as it is there
                producer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in KEEP_ALIVE.items():
                    producer.setsockopt(socket.IPPROTO_TCP, option, value)
                print(f"Connecté au producteur {host}:{port}", flush=True)
                yield from complete_lines(iter(lambda: producer.recv(CHUNK_BYTES), b""))
            print("Producteur parti", flush=True)
        except OSError as error:
            print(f"Producteur {host}:{port} injoignable ({error}), nouvel essai...", flush=True)
        time.sleep(RECONNECT_SECONDS)
