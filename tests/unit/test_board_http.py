"""The board over HTTP: what it answers, and to whom."""

from __future__ import annotations

import asyncio
import json
import re

import httpx
import pytest

from fedstream.board import app
from fedstream.board.actions import Actions
from fedstream.board.app import Newest, host_names, make_app
from fedstream.board.state import Board
from fedstream.errors import StackError
from fedstream.messages.rounds import global_model
from fedstream.settings import Settings
from tests.board.recorded import NOW, play

SETTINGS = Settings()
ANSWER_SECONDS = 5


class Client:
    """Asks an application without a network."""

    def __init__(self, application, base):
        self._transport, self._base = httpx.ASGITransport(application), base

    def request(self, method, path, **options):
        async def ask():
            async with httpx.AsyncClient(transport=self._transport, base_url=self._base) as client:
                # Without its guard /stream would answer for ever.
                return await asyncio.wait_for(client.request(method, path, **options), ANSWER_SECONDS)

        return asyncio.run(ask())

    def get(self, path, **options):
        return self.request("GET", path, **options)


@pytest.fixture
def newest():
    newest = Newest(SETTINGS)
    newest.publish(next(play(Board(SETTINGS))))
    return newest


@pytest.fixture
def client(newest):
    return Client(make_app(newest, host_names("lab.example"), clock=lambda: NOW + 1.0), "http://localhost:8090")


PATHS = (
    "/",
    "/static/board.js",
    "/api/state",
    "/api/follow",
    "/metrics",
    "/prometheus/targets",
    "/healthz",
    "/nothing",
    "/stream",
)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "", "localhost@evil.example"]
)
def test_a_page_of_another_name_gets_nothing(client, path, host):
    answer = client.get(path, headers={"Host": host})
    assert answer.status_code == 421
    assert "PUBLIC_HOST" in answer.text


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8090", "127.0.0.1:8090", "[::1]:8090", "LAB.example", "board:8090"]
)
def test_the_names_of_this_machine_are_answered(client, host):
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_prometheus_is_told_of_the_jobs_whose_drivers_speak_also_of_one_that_is_not_well(newest):
    kinds = {"fog-1": None, "fog-2": "silent", "cloud": "stalled", "squares": "ended", "alerts": "failed"}
    jobs = [{"name": name, "trouble": kind and {"kind": kind, "seconds": 1.0}} for name, kind in kinds.items()]
    newest.publish(newest.snapshot | {"jobs": jobs})
    application = make_app(newest, host_names(""), targets=lambda names: [{"targets": names}])
    answer = Client(application, "http://localhost:8090").get("/prometheus/targets")
    assert answer.json() == [{"targets": ["fog-1", "cloud"]}]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE"])
def test_nothing_but_get_is_allowed(client, path, method):
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/stream"])
def test_every_answer_forbids_what_the_page_does_not_need(client, path):
    headers = client.get(path, headers={"Origin": "http://evil.example"}).headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert not [name for name in headers if name.startswith("access-control-")]


@pytest.mark.parametrize("name", ["../app.py", "..%2Fapp.py", "%2e%2e/app.py", "index.html", "nothing.js", "app.py"])
def test_no_other_file_is_served(client, name):
    assert client.get(f"/static/{name}").status_code == 404


@pytest.mark.parametrize(
    ("query", "accepted", "language"),
    [
        ("", "fr-FR,fr;q=0.9,en;q=0.8", "fr"),
        ("", "de, en-GB;q=0.7", "en"),
        ("", "de", "en"),
        ("?lang=fr", "en", "fr"),
        ("?lang=en", "fr", "en"),
        ("?lang=xx", "fr", "fr"),
    ],
)
def test_the_page_speaks_the_language_that_was_asked_for(client, query, accepted, language):
    page = client.get(f"/{query}", headers={"Accept-Language": accepted}).text
    assert f'<html lang="{language}">' in page
    assert "{{" not in page


