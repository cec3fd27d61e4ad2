"""What the page may change, with BOARD_ACTIONS=on: a version of the global model may be made the current one again."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Annotated

import msgspec

from fedstream.errors import StackError
from fedstream.messages.rounds import GlobalModel, RunId, VersionNumber

MOST_BYTES = 1000  # of a request
TOKEN = "x-board-token"


class Wish(msgspec.Struct, forbid_unknown_fields=True):
    """A rollback that somebody has confirmed on the page."""

    run_id: Annotated[RunId, msgspec.Meta(min_length=1)]
    version: VersionNumber


class Actions:
    """Does what the board's own page asks for, one thing at a time.

    The page has a token of this process. A page of another origin cannot read it, nor send its header here.
    """

    def __init__(self, roll_back: Callable[[str, int], GlobalModel]) -> None:
        """Take what rolls back to a run's version, and choose the token."""
        self.token = secrets.token_urlsafe(32)
        self._roll_back = roll_back
        self._lock = threading.Lock()

    def refuse(self, headers: Mapping[str, str]) -> str:
        """Return why a request with these headers is not one of the board's own page; nothing if it is."""
        origin = headers.get("origin", "")
        if origin not in (f"http://{headers.get('host')}", f"https://{headers.get('host')}"):
            return f"Origin is {origin!r:.100}; expected the board's own"
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return "expected a request of the board's own page"
        if headers.get("content-type", "").partition(";")[0] != "application/json":
            return "expected application/json"
        if not secrets.compare_digest(headers.get(TOKEN, "").encode(), self.token.encode()):
            return "the token is not that of this board: it was started anew; load the page again"
        return ""

    def answer(self, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        """Do what a request asks for; return its status and text."""
        if reason := self.refuse(headers):
            return 403, reason
        try:
            wish = msgspec.json.decode(body, type=Wish)
        except msgspec.DecodeError as error:
            return 400, f"{error}"
        if not self._lock.acquire(blocking=False):
            return 409, "another rollback is on its way; wait for it"
        try:
            model = self._roll_back(wish.run_id, wish.version)
        except StackError as error:
            return 503, error.message
        finally:
            self._lock.release()
        return 200, json.dumps({"version": model.version})
