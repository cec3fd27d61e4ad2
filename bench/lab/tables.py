"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

WIDTH = 150


def table(title: str, headings: Iterable[str], rows: Iterable[Iterable[str]], texts: int = 1) -> Table:
    """Return a table; the first columns are text, the others numbers."""
    shown = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    for number, heading in enumerate(headings):
        shown.add_column(heading, justify="left" if number < texts else "right", no_wrap=number < texts)
    for row in rows:
        shown.add_row(*row)
    return shown


def print_wide(console: Console, *tables: Table) -> None:
    """Print tables with room for all their columns, also where the console is narrow or its width is not known."""
    Console(width=max(console.width, WIDTH)).print(*tables)
