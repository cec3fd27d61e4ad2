"""The messages of a round: the model that opens it, the update that a node answers with, and the commands that end it.

cloud --(GlobalModel, topic global-model)--> node --(ModelUpdate, topic model-weights)--> cloud
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fedstream.errors import BadMessage, StackError
from fedstream.learning import arrays as wire
from fedstream.learning.arrays import Arrays
from fedstream.learning.scores import Score
from fedstream.learning.training import Scaler, train_config
from fedstream.messages.door import read_count, read_field, read_json_object
from fedstream.settings import Settings

SCHEMA_VERSION = 1
ABOUT = (
    *("strategy", "strategy_options", "seed", "counts", "base_version", "metrics", "node_metrics", "updates"),
    *("failed", "restored_from"),
)  # what the message of a round tells beside the model: how the round before it ended


class TooLargeError(StackError):
    """A message is larger than the topics allow; the text names the size, the limit and the setting."""


@dataclass(frozen=True)
class ModelUpdate:
    """What a node has learned in a round from exactly one version of the global model.

    `num_examples` counts the readings it was trained on; 0 says that the node has none for this round. `trained_at`
    (ms since 1970) tells a repeated message from a new one.
    """

    node_id: str
    run_id: str
    round: int
    base_version: int
    num_examples: int
    trained_at: int
    arrays: Arrays = field(default_factory=dict)
    score: Score = field(default_factory=Score)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that a training adds to a node's message on `model-weights`."""
        return {
            "node_id": self.node_id,
            "schema_version": SCHEMA_VERSION,
            "run_id": self.run_id,
            "round": self.round,
            "base_version": self.base_version,
            "num_examples": self.num_examples,
            "trained_at": self.trained_at,
            "arrays": wire.to_wire(self.arrays),
            "metrics": self.score.as_dict(),
        }

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> ModelUpdate:
        """Read an update; unknown fields are ignored.

        Raises:
            BadMessage: a field is missing, of the wrong type or out of range, or its schema is a later one.
        """
        _check_schema(message)
        num_examples = read_count(message, "num_examples", low=0)
        return cls(
            node_id=read_field(message, "node_id", str, "a string"),
            run_id=read_field(message, "run_id", str, "a string"),
            round=read_count(message, "round", low=1),
            base_version=read_count(message, "base_version", low=0),
            num_examples=num_examples,
            trained_at=read_count(message, "trained_at", low=0),
            arrays=wire.from_wire(message.get("arrays")) if num_examples else {},
            score=Score.from_dict(read_field(message, "metrics", dict, "an object")) if num_examples else Score(),
        )


@dataclass(frozen=True)
class GlobalModel:
    """A version of the global model, which opens a round.

    `config` is what the strategy wants on the nodes, `participants` the nodes it has sampled (empty: all). With
    `strategy_state` a restarted cloud could go on from here. `about` has the fields of `ABOUT`; nobody checks them.
    """

    run_id: str
    round: int
    version: int
    model: str
    mode: str
    arrays: Arrays
    scaler: Scaler | None = None
    config: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    participants: tuple[str, ...] = ()
    opened_at: int = 0  # ms since 1970
    strategy_state: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the message of topic `global-model`."""
        return (
            {"schema_version": SCHEMA_VERSION}
            | {each.name: getattr(self, each.name) for each in fields(self) if each.name != "about"}
            | {
                "arrays": wire.to_wire(self.arrays),
                "scaler": self.scaler.as_dict() if self.scaler else None,
                "config": dict(self.config),
                "participants": list(self.participants),
                "strategy_state": dict(self.strategy_state),
            }
            | dict(self.about)
        )

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> GlobalModel:
        """Read a model; unknown fields are ignored.

        Raises:
            BadMessage: a field is missing, of the wrong type or out of range, or its schema is a later one.
        """
        _check_schema(message)
        scaler = message.get("scaler")
        participants = read_field(message, "participants", list, "a list of nodes")
        return cls(
            run_id=read_field(message, "run_id", str, "a string"),
            round=read_count(message, "round", low=1),
            version=read_count(message, "version", low=0),
            model=read_field(message, "model", str, "a string"),
            mode=read_field(message, "mode", str, "a string"),
            arrays=wire.from_wire(message.get("arrays")),
            scaler=Scaler.from_dict(scaler) if scaler is not None else None,
            config=read_field(message, "config", dict, "an object"),
            participants=tuple(map(str, participants)),
            opened_at=read_count(message, "opened_at", low=0),
            strategy_state=read_field(message, "strategy_state", dict, "an object"),
            about={name: message[name] for name in ABOUT if name in message},
        )


def read_round_model(value: bytes | None) -> GlobalModel | None:
    """Return the model of a record of `global-model`, or None if it opens no round (the running weight).

    Raises:
        BadMessage: it says that it opens a round and cannot be used.
    """
    message = read_json_object(value)
    return GlobalModel.from_message(message) if "round" in message else None


def fit_model(found: GlobalModel, own: Arrays, settings: Settings, features: int) -> GlobalModel:
    """Return a global model as this stack trains it: with its arrays in the order of its own model's arrays.

    Raises:
        BadMessage: it is of another MODEL, its arrays have another layout, its scaler is of another number of features,
            or its config is none to train with.
    """
    if found.model != settings.model:
        msg = f"MODEL is {settings.model!r}, but the cloud's run is of {found.model!r:.100}; set the same in .env"
        raise BadMessage(msg)
    if wire.layout(found.arrays) != wire.layout(own):
        both = f"{wire.layout(found.arrays)!s:.200}; expected {wire.layout(own)!s:.200}"
        raise BadMessage(f"the model's arrays are {both}, as MODEL_OPTIONS say here; set the same in .env")
    check_scaler(found.scaler, features)
    try:
        train_config(settings, found.config)
    except (ValueError, TypeError, OverflowError) as error:
        msg = f"config is {found.config!s:.200}; expected numbers that a training can use; it says: {error!s:.100}"
        raise BadMessage(msg) from error
    return replace(found, arrays={name: found.arrays[name] for name in own})


def check_scaler(scaler: Scaler | None, features: int) -> None:
    """Refuse a scaler that is not one of the readings.

    Raises:
        BadMessage: it has another number of features.
    """
    if scaler and len(scaler.mean) != features:
        msg = f"the scaler has {len(scaler.mean)} numbers; expected {features}, one for each feature"
        raise BadMessage(msg)


def check_size(message: Mapping[str, Any], what: str, max_update_bytes: int) -> None:
    """Refuse a message that Kafka would refuse, before it is counted on.

    Raises:
        TooLargeError: its JSON text is longer than `max_update_bytes`.
    """
    size = len(json.dumps(message, separators=(",", ":")))
    if size > max_update_bytes:
        msg = (
            f"{what} has {size} bytes; expected at most MAX_UPDATE_BYTES={max_update_bytes}: "
            "choose a smaller model (MODEL_OPTIONS), or raise the setting and make the topics anew (make clean up)"
        )
        raise TooLargeError(msg)


def _check_schema(message: Mapping[str, Any]) -> None:
    version = read_count(message, "schema_version", low=1)
    if version > SCHEMA_VERSION:
        msg = f"schema_version is {version}; expected at most {SCHEMA_VERSION}: update this node's fedstream"
        raise BadMessage(msg)
