"""From STRATEGY and STRATEGY_OPTIONS to a strategy: one of Flower's, or a user's own."""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast, get_args

from fedstream.errors import SettingError
from fedstream.rounds.strategy_state import PLAIN, remember_as_built

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # Flower reads it once, when it is first imported

REFUSED = {
    "DifferentialPrivacyClientSide": "needs a Flower mod on the nodes; use DifferentialPrivacyServerSide... instead",
    "FedXgb": "merges XGBoost trees, which are no arrays",
}
FLOWER_DEFAULTS = {"min_train_nodes": 1, "min_evaluate_nodes": 1, "min_available_nodes": 1, "fraction_evaluate": 0.0}
DEFAULTS: dict[str, Any] = FLOWER_DEFAULTS | {"train_loss_key": "loss", "strategy": "FedAvg"}


def make_strategy(name: str, options: Mapping[str, Any]) -> Strategy:
    """Build a strategy.

    Args:
        name: a class of `flwr.serverapp.strategy`, or `package.module:Class` for a user's own.
        options: its keyword arguments; a wrapper's `strategy` is a name, too, whose options are `strategy.<option>`.

    Raises:
        SettingError: there is no such strategy, or it does not take these options.
    """
    return _build("STRATEGY", name, "", options)


def _build(setting: str, name: Any, prefix: str, options: Mapping[str, Any]) -> Strategy:
    found = _find(setting, name)
    takes = inspect.signature(found).parameters
    own = found.__module__.startswith("flwr.")
    kinds = {option: get_args(takes[option].annotation) or (takes[option].annotation,) for option in takes}
    plain = [option for option in takes if all(kind in PLAIN for kind in kinds[option])]
    known = [option for option in takes if not own or option in plain or option == "strategy"]
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
    given = {option: DEFAULTS[option] for option in DEFAULTS if option in takes and (own or option == "strategy")}
    inner = {key: options[key] for key in options if "strategy" in takes and key.startswith("strategy.")}
    given |= {option: options[option] for option in options if option not in inner}
    for option, value in given.items():
        if option not in known and not takes_any:
            listed = ", ".join(prefix + option for option in known)
            raise SettingError(
                f"STRATEGY_OPTIONS has {prefix}{option}; expected options of {name}, which are: {listed}"
            )
        if option in plain and type(value) not in kinds[option] and not (type(value) is int and float in kinds[option]):
            wanted = " or ".join(kind.__name__ for kind in kinds[option])
            raise SettingError(f"STRATEGY_OPTIONS sets {prefix}{option} to {value!r:.100}; expected {wanted}")
    try:
        if "strategy" in takes:
            inner = {key.removeprefix("strategy."): value for key, value in inner.items()}
            setting, prefix = f"{prefix}strategy in STRATEGY_OPTIONS", f"{prefix}strategy."
            given["strategy"] = _build(setting, given["strategy"], prefix, inner)
        strategy = found(**given)
    except SettingError:
        raise
    except Exception as error:  # whatever the constructor raises
        raise SettingError(f"STRATEGY_OPTIONS is {dict(options)!r:.300}; {name} refuses it: {error}") from error
    for option in FLOWER_DEFAULTS.keys() & vars(strategy).keys() - given.keys():
        setattr(strategy, option, FLOWER_DEFAULTS[option])  # a user's own, too: the rounds have a quorum
    remember_as_built(strategy)
    return strategy


def _find(setting: str, name: Any) -> type[Strategy]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # typer, on which Flower builds, asks click for old names
        flower = importlib.import_module("flwr.serverapp.strategy")  # only now, since it takes more than a second
    identity = importlib.import_module("flwr.supercore.task_identity").TaskIdentity
    identity.task_id = identity.run_id = identity.node_id = 1  # without these Flower can build no message
    # Bulyan and QFedAvg collect the garbage of the whole process for every array of every reply, 50 ms each.
    importlib.import_module("flwr.app.message.arrayrecord").gc = SimpleNamespace(collect=lambda: 0)  # type: ignore[attr-defined]
    logging.getLogger("flwr").setLevel(logging.WARNING)
    logging.getLogger("flwr").addFilter(_is_news)
    names = [key for key in flower.__all__ if not key.startswith((*REFUSED, "Result", "Strategy"))]
    expected = f"expected package.module:Class of your own or one of {', '.join(names)}"
    module, _, attribute = str(name).rpartition(":")
    try:
        found = getattr(importlib.import_module(module) if module else flower, attribute, None)
    except Exception as error:  # a user's module may raise anything
        msg = f"{setting} is {name!r}; its module cannot be imported ({type(error).__name__}: {error}); {expected}"
        raise SettingError(msg) from error
    if not (isinstance(found, type) and issubclass(found, flower.Strategy) and found is not flower.Strategy):
        raise SettingError(f"{setting} is {name!r}, which is {found!r} and no strategy of Flower; {expected}")
    for start, reason in REFUSED.items():
        if any(base.__module__.startswith("flwr.") and base.__name__.startswith(start) for base in found.__mro__):
            raise SettingError(f"{setting} is {name!r}, which {reason}; {expected}")
    return cast("type[Strategy]", found)


def _is_news(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("fraction_evaluate is set to 0.0")  # by us, on purpose
