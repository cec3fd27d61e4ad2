"""The board over HTTP: the page, its parts, /api/state, /api/follow, /stream, /metrics and /healthz.

Nothing can be changed here, unless there are actions: then /api/rollback.
"""

from __future__ import annotations

import asyncio
import html
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedstream.board.actions import MOST_BYTES, Actions
from fedstream.board.follow import Place, read_place
from fedstream.board.metrics import make_registry
from fedstream.board.state import LISTS, UNSHOWN, Board
from fedstream.board.streams import Row
from fedstream.errors import StackError
from fedstream.settings import Settings

STATIC = Path(__file__).parent / "static"
KINDS = {".js": "text/javascript", ".css": "text/css", ".json": "application/json", ".svg": "image/svg+xml"}
LANGUAGES = ("en", "fr")
MOST_CLIENTS = 20
HEARTBEAT_SECONDS = 10.0
SEND_SECONDS = 10.0  # a client that takes nothing for so long is dropped
SILENT_SECONDS = 30.0  # without a snapshot for so long the board is not well
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


ROLLBACK = "/api/rollback"


class Guard:
    """Lets requests through that are meant for this machine, and puts the same headers on every answer.

    They are GET requests; with actions a POST may go to /api/rollback.

    A page of another origin may make a browser ask under a name of its own that leads to 127.0.0.1 (DNS rebinding); it
    cannot make it send one of our names.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str], posts: frozenset[str]) -> None:
        """Take the names that this machine has, and the paths to which a POST may go."""
        self._app, self._hosts, self._posts = app, hosts, posts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1003})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        answer: ASGIApp = self._app
        if len(hosts) != 1 or re.sub(r":\d+$", "", hosts[0]).lower() not in self._hosts:
            expected = f"expected one of {', '.join(sorted(self._hosts))}: set PUBLIC_HOST in .env"
            text = f"Host is {hosts!r:.100}; {expected}\n"
            answer = PlainTextResponse(text, 421)
        elif scope["method"] != (expected := "POST" if scope["path"] in self._posts else "GET"):
            text = f"{scope['method']:.20} is not allowed; expected {expected}\n"
            answer = PlainTextResponse(text, 405, {"Allow": expected})
        await answer(scope, receive, guarded)


class Newest:
    """The newest snapshot, and those who wait for the next one."""

    def __init__(self, settings: Settings) -> None:
        """Begin with a snapshot of nothing."""
        self.snapshot: Row = Board(settings).snapshot(0.0)
        self.state = b""
        self.clients = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next = asyncio.Event()

    def publish(self, snapshot: Row) -> None:
        """Take the next snapshot; called from the feed's thread."""
        state = msgspec.json.encode({name: value for name, value in snapshot.items() if name not in (*LISTS, *UNSHOWN)})
        self.snapshot, self.state = snapshot, state
        if self._loop:
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        waiting, self._next = self._next, asyncio.Event()
        waiting.set()

    async def wait(self) -> bool:
        """Wait for the next snapshot; tell whether it came in time."""
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(self._next.wait(), HEARTBEAT_SECONDS)
        except TimeoutError:
            return False
        return True


class Stream:
    """Answers with the state, and with each new one: an endless answer of server-sent events.

    Of the lists only those rows are sent that a client does not have yet. There is no queue: a slow client gets what is
    newest when it is ready again.
    """

    def __init__(self, newest: Newest) -> None:
        """Take where the snapshots come from."""
        self._newest = newest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one client until it goes."""
        if self._newest.clients >= MOST_CLIENTS:
            await PlainTextResponse(f"{MOST_CLIENTS} pages are open already; close one\n", 503)(scope, receive, send)
            return
        self._newest.clients += 1
        gone = asyncio.create_task(_gone(receive))
        try:
            headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            seen = dict.fromkeys(LISTS, 0)
            text = b"retry: 2000\n\n"
            while not gone.done():
                text += self._news(seen)
                body: Message = {"type": "http.response.body", "body": text, "more_body": True}
                await asyncio.wait_for(send(body), SEND_SECONDS)
                waiting = asyncio.create_task(self._newest.wait())
                await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                text = b": still here\n\n"
        except (TimeoutError, OSError):
            pass  # it has gone, or takes nothing
        finally:
            gone.cancel()
            self._newest.clients -= 1

    def _news(self, seen: dict[str, int]) -> bytes:
        if not self._newest.state:
            return b""
        text = b""
        for name in LISTS:
            rows = [row for row in self._newest.snapshot[name] if row["number"] > seen[name]]
            if rows:
                seen[name] = max(row["number"] for row in rows)
                text += b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(rows))
        return text + b"event: state\ndata: %s\n\n" % self._newest.state


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def texts(language: str) -> dict[str, str]:
    """Return the texts of the page in a language, by their keys."""
    found: dict[str, str] = json.loads((STATIC / f"{language}.json").read_text(encoding="utf-8"))
    return found


def pick_language(request: Request) -> str:
    """Return the language that is asked for: by ?lang=, else by the browser's list; English where neither is known."""
    accepted = request.headers.get("accept-language", "").lower().split(",")
    wanted = [request.query_params.get("lang", ""), *(part.strip()[:2] for part in accepted)]
    return next((each for each in wanted if each in LANGUAGES), LANGUAGES[0])


