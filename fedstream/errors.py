"""The errors that the stack tells its users: one readable paragraph each, without a traceback."""

from __future__ import annotations

import click

from fedstream.texts import printable

LONGEST_REASON = 1000  # characters


class StackError(click.ClickException):
    """An error whose text tells the user what to do: the command line shows it without a traceback, exit code 1."""

    def __init__(self, message: str) -> None:
        """Take the text; a name of a message in it may hold anything."""
        super().__init__(printable(message))


class SettingError(StackError):
    """A setting has a value that cannot be used; the text names the setting, its value and what is expected."""


class StateError(StackError):
    """The state on disk and the checkpoint do not belong together, or another driver holds them."""


class BadMessage(ValueError):
    """A message that cannot be used; the text is the reason kept beside it in `dead-letter`."""

    def __init__(self, reason: str) -> None:
        """Take the reason; what it shows of the message may hold anything."""
        super().__init__(printable(f"{reason:.{LONGEST_REASON}}"))
