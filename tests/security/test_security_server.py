"""Attacks on the server's door: memory, malformed requests of people and machines."""

from __future__ import annotations

import asyncio
import threading

import httpx
import msgspec
import pytest
from anyio import CapacityLimiter
from starlette.applications import Starlette

from appraise.forged import ecc_public, key
from catena.formats.nodeapi import ErrorBody, NonceRequest, NonceResponse
from catena.server import routing
from catena.server.answer import Desk
from catena.server.body import BodyReader
from catena.server.operation import Operation, Parts
from catena.store.nodes import Node, Reenrolment
from service.fixtures import START

BODY = msgspec.json.encode(NonceRequest(node_id="ab" * 32))
WAIT = 10.0


def test_bodies_that_wait_for_a_worker_count_against_the_budget():
    started, go_on = threading.Event(), threading.Event()

    def slow(*_) -> NonceResponse:
        started.set()
        go_on.wait(WAIT)
        return NonceResponse(nonce=b"", expires_in=0)

    desk = Desk(BodyReader(len(BODY), len(BODY), 5), CapacityLimiter(1), print)
    operation = Operation("POST", "/", "Slow", takes=NonceRequest, verb=slow)
    routes = routing.routes([operation], Parts(service=None), desk, admission=None)
    transport = httpx.ASGITransport(Starlette(routes=routes))

    async def two() -> list[int]:
        async with httpx.AsyncClient(transport=transport, base_url="https://x") as client:
            first = asyncio.create_task(client.post("/", content=BODY))
            await asyncio.to_thread(started.wait, WAIT)
            second = asyncio.create_task(client.post("/", content=BODY))
            await asyncio.wait([second], timeout=0.2)
            go_on.set()
            return [(await task).status_code for task in (first, second)]

    assert asyncio.run(two()) == [200, 503]


def test_a_key_that_is_no_digest_is_a_malformed_approval(api):
    node = Node(
        id="aa" * 32,
        name="web-1",
        role="web",
        state="pending",
        ek_public=b"ek",
        ak_public=ecc_public(key(1)),
        ek_root="vendor:Acme",
        mode="approve",
        enrolled_at=START,
        approved_at=START,
    )
    with api.server.opened.database.transaction() as rows:
        rows.nodes.insert(node)
        rows.reenrolments.put(Reenrolment(node_id=node.id, ak_public=ecc_public(key(2)), at=START))
    body = '{"accept_key": "\u00e9"}'.encode()
    response = api.admin("POST", "/nodes/web-1/approval", body)
    assert response.status_code in {400, 409}, response.text


@pytest.mark.parametrize(
    "name",
    ["..", "%2e%2e", "a%2fb", "..%2f..%2fetc%2fpasswd", "%00", "a%0ab", "-a", "A", "a" * 129],
)
def test_no_secret_has_a_name_that_leaves_its_folder(api, name):
    body = b'{"roles": ["web"], "value": "eA=="}'
    response = api.admin("PUT", f"/secrets/{name}", body)
    assert response.status_code in {400, 404, 405}
    assert msgspec.json.decode(response.content, type=ErrorBody).code in {
        "bad-secret-name",
        "no-such-route",
        "wrong-method",
    }
    assert api.admin("GET", "/secrets").json() == []


def test_no_error_of_an_admin_call_repeats_the_token_or_the_value(api):
    token = api.server.token
    value = b"Y29ycmVjdCBob3JzZQ=="
    for method, path, body in (
        ("PUT", "/secrets/db", b'{"roles": [], "value": "' + value + b'"}'),
        ("PUT", "/secrets/db", b'{"roles": ["web"], "value": "' + value),
        ("PUT", "/secrets/D B", b'{"roles": ["web"], "value": "' + value + b'"}'),
        ("POST", "/references", value),
    ):
        response = api.admin(method, path, body)
        assert response.status_code >= 400
        assert value.decode() not in response.text
        assert token not in response.text
    assert token not in "".join(api.lines)
    assert value.decode() not in "".join(api.lines)


def test_many_malformed_requests_leave_no_entry_in_the_log(api):
    """Whoever is nobody can neither fill the log nor the database."""
    before = api.server.kinds()
    for path in ("/v1/enroll", "/v1/enroll/activate", "/v1/nonce", "/v1/attest"):
        for body in (b"", b"{}", b"[" * 50_000, b'{"ticket": 1}', b"null"):
            assert api.http.post(path, content=body).status_code == 400
    assert api.server.kinds() == before
