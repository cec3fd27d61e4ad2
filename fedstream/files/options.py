"""The options that say how a data file is read: the same for the sensors and the simulation."""

from __future__ import annotations

import glob
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import click

from fedstream.errors import SettingError
from fedstream.files.dialect import DELIMITERS, Given


def _delimiter(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is None or value in DELIMITERS:
        return DELIMITERS[value] if value else None
    if value == "\t" or (len(value) == 1 and value.isprintable() and not value.isalnum() and value not in ' ".-+'):
        return value
    raise click.BadParameter(f"{value!r}; expected {', '.join(DELIMITERS)} or another sign")


def _header(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is None or value == "none" or (value.isascii() and value.isdecimal() and int(value) > 0):
        return value
    raise click.BadParameter(f"{value!r}; expected the number of a line, or none")


@dataclass(frozen=True)
class FileOptions:
    """How a data file is read: each field is the option of its name."""

    delimiter: str | None = field(
        default=None,
        metadata={"callback": _delimiter, "help": f"Between values of CSV: {' '.join(DELIMITERS)}, or another sign."},
    )
    decimal: str | None = field(
        default=None, metadata={"type": click.Choice([".", ","]), "help": "Decimal mark of CSV."}
    )
    encoding: str | None = field(default=None, metadata={"help": "Of CSV: utf-8, cp1252, utf-16 …"})
    header: str | None = field(
        default=None, metadata={"callback": _header, "help": "The line that names the columns of CSV, or none."}
    )
    skip_rows: int | None = field(
        default=None,
        metadata={"type": click.IntRange(0), "help": "Leave out this many lines before the first row, such as units."},
    )
    names: str = field(
        default="", metadata={"metavar": "NAME,…", "help": "Names of all columns, in place of CSV's own."}
    )
    leave_out: tuple[str, ...] = field(
        default=(), metadata={"multiple": True, "metavar": "COLUMN", "help": "Do not use this column; repeatable."}
    )
    on_bad_row: str = field(
        default="stop",
        metadata={
            "type": click.Choice(["stop", "skip"]),
            "show_default": True,
            "help": "At a row that cannot be used: stop, or skip it and count.",
        },
    )

    only: tuple[str, ...] = ()  # columns to use alone: an option of the simulation, where all others are features

    @property
    def chosen(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON has it."""
        values = {each.name: (getattr(self, each.name), each.default) for each in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, (value, usual) in values.items()
            if value != usual
        }

    @property
    def given(self) -> Given:
        """What is said of how CSV is written."""
        return Given(self.delimiter, self.decimal, self.encoding, self.header, self.skip_rows)


def file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options; `take_file_options` takes them from what click hands on."""
    for each in (each for each in reversed(fields(FileOptions)) if each.metadata):
        option = f"--{each.name.replace('_', '-')}"
        command = click.option(option, each.name, default=each.default, **each.metadata)(command)
    return command


def take_file_options(given: dict[str, Any]) -> FileOptions:
    """Take the options of `file_options` out of what a command was given."""
    return FileOptions(**{each.name: given.pop(each.name, each.default) for each in fields(FileOptions)})


def data_files(text: str) -> list[Path]:
    """Return the file of this name, or the files that a pattern such as machines/*.csv names.

    Raises:
        SettingError: there is none.
    """
    found = [Path(text)] if Path(text).exists() else [Path(name) for name in sorted(glob.glob(text))]
    if not found or any(path.is_dir() for path in found):
        what = "is a folder" if found else "does not exist"
        raise SettingError(
            f"file {text!r} {what}; expected a file of data, or a pattern in quotes such as 'folder/*.csv'"
        )
    return found
