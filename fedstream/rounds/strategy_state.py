"""What a strategy keeps between rounds (momentum, second moments, a clipping norm ...) as JSON values, bit by bit."""

from __future__ import annotations

import inspect
import math
from base64 import b64decode, b64encode
from collections.abc import Mapping
from contextlib import suppress
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np

from fedstream.errors import StackError

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

PLAIN = (bool, int, float, str, NoneType)  # the kinds of value that JSON has
AS_BUILT = "_fedstream_as_built"  # what a strategy's attributes were before its first round


class StrategyError(StackError):
    """A strategy cannot open or close a round; the text names strategy, round and reason."""


def remember_as_built(strategy: Strategy) -> None:
    """Note what a new strategy's attributes are, so that only what changes later is state."""
    vars(strategy)[AS_BUILT] = _attributes(strategy)


def strategy_state(strategy: Strategy) -> dict[str, Any]:
    """Return what a strategy has come to keep since it was built, as JSON values: no option, unless it was changed.

    Kept are attributes made of numbers, texts, numpy arrays, Flower's ArrayRecord, lists, tuples and dicts, and a
    strategy inside this one. Anything else (a function, a set, a random generator) is left to the constructor.
    """
    built = vars(strategy).get(AS_BUILT, {})
    state = {name: value for name, value in _attributes(strategy).items() if name not in built or value != built[name]}
    return {"class": type(strategy).__qualname__} | state


def restore_strategy(strategy: Strategy, state: Mapping[str, Any]) -> None:
    """Give a strategy the state of another one of the same class; options stay as they are.

    Raises:
        StrategyError: the state is that of another class, or none that can be read.
    """
    kind = type(strategy).__qualname__
    if state.get("class") != kind:
        found = f"the saved state is that of strategy {state.get('class')!s:.100}, not of {kind}"
        raise StrategyError(f"{found}; set STRATEGY back, or start anew without the saved state")
    wanted = vars(strategy).get(AS_BUILT, {}) | {name: state[name] for name in state if name != "class"}
    inner = {name: value for name, value in wanted.items() if isinstance(value, dict) and "strategy" in value}
    try:
        decoded = {name: _decode(value) for name, value in wanted.items() if name not in inner}
        for name, value in inner.items():
            restore_strategy(vars(strategy)[name], value["strategy"])
    except StrategyError:
        raise
    except Exception as error:  # of whatever a message holds
        reason = f"{type(error).__name__}: {error!s:.200}"
        raise StrategyError(f"the saved state of {kind} cannot be read ({reason}); start anew without it") from error
    for name in _attributes(strategy).keys() - wanted.keys():
        del vars(strategy)[name]
    vars(strategy).update(decoded)


def options_in(strategy: Strategy, state: Mapping[str, Any]) -> list[str]:
    """Return the options of a strategy that a state would set: arguments of its constructor, also of one inside it."""
    found = [name for name in inspect.signature(type(strategy)).parameters if name in state and name != "strategy"]
    inner, more = vars(strategy).get("strategy"), state.get("strategy")
    if inner is not None and isinstance(more, dict) and isinstance(more.get("strategy"), dict):
        found += [f"strategy.{name}" for name in options_in(inner, more["strategy"])]
    return found


def _attributes(strategy: Strategy) -> dict[str, Any]:
    from flwr.serverapp.strategy import Strategy

    found: dict[str, Any] = {}
    for name, value in vars(strategy).items():
        if isinstance(value, Strategy):
            found[name] = {"strategy": strategy_state(value)}
        elif name != AS_BUILT:
            with suppress(TypeError):
                found[name] = _encode(value)
    return found


def _encode(value: Any) -> Any:
    from flwr.app import ArrayRecord

    kind = type(value)
    if kind in PLAIN and not (kind is float and not math.isfinite(value)):
        return value
    if kind is float:
        value = np.float64(value)  # JSON has no infinity
    if isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        parts = [value.dtype.str, list(value.shape), b64encode(value.tobytes()).decode()]
        return {"array" if isinstance(value, np.ndarray) else "scalar": parts}
    if kind in (list, tuple):
        return {kind.__name__: [_encode(part) for part in value]}
    if kind is dict or isinstance(value, ArrayRecord):  # as pairs, since a key may be a number
        pairs = value.items() if kind is dict else ((key, array.numpy()) for key, array in value.items())
        return {"dict" if kind is dict else "record": [[_encode(key), _encode(part)] for key, part in pairs]}
    raise TypeError(f"{kind} is not kept")


def _decode(value: Any) -> Any:
    from flwr.app import Array, ArrayRecord

    if not isinstance(value, dict):
        return value
    [(kind, parts)] = value.items()
    if kind in ("array", "scalar"):
        dtype, shape, data = parts
        array = np.frombuffer(b64decode(data), dtype=np.dtype(dtype)).reshape(shape).copy()
        return array if kind == "array" else array[()]
    if kind in ("list", "tuple"):
        return (list if kind == "list" else tuple)(_decode(part) for part in parts)
    pairs = {_decode(key): _decode(part) for key, part in parts}
    return pairs if kind == "dict" else ArrayRecord({key: Array(part) for key, part in pairs.items()})
