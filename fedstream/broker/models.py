"""The newest global model, as the jobs follow it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from fedstream.broker import kafka
from fedstream.errors import BadMessage
from fedstream.messages.rounds import GlobalModel, read_round_model
from fedstream.messages.topics import GLOBAL_MODEL, place_of
from fedstream.settings import Settings


def follow_models(
    settings: Settings, fit: Callable[[GlobalModel], GlobalModel], who: str
) -> Callable[[float], GlobalModel | None]:
    """Return `newest(timeout_seconds)`: the newest model that opens a round and fits, None before the first.

    A call takes in what has come, and waits up to the timeout if nothing has. `fit` returns a model as it is to be
    used, or raises BadMessage. A model that cannot be used is skipped, and `who` (a job's name on the console) says
    why: once, since the cloud says its model again and again.
    """
    newest = None
    told: deque[str] = deque(maxlen=100)

    def usable(record: Any) -> GlobalModel | None:
        where = place_of(record)
        try:
            model = read_round_model(record.value)
            return fit(model) if model else None
        except BadMessage as error:
            reason = str(error)
        except Exception as error:  # one that nobody foresaw must not end the job either
            reason = f"internal: {type(error).__name__}: {error!s:.500}"
            if reason not in told:
                logging.getLogger(__name__).exception("unusable model at %s", where)
        if reason not in told:
            told.append(reason)
            print(f"{who} -> modèle ignoré : {reason} ({where})", flush=True)
        return None

    read = kafka.follow_topic(settings, GLOBAL_MODEL, last=100)  # from here on nothing is missed
    for piece in kafka.read_backwards(settings, GLOBAL_MODEL):  # most records are running weights
        for record in piece:
            newest = usable(record) or newest
        if newest:
            break

    def look(timeout_seconds: float) -> GlobalModel | None:
        nonlocal newest
        for record in read(timeout_seconds):
            newest = usable(record) or newest
        return newest

    return look
