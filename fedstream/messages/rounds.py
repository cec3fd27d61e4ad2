"""The messages of a round: the model that opens it, the update that a node answers with, commands and events.

cloud --(GlobalModel, topic global-model)--> node --(ModelUpdate, topic model-weights)--> cloud
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Any, cast

import numpy as np
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field, structs
from msgspec.structs import replace

from fedstream.errors import BadMessage, StackError
from fedstream.learning import arrays as wire
from fedstream.learning.arrays import Arrays, NamedArrays
from fedstream.learning.models import Model
from fedstream.learning.scores import Count, Score
from fedstream.learning.training import Scaler, train_config
from fedstream.messages.door import decode, encode
from fedstream.messages.weights import LONGEST_NAME, GlobalWeight, NodeWeight
from fedstream.settings import Settings
from fedstream.texts import Line

SCHEMA_VERSION = 1
MOST_CORNERS = 1024  # readings of lowest and highest values on which a model is tried: all of ten features

SchemaVersion = Annotated[int, Meta(ge=1, le=SCHEMA_VERSION, description="of the fields of a round")]
RunId = Annotated[Line, Meta(max_length=LONGEST_NAME, description="the run's name")]
RoundNumber = Annotated[int, Meta(ge=1, le=2**63 - 1, description="1, 2, ... of the run")]
VersionNumber = Annotated[int, Meta(ge=0, le=2**63 - 1, description="0, 1, ... of the run")]
Milliseconds = Annotated[int, Meta(ge=0, le=2**63 - 1, description="ms since 1970")]
Place = Annotated[tuple[int, int], Meta(description="partition and offset on topic model-weights")]
OnTheWire = Annotated[NamedArrays, Meta(description="the model's arrays, in its own order")]
Config = dict[str, int | float | str | bool | None]
EXPECTED = {
    "schema_version": f"a whole number from 1 to {SCHEMA_VERSION}: update this side's fedstream",
    "command": "deadline or rollback",
    "arrays.dtype": "float64, float32 or int64",
}


class TooLargeError(StackError):
    """A message is larger than the topics allow; the text names the size, the limit and the setting."""


# In the structs below, `omit_defaults` leaves out what a message does not have to say.


class ModelUpdate(NodeWeight, frozen=True, omit_defaults=True, kw_only=True, dict=True):
    """What a node has learned in a round from exactly one version of the global model, beside its running weight.

    Raises:
        BadMessage: as `NodeWeight`, or two arrays have one name.
    """

    schema_version: SchemaVersion
    run_id: RunId
    round: RoundNumber
    base_version: Annotated[VersionNumber, Meta(description="the version that it started from")]
    num_examples: Annotated[Count, Meta(description="readings it was trained on; 0: the node has none for this round")]
    trained_at: Annotated[Milliseconds, Meta(description="tells a repeated message from a new one")]
    named_arrays: OnTheWire = field(name="arrays")
    metrics: Annotated[Score, Meta(description="how good the version was on these readings before the training")]

    def __post_init__(self) -> None:
        """Check what the types do not say."""
        super().__post_init__()
        wire.check_names(self.named_arrays)

    @cached_property
    def arrays(self) -> Arrays:
        """What was learned, in memory."""
        return wire.from_wire(self.named_arrays)


def model_update(
    weight: NodeWeight, opened: GlobalModel, trained_at: int, num_examples: int = 0, **learned: Any
) -> ModelUpdate:
    """Return a node's answer to an opened round: `learned` has its `arrays` and `score`, unless it had no readings."""
    return ModelUpdate(
        **structs.asdict(weight.alone()),
        schema_version=SCHEMA_VERSION,
        run_id=opened.run_id,
        round=opened.round,
        base_version=opened.version,
        num_examples=num_examples,
        trained_at=trained_at,
        named_arrays=wire.to_wire(learned.get("arrays", {})),
        metrics=learned.get("score", Score()),
    )


class UsedUpdate(Struct, frozen=True):
    """An update that a version was made of."""

    node_id: Line
    num_examples: Count
    staleness: Annotated[Count, Meta(description="how many versions older than the newest the one it started from was")]
    place: Place | None


