"""What a command that waits says meanwhile: one line, brought up to date in a terminal, else a line now and then."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TextIO

EVERY_SECONDS = 10.0  # between two lines where there is no terminal


class Progress:
    """Says what is waited for and since when.

    TERMINAL=yes in the environment tells of a terminal that is not seen from here, at the other end of `docker exec`.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin the time."""
        self._stream = stream or sys.stdout
        self._clock = clock
        self._begin = clock()
        self._said = self._begin
        self._is_terminal = self._stream.isatty() or os.environ.get("TERMINAL") == "yes"

    @property
    def seconds(self) -> float:
        """The time since the beginning."""
        return self._clock() - self._begin

    def waiting(self, text: str) -> None:
        """Show what is waited for; call it as often as you like."""
        line = f"  waiting for {text} ... {self.seconds:.0f} s"
        if self._is_terminal:
            self._stream.write(f"\r\033[K{line}")
            self._stream.flush()
        elif self._clock() - self._said >= EVERY_SECONDS:
            self.say(line)

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self.end()
        self._stream.write(f"{line}\n")
        self._stream.flush()
        self._said = self._clock()

    def end(self) -> None:
        """Take back the line that is brought up to date, before something else is printed."""
        if self._is_terminal:
            self._stream.write("\r\033[K")
            self._stream.flush()
