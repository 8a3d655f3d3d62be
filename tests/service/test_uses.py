"""Reading is audited: the use of a token is in the log once an hour, before the first answer."""

from __future__ import annotations

import pytest

from catena.audit.log import LogUnwritable
from catena.service.uses import PERIOD

TOKEN = "a" * 64


def uses(server):
    return [one for one in server.entries() if one.kind in {"admin-sign-in", "log-read"}]


def test_a_token_is_noted_once_an_hour_for_each_purpose(server):
    note = server.service.uses.note
    for _ in range(3):
        note("admin", "alice", "admin", TOKEN)
        note("log", "alice", "admin", TOKEN)
    note("log", "bob", "viewer", "b" * 64)
    assert [(one.kind, server.name(one.actor)) for one in uses(server)] == [
        ("admin-sign-in", "alice"),
        ("log-read", "alice"),
        ("log-read", "bob"),
    ]
    server.clock.pass_(PERIOD.total_seconds() - 1)
    note("admin", "alice", "admin", TOKEN)
    assert len(uses(server)) == 3
    server.clock.pass_(1)
    note("admin", "alice", "admin", TOKEN)
    last = uses(server)[-1]
    assert last.summary() == f"{last.actor[:19]}… (admin) signed in"
    assert last.label == last.actor


def test_a_use_that_cannot_be_logged_is_refused_each_time(server):
    server.opened.log.close()
    for _ in range(2):
        with pytest.raises(LogUnwritable):
            server.service.uses.note("admin", "alice", "admin", TOKEN)
