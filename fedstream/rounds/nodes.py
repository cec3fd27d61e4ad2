"""What is known of the nodes: when each was heard, and which ones are kept out."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection

from msgspec import Struct, field

from fedstream.settings import Settings

MOST_NODES = 10_000  # of which something is kept: names cost memory, and each micro-batch writes them down


class Nodes(Struct):
    """The nodes of a run, by name."""

    heard: dict[str, int] = field(default_factory=dict)  # the last round in which it answered (or joined)
    newcomers: dict[str, int] = field(default_factory=dict)  # the round that each joined in; it has not answered yet
    trained_at: dict[str, int] = field(default_factory=dict)  # of its newest answer (ms since 1970)
    offences: dict[str, int] = field(default_factory=dict)  # bad updates, less the good ones; none is below 1
    quarantine: dict[str, int] = field(default_factory=dict)  # the last round in which it is kept out

    def is_kept_out(self, node: str, number: int) -> bool:
        """Tell whether a node is kept out in a round."""
        return self.quarantine.get(node, 0) >= number

    def offend(self, node: str, number: int, settings: Settings) -> int | None:
        """Count a bad update; of a node that has sent too many return the last round in which it is kept out now.

        One that is kept out, may not take part or would be one name too many is not counted.
        """
        known = self.offences, self.heard, self.quarantine
        is_new = not any(node in names for names in known)
        if self.is_kept_out(node, number) or not is_known(node, settings):
            return None
        if is_new and sum(map(len, known)) >= MOST_NODES:
            return None
        self.offences[node] = self.offences.get(node, 0) + 1
        if self.offences[node] < settings.quarantine_after:
            return None
        del self.offences[node]
        self.quarantine[node] = number + settings.quarantine_rounds
        return self.quarantine[node]

    def forgive(self, node: str) -> None:
        """Count a good update, which makes up for a bad one: a fault of long ago is forgotten."""
        if self.offences.get(node, 0) > 1:
            self.offences[node] -= 1
        else:
            self.offences.pop(node, None)

    def join(self, node: str, number: int) -> None:
        """Note a node that may answer from now on; a name may be anybody's, so only one round waits for it in vain."""
        if node not in self.heard:
            self.heard[node] = number
            if number:
                self.newcomers[node] = number

    def answer(self, node: str, number: int) -> None:
        """Note a node that has answered."""
        self.heard[node] = number
        self.newcomers.pop(node, None)

    def is_awaited(self, node: str, number: int, participants: Collection[str], patience: int) -> bool:
        """Tell whether a round waits for a node: it has answered lately, is not kept out, and is to take part."""
        return self._is_there(node, number, 0 if node in self.newcomers else patience) and (
            not participants or node in participants
        )

    def _is_there(self, node: str, number: int, patience: int) -> bool:
        return self.heard.get(node, -1) >= max(0, number - patience) and not self.is_kept_out(node, number)

    def awaited(self, number: int, participants: Collection[str], patience: int) -> set[str]:
        """Return the nodes that a round waits for. It goes through all of them: once a round, not once a message."""
        return {node for node in self.heard if self.is_awaited(node, number, participants, patience)}

    def to_ask(self, number: int, patience: int) -> list[str]:
        """Return the nodes that may be asked to train in a round, sorted: those heard lately, or else all."""
        return sorted(node for node in self.heard if self._is_there(node, number, patience)) or sorted(self.heard)


def is_known(node: str, settings: Settings) -> bool:
    """Tell whether a node may take part."""
    patterns = [part.strip() for part in settings.known_nodes.split(",") if part.strip()]
    return not patterns or any(fnmatch.fnmatchcase(node, pattern) for pattern in patterns)