class GlobalModel(Struct, frozen=True, omit_defaults=True, kw_only=True, dict=True):
    """A version of the global model, which opens a round; with the running weight, and how the round before it ended.

    With `strategy_state` a restarted cloud goes on from here.

    Raises:
        BadMessage: two arrays have one name.
    """

    global_weight: Annotated[float | None, Meta(description="as in GlobalWeight")] = None
    samples: Annotated[int | None, Meta(description="as in GlobalWeight")] = None
    nodes: Annotated[int | None, Meta(description="as in GlobalWeight")] = None
    schema_version: SchemaVersion
    run_id: RunId
    round: RoundNumber
    version: VersionNumber
    model: Annotated[Line, Meta(description="MODEL")]
    mode: Annotated[Line, Meta(description="ROUND_MODE")]
    named_arrays: OnTheWire = field(name="arrays")
    scaler: Annotated[Scaler | None, Meta(description="how all nodes scale their features; null: not")]
    config: Annotated[Config, Meta(description="what the strategy wants on the nodes")]
    participants: Annotated[tuple[Line, ...], Meta(description="nodes that the strategy has sampled; empty: all")]
    opened_at: Milliseconds
    strategy_state: Annotated[dict[str, Any], Meta(description="what the strategy keeps between rounds")]
    strategy: Annotated[Line, Meta(description="STRATEGY")]
    strategy_options: Annotated[Line, Meta(description="STRATEGY_OPTIONS")]
    seed: Annotated[int | None, Meta(description="SEED; null where it has to be a secret")]
    counts: Annotated[dict[Line, Count], Meta(description="updates that came in the round before, by kind")]
    base_version: Annotated[VersionNumber | None, Meta(description="the version the round before it started from")] = (
        None
    )
    metrics: Annotated[Score | None, Meta(description="of that version, on the readings of all nodes")] = None
    node_metrics: Annotated[dict[Line, Score], Meta(description="of that version, by node")] = field(
        default_factory=dict
    )
    updates: Annotated[tuple[UsedUpdate, ...], Meta(description="what this version was made of")] = ()
    failed: Annotated[Line | None, Meta(description="why the round before it brought no version")] = None
    restored_from: Annotated[VersionNumber | None, Meta(description="by a rollback")] = None

    def __post_init__(self) -> None:
        """Check what the types do not say."""
        wire.check_names(self.named_arrays)

    @cached_property
    def arrays(self) -> Arrays:
        """The version's arrays, in memory."""
        return wire.from_wire(self.named_arrays)

    @property
    def fingerprint(self) -> str:
        """What tells a version's arrays, in whatever order, and scaler from all others."""
        arrays = sorted(self.named_arrays, key=lambda array: array.name)
        return hashlib.blake2b(encode((arrays, self.scaler)), digest_size=16).hexdigest()

    @property
    def closes_round(self) -> bool:
        """Whether it ends a round, and does not only open a run's first one."""
        return self.metrics is not None or self.failed is not None or self.restored_from is not None

    def with_weight(self, weight: GlobalWeight | None) -> GlobalModel:
        """Return it with the running weight of the moment."""
        if weight is None:
            return self
        return replace(self, global_weight=weight.global_weight, samples=weight.samples, nodes=weight.nodes)


def global_model(run_id: str, number: int, version: int, arrays: Arrays, **fields: Any) -> GlobalModel:
    """Return the model that opens a round; what `fields` do not give is as in a round that asks nothing special."""
    usual: dict[str, Any] = {
        "model": "mlp",
        "mode": "sync",
        "scaler": None,
        "config": {},
        "participants": (),
        "opened_at": 0,
        "strategy_state": {},
        "strategy": "FedAvg",
        "strategy_options": "",
        "seed": None,
        "counts": {},
    }
    return GlobalModel(
        schema_version=SCHEMA_VERSION,
        run_id=run_id,
        round=number,
        version=version,
        named_arrays=wire.to_wire(arrays),
        **usual | fields,
    )


class Deadline(Struct, frozen=True, tag_field="command", tag="deadline"):
    """A command on `round-control`: the time of a round is up."""

    run_id: RunId
    round: RoundNumber


class Rollback(Struct, frozen=True, tag_field="command", tag="rollback"):
    """A command on `round-control`: open the next round with an older version of the run."""

    run_id: RunId
    sent_at: Annotated[Milliseconds, Meta(description="for people")]
    model: Annotated[GlobalModel, Meta(description="the version's message, as the cloud has published it")]
    current: Annotated[VersionNumber, Meta(description="the newest version then; tells one that was obeyed before")] = 0


class Event(Struct, frozen=True, omit_defaults=True):
    """Something that a person wants to know of a run, on topic `events`."""

    kind: Annotated[Line, Meta(description="run-started, drift, quarantine, rollback, aggregation-failed, ...")]
    run_id: RunId
    round: Annotated[Count, Meta(description="the one that was open")]
    node_id: Annotated[Line | None, Meta(description="of which node; null: of none")]
    detail: Annotated[Line, Meta(description="for people")]
    action: Annotated[Line | None, Meta(description="what followed from a drift: DRIFT_ACTION")] = None


class _Kind(Struct):
    """What tells the messages of a round from the running weights on the same topics."""

    round: Raw | UnsetType = UNSET


def read_update(value: bytes | None) -> NodeWeight | ModelUpdate:
    """Return the message of a record of `model-weights`.

    Raises:
        BadMessage: it is none.
    """
    return decode(NodeWeight if decode(_Kind, value).round is UNSET else ModelUpdate, value, EXPECTED)


def answering_node(value: bytes | None) -> str | None:
    """Return whose answer to a round a record is that cannot be read as one; None if it is no node's answer at all."""
    try:
        is_answer = decode(_Kind, value).round is not UNSET
        return decode(NodeWeight, value).node_id if is_answer else None
    except BadMessage:
        return None


