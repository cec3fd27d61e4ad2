"""The board in a real browser: its own server on a port of its own, fed with recorded topics, and Debian's Chromium."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from fedstream.board.actions import Actions
from fedstream.board.app import Newest, host_names, make_app
from fedstream.board.follow import Follower, Place, Row
from fedstream.board.state import Board
from fedstream.settings import Settings
from tests.board.followed import make_known, make_log
from tests.board.recorded import play

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that makes the README's picture."""
    parser.getgroup("board").addoption("--picture", action="store_true", help="write docs/img/board.png anew")


class Server:
    """The board on a port; it can be ended and started again."""

    def __init__(self) -> None:
        """Take a port and the two recorded snapshots, the second one three seconds and a round later."""
        self.first, self.second = play(Board(Settings()))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.actions: Actions | None = None
        self.url = f"http://localhost:{self.port}"
        self.start()
        self.newest.publish(self.first)

    def start(self) -> None:
        """Serve, in a thread, and return when it answers."""
        self.newest = Newest(Settings())
        self.log, self.known = make_log(), make_known()
        app = make_app(self.newest, host_names(""), "local", time.time, follow=self.follow, actions=self.actions)
        self._server = uvicorn.Server(
            uvicorn.Config(app, host="127.0.0.1", port=self.port, log_level="error", lifespan="off", ws="none")
        )
        self._thread = threading.Thread(target=asyncio.run, args=(self._server.serve(),), daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self._server.started and time.monotonic() < deadline:
            self._thread.join(0.01)
        assert self._server.started

    def follow(self, place: Place) -> Row:
        """Follow a record on topics of its own."""
        return Follower(place, self.log, self.known, Settings()).follow()

    def stop(self) -> None:
        """End it, with all its connections."""
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def server() -> Iterator[Server]:
    """Return a board that shows the first snapshot."""
    server = Server()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Return Chromium; without it the tests are skipped, but in CI, which installs it, they fail."""
    if not CHROMIUM.exists():
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(f"no {CHROMIUM}; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser, server: Server) -> Iterator[BrowserContext]:
    """Return a window of the browser; a request that leaves the origin, or an error of the page, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB", timezone_id="UTC")
    foreign: list[str] = []
    errors: list[str] = []
    context.on("request", lambda request: request.url.startswith(server.url) or foreign.append(request.url))
    context.on("weberror", lambda error: errors.append(str(error.error)))
    yield context
    context.close()
    assert foreign == []
    assert errors == []


@pytest.fixture
def page(context: BrowserContext, server: Server) -> Page:
    """Return the page, when its first numbers are there."""
    return open_page(context, server, "")


def open_page(context: BrowserContext, server: Server, where: str) -> Page:
    """Open the board at an address below its own and wait for its first numbers."""
    page = context.new_page()
    page.goto(f"{server.url}/{where}")
    page.wait_for_selector("#live.good")
    page.wait_for_selector("main section:not([hidden]) :is(table, svg, article, li)")
    return page
