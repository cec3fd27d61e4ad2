"""How all programs of the stack show their help: that of a command is its docstring, that of a job its module's.

The first paragraph is filled; the lines of the others, such as examples, stay as they are. A job that ends with an
error leaves its last word.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from fedstream import last_word


class Command(click.Command):
    """A command that also answers -h, with its help as it was written."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        """Take what click gives."""
        super().__init__(*args, **_as_written(**attributes))

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the arguments."""
        with _last_word_kept():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the program."""
        last_word.forget()
        with _last_word_kept():
            return super().invoke(ctx)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command

    def __init__(self, *args: Any, **attributes: Any) -> None:
        """Take what click gives."""
        super().__init__(*args, **_as_written(**attributes))


@contextmanager
def _last_word_kept() -> Iterator[None]:
    try:
        yield
    except click.ClickException as error:
        last_word.keep(error.format_message())
        raise
    except (click.exceptions.Exit, click.Abort, ConnectionError):
        raise  # no error, or of Spark's JVM, which has ended before: it knows why
    except Exception as error:
        if not type(error).__module__.startswith("py4j"):
            last_word.keep(f"{type(error).__name__}: {error}".strip().splitlines()[0])
        raise


def _as_written(help: str | None = None, **attributes: Any) -> dict[str, Any]:
    context = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
    lines = inspect.cleandoc(help or "").replace("\n\n", "\n\n\b\n")
    return {**attributes, "help": lines, "context_settings": context}
