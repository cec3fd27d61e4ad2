"""The errors that the stack tells its users: one readable paragraph each, without a traceback."""

from __future__ import annotations

import click


class StackError(click.ClickException):
    """An error whose text tells the user what to do: the command line shows it without a traceback, exit code 1."""


class SettingError(StackError):
    """A setting has a value that cannot be used; the text names the setting, its value and what is expected."""


class BadMessage(ValueError):
    """A message that cannot be used; the text is the reason kept beside it in `dead-letter`."""
