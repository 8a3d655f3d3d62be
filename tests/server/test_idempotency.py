"""A write with a key has one effect and one answer, however often and wherever it is repeated."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import msgspec
import pytest

from catena.server.client import PAUSES, STILL_DECIDED, AdminClient, AnswerLost, ServerRefusal
from catena.service.idempotency import (
    KEPT,
    LONGEST,
    Idempotency,
    Keyed,
    KeyReused,
    OutcomeUnknown,
    StillDecided,
    digest_of,
)
from catena.service.vault import UnreadableSecret
from catena.service.views import SecretRequest
from catena.store.database import Database
from catena.store.errors import DatabaseGone
from server.conftest import VIEWER
from server.live import *  # noqa: F403 - fixtures

KEYED = Keyed("ab" * 32, "key-1", digest_of("PUT", "/x", "", b"{}"))
BODY = msgspec.json.encode(SecretRequest(roles=("web",), value=b"x"))
OTHER = msgspec.json.encode(SecretRequest(roles=("web",), value=b"y"))


def put(api, key: str | None = '"k"', body: bytes = BODY, token=None, path="secrets/db"):
    headers = {"authorization": f"Bearer {token or api.server.token}"}
    if key is not None:
        headers["idempotency-key"] = key
    return api.http.request("PUT", f"/v1/admin/{path}", content=body, headers=headers)


def test_a_repeated_write_has_the_same_answer_and_no_second_entry(api):
    first = put(api)
    entries = api.server.kinds()
    again = put(api)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    assert "idempotency-repeated" not in first.headers
    assert again.headers["idempotency-repeated"] == "true"
    assert api.server.kinds() == entries
    assert entries.count("secret-change") == 1


def test_a_key_survives_a_restart(api):
    first = put(api)
    with api.server.opened.database.snapshot() as rows:
        assert rows.kept_answers.get(_hash(api), "k") is not None
    api.server.reopen()
    digest = digest_of("PUT", "/v1/admin/secrets/db", "", BODY)
    keyed = Keyed(_hash(api), "k", digest)
    found = api.server.service.idempotency.once(keyed, pytest.fail)
    assert (found.repeated, found.answer) == (True, first.content)


def _hash(api) -> str:
    with api.server.opened.database.snapshot() as rows:
        return next(one.hash for one in rows.tokens.list() if one.label != "eve")


@pytest.mark.parametrize("other", [{"body": OTHER}, {"path": "secrets/db2"}])
def test_the_same_key_with_another_request_is_refused(api, other):
    assert put(api).status_code == 200
    entries = api.server.kinds()
    answer = put(api, **other)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency-key-reused")
    assert api.server.kinds() == entries


def test_without_a_key_each_request_counts(api):
    assert [put(api, None).json()["version"] for _ in range(2)] == [1, 2]


def test_quotes_do_not_make_another_key(api):
    assert put(api, '"k-1"').json() == put(api, "k-1").json()


@pytest.mark.parametrize(
    "key", ["", '""', '"a', "a b", '"é"'.encode(), '"' + "a" * 129 + '"', "a,b"]
)
def test_a_key_that_is_none_is_refused(api, key):
    answer = put(api, key)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad-idempotency-key")


def test_who_may_not_write_learns_nothing_by_a_key_of_somebody_else(api):
    put(api)
    answer = put(api, token=VIEWER)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_a_refused_request_gives_its_key_back(api):
    assert put(api, body=b"{").status_code == 400
    assert put(api).status_code == 200


def test_answers_are_not_readable_in_the_database(api):
    service = api.server.service.idempotency
    service.once(KEYED, lambda: b'{"token":"catena_SECRET"}')
    assert service.once(KEYED, pytest.fail).answer == b'{"token":"catena_SECRET"}'
    api.server.opened.close()
    for path in api.server.folder.glob("catena.db*"):
        assert b"catena_SECRET" not in path.read_bytes()


def test_an_answer_that_was_moved_to_another_key_does_not_decrypt(server):
    service = server.service.idempotency
    service.once(KEYED, lambda: b"{}")
    server.opened.close()
    with sqlite3.connect(server.folder / "catena.db") as other:
        other.execute("UPDATE idempotent_answers SET key = 'key-2'")
    other.close()
    server.reopen()
    with pytest.raises(UnreadableSecret):
        server.service.idempotency.once(replace(KEYED, key="key-2"), pytest.fail)


def test_a_request_that_is_being_decided_is_a_conflict(server):
    service = server.service.idempotency
    began, go_on = threading.Event(), threading.Event()

    def slow() -> bytes:
        began.set()
        go_on.wait(20)
        return b"{}"

    with ThreadPoolExecutor() as pool:
        first = pool.submit(service.once, KEYED, slow)
        assert began.wait(20)
        with pytest.raises(StillDecided):
            service.once(KEYED, pytest.fail)
        with pytest.raises(KeyReused):
            service.once(replace(KEYED, request_sha256="00" * 32), pytest.fail)
        server.clock.pass_(LONGEST.total_seconds() + 1)
        with pytest.raises(OutcomeUnknown):
            service.once(KEYED, pytest.fail)
        go_on.set()
        assert not first.result(20).repeated
    assert service.once(KEYED, pytest.fail).repeated


def test_a_key_is_forgotten_in_the_end(server):
    service = server.service.idempotency
    service.once(KEYED, lambda: b"1")
    server.clock.pass_(KEPT.total_seconds() - 1)
    assert service.once(KEYED, lambda: b"2").answer == b"1"
    server.clock.pass_(1)
    assert service.once(KEYED, lambda: b"2").answer == b"2"


def test_a_failure_of_ours_gives_the_key_back(server):
    service = server.service.idempotency

    def fails() -> bytes:
        raise DatabaseGone("gone")

    with pytest.raises(DatabaseGone):
        service.once(KEYED, fails)
    assert not service.once(KEYED, lambda: b"{}").repeated


def test_what_took_effect_is_answered_even_if_it_cannot_be_kept(server):
    service = server.service.idempotency

    def breaks_the_table() -> bytes:
        with sqlite3.connect(server.folder / "catena.db") as other:
            other.execute("ALTER TABLE idempotent_answers RENAME TO gone")
        other.close()
        return b"{}"

    assert service.once(KEYED, breaks_the_table).answer == b"{}"


def test_of_two_servers_one_decides(server, postgresql):
    url = postgresql.new_database()
    setting = server.service.setting
    Database.create(url).close()
    databases = [Database.open(url) for _ in range(2)]
    replicas = [Idempotency(msgspec_replace(setting, database)) for database in databases]
    decided = []

    def ask(number: int) -> bytes | None:
        try:
            return replicas[number % 2].once(KEYED, lambda: decided.append(number) or b"{}").answer
        except StillDecided:
            return None

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(ask, range(32)))
    assert len(decided) == 1
    assert answers <= {b"{}", None}
    assert replicas[decided[0] % 2 ^ 1].once(KEYED, pytest.fail).repeated
    for database in databases:
        database.close()


def msgspec_replace(setting, database):
    return replace(setting, database=database)


# The command line --------------------------------------------------------------------------


def admin_client(answer, paused: list[float]) -> AdminClient:
    http = httpx.Client(transport=httpx.MockTransport(answer), base_url="https://server.example")
    return AdminClient(http, random=lambda size: b"\x07" * size, pause=paused.append)


def test_a_lost_answer_is_asked_for_again_with_the_same_key():
    keys, paused = [], []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["idempotency-key"])
        if len(keys) == 1:
            raise httpx.ReadError("reset")
        if len(keys) == 2:
            problem = {"type": f"urn:catena:error:{STILL_DECIDED}", "title": "", "status": 409}
            return httpx.Response(409, json=problem | {"detail": "", "code": STILL_DECIDED})
        return httpx.Response(200, json={"name": "db", "held_by": []})

    with admin_client(answer, paused) as admin:
        assert admin.remove_secret("db").name == "db"
    assert keys == [f'"{"07" * 16}"'] * 3
    assert tuple(paused) == PAUSES[:2]
    assert StillDecided.code == STILL_DECIDED


def test_it_gives_up_in_the_end_and_says_that_it_may_have_taken_effect():
    def answer(_: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError("closed")

    with admin_client(answer, paused := []) as admin, pytest.raises(AnswerLost):
        admin.remove_secret("db")
    assert tuple(paused) == PAUSES


def test_other_refusals_are_not_asked_for_again():
    problem = {"type": "urn:catena:error:name-taken", "title": "", "status": 409}

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(409, json=problem | {"detail": "", "code": "name-taken"})

    with admin_client(answer, paused := []) as admin, pytest.raises(ServerRefusal):
        admin.remove_secret("db")
    assert not paused


class Cut(httpx.HTTPTransport):
    """A network that loses the answer to the first write."""

    cut = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        if request.method != "GET" and not self.cut:
            self.cut += 1
            response.read()
            raise httpx.ReadError("reset", request=request)
        return response


def test_a_real_server_does_once_what_the_command_line_had_to_send_twice(running):
    with running.http() as plain:
        context = plain._transport._pool._ssl_context
    headers = {"authorization": f"Bearer {running.token}"}
    network = Cut(verify=context)
    http = httpx.Client(transport=network, base_url=running.url, headers=headers)
    with AdminClient(http, pause=lambda _: None) as admin:
        view = admin.put_secret("db", SecretRequest(roles=("web",), value=b"x"))
        assert network.cut == 1
        assert view.version == 1
        assert [one.version for one in admin.secrets()] == [1]
