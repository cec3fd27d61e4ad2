"""Dead letters on their way to Kafka, from a driver or from an executor."""

from __future__ import annotations

import functools
from collections.abc import Callable

from fedstream.broker import kafka
from fedstream.messages.dead_letters import DeadLetter
from fedstream.messages.topics import DEAD_LETTER
from fedstream.settings import Settings


@functools.cache
def _publisher(settings: Settings) -> Callable[..., None]:
    return kafka.connect_publisher(settings)  # one connection a process


def send_dead_letters(letters: list[DeadLetter], settings: Settings) -> None:
    """Send dead letters, and return when the broker has them.

    Raises:
        KafkaUnavailableError: no broker took them in time.
    """
    _publisher(settings)(*((DEAD_LETTER, None, letter) for letter in letters))
