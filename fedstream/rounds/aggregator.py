"""What the cloud makes of a micro-batch: the latest weight of each node, the rounds, and what is to be sent."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from fedstream.errors import BadMessage
from fedstream.messages import topics
from fedstream.messages.dead_letters import DeadLetter, dead_letter
from fedstream.messages.rounds import GlobalModel, ModelUpdate, answering_node, read_command, read_update
from fedstream.messages.weights import merge_update, merged_weight
from fedstream.rounds.admission import check_growth
from fedstream.rounds.cloud_state import CloudState, Rounds, read_state
from fedstream.rounds.federation import Federation
from fedstream.rounds.nodes import is_known
from fedstream.settings import Settings
from fedstream.texts import printable


class CloudAggregator:
    """What the cloud makes of a micro-batch's records: the latest weights, the rounds, and what is to be sent.

    The same records give the same result. Make a new one for each micro-batch. A record has a value, a topic, a
    partition and an offset.
    """

    def __init__(self, state: CloudState, federation: Federation | None, settings: Settings) -> None:
        """Go on from a state; without a federation only the running weights are merged."""
        self.latest, self.federation, self.settings = state.latest, federation, settings
        self.weight_before = merged_weight(state.latest)
        self.rejected: list[tuple[Any, str]] = []  # records, with the reasons
        self.stale = 0  # weights that were replayed, or late
        self.unknown = 0  # weights of nodes that may not take part

    def take(self, record: Any, now: int) -> None:
        """Take in a record.

        All checks come before any change: a rejected one changes nothing but its node's count of bad updates.
        """
        try:
            if record.value and len(record.value) > self.settings.max_update_bytes:
                limit = f"MAX_UPDATE_BYTES={self.settings.max_update_bytes}"
                msg = f"value of {len(record.value)} bytes; expected at most {limit}"
                raise BadMessage(msg)
            if record.topic != topics.ROUND_CONTROL:
                self._take_update(record)
            elif self.federation:
                self.federation.obey(read_command(record.value), now)
        except BadMessage as error:
            self.rejected.append((record, str(error)))
        if self.federation:
            self.federation.settle(now)

    def _take_update(self, record: Any) -> None:
        try:
            update = read_update(record.value)
        except BadMessage as error:
            if self.federation and (node := answering_node(record.value)):
                self.federation.offend(node, str(error))
            raise
        is_answer, may_take_part = isinstance(update, ModelUpdate), is_known(update.node_id, self.settings)
        if may_take_part:
            check_growth(update, self.latest)
        if self.federation:
            self.federation.check(update)
            if isinstance(update, ModelUpdate):
                self.federation.receive(update, (record.partition, record.offset))
        if not may_take_part:
            self.unknown += not is_answer
            return
        is_newer = merge_update(self.latest, update)
        self.stale += not is_newer and not is_answer
        if self.federation:
            self.federation.hear(update)

    def state(self) -> CloudState:
        """Return the state after all records, of which nothing is to be sent or said."""
        return CloudState(dict(sorted(self.latest.items())), self.federation.run if self.federation else None, [], [])

    def outgoing(self) -> list[topics.Outgoing]:
        """Return what all records give to be sent."""
        weight = merged_weight(self.latest)
        found: list[topics.Outgoing] = []
        if weight and weight != self.weight_before:
            found.append((topics.GLOBAL_MODEL, topics.GLOBAL_MODEL_KEY, weight))
        for topic, key, message in self.federation.outbox if self.federation else ():
            found.append((topic, key, message.with_weight(weight) if isinstance(message, GlobalModel) else message))
        return found

    def letters(self, now: int) -> list[DeadLetter]:
        """Return the dead letters of the rejected records."""
        return [
            dead_letter(record.value, reason, (record.topic, record.partition, record.offset), now, "cloud")
            for record, reason in self.rejected
        ]


def take_in(records: Iterable[Any], value: dict[str, Any], rounds: Rounds, now: int) -> CloudAggregator:
    """Take in records, one by one in their topics' order; `value` is the state before, as JSON.

    A record that fails in a way that nobody foresaw is rejected, too: everything is computed anew without it.
    """
    left = sorted(records, key=lambda record: (record.topic, record.partition, record.offset))
    failed: list[tuple[Any, str]] = []
    while True:
        state = read_state(value)
        aggregator = CloudAggregator(state, rounds.open(state), rounds.settings)
        for record in left:
            try:
                aggregator.take(record, now)
            except Exception as error:
                logging.getLogger(__name__).exception("the record at %s is rejected", topics.place_of(record))
                failed.append((record, printable(f"internal: {type(error).__name__}: {error!s:.500}")))
                left.remove(record)
                break
        else:
            aggregator.rejected += failed
            if aggregator.federation:
                for record, reason in failed:
                    aggregator.federation.event("internal-error", f"{topics.place_of(record)} is rejected; {reason}")
            return aggregator
