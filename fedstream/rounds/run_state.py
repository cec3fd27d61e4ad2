"""All that has to be kept of a run: a JSON value and back, bit by bit."""

from __future__ import annotations

import time
import uuid

from msgspec import Struct, field

from fedstream.learning.arrays import NamedArrays
from fedstream.messages.rounds import GlobalModel
from fedstream.rounds.drift import Drift
from fedstream.rounds.nodes import Nodes
from fedstream.rounds.open_round import OpenRound
from fedstream.rounds.versions import Kept
from fedstream.settings import Settings


class RunState(Struct):
    """One run, as it is between two messages."""

    run_id: str
    made_by: list[str]  # MODEL, MODEL_OPTIONS, STRATEGY, STRATEGY_OPTIONS
    classes: int
    opened: OpenRound = field(default_factory=OpenRound)
    nodes: Nodes = field(default_factory=Nodes)
    drift: Drift = field(default_factory=Drift)
    kept: Kept = field(default_factory=Kept)
    bases: dict[int, NamedArrays] = field(default_factory=dict)  # async: the versions a stale update may start from


def made_by(settings: Settings) -> list[str]:
    """Return the settings that a state is of."""
    return [settings.model, settings.model_options, settings.strategy, settings.strategy_options]


def is_of_model(run: RunState | None, settings: Settings) -> bool:
    """Tell whether a run trains the model of the settings, for their classes."""
    wanted = [settings.model, settings.model_options], settings.classes
    return run is not None and (run.made_by[:2], run.classes) == wanted


def new_run_id(settings: Settings) -> str:
    """Return the name of a run that begins now, such as mlp-20261201T081500-4f2a."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    return f"{settings.model.rpartition(':')[2].lower()}-{stamp}-{uuid.uuid4().hex[:4]}"


def new_run(run_id: str, settings: Settings) -> RunState:
    """Return the state of a run before its first round."""
    return RunState(run_id, made_by(settings), settings.classes)


def resumed_run(last: GlobalModel, settings: Settings) -> RunState:
    """Return the state of a run of which only the last global model on the topic is left."""
    return RunState(
        last.run_id,
        [settings.model, settings.model_options, last.strategy, last.strategy_options],
        settings.classes,
        opened=OpenRound(last),
        kept=Kept(since=last.version, fingerprints={last.version: last.fingerprint}),
        bases={last.version: last.named_arrays} if last.mode == "async" else {},
    )
