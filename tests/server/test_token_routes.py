"""Tokens over HTTP: one that was made opens its doors until it ends or is withdrawn."""

from __future__ import annotations

import msgspec
import pytest

from catena.service.views import NewToken, TokenRequest


def make(api, **options) -> str:
    request = TokenRequest(**{"label": "alice", "role": "auditor", "expires_in": 3600, **options})
    answer = api.admin("POST", "/tokens", request)
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=NewToken).token


def code(answer) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_token_works_until_it_ends_and_then_has_its_own_refusal(api):
    token = make(api)
    assert api.admin("GET", "/tokens", token=token).status_code == 200
    api.server.clock.pass_(3600)
    assert code(api.admin("GET", "/tokens", token=token)) == (401, "token-expired")


def test_a_withdrawn_token_is_as_unknown_as_any(api):
    token = make(api)
    assert [one["label"] for one in api.admin("DELETE", "/tokens/alice").json()] == ["alice"]
    assert code(api.admin("GET", "/nodes", token=token)) == (401, "unauthenticated")


def test_a_scoped_token_does_what_it_is_for_and_nothing_else(api):
    token = make(api, scope=("log:read",))
    headers = {"authorization": f"Bearer {token}"}
    assert api.http.get("/log/checkpoint", headers=headers).status_code == 200
    assert code(api.admin("GET", "/nodes", token=token)) == (403, "forbidden")


def test_no_value_is_in_a_list_or_in_a_line_of_the_servers_own_log(api):
    token = make(api)
    assert token not in api.admin("GET", "/tokens").text
    assert token not in "".join(api.lines)


@pytest.mark.parametrize(
    "body",
    [
        b'{"label": "a/b", "role": "admin", "expires_in": 3600}',
        b'{"label": "a", "role": "root", "expires_in": 3600}',
        b'{"label": "a", "role": "admin", "expires_in": 1}',
        b'{"label": "a", "role": "admin", "expires_in": 4492289749964793381308464422191104}',
        b'{"label": "a", "role": "admin"}',
        b'{"label": "a", "role": "admin", "expires_in": 3600, "scope": ["all"]}',
    ],
)
def test_requests_that_make_no_sense_make_no_token(api, body):
    assert code(api.admin("POST", "/tokens", body)) == (400, "malformed")
    assert len(api.admin("GET", "/tokens").json()) == 2
