"""``/readyz``: says no as soon as the server cannot decide, names the part, and cannot be used for load."""

from __future__ import annotations

import asyncio
import time

import pytest

from catena.audit.storage import LogUnwritable
from catena.server import readiness
from catena.server.app import build_app
from catena.server.readiness import DRAINING, Readiness, of_server
from catena.store.errors import DatabaseGone
from server.conftest import *  # noqa: F403 - fixtures


class Ticks:
    time = 0.0

    def __call__(self):
        return self.time


def ask(server, found):
    import httpx

    async def once():
        app = build_app(server.service, server.opened.config, lambda _: None, readiness=found)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="https://x") as client:
            return await client.get("/readyz")

    return asyncio.run(once())


def test_a_whole_server_is_ready(server):
    answer = ask(server, of_server(server.service, server.opened.log))
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


def test_a_log_that_takes_nothing_and_a_database_that_is_gone_are_named(server, monkeypatch):
    found = of_server(server.service, server.opened.log)
    server.opened.log.close()
    server.opened.database.close()
    (server.folder / "catena.db").rename(server.folder / "gone")
    (server.folder / "catena.db").mkdir()
    server.clock.pass_(3600)
    answer = ask(server, found)
    assert answer.status_code == 503
    problem = answer.json()
    assert problem["code"] == "not-ready"
    assert problem["detail"] == (
        "database: database-gone, log: log-unwritable, policy: database-gone"
    )
    (server.folder / "catena.db").rmdir()
    (server.folder / "gone").rename(server.folder / "catena.db")


def test_a_policy_that_nobody_signed_is_named(server):
    from sqlalchemy import text

    with server.opened.database._engine.begin() as connection:
        connection.execute(text("INSERT INTO policies VALUES (1, 'x', 'y', x'00', 5, 'eve')"))
    server.clock.pass_(3600)
    answer = ask(server, of_server(server.service, server.opened.log))
    assert answer.json()["detail"] == "policy: tampered-policy"


def test_a_log_whose_last_append_is_unclear_is_ready_once_it_could_be_repeated(server, monkeypatch):
    log = server.opened.log
    monkeypatch.setattr("os.fdatasync", fail)
    with pytest.raises(LogUnwritable):
        log.append([b"entry"])
    with pytest.raises(LogUnwritable):
        log.require_writable()
    monkeypatch.undo()
    log.require_writable()


def fail(*_):
    raise OSError(5, "Input/output error")


def test_an_answer_is_kept_for_a_moment():
    calls, clock = [], Ticks()

    async def many():
        found = Readiness({"x": lambda: calls.append(1)}, clock)
        await asyncio.gather(*(found.look() for _ in range(50)))
        clock.time = readiness.FRESH / 2
        await found.look()
        assert len(calls) == 1
        clock.time = readiness.FRESH
        await found.look()
        assert len(calls) == 2

    asyncio.run(many())


def test_a_part_that_does_not_answer_fails(monkeypatch):
    monkeypatch.setattr(readiness, "PATIENCE", 0.05)

    async def once():
        return await Readiness({"x": lambda: time.sleep(0.5)}).look()

    (one,) = asyncio.run(once()).failing
    assert (one.part, one.code) == ("x", "no-answer")


def test_details_stay_inside():
    def gone():
        raise DatabaseGone("password=hunter2", got="hunter2")

    def broken():
        raise KeyError("hunter2")

    report = asyncio.run(Readiness({"a": gone, "b": broken}).look())
    assert [one.code for one in report.failing] == ["database-gone", "internal"]
    assert "hunter2" not in repr(report)


def test_a_server_that_drains_is_not_ready_whatever_was_found():
    async def once():
        found = Readiness({"x": lambda: None})
        assert (await found.look()).is_ready
        found.drain()
        return await found.look()

    assert asyncio.run(once()) == DRAINING
    assert not DRAINING.is_ready
