"""Flower's strategies, or a user's own, one round at a time."""

from __future__ import annotations

import functools
import gc
import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import numpy as np

from fedstream.learning.arrays import Arrays, distance, layout
from fedstream.rounds.strategy_options import make_strategy
from fedstream.rounds.strategy_state import PLAIN, StrategyError, options_in, restore_strategy, strategy_state

if TYPE_CHECKING:
    from flwr.app import ArrayRecord
    from flwr.serverapp.strategy import Strategy

__all__ = [
    "Reply",
    "StrategyError",
    "aggregate",
    "make_strategy",
    "open_round",
    "options_in",
    "restore_strategy",
    "strategy_state",
]

P = ParamSpec("P")
T = TypeVar("T")

MOST_LOOKS = 10  # at the nodes in one round: Flower looks twice, or once a second for ever when there are too few


@dataclass(frozen=True)
class Reply:
    """One node's update as a strategy sees it; `metrics` has the same names in all replies of a round."""

    node_id: str
    arrays: Arrays
    num_examples: float
    metrics: Mapping[str, float]


class _KnownNodes:
    """Stands in for Flower's grid: the nodes, each with an integer that is the same in every round."""

    def __init__(self, nodes: Sequence[str]) -> None:
        self.names = {node_number(node): node for node in sorted(nodes)}
        self.looks = 0

    def get_node_ids(self) -> list[int]:
        """Return the nodes' numbers, in the order of their names."""
        self.looks += 1
        if self.looks > MOST_LOOKS:
            raise StrategyError(f"it waits for more than the {len(self.names)} nodes there are")
        return list(self.names)


def node_number(node_id: str) -> int:
    """Return the number (1 to 2**63) under which a strategy sees a node."""
    return (int.from_bytes(hashlib.sha256(node_id.encode()).digest()[:8], "big") >> 1) + 1


