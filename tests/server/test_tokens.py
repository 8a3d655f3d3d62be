from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest

from catena.server.faults import ExpiredToken, Forbidden, Unauthenticated
from catena.server.tokens import authenticate, require
from catena.service.bearer import new_token, token_hash
from catena.service.roles import Right, Role
from catena.store.credentials import Token

NOW = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def stored(token: str, role: Role = Role.ADMIN) -> Token:
    return Token(hash=token_hash(token), role=role, label="t", created_at=NOW)


def test_tokens_have_256_random_bits_and_a_prefix_for_scanners():
    assert new_token(os.urandom) != new_token(os.urandom)
    assert new_token(bytes) == "catena_" + "A" * 43


def test_the_right_token_is_found_among_several():
    tokens = [stored("a"), stored("b"), stored("c")]
    assert authenticate("Bearer b", tokens, NOW) is tokens[1]
    assert authenticate("bearer b", tokens, NOW) is tokens[1]


@pytest.mark.parametrize(
    "header", [None, "", "b", "Bearer", "Bearer B", "Basic b", "Bearer " + "b" * 9999]
)
def test_anything_else_is_refused(header):
    with pytest.raises(Unauthenticated):
        authenticate(header, [stored("b")], NOW)


def test_no_token_is_ever_valid_on_an_empty_list():
    with pytest.raises(Unauthenticated):
        authenticate("Bearer b", [], NOW)


def test_a_role_that_nobody_knows_may_do_nothing():
    require(stored("a", Role.ADMIN), Right.NODES_READ)
    for role in ("ADMIN", "root", "", "admin "):
        with pytest.raises(Forbidden):
            require(Token(hash="", role=role, label="", created_at=NOW), Right.NODES_READ)


def test_a_token_ends_at_its_moment_and_says_so():
    token = Token(
        hash=token_hash("a"), role=Role.ADMIN, label="t", created_at=NOW, expires_at=NOW + HOUR
    )
    assert authenticate("Bearer a", [token], NOW + HOUR - timedelta(microseconds=1)) is token
    with pytest.raises(ExpiredToken):
        authenticate("Bearer a", [token], NOW + HOUR)


def test_a_scope_narrows_a_role_and_never_widens_it():
    token = Token(
        hash="", role=Role.VIEWER, label="", created_at=NOW, scope=("nodes:read", "log:read")
    )
    require(token, Right.NODES_READ)
    for right in set(Right) - {Right.NODES_READ}:
        with pytest.raises(Forbidden):
            require(token, right)


def test_a_scope_of_rights_that_nobody_knows_opens_nothing():
    token = Token(hash="", role=Role.ADMIN, label="", created_at=NOW, scope=("everything",))
    for right in Right:
        with pytest.raises(Forbidden):
            require(token, right)
