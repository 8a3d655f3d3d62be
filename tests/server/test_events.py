"""The event stream tells of each entry once and in order, whoever dies or returns meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from catena.audit.folder import LogFolder
from catena.formats import eventstream
from catena.server import events
from catena.server.app import build_app
from catena.server.feed import Feed
from catena.server.logevent import log_id
from catena.server.tokens import token_hash
from catena.service.views import SecretRequest
from server.live import *  # noqa: F403 - fixtures
from server.live import Running, end, lifetime, start
from service.fixtures import make_server

PATH = "/v1/admin/events"
SECONDS = 20


@dataclass
class Stream:
    """A client, written from the specification's parsing rules (WHATWG HTML, section 9.2.6)."""

    response: httpx.Response
    lines: Iterator[str] = field(init=False)
    comments: int = 0

    def __post_init__(self) -> None:
        assert self.response.status_code == 200, self.response.read()
        assert self.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        self.lines = self.response.iter_lines()

    def event(self) -> dict:
        """The next event; StopIteration at the stream's end."""
        fields: dict[str, str] = {}
        for line in self.lines:
            if not line:
                if "data" in fields:
                    return {**fields, "data": json.loads(fields["data"])}
                fields = {}
            elif line.startswith(":"):
                self.comments += 1
            else:
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
        raise StopIteration

    def rest(self, *broken: type[Exception]) -> list[dict]:
        """Until the stream ends, or breaks in one of these ways."""
        found = []
        with contextlib.suppress(StopIteration, *broken):
            while True:
                found.append(self.event())
        return found

    def events(self, count: int) -> list[dict]:
        return [self.event() for _ in range(count)]


@contextlib.contextmanager
def listening(running: Running, last: str | None = None, query: str = "") -> Iterator[Stream]:
    headers = {"authorization": f"Bearer {running.token}"}
    if last is not None:
        headers["last-event-id"] = last
    with running.http() as http:
        http.timeout = SECONDS
        with http.stream("GET", PATH + query, headers=headers) as response:
            yield Stream(response)


def put(running: Running, *names: str) -> None:
    headers = {"authorization": f"Bearer {running.token}"}
    with running.http() as http:
        for name in names:
            body = {"roles": ["web"], "value": "eA=="}
            answer = http.put(f"/v1/admin/secrets/{name}", json=body, headers=headers)
            assert answer.status_code == 200, answer.text


def secrets(found: list[dict]) -> list[str]:
    return [one["data"]["entry"]["secret"] for one in found]


CHANGES = "?kinds=secret-change"


def test_a_listener_hears_of_each_entry_as_it_is_logged(running):
    with listening(running, query=CHANGES) as stream:
        put(running, "a", "b")
        found = stream.events(2)
        put(running, "c")
        found.append(stream.event())
    assert secrets(found) == ["a", "b", "c"]
    assert [one["event"] for one in found] == ["secret-change"] * 3
    for one in found:
        assert one["id"] == f"{log_id('acme.example/log')}-{one['data']['index']}"
        assert one["data"]["origin"] == "acme.example/log"
        assert one["data"]["summary"].startswith("secret ")


def test_the_whole_log_is_told_from_its_beginning(running):
    put(running, "a")
    with listening(running, query="?from=0") as stream:
        assert [one["data"]["index"] for one in stream.events(4)] == list(range(4))


def test_who_returns_misses_nothing_and_sees_nothing_twice(running):
    """The client leaves, and the server is killed; both come back."""
    put(running, "a", "b", "c")
    with listening(running, query=CHANGES + "&from=0") as stream:
        found = stream.events(2)
    put(running, "d")
    with listening(running, found[-1]["id"], CHANGES) as stream:
        found += stream.events(1)
        running.process.kill()
        found += stream.rest(httpx.RemoteProtocolError, httpx.ReadError)
    running.process.wait()
    again = start(running.folder, "--listen", f"127.0.0.1:{running.port}")
    try:
        assert again.stdout.readline().startswith("catena trust service")
        put(running, "e")
        with listening(running, found[-1]["id"], CHANGES) as stream:
            while secrets(found)[-1] != "e":
                found.append(stream.event())
    finally:
        again.kill()
        again.communicate()
    assert secrets(found) == ["a", "b", "c", "d", "e"]


def test_another_server_with_the_same_log_goes_on_where_one_stopped(tmp_path, keys, postgresql):
    settings = {"database": postgresql.new_database(), "log": "database:"}
    first = make_server(tmp_path / "first", keys, **settings)
    shutil.copytree(first.folder, tmp_path / "second")
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(contextlib.contextmanager(lifetime)(first))
        process = start(tmp_path / "second")
        stack.callback(process.communicate)
        stack.callback(process.kill)
        url = process.stdout.readline().split()[4].rstrip(",")
        other = Running(process, url, tmp_path / "second", running.token)
        put(running, "a", "b")
        with listening(running, query=CHANGES + "&from=0") as stream:
            found = [stream.event()]
        with listening(other, found[-1]["id"], CHANGES) as stream:
            found.append(stream.event())
            put(running, "c")  # the first one writes, the other one tells
            found.append(stream.event())
    assert secrets(found) == ["a", "b", "c"]