@contextmanager
def _seeded(*key: object) -> Iterator[None]:
    before = random.getstate(), np.random.get_state()
    random.seed(repr(key))  # of a text: the same on every machine
    np.random.seed([random.getrandbits(32) for _ in range(8)])
    try:
        with np.errstate(all="ignore"):  # a result that is not finite is refused by name
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def _leaving_nothing(function: Callable[P, T]) -> Callable[P, T]:
    """Free what a call leaves of Flower's messages: they are rings of objects with arrays in them.

    Only garbage collection frees a ring. Within the call it is off, or it would count messages in use among what is
    old, which it looks at once in thousands of rounds; after it, it looks at the newest objects only, in no time.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        was_on = gc.isenabled()
        gc.disable()
        try:
            return function(*args, **kwargs)
        finally:
            if was_on:
                gc.enable()
            gc.collect(0)

    return call


def _layers(strategy: Strategy) -> list[Any]:
    inner: Any = vars(strategy).get("strategy")
    return [strategy, *_layers(inner)] if hasattr(inner, "aggregate_train") else [strategy]


def is_private(strategy: Strategy) -> bool:
    """Return whether a strategy adds noise that has to be a secret: differential privacy, also inside another one."""
    return any(hasattr(layer, "noise_multiplier") for layer in _layers(strategy))


@contextmanager
def _all_or_nothing(strategy: Strategy, what: str) -> Iterator[None]:
    before = strategy_state(strategy)
    try:
        yield
    except Exception as error:  # a strategy may raise anything
        restore_strategy(strategy, before)
        reason = error.message if isinstance(error, StrategyError) else f"{type(error).__name__}: {error}"
        names = " around ".join(type(layer).__name__ for layer in _layers(strategy))
        raise StrategyError(f"{names} cannot {what}: {reason}") from error


def _record(arrays: Arrays) -> ArrayRecord:
    from flwr.app import Array, ArrayRecord

    # In the order of the names, since some strategies pair arrays by position; no array without an axis,
    # since Flower's clipping works in place and leaves such a one as it is.
    return ArrayRecord({name: Array(np.atleast_1d(arrays[name])) for name in sorted(arrays)})


@_leaving_nothing
def open_round(
    strategy: Strategy, round_number: int, arrays: Arrays, nodes: Sequence[str], *, seed: int = 0
) -> tuple[dict[str, float | int | str | bool], list[str]]:
    """Ask a strategy which nodes train in a round, and how; the same seed, round and nodes give the same answer.

    Args:
        strategy: from `make_strategy`.
        round_number: from 1.
        arrays: the global model, of any names and shapes.
        nodes: the names of all nodes.
        seed: of Python's and numpy's global random numbers, which are put back afterwards.

    Returns:
        What the strategy tells the nodes ("server-round", "proximal-mu", ...), and the sampled nodes' names, sorted.

    Raises:
        StrategyError: it wants more nodes than there are, samples none, or tells them what no JSON number or text is.
    """
    from flwr.app import ConfigRecord

    grid = _KnownNodes(nodes)
    with (
        _all_or_nothing(strategy, f"open round {round_number} with {len(nodes)} nodes"),
        _seeded("open", seed, round_number),
    ):
        for layer in _layers(strategy):
            share = int(getattr(layer, "fraction_train", 0.0) * len(grid.names))
            least = max(share, getattr(layer, "min_train_nodes", 0), getattr(layer, "min_available_nodes", 0))
            if least > len(grid.names):  # Flower would wait for them, and nobody can join within the call
                options = "min_train_nodes, min_available_nodes or fraction_train in STRATEGY_OPTIONS"
                raise StrategyError(f"it demands {least} nodes; lower {options}, or add nodes")
        messages = list(strategy.configure_train(round_number, _record(arrays), ConfigRecord(), cast("Any", grid)))
        sampled = sorted(grid.names[message.metadata.dst_node_id] for message in messages)
        configs = [
            {key: value for record in message.content.config_records.values() for key, value in record.items()}
            for message in messages
        ]
        if not sampled:
            raise StrategyError("it selects no node; expected a fraction_train above 0 in STRATEGY_OPTIONS")
        if any(config != configs[0] for config in configs):
            raise StrategyError("it tells the nodes different things; expected one config for all")
        if wrong := [key for key, value in configs[0].items() if type(value) not in PLAIN]:
            raise StrategyError(f"its config {wrong[0]} is no plain value; expected a number, a text or a truth value")
    return cast("dict[str, float | int | str | bool]", configs[0]), sampled


@_leaving_nothing
def aggregate(
    strategy: Strategy, round_number: int, replies: Sequence[Reply], *, seed: int = 0
) -> tuple[Arrays, dict[str, float]]:
    """Merge the replies of an opened round; every order of the same replies gives the same bits.

    On an error the strategy is as it was before the call. Noise is drawn from `seed` and the round: for differential
    privacy the seed has to be a secret, since who knows it can subtract the noise.

    Args:
        strategy: from `make_strategy`, after `open_round` of the same round.
        round_number: from 1.
        replies: one for each node, all with the same names and shapes.
        seed: of Python's and numpy's global random numbers, which are put back afterwards.

    Returns:
        The new global model (names, order and shapes are those of the replies), and the merged metrics.

    Raises:
        StrategyError: the replies do not go together or are too few, or the strategy fails or gives no finite model.
    """
    replies = sorted(replies, key=lambda reply: reply.node_id)
    what = f"close round {round_number} with {len(replies)} replies"
    with _all_or_nothing(strategy, what), _seeded("close", seed, round_number):
        _check(strategy, replies)
        messages = [_message(strategy, round_number, reply) for reply in replies]
        record, metric_record = strategy.aggregate_train(round_number, messages)
        if record is None:
            raise StrategyError("it returned no arrays")
        found = {name: array.numpy().astype(np.float64) for name, array in record.items()}
        shapes = layout(replies[0].arrays)
        if layout(found) != {name: shape or (1,) for name, shape in shapes.items()}:
            raise StrategyError(f"it returned arrays {layout(found)}; expected {shapes}")
        arrays = {name: found[name].reshape(shape) for name, shape in shapes.items()}
        metrics = {key: value for key, value in (metric_record or {}).items() if not isinstance(value, list)}
        finite = {name: np.isfinite(value).all() for name, value in (metrics | arrays).items()}
        if not all(finite.values()):
            raise StrategyError(f"{[name for name in finite if not finite[name]]} would be NaN or infinite")
    return arrays, metrics


def _check(strategy: Strategy, replies: Sequence[Reply]) -> None:
    from flwr.serverapp.strategy import Bulyan, MultiKrum

    if not replies:
        raise StrategyError("there is nothing to merge")
    for before, reply in pairwise(replies):
        if reply.node_id == before.node_id:
            raise StrategyError(f"node {reply.node_id} replied twice; expected one reply of each node")
        if layout(reply.arrays) != layout(before.arrays):
            both = f"{layout(reply.arrays)}, not {layout(before.arrays)} like node {before.node_id}"
            raise StrategyError(f"node {reply.node_id} sent arrays {both}")
    for layer in _layers(strategy):
        malicious = getattr(layer, "num_malicious_nodes", 0)
        factor = 4 if isinstance(layer, Bulyan) else 2 if isinstance(layer, MultiKrum) and malicious > 0 else 0
        if factor and len(replies) < (least := factor * malicious + 3):
            raise StrategyError(
                f"{type(layer).__name__} with num_malicious_nodes = {malicious} needs at least {least} replies "
                f"({factor} * num_malicious_nodes + 3); lower it in STRATEGY_OPTIONS or wait for more nodes"
            )


def _message(strategy: Strategy, round_number: int, reply: Reply) -> Any:
    from flwr.app import Message, MetricRecord, RecordDict

    layers = _layers(strategy)
    arrays = {name: np.array(array, dtype=np.float64, ndmin=1) for name, array in reply.arrays.items()}
    for layer in layers:
        if hasattr(layer, "clipping_norm"):  # Flower's clipping divides by the length of the change, so have one
            current = {name: array.numpy() for name, array in layer.current_arrays.items()}
            if layout(current) == layout(arrays) and distance(arrays, current) == 0:
                first = next(array for array in arrays.values() if array.size)
                first.flat[0] += max(abs(first.flat[0]) * 2.0**-52, 1e-150)
    metrics: dict[str, Any] = {getattr(layers[-1], "weighted_by_key", "num-examples"): float(reply.num_examples)}
    metrics |= {"num-examples": float(reply.num_examples)} | {key: float(reply.metrics[key]) for key in reply.metrics}
    content: dict[str, Any] = {
        getattr(layers[-1], "arrayrecord_key", "arrays"): _record(arrays),
        "metrics": MetricRecord(metrics),
    }
    request = Message(RecordDict(), node_number(reply.node_id), "train", group_id=str(round_number))
    return Message(RecordDict(content), reply_to=request)
