"""Texts of messages that people see: one line, without anything that a terminal would obey."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

# Control characters, line breaks, and signs that turn the line around or cannot be seen.
UNSEEN = r"\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
NAMED = "[A-Za-z0-9][A-Za-z0-9._-]*"  # no letters of other alphabets: some look like these
Name = Annotated[str, Meta(pattern=rf"^{NAMED}(?![\s\S])")]
Line = Annotated[str, Meta(pattern=rf"^(?![\s\S]*[{UNSEEN}])")]


def printable(text: str) -> str:
    r"""Return a text as one line: what cannot be printed, such as an escape of a terminal, is written out.

    Example:
        >>> printable("fog-1\x1b[2J")
        'fog-1\\x1b[2J'
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