def test_streams_end_cleanly_and_soon_when_the_server_ends(running):
    with listening(running) as stream:
        running.process.send_signal(signal.SIGTERM)
        stream.rest()
        status, errors = end(running.process)
    assert status == 0
    lines = [json.loads(line) for line in errors.splitlines()]
    (line,) = (one for one in lines if one.get("path") == PATH)
    assert (line["status"], line["code"]) == (200, None)
    assert line["ms"] < 8000  # well before uvicorn would have cut it off


@pytest.mark.parametrize("running", [{"max_listeners": 1}], indirect=True)
def test_listeners_are_bounded_and_give_their_place_back(running):
    headers = {"authorization": f"Bearer {running.token}"}
    with running.http() as http:
        with listening(running, query="?from=0") as stream:
            stream.event()
            answer = http.get(PATH, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (503, "too-many-listeners")
        for _ in range(100):
            with http.stream("GET", PATH, headers=headers) as answer:
                if answer.status_code == 200:
                    break
        else:
            pytest.fail("the place was not given back")


LOG = log_id("acme.example/log")
REFUSED = [
    ({}, "?kinds=nothing", 400, "bad-query"),
    ({}, "?kinds=", 400, "bad-query"),
    ({}, "?from=-1", 400, "bad-query"),
    ({}, "?since=1", 400, "bad-query"),
    ({"last-event-id": "x"}, "", 400, "bad-event-id"),
    ({"last-event-id": ""}, "", 400, "bad-event-id"),
    ({"last-event-id": "7"}, "", 400, "bad-event-id"),
    ({"last-event-id": f"{LOG}-01"}, "", 400, "bad-event-id"),
    ({"last-event-id": f"{LOG}-{'1' * 19}"}, "", 400, "bad-event-id"),
    ({"last-event-id": f"{'0' * 16}-1"}, "", 409, "events-of-another-log"),
    ({"last-event-id": f"{LOG}-999"}, "", 409, "events-ahead"),
    ({}, "?from=999", 409, "events-ahead"),
    ({"authorization": "Bearer no"}, "", 401, "unauthenticated"),
]


@pytest.mark.parametrize(("headers", "query", "status", "code"), REFUSED)
def test_what_makes_no_sense_is_refused(api, headers, query, status, code):
    headers = {"authorization": f"Bearer {api.server.token}", **headers}
    answer = api.http.get(PATH + query, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


class Client:
    """Drives the application itself, so that a test decides when it takes what is sent."""

    def __init__(self, server, lines: list[str] | None = None) -> None:
        opened = server.opened
        key = server.service.setting.journal.public_key
        log = LogFolder(opened.folder / opened.config.log)
        self.feed = Feed(log, key, opened.config.log_origin, 1)
        write = (lines if lines is not None else []).append
        self.app = build_app(server.service, opened.config, write, log=log, feed=self.feed)
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "method": "GET",
            "path": PATH,
            "query_string": b"",
            "headers": [(b"authorization", f"Bearer {server.token}".encode())],
        }

    async def run(self, send) -> None:
        async def receive():
            await asyncio.Event().wait()

        async with asyncio.timeout(SECONDS):
            await self.app(self.scope, receive, send)


def test_silence_is_filled_with_comments(server, monkeypatch):
    monkeypatch.setattr(events, "HEARTBEAT", 0.0)
    client, sent = Client(server), []

    async def send(message) -> None:
        sent.append(message.get("body"))
        if sent.count(eventstream.HEARTBEAT) == 2:
            client.feed.stop()

    asyncio.run(client.run(send))
    assert sent[1] == b"retry: 2000\n\n"
    assert sent[-1] == b""


def test_a_token_that_was_removed_ends_its_stream(server, monkeypatch):
    monkeypatch.setattr(events, "HEARTBEAT", 0.0)
    lines: list[str] = []
    client, bodies = Client(server, lines), []

    async def send(message) -> None:
        bodies.append(message.get("body"))
        if bodies.count(eventstream.HEARTBEAT) == 1:
            with server.opened.database.transaction() as rows:
                rows.tokens.remove(token_hash(server.token))

    asyncio.run(client.run(send))
    assert bodies[-1] == b""
    assert json.loads(lines[-1])["code"] == "unauthenticated"
    assert client.feed._free == 1


def test_who_does_not_take_what_is_sent_loses_its_place(server, monkeypatch):
    monkeypatch.setattr(events, "STALL", 0.05)
    lines: list[str] = []
    client = Client(server, lines)

    async def send(message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    asyncio.run(client.run(send))
    assert json.loads(lines[-1])["code"] == "stalled-listener"
    assert client.feed._free == 1


def test_an_append_wakes_a_listener_at_once(server, monkeypatch):
    monkeypatch.setattr("catena.server.events.LOOK", SECONDS * 2)
    client, bodies = Client(server), []
    server.opened.log.on_publish(client.feed.wake)

    def write() -> None:
        server.service.secrets.put("a", SecretRequest(roles=("web",), value=b"x"), "admin")

    async def send(message) -> None:
        bodies.append(message.get("body", b""))
        if bodies[-1].startswith(b"retry"):
            threading.Timer(0.3, write).start()
        if b"secret-change" in bodies[-1]:
            client.feed.stop()

    asyncio.run(client.run(send))


@pytest.mark.parametrize("data", [b"a\nb", b"a\rb"])
def test_an_event_cannot_hold_another_one(data):
    with pytest.raises(ValueError, match="line end"):
        eventstream.event("1", "verdict", data)
