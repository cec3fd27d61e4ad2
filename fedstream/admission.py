"""Admission: what becomes of an update that reaches the cloud."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

from fedstream import arrays as wire
from fedstream.messages import BadMessage
from fedstream.protocol import ModelUpdate
from fedstream.settings import Settings

if TYPE_CHECKING:
    from fedstream.rounds import Federation


def is_known(node: str, settings: Settings) -> bool:
    """Tell whether a node may take part."""
    patterns = [part.strip() for part in settings.known_nodes.split(",") if part.strip()]
    return not patterns or any(fnmatch.fnmatchcase(node, pattern) for pattern in patterns)


def kind_of(federation: Federation, update: ModelUpdate) -> str:
    """Return the kind of an update: accepted, abstained, late, duplicate, stale, unknown or quarantined.

    Raises:
        BadMessage: wrong run, future round, unknown version, other layout of arrays, or absurdly far from its base.
    """
    node, settings = update.node_id, federation.settings
    is_async = settings.round_mode == "async"
    if not is_known(node, settings):
        return "unknown"
    if federation.quarantine.get(node, 0) >= federation.round > 0:
        return "quarantined"
    if update.run_id != federation.run_id:
        msg = f"run_id is {update.run_id!r:.100}; expected the present run, {federation.run_id!r}"
        raise BadMessage(msg)
    if update.round > federation.round:
        msg = f"round is {update.round}, which lies in the future; the open one is {federation.round}"
        raise BadMessage(msg)
    if update.trained_at <= federation.trained_at.get(node, -1):
        return "duplicate"
    if not is_async and update.round < federation.round:
        return "late"
    if update.base_version > federation.version or (not is_async and update.base_version != federation.version):
        msg = f"base_version is {update.base_version}, which this round does not know; expected {federation.version}"
        raise BadMessage(msg)
    if is_async and update.base_version not in federation.bases:
        return "stale"
    if not is_async and node in federation.answered():
        return "duplicate"
    if federation.participants and node not in federation.participants:
        return "unknown"
    if update.num_examples == 0:
        return "abstained"
    if wire.layout(update.arrays) != wire.layout(federation.arrays):
        msg = f"arrays are {wire.layout(update.arrays)}; expected {wire.layout(federation.arrays)}"
        raise BadMessage(msg)
    if len(update.score.confusion) != federation.classes or update.score.num_examples != update.num_examples:
        found = f"{len(update.score.confusion)} classes and {update.score.num_examples} readings"
        msg = f"metrics are of {found}; expected {federation.classes} classes and num_examples={update.num_examples}"
        raise BadMessage(msg)
    norm = wire.distance(update.arrays, federation.bases[update.base_version] if is_async else federation.arrays)
    if not norm <= settings.max_update_norm:
        limit = f"MAX_UPDATE_NORM={settings.max_update_norm:g}"
        msg = f"the update is {norm:g} away from the model it started from; expected at most {limit}"
        raise BadMessage(msg)
    return "accepted"
