"""What becomes of a record that cannot be used: its bytes and the reason, on the topic dead-letter."""

from __future__ import annotations

import base64
from typing import Annotated

import msgspec
from msgspec import Meta


class DeadLetter(msgspec.Struct, frozen=True):
    """A rejected record: where it stands, its bytes in base64 (null: it has no value), and why it was rejected."""

    value: Annotated[str | None, Meta(description="the record's bytes in base64; null if it has none")]
    reason: Annotated[str, Meta(description="why it cannot be used: field, value and what is expected")]
    topic: Annotated[str, Meta(description="the record's topic")]
    partition: Annotated[int, Meta(ge=0, description="the record's partition")]
    offset: Annotated[int, Meta(ge=0, description="the record's offset")]
    time: Annotated[int, Meta(description="when it was rejected, in ms since 1970")]


def dead_letter(value: bytes | None, reason: str, place: tuple[str, int, int], time_ms: int) -> DeadLetter:
    """Return the dead letter of a record that stands at (topic, partition, offset)."""
    return DeadLetter(None if value is None else base64.b64encode(value).decode(), reason, *place, time_ms)
