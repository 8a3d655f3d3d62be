"""Every operation for every role: who may call it, and who may not."""

from __future__ import annotations

import pytest

from catena.server import admin
from catena.server.app import OPERATIONS
from catena.server.operation import Operation, UnguardedOperation
from catena.server.tokens import token_hash
from catena.service.roles import Role
from catena.store.credentials import Token

ALL = {"viewer", "auditor", "operator", "admin"}
LOOKING = ALL - {"viewer"}
ALLOWED = {
    ("GET", "/nodes"): ALL,
    ("GET", "/nodes/{name}"): ALL,
    ("GET", "/nodes/{name}/explanation"): LOOKING,
    ("POST", "/nodes/{name}/approval"): {"operator", "admin"},
    ("POST", "/nodes/{name}/labels"): {"operator", "admin"},
    ("POST", "/nodes/{name}/revocation"): {"operator", "admin"},
    ("GET", "/nodes/{name}/capture"): LOOKING,
    ("POST", "/captures"): {"admin"},
    ("GET", "/secrets"): LOOKING,
    ("GET", "/secrets/{name}"): LOOKING,
    ("POST", "/secrets/{name}/reading"): {"admin"},
    ("POST", "/rekeying"): {"operator", "admin"},
    ("GET", "/rotation"): LOOKING,
    ("PUT", "/secrets/{name}"): {"operator", "admin"},
    ("DELETE", "/secrets/{name}"): {"operator", "admin"},
    ("GET", "/references"): ALL,
    ("POST", "/references"): {"admin"},
    ("GET", "/references/{name}"): ALL,
    ("GET", "/endorsements"): ALL,
    ("POST", "/endorsements"): {"admin"},
    ("GET", "/endorsements/{name}"): ALL,
    ("DELETE", "/endorsements/{name}"): {"admin"},
    ("GET", "/rejudging"): ALL,
    ("POST", "/pcr-policies"): {"admin"},
    ("GET", "/policy"): ALL,
    ("POST", "/policy"): {"admin"},
    ("POST", "/policy/simulation"): LOOKING,
    ("GET", "/witnesses"): LOOKING,
    ("GET", "/export"): LOOKING,
    ("GET", "/tokens"): {"auditor", "admin"},
    ("POST", "/tokens"): {"admin"},
    ("DELETE", "/tokens/{name}"): {"admin"},
    ("GET", "/people"): {"admin"},
    ("DELETE", "/people/{name}"): {"admin"},
}
"""Written down once more, by hand: what the code's tables come to."""


@pytest.fixture
def tokens(api) -> dict[str, str]:
    """A token of each role."""
    found = {role: f"catena_of_{role}" for role in ALL}
    with api.server.opened.database.transaction() as rows:
        for role, token in found.items():
            stored = Token(
                hash=token_hash(token), role=role, label=role, created_at=api.server.clock()
            )
            rows.tokens.insert(stored)
    return found


def test_every_operation_is_in_the_table_by_hand():
    admins = {(one.method, one.path.removeprefix("/v1/admin")) for one in admin.OPERATIONS}
    assert admins == set(ALLOWED)


def test_only_nodes_and_the_public_ask_without_a_token():
    open_to_all = {one.path for one in OPERATIONS if one.right is None}
    assert open_to_all == {
        "/v1/enroll",
        "/v1/enroll/activate",
        "/v1/nonce",
        "/v1/attest",
        "/v1/demand",
        "/v1/login",
        "/v1/bundle",
        "/healthz",
        "/readyz",
        "/v1/openapi.json",
        "/v1/docs",
        "/v1/crl",
        "/v1/crl/{name}",
        "/log/checkpoint.cosigned",
    }


def test_every_operation_for_every_role(api, tokens):
    for (method, path), allowed in ALLOWED.items():
        for role, token in tokens.items():
            response = api.admin(method, path.replace("{name}", "ab" * 32), b"{", token=token)
            refused = response.status_code == 403 and response.json()["code"] == "forbidden"
            assert refused == (role not in allowed), (method, path, role, response.text)


def test_a_refused_role_leaves_no_trace_of_a_sign_in(api, tokens):
    before = api.server.kinds()
    assert api.admin("GET", "/export", token=tokens["viewer"]).status_code == 403
    assert api.server.kinds() == before


@pytest.mark.parametrize("role", sorted(ALL))
def test_the_log_is_for_those_who_audit(api, tokens, role):
    headers = {"authorization": f"Bearer {tokens[role]}"}
    status = api.http.get("/log/checkpoint", headers=headers).status_code
    assert status == (200 if role in {"auditor", "admin"} else 403)


def test_an_operation_without_a_right_stops_the_server():
    with pytest.raises(UnguardedOperation):
        Operation("GET", "/v1/admin/new", "Something new")


def test_an_auditor_changes_nothing():
    from catena.service.roles import RIGHTS

    assert not [right for right in RIGHTS[Role.AUDITOR] if right.endswith(":write")]
    reading = {right for right in RIGHTS[Role.ADMIN] if not right.endswith(":write")}
    assert reading - RIGHTS[Role.AUDITOR] == {"people:read", "secrets:reveal"}
