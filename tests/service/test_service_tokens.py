"""Tokens: made with an end and a scope, listed without a value, withdrawn at once, logged first."""

from __future__ import annotations

import pytest

from catena.audit.log import LogUnwritable
from catena.service.bearer import token_hash
from catena.service.pseudonyms import ReservedName
from catena.service.roles import Right, Role
from catena.service.tokens import (
    LabelTaken,
    LastAdmin,
    TokenTooLong,
    UnknownToken,
    UselessScope,
)
from catena.service.views import TokenRequest
from service.fixtures import listed

HOUR = 3600


def request(label="alice", role=Role.OPERATOR, scope=(), expires_in=HOUR) -> TokenRequest:
    return TokenRequest(label=label, role=role, scope=scope, expires_in=expires_in)


def token_entries(server):
    return [one for one in server.entries() if one.kind == "admin-token"]


def test_a_token_is_made_with_an_entry_and_kept_as_a_hash(server):
    made = server.service.tokens.create(request(scope=(Right.NODES_READ,)), "admin")
    entry = token_entries(server)[-1]
    assert (server.name(entry.actor), server.name(entry.label)) == ("admin", "alice")
    assert entry.action == "created"
    assert (entry.role, entry.scope) == ("operator", ("nodes:read",))
    assert entry.token_sha256 == token_hash(made.token)
    assert (entry.expires - server.clock()).total_seconds() == HOUR
    assert made.view.id == entry.token_sha256[:16]
    stored = (server.folder / "catena.db").read_bytes()
    stored += (server.folder / "catena.db-wal").read_bytes()
    assert made.token.encode() not in stored


def test_the_list_has_no_token_in_it_and_says_what_has_ended(server):
    made = server.service.tokens.create(request(), "admin")
    found = {one.label: one for one in listed(server.service.tokens)}
    assert set(found) == {"admin", "alice"}
    assert (found["admin"].expires_at, found["alice"].expired) == (None, False)
    assert made.token not in str(found)
    server.clock.pass_(HOUR)
    assert {one.label: one.expired for one in listed(server.service.tokens)} == {
        "admin": False,
        "alice": True,
    }


def test_a_use_is_remembered(server):
    made = server.service.tokens.create(request(), "admin")
    assert made.view.last_used is None
    server.service.uses.note("admin", "alice", "operator", token_hash(made.token))
    (alice,) = (one for one in listed(server.service.tokens) if one.label == "alice")
    assert alice.last_used == f"{server.clock():%Y-%m-%dT%H:%M:%SZ}"


def test_two_valid_tokens_do_not_share_a_label_but_an_ended_one_gives_it_back(server):
    server.service.tokens.create(request(), "admin")
    with pytest.raises(LabelTaken):
        server.service.tokens.create(request(), "admin")
    server.clock.pass_(HOUR)
    server.service.tokens.create(request(), "admin")


@pytest.mark.parametrize("label", ["server", "unknown", "ab" * 32])
def test_nobody_is_called_as_entries_call_others(server, label):
    before = server.kinds()
    with pytest.raises(ReservedName):
        server.service.tokens.create(request(label=label), "admin")
    assert server.kinds() == before


def test_no_token_lives_longer_than_the_server_allows(server):
    server.service.tokens.create(request(expires_in=365 * 86_400), "admin")
    with pytest.raises(TokenTooLong):
        server.service.tokens.create(request("bob", expires_in=365 * 86_400 + 1), "admin")


@pytest.mark.parametrize(
    ("role", "scope"),
    [
        (Role.VIEWER, (Right.LOG_READ,)),
        (Role.AUDITOR, (Right.LOG_READ, Right.NODES_WRITE)),
        (Role.ADMIN, (Right.TOKENS_WRITE,)),
    ],
)
def test_a_scope_beyond_the_role_is_refused_and_so_is_making_tokens(server, role, scope):
    before = server.kinds()
    with pytest.raises(UselessScope):
        server.service.tokens.create(request(role=role, scope=scope), "admin")
    assert server.kinds() == before


def test_removal_by_label_and_by_id(server):
    alice = server.service.tokens.create(request(), "admin").view
    bob = server.service.tokens.create(request("bob"), "admin").view
    (gone,) = server.service.tokens.remove("alice", "admin")
    assert gone == alice
    (gone,) = server.service.tokens.remove(bob.id, "admin")
    assert gone == bob
    assert [(server.name(one.label), one.action) for one in token_entries(server)[1:]] == [
        ("alice", "created"),
        ("bob", "created"),
        ("alice", "removed"),
        ("bob", "removed"),
    ]
    for name in ("alice", bob.id, "", "0"):
        with pytest.raises(UnknownToken):
            server.service.tokens.remove(name, "admin")


def test_the_last_token_that_makes_tokens_stays(server):
    scoped = request("scoped", Role.ADMIN, (Right.NODES_READ,))
    server.service.tokens.create(scoped, "admin")
    server.service.tokens.create(request("brief", Role.ADMIN), "admin")
    server.clock.pass_(HOUR)
    with pytest.raises(LastAdmin):
        server.service.tokens.remove("admin", "admin")
    server.service.tokens.create(request("second", Role.ADMIN), "admin")
    server.service.tokens.remove("admin", "admin")


def test_nothing_is_made_or_withdrawn_that_cannot_be_logged(server):
    server.service.tokens.create(request(), "admin")
    server.opened.log.close()
    with pytest.raises(LogUnwritable):
        server.service.tokens.create(request("bob"), "admin")
    with pytest.raises(LogUnwritable):
        server.service.tokens.remove("alice", "admin")
    assert {one.label for one in listed(server.service.tokens)} == {"admin", "alice"}
