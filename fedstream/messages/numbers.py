"""The number stream of report B over Kafka, on the topics `numbers` and `squares`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

ROOT = 3_037_000_499  # the square of a larger number does not fit 64 bits


class Number(Struct, frozen=True):
    """A number of the stream; any other field is ignored."""

    n: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1, description="a whole number of 64 bits")]


class Square(Struct, frozen=True):
    """A number with its square."""

    n: Annotated[int, Meta(ge=-ROOT, le=ROOT, description="the number")]
    square: Annotated[int, Meta(ge=0, le=ROOT**2, description="n × n")]
