"""How all programs of the stack show their help: that of a command is its docstring, that of a job its module's.

The first paragraph is filled; the lines of the others, such as examples, stay as they are.
"""

from __future__ import annotations

import inspect
from typing import Any

import click


class Command(click.Command):
    """A command that also answers -h, with its help as it was written."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        """Take what click gives."""
        super().__init__(*args, **_as_written(**attributes))


class Group(click.Group):
    """A group of such commands."""

    command_class = Command

    def __init__(self, *args: Any, **attributes: Any) -> None:
        """Take what click gives."""
        super().__init__(*args, **_as_written(**attributes))


def _as_written(help: str | None = None, **attributes: Any) -> dict[str, Any]:
    context = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
    lines = inspect.cleandoc(help or "").replace("\n\n", "\n\n\b\n")
    return {**attributes, "help": lines, "context_settings": context}