def read_global(value: bytes | None) -> GlobalWeight | GlobalModel:
    """Return the message of a record of `global-model` or `model-versions`.

    Raises:
        BadMessage: it is none.
    """
    if decode(_Kind, value).round is UNSET:
        return decode(GlobalWeight, value)
    return decode(GlobalModel, value, EXPECTED)


def read_round_model(value: bytes | None) -> GlobalModel | None:
    """Return the model of a record of `global-model`, or None if it opens no round (the running weight).

    Raises:
        BadMessage: it says that it opens a round and cannot be used.
    """
    return None if decode(_Kind, value).round is UNSET else decode(GlobalModel, value, EXPECTED)


def read_command(value: bytes | None) -> Deadline | Rollback:
    """Return the command of a record of `round-control`.

    Raises:
        BadMessage: it is none.
    """
    expected = EXPECTED | {f"model.{name}": text for name, text in EXPECTED.items()}
    return cast("Deadline | Rollback", decode(cast("Any", Deadline | Rollback), value, expected))


def fit_model(found: GlobalModel, model: Model, settings: Settings) -> GlobalModel:
    """Return a global model as this stack trains it: with its arrays in the order of its own model's arrays.

    Raises:
        BadMessage: it is of another MODEL, its arrays have another layout or give no probabilities, its scaler is of
            another number of features, or its config is none to train with.
    """
    own = model.initial_arrays(settings.seed)
    if found.model != settings.model:
        msg = f"MODEL is {settings.model!r}, but the cloud's run is of {found.model!r:.100}; set the same in .env"
        raise BadMessage(msg)
    if wire.layout(found.arrays) != wire.layout(own):
        both = f"{wire.layout(found.arrays)!s:.200}; expected {wire.layout(own)!s:.200}"
        raise BadMessage(f"the model's arrays are {both}, as MODEL_OPTIONS say here; set the same in .env")
    check_means(found.scaler, settings)
    _check_probabilities(found, model, settings)
    try:
        train_config(settings, found.config)
    except (ValueError, TypeError, OverflowError) as error:
        msg = f"config is {found.config!s:.200}; expected numbers that a training can use; it says: {error!s:.100}"
        raise BadMessage(msg) from error
    return replace(found, named_arrays=in_order(found.named_arrays, own))


def _check_probabilities(found: GlobalModel, model: Model, settings: Settings) -> None:
    """Refuse arrays with which a reading of lowest and highest values of FEATURES has no probability."""
    corners = itertools.product(*([each.low, each.high] for each in settings.table))
    highest = [each.high for each in settings.table]
    edges = np.array([highest, *itertools.islice(corners, MOST_CORNERS)])
    try:
        with np.errstate(all="ignore"):
            probabilities = model.predict(found.arrays, found.scaler.apply(edges) if found.scaler else edges)
        reason = "" if np.isfinite(probabilities).all() else "they are not finite"
    except Exception as error:  # a model of the user's own may raise anything
        reason = f"{type(error).__name__}: {error!s:.100}"
    if reason:
        raise BadMessage(f"the model's arrays give no probabilities ({reason}); expected smaller numbers")


def in_order(named: NamedArrays, own: Iterable[str]) -> NamedArrays:
    """Return arrays in the order of a model's own arrays, which have the same names."""
    by_name = {each.name: each for each in named}
    return tuple(by_name[name] for name in own)


def check_scaler(scaler: Scaler | None, features: int) -> None:
    """Refuse a scaler that is not one of the readings.

    Raises:
        BadMessage: it has another number of features.
    """
    if scaler and len(scaler.mean) != features:
        msg = f"the scaler has {len(scaler.mean)} numbers; expected {features}, one for each feature"
        raise BadMessage(msg)


def check_means(scaler: Scaler | None, settings: Settings) -> None:
    """Refuse a scaler that is not one of readings within FEATURES: all readings would be the same to the model.

    Raises:
        BadMessage: it has another number of features, or a mean beyond its feature's limits.
    """
    check_scaler(scaler, len(settings.table))
    for feature, mean in zip(settings.table, scaler.mean if scaler else (), strict=False):
        slack = 1e-6 * max(abs(feature.low), abs(feature.high))
        if not feature.low - slack <= mean <= feature.high + slack:
            raise BadMessage(f"the scaler's mean of {feature.name} is {mean:g}; expected {feature.expected}")


def check_size(message: Struct, what: str, max_update_bytes: int) -> None:
    """Refuse a message that Kafka would refuse, before it is counted on.

    Raises:
        TooLargeError: its JSON text is longer than `max_update_bytes`.
    """
    size = len(encode(message))
    if size > max_update_bytes:
        msg = (
            f"{what} has {size} bytes; expected at most MAX_UPDATE_BYTES={max_update_bytes}: "
            "choose a smaller model (MODEL_OPTIONS), or raise the setting and make the topics anew (make clean up)"
        )
        raise TooLargeError(msg)
