"""What the cloud keeps between micro-batches, and the federation that goes on from it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from fedstream.errors import BadMessage, StateError
from fedstream.learning.models import Model, configured_model
from fedstream.messages.rounds import GlobalModel, check_size, global_model
from fedstream.messages.topics import GLOBAL_MODEL, Outgoing
from fedstream.messages.weights import NodeWeight, merged_weight
from fedstream.rounds.federation import Federation, resumable, strategy_of
from fedstream.rounds.run_state import RunState, is_of_model, new_run, new_run_id, resumed_run
from fedstream.settings import Settings

INITIAL: dict[str, Any] = {"latest": {}, "run": None, "outbox": [], "said": []}


class CloudState(msgspec.Struct):
    """What the cloud knows, and what its last micro-batch has to send: after a crash the same again."""

    latest: dict[str, NodeWeight]  # by node
    run: RunState | None  # none without rounds: MODEL=mean
    outbox: list[tuple[str, str | None, str | None]]  # topic, key, JSON
    said: list[str]  # on the console

    @property
    def opened(self) -> GlobalModel | None:
        """The model of the round that is open."""
        return self.run.opened.model if self.run else None


def read_state(value: dict[str, Any]) -> CloudState:
    """Return the state that was kept as this JSON value.

    Raises:
        StateError: it is that of another version of the program.
    """
    try:
        return msgspec.convert(value, CloudState, str_keys=True)
    except msgspec.ValidationError as error:
        msg = f"the cloud's state is of another version of fedstream ({error}); to begin anew: make reset S=cloud"
        raise StateError(msg) from error


def said_again(opened: GlobalModel, latest: dict[str, NodeWeight]) -> tuple[Outgoing, str]:
    """Return the model of the open round as it was sent, with the running weight of now, and what people read of it.

    A node that has answered ignores it. It is for the others: those that have joined since, or whose newest model is
    another one or has expired.
    """
    line = f"Cloud -> ronde {opened.round} toujours ouverte : modèle redit"
    return (GLOBAL_MODEL, opened.model, opened.with_weight(merged_weight(latest))), line


@dataclass(frozen=True)
class Rounds:
    """From where a federation goes on."""

    settings: Settings
    model: Model | None  # what the nodes train; None: there are no rounds
    new_id: str  # of the run that begins if there is none to go on with
    # On the topics, for a cloud that has no state of its own:
    last: GlobalModel | None = None  # the model to go on from
    published: Mapping[int, str] = field(default_factory=dict)  # fingerprints of the versions before it

    @classmethod
    def of(cls, settings: Settings) -> Rounds:
        """Return the rounds of these settings, without a run to go on with.

        Raises:
            SettingError: MODEL, STRATEGY or their options cannot be used.
            TooLargeError: a model takes more than MAX_UPDATE_BYTES.
        """
        if settings.model == "mean":
            return cls(settings, None, "")
        model = configured_model(settings)
        strategy_of(settings)
        first = global_model("none", 1, 0, model.initial_arrays(settings.seed))
        check_size(first, "a global model", settings.max_update_bytes)
        return cls(settings, model, new_run_id(settings))

    def resumable(self, last: GlobalModel) -> GlobalModel:
        """Return a model of the topic if these rounds can go on from it.

        Raises:
            BadMessage: it does not fit the settings.
        """
        if self.model is None:
            raise BadMessage("there are no rounds with MODEL=mean")
        return resumable(last, self.settings, self.model)

    def behind(self, last: GlobalModel, versions: Iterable[GlobalModel]) -> Rounds:
        """Return these rounds, to go on from a model after the versions of its run."""
        published = {each.version: each.fingerprint for each in versions if each.run_id == last.run_id}
        return replace(self, last=last, published=published)

    def still_open(self, state: CloudState) -> GlobalModel | None:
        """Return the model of the round that a saved state has left open, if these rounds go on with its run."""
        return state.opened if self.model and is_of_model(state.run, self.settings) else None

    def open(self, state: CloudState) -> Federation | None:
        """Return the federation that goes on: the saved one, else that of the last model, else a new one."""
        if self.model is None:
            return None
        run, settings = state.run, self.settings
        if run is None and self.last:
            run = resumed_run(self.last, settings)
            older = {version: mark for version, mark in self.published.items() if version < self.last.version}
            run.kept.fingerprints |= older
        if run is None or not is_of_model(run, settings):
            run = new_run(self.new_id, settings)
        return Federation(run, settings, self.model, state.latest, lambda: secrets.randbits(64))