def make_app(
    newest: Newest,
    hosts: frozenset[str],
    runner: str = "local",
    clock: Callable[[], float] = time.time,
    targets: Callable[[list[str]], list[Row]] = lambda _: [],
    follow: Callable[[Place], Row] = lambda _: {},
    actions: Actions | None = None,
) -> ASGIApp:
    """Return the application.

    Args:
        newest: where the feed puts its snapshots.
        hosts: the names under which this machine is asked.
        runner: how the stack was started, docker or local: which commands the page shows.
        clock: the time, s since 1970.
        targets: what Prometheus is to ask of Spark while some jobs run.
        follow: what became of the record at a place; it may raise a StackError.
        actions: what the page may change; None: nothing.
    """
    registry = make_registry(lambda: newest.snapshot)
    shell = (STATIC / "index.html").read_text(encoding="utf-8")

    def page(request: Request) -> Response:
        language = pick_language(request)
        words = texts(language) | {"lang": language, "runner": runner, "token": actions.token if actions else ""}
        filled = re.sub(r"\{\{(\S+?)\}\}", lambda found: html.escape(words[found[1]]), shell)
        return Response(filled, media_type="text/html", headers={"Vary": "Accept-Language"})

    def static(request: Request) -> Response:
        path = STATIC / request.path_params["name"]
        if path.suffix not in KINDS or path.parent != STATIC or not path.is_file():
            return PlainTextResponse("no such file\n", 404)
        return Response(path.read_bytes(), media_type=KINDS[path.suffix])

    def state(request: Request) -> Response:
        shown = {name: value for name, value in newest.snapshot.items() if name not in UNSHOWN}
        return Response(msgspec.json.encode(shown), media_type="application/json")

    def followed(request: Request) -> Response:
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return PlainTextResponse("this is work: only the board's own page may ask for it\n", 403)
        try:
            place = read_place(*(request.query_params.get(name, "") for name in Place._fields))
            return Response(msgspec.json.encode(follow(place)), media_type="application/json")
        except ValueError as error:
            return PlainTextResponse(f"{error}\n", 400)
        except StackError as error:
            return PlainTextResponse(f"{error.message}\n", 503)

    def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def spark_targets(request: Request) -> Response:
        kinds = {row["name"]: row["trouble"] and row["trouble"]["kind"] for row in newest.snapshot["jobs"]}
        jobs = [job for job, kind in kinds.items() if kind in (None, "stalled")]  # a driver that says something answers
        return Response(msgspec.json.encode(targets(jobs)), media_type="application/json")

    def healthz(request: Request) -> Response:
        age = clock() - newest.snapshot["at"]
        if age > SILENT_SECONDS:
            return PlainTextResponse(json.dumps({"trouble": "nothing was read yet, or not for 30 s"}), 503)
        return PlainTextResponse(json.dumps({"age_seconds": age}), media_type="application/json")

    async def rollback(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MOST_BYTES:
                return PlainTextResponse(f"the request is too long; expected at most {MOST_BYTES} bytes\n", 413)
        assert actions is not None
        status, text = await run_in_threadpool(actions.answer, request.headers, body)
        return PlainTextResponse(text, status)

    routes = [
        Route("/", page),
        Route("/static/{name}", static),
        Route("/api/state", state),
        Route("/api/follow", followed),
        Route("/stream", Stream(newest)),
        Route("/metrics", metrics),
        Route("/prometheus/targets", spark_targets),
        Route("/healthz", healthz),
    ]
    if actions:
        routes.append(Route(ROLLBACK, rollback, methods=["POST"]))
    return Guard(Starlette(routes=routes), hosts, frozenset({ROLLBACK} if actions else ()))


def host_names(public_host: str) -> frozenset[str]:
    """Return the names under which this machine may be asked."""
    return frozenset({"localhost", "127.0.0.1", "[::1]", "board", public_host.lower()} - {""})
