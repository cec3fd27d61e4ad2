"""Where the executors of a test leave their dead letters: a file, since they are other processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from fedstream.messages.dead_letters import DeadLetter


@dataclass(frozen=True)
class LetterFile:
    """Takes dead letters; raises, after it has taken them, as often as there are lines in `<path>.dies`."""

    path: Path

    def __call__(self, letters: list[DeadLetter]) -> None:
        """Append the letters, one a line."""
        with self.path.open("ab") as file:
            file.writelines(msgspec.json.encode(letter) + b"\n" for letter in letters)
        deaths = self.path.with_suffix(".dies")
        if deaths.exists():
            deaths.unlink()
            raise ConnectionError("the driver dies in dead_letters")

    def letters(self) -> list[DeadLetter]:
        """Return all that was taken, in the order of the records' places within each call."""
        lines = self.path.read_bytes().splitlines() if self.path.exists() else []
        return [msgspec.json.decode(line, type=DeadLetter) for line in lines]
