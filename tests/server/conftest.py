from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import msgspec
import pytest

from catena.audit.folder import LogFolder
from catena.server.app import build_app
from catena.server.feed import Feed
from catena.service.bearer import token_hash
from catena.service.roles import Role
from catena.store.credentials import Token
from service.fixtures import *  # noqa: F403 - one set of fixtures for service and server
from service.fixtures import Server

VIEWER = "catena_viewer"


@dataclass
class Http:
    """A synchronous client of an ASGI application, all on one event loop."""

    client: httpx.AsyncClient
    runner: asyncio.Runner

    def request(self, method: str, path: str, **options) -> httpx.Response:
        return self.runner.run(self.client.request(method, path, **options))

    def get(self, path: str, **options) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options) -> httpx.Response:
        return self.request("POST", path, **options)


@dataclass
class Api:
    """The real application over a real service, without a network."""

    server: Server
    http: Http
    lines: list[str]

    def admin(self, method: str, path: str, body=None, token: str | None = None) -> httpx.Response:
        content = msgspec.json.encode(body) if isinstance(body, msgspec.Struct) else body
        headers = {"authorization": f"Bearer {token or self.server.token}"}
        return self.http.request(method, f"/v1/admin{path}", content=content, headers=headers)

    def call(self, path: str, body: msgspec.Struct, kind: type) -> msgspec.Struct:
        """What a node does."""
        response = self.http.post(path, content=msgspec.json.encode(body))
        assert response.status_code == 200, response.text
        return msgspec.json.decode(response.content, type=kind)


def open_api(server: Server) -> Iterator[Api]:
    with server.opened.database.transaction() as rows:
        rows.tokens.insert(
            Token(hash=token_hash(VIEWER), role=Role.VIEWER, label="eve", created_at=server.clock())
        )
    lines: list[str] = []
    opened = server.opened
    log = LogFolder(opened.folder / opened.config.log)
    journal = server.service.setting.journal
    feed = Feed(log, journal.public_key, opened.config.log_origin, opened.config.max_listeners)
    opened.log.on_publish(feed.wake)
    app = build_app(
        server.service, opened.config, lines.append, log=log, people=opened.people, feed=feed
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    client = httpx.AsyncClient(transport=transport, base_url="https://localhost")
    with asyncio.Runner() as runner:
        yield Api(server, Http(client, runner), lines)
        runner.run(client.aclose())


@pytest.fixture
def api(server) -> Iterator[Api]:
    yield from open_api(server)


@pytest.fixture
def trusting_api(trusting) -> Iterator[Api]:
    yield from open_api(trusting)
