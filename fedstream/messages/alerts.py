"""A scored reading: what the alerts job publishes."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from fedstream.texts import Line

Milliseconds = Annotated[int, Meta(ge=0, le=2**63 - 1, description="ms since 1970")]


class Alert(Struct, frozen=True):
    """A reading with the probability of trouble, on topic `alerts`."""

    sensor_id: Annotated[str | None, Meta(description="of the reading")]
    probability: Annotated[float, Meta(ge=0, le=1, description="of class 1")]
    alert: Annotated[bool, Meta(description="whether it is at least DECISION_THRESHOLD")]
    model_version: Annotated[int, Meta(ge=0, description="the version of the global model that scored it")]
    run_id: Annotated[Line, Meta(description="the run of that version")]
    event_time: Annotated[Milliseconds, Meta(description="of the reading, or when it came onto its topic")]
    scored_at: Milliseconds
