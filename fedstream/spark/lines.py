"""Lines of a TCP peer, for ever: a peer that goes and comes back is connected again, half a line is never one."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import BinaryIO

RECONNECT_SECONDS = 1.0
LONGEST_LINE_BYTES = 4096


def complete_lines(lines: BinaryIO) -> Iterator[bytes]:
    """Yield lines with their end; of an over-long one the beginning, of a dead producer's cut-off one nothing."""
    in_long_line = False
    while line := lines.readline(LONGEST_LINE_BYTES):
        if line.endswith(b"\n"):
            if not in_long_line:
                yield line
            in_long_line = False
        elif len(line) == LONGEST_LINE_BYTES:
            if not in_long_line:
                yield line + b"\n"  # no number: shown and counted like any other bad line
            in_long_line = True


def follow_lines(host: str, port: int) -> Iterator[bytes]:
    """Yield the producer's lines, connecting again whenever it comes back."""
    while True:
        try:
            with socket.create_connection((host, port)) as producer, producer.makefile("rb") as lines:
                print(f"Connecté au producteur {host}:{port}", flush=True)
                yield from complete_lines(lines)
            print("Producteur parti", flush=True)
        except OSError as error:
            print(f"Producteur {host}:{port} injoignable ({error}), nouvel essai...", flush=True)
        time.sleep(RECONNECT_SECONDS)
