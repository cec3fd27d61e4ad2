"""The clock of the rounds: the deadline of the open one, as a record."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from fedstream.broker.kafka import KafkaUnavailableError
from fedstream.messages.rounds import Deadline, GlobalModel
from fedstream.messages.topics import ROUND_CONTROL
from fedstream.settings import Settings


class DeadlineTimer:
    """Sends a command to `round-control` when the deadline of the open round passes.

    So the time, too, reaches the rounds as a record, in an order that a repeated micro-batch sees again. It is sent
    again each `round_deadline_seconds` while the round stays open.
    """

    def __init__(self, settings: Settings, publish: Callable[..., None]) -> None:
        """Wait for nothing yet."""
        self._settings, self._publish = settings, publish
        self._armed: Deadline | None = None
        self._timer: threading.Timer | None = None

    def arm(self, opened: GlobalModel | None) -> None:
        """Wait for the deadline of this round from now on, and for no other."""
        if opened is None or self._armed == (command := Deadline(opened.run_id, opened.round)):
            return
        self._armed = command
        if self._timer:
            self._timer.cancel()
        seconds = self._settings.round_deadline_seconds
        self._start(min(opened.opened_at / 1000 + seconds - time.time(), seconds), command)

    def _start(self, seconds: float, command: Deadline) -> None:
        self._timer = threading.Timer(max(0.0, seconds), self._send, (command,))
        self._timer.daemon = True
        self._timer.start()

    def _send(self, command: Deadline) -> None:
        seconds = self._settings.round_deadline_seconds
        try:
            self._publish((ROUND_CONTROL, command.run_id, command))
        except KafkaUnavailableError as error:  # or the round would stay open until the next message
            print(f"Cloud -> {error.message}", flush=True)
            seconds = 1.0
        if self._armed == command:
            self._start(seconds, command)
