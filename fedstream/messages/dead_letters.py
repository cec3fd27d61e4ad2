"""What became no message: a record as it came, and why it was refused."""

from __future__ import annotations

from base64 import b64encode
from typing import Annotated

from msgspec import Meta, Struct


class DeadLetter(Struct, frozen=True):
    """A record that was refused, on topic `dead-letter`; topic, partition and offset tell a repeated one."""

    value: Annotated[str | None, Meta(description="the record's bytes in base64; null if it had none")]
    reason: Annotated[str, Meta(description="why it was refused")]
    topic: Annotated[str, Meta(description="where it was")]
    partition: Annotated[int, Meta(ge=0)]
    offset: Annotated[int, Meta(ge=0)]
    time: Annotated[int, Meta(ge=0, description="when it was refused, ms since 1970")]
    by: Annotated[str, Meta(description="which job refused it: fog-1, cloud, alerts ...; older ones do not say")] = ""


def dead_letter(value: bytes | None, reason: str, place: tuple[str, int, int], time_ms: int, by: str) -> DeadLetter:
    """Return the dead letter of a job for a record that stood at this place: topic, partition, offset."""
    return DeadLetter(None if value is None else b64encode(value).decode(), reason, *place, time_ms, by)
