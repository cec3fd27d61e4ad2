"""A federation as a JSON value and back, bit by bit: what the cloud keeps between micro-batches."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Any

from fedstream.learning import arrays as wire
from fedstream.learning.models import Model
from fedstream.learning.training import Scaler, Statistics
from fedstream.messages.rounds import GlobalModel, ModelUpdate
from fedstream.rounds import strategies
from fedstream.rounds.federation import Federation
from fedstream.settings import Settings

PLAIN = (
    *(
        "run_id",
        "features",
        "classes",
        "round",
        "version",
        "config",
        "started_at",
        "opened_at",
        "is_overdue",
        "abstained",
    ),
    *("heard", "trained_at", "offences", "quarantine", "errors", "boost_until"),
)  # JSON values as they are


def snapshot(federation: Federation) -> dict[str, Any]:
    """Return the federation as a JSON value; what is in its outbox is not part of it."""
    return {name: getattr(federation, name) for name in PLAIN} | {
        "arrays": wire.to_wire(federation.arrays),
        "scaler": federation.scaler.as_dict() if federation.scaler else None,
        "participants": list(federation.participants),
        "about": dict(federation.about),
        "pending": [[update.as_dict(), place] for update, place in federation.pending],
        "statistics": {node: part.as_dict() for node, part in federation.statistics.items()},
        "counts": dict(federation.counts),
        "bases": {str(version): wire.to_wire(base) for version, base in federation.bases.items()},
        "strategy": [federation.settings.strategy, federation.settings.strategy_options],
        "strategy_state": strategies.strategy_state(federation.strategy),
        "model": [federation.settings.model, federation.settings.model_options],
    }


def restore(saved: Mapping[str, Any], settings: Settings, model: Model) -> Federation:
    """Return the federation of a snapshot; if STRATEGY was changed since, the new one starts afresh."""
    federation = Federation(
        **{name: copy.deepcopy(saved[name]) for name in PLAIN},
        arrays=wire.from_wire(saved["arrays"]),
        scaler=Scaler.from_dict(saved["scaler"]) if saved["scaler"] else None,
        participants=tuple(saved["participants"]),
        about=saved.get("about", {}),  # a state of before has none, until the next round
        pending=[(ModelUpdate.from_message(update), place) for update, place in saved["pending"]],
        statistics={node: Statistics.from_dict(part) for node, part in saved["statistics"].items()},
        counts=Counter(saved["counts"]),
        bases={int(version): wire.from_wire(base) for version, base in saved["bases"].items()},
    )
    is_same = saved["strategy"] == [settings.strategy, settings.strategy_options]
    return federation.join(settings, model, saved["strategy_state"] if is_same else None)


def resume(last: GlobalModel, settings: Settings, model: Model) -> Federation:
    """Return a federation that goes on from a global model on the topic, where the cloud's own state was lost."""
    federation = Federation(
        last.run_id,
        round=last.round,
        version=last.version,
        arrays=last.arrays,
        scaler=last.scaler,
        config=dict(last.config),
        participants=last.participants,
        about=last.about,
        started_at=last.opened_at,  # what the topics hold from before has been counted by the cloud that was lost
        opened_at=last.opened_at,
        bases={last.version: last.arrays} if last.mode == "async" else {},
    )
    return federation.join(settings, model, last.strategy_state)