def test_the_state_is_the_snapshot(client, newest):
    state = client.get("/api/state").json()
    hidden = {"gaps", "micro_batches"}
    assert state == json.loads(json.dumps({k: v for k, v in newest.snapshot.items() if k not in hidden}))
    assert (state["schema_version"], state["run"]["round"]) == (1, 3)


def test_the_metrics_are_in_the_format_of_prometheus(client):
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert '\nfedstream_topic_records_total{topic="sensor-data-node-1"} 2000.0\n' in answer.text
    assert "process_resident_memory_bytes" in answer.text


def test_a_board_that_has_read_nothing_lately_is_not_well(newest):
    for now, status in ((NOW + 29, 200), (NOW + 31, 503)):
        late = Client(make_app(newest, host_names(""), clock=lambda now=now: now), "http://localhost")
        assert late.get("/healthz").status_code == status
    empty = Client(make_app(Newest(SETTINGS), host_names("")), "http://localhost")
    assert empty.get("/healthz").status_code == 503


PLACE = "/api/follow?topic=t&partition=0&offset=7"


def test_a_record_is_followed_by_its_place(newest):
    app = make_app(newest, host_names(""), follow=lambda place: {"place": str(place)})
    client = Client(app, "http://localhost")
    assert client.get(PLACE).json() == {"place": "t[0]@7"}
    answer = client.get("/api/follow?topic=t&partition=0")
    assert (answer.status_code, answer.text) == (400, "offset is ''; expected a whole number of at least 0\n")
    assert client.get(PLACE, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    for site in ("cross-site", "same-site"):  # a page of another origin makes no work here
        assert client.get(PLACE, headers={"Sec-Fetch-Site": site}).status_code == 403


WISH = {"run_id": "run-a", "version": 7}


class Cloud:
    """Takes rollbacks as the cloud does."""

    def __init__(self):
        """Begin without any."""
        self.asked = []

    def __call__(self, run_id, version):
        self.asked.append((run_id, version))
        if version == 99:
            raise StackError("there is no version 99")
        return global_model(run_id, 12, 11, {}, restored_from=version)


@pytest.fixture
def cloud():
    return Cloud()


@pytest.fixture
def acting(newest, cloud):
    """Return a client of a board with actions, and the headers that its own page sends."""
    client = Client(make_app(newest, host_names(""), actions=Actions(cloud)), "http://localhost:8090")
    token = re.search(r'data-token="([\w-]{40,})"', client.get("/").text)[1]
    headers = {"Origin": "http://localhost:8090", "Sec-Fetch-Site": "same-origin", "X-Board-Token": token}
    return client, headers


def test_with_actions_the_boards_own_page_rolls_back(acting, cloud):
    client, headers = acting
    answer = client.request("POST", "/api/rollback", headers=headers, json=WISH)
    assert (answer.status_code, answer.json(), cloud.asked) == (200, {"version": 11}, [("run-a", 7)])
    answer = client.request("POST", "/api/rollback", headers=headers, json=WISH | {"version": 99})
    assert (answer.status_code, answer.text) == (503, "there is no version 99")


@pytest.mark.parametrize(
    ("header", "value"),
    [
        *(
            ("Origin", each)
            for each in ("http://evil.example", "null", "", "http://localhost", "http://localhost:8091")
        ),
        *(("Sec-Fetch-Site", each) for each in ("cross-site", "same-site", "none")),
        *(("X-Board-Token", each) for each in ("", "x" * 43, "é")),
        *(("Content-Type", each) for each in ("text/plain", "application/x-www-form-urlencoded", "")),
    ],
)
def test_nobody_else_rolls_back(acting, cloud, header, value):
    client, headers = acting
    headers |= {"Content-Type": "application/json", header: value.encode()}
    answer = client.request("POST", "/api/rollback", headers=headers, content=json.dumps(WISH))
    assert (answer.status_code, cloud.asked) == (403, [])


@pytest.mark.parametrize(
    "wish",
    ["{}", "x", '{"run_id":"","version":1}', '{"run_id":"r","version":-1}', '{"run_id":"r","version":1,"more":2}'],
)
def test_a_wish_that_is_none_is_refused(acting, cloud, wish):
    client, headers = acting
    headers |= {"Content-Type": "application/json"}
    assert client.request("POST", "/api/rollback", headers=headers, content=wish).status_code == 400
    assert client.request("POST", "/api/rollback", headers=headers, content="x" * 1001).status_code == 413
    assert cloud.asked == []


def test_with_actions_nothing_else_is_allowed_either(acting):
    client, headers = acting
    for path in PATHS:
        assert client.request("POST", path, headers=headers, json=WISH).status_code == 405
    assert client.get("/api/rollback").status_code == 405
    assert client.request("POST", "/api/rollback", headers=headers | {"Host": "evil.example"}).status_code == 421


def test_without_actions_there_is_no_rollback_and_no_token(client):
    assert client.request("POST", "/api/rollback", json=WISH).status_code == 405
    assert 'data-token=""' in client.get("/").text
    assert client.get("/api/rollback").status_code == 404


def test_a_record_that_cannot_be_followed_now_is_told(newest):
    def follow(place):
        raise StackError("Kafka does not answer")

    answer = Client(make_app(newest, host_names(""), follow=follow), "http://localhost").get(PLACE)
    assert (answer.status_code, answer.text) == (503, "Kafka does not answer\n")


class Reader:
    """A client of /stream, without a network."""

    def __init__(self, newest):
        self.app = make_app(newest, host_names(""))
        self.sent: asyncio.Queue = asyncio.Queue()
        self.gone = asyncio.Event()

    async def run(self):
        headers = [(b"host", b"localhost")]
        scope = {"type": "http", "method": "GET", "path": "/stream", "headers": headers, "query_string": b""}
        await self.app(scope, self.receive, self.sent.put)

    async def receive(self):
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def events(self):
        body = (await asyncio.wait_for(self.sent.get(), 5))["body"].decode()
        parts = [part.split("\n") for part in body.split("\n\n") if part.startswith("event: ")]
        return {part[0].removeprefix("event: "): json.loads(part[1].removeprefix("data: ")) for part in parts}


def test_the_stream_sends_all_at_once_and_then_only_what_is_new(newest):
    async def read():
        reader = Reader(newest)
        task = asyncio.create_task(reader.run())
        start = await reader.sent.get()
        assert (start["status"], newest.clients) == (200, 1)
        first = await reader.events()
        assert [row["round"] for row in first["rounds"]] == [1, 2]
        assert [len(first[name]) for name in ("letters", "events")] == [2, 2]
        assert first["state"]["run"]["round"] == 3
        later = list(play(Board(SETTINGS)))[1]  # round 3 has closed
        await asyncio.sleep(0)  # it waits for the next snapshot now
        newest.publish(later)
        second = await reader.events()
        assert [row["round"] for row in second["rounds"]] == [3]
        assert second.keys() == {"rounds", "state"}
        reader.gone.set()
        await asyncio.wait_for(task, 5)
        assert newest.clients == 0

    asyncio.run(read())


def test_one_page_too_many_is_told_so(newest):
    newest.clients = app.MOST_CLIENTS
    client = Client(make_app(newest, host_names("")), "http://localhost")
    answer = client.get("/stream")
    assert (answer.status_code, newest.clients) == (503, app.MOST_CLIENTS)


def test_a_client_that_takes_nothing_is_dropped(newest, monkeypatch):
    monkeypatch.setattr(app, "SEND_SECONDS", 0.01)

    async def read():
        reader = Reader(newest)
        reader.sent = asyncio.Queue(maxsize=1)  # the head of the answer fits, nothing more
        await asyncio.wait_for(reader.run(), 5)
        assert newest.clients == 0

    asyncio.run(read())


def test_the_whole_page_is_small(client):
    shell = client.get("/")
    files = {
        "board.css",
        "board.js",
        "page.js",
        "picture.js",
        "charts.js",
        "cards.js",
        "follow.js",
        "fr.json",
        "icon.svg",
    }
    assert len(shell.content) + sum(len(client.get(f"/static/{name}").content) for name in files) <= 100_000
