"""Lists come in pages whose links lead through everything once, whatever comes or goes meanwhile."""

from __future__ import annotations

import base64
import json
from datetime import timedelta

import httpx
import pytest

from catena.server.app import OPERATIONS
from catena.server.client import AdminClient, UnreadableAnswer
from catena.service.pages import MAX_PAGE, PageRequest, whole
from catena.service.views import SecretRequest, TokenRequest
from catena.store.nodes import Node
from catena.store.people import StoredPerson
from service.fixtures import START, listed
from service.vendor import Authority, request

PAGED = [one.path for one in OPERATIONS if one.query is PageRequest]


def node(number: int, seconds: int = 0) -> Node:
    return Node(
        id=f"{number:064x}",
        state="pending",
        ek_public=b"ek",
        ak_public=b"ak",
        ek_root="vendor:Acme",
        mode="approve",
        enrolled_at=START + timedelta(seconds=seconds),
    )


def insert(api, *nodes: Node) -> None:
    with api.server.opened.database.transaction() as rows:
        for one in nodes:
            rows.nodes.insert(one)


def get(api, path: str) -> httpx.Response:
    answer = api.http.get(path, headers={"authorization": f"Bearer {api.server.token}"})
    assert answer.status_code == 200, answer.text
    return answer


def following(answer: httpx.Response) -> str | None:
    return answer.links["next"]["url"] if "next" in answer.links else None


def walk(api, path: str, between=lambda: None) -> list[dict]:
    found, pages = [], 0
    while path is not None:
        answer = get(api, path)
        found += answer.json()
        path, pages = following(answer), pages + 1
        between()
        assert pages < 50
    return found


@pytest.mark.parametrize("limit", [1, 2, 3, 7, MAX_PAGE])
def test_pages_hold_every_node_once_and_in_order(api, limit):
    # Some enrolled in the same instant: then the id decides.
    insert(api, *(node(number, seconds=number // 3) for number in (6, 3, 5, 4, 1, 2, 0)))
    whole = get(api, "/v1/admin/nodes").json()
    assert [int(one["id"], 16) for one in whole] == [0, 1, 2, 3, 4, 5, 6]
    assert walk(api, f"/v1/admin/nodes?limit={limit}") == whole


def test_rows_that_come_or_go_meanwhile_hide_and_repeat_no_other(api):
    insert(api, *(node(number, seconds=number) for number in range(10, 16)))
    coming = iter([node(20, seconds=20), node(1, seconds=1), node(2, seconds=2)])

    def between() -> None:
        if (one := next(coming, None)) is not None:
            insert(api, one)

    found = [int(one["id"], 16) for one in walk(api, "/v1/admin/nodes?limit=2", between)]
    assert found == [10, 11, 12, 13, 14, 15, 20]


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_secrets_come_in_pages_by_name_in_their_newest_version(api, limit):
    for name in ("b", "a", "d", "c", "a"):
        api.server.service.secrets.put(name, SecretRequest(roles=("web",), value=b"x"), "admin")
    api.server.service.secrets.remove("d", "admin")
    found = walk(api, f"/v1/admin/secrets?limit={limit}")
    assert [(one["name"], one["version"]) for one in found] == [("a", 2), ("b", 1), ("c", 1)]


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_references_come_before_the_rules_that_are_shipped(api, boot, limit):
    api.server.import_references(boot)
    found = walk(api, f"/v1/admin/references?limit={limit}")
    kinds = [one["kind"] for one in found]
    assert set(kinds[:2]) == {"keyset", "release"}
    assert set(kinds[2:]) == {"quirk"}
    assert len({one["sha256"] for one in found}) == len(found)
    assert found == get(api, f"/v1/admin/references?limit={MAX_PAGE}").json()


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_endorsements_come_in_pages_by_their_acceptance(api, limit):
    for name in ("b", "a"):
        twins = (Authority(name).der for _ in range(2))
        api.server.service.endorsements.accept(request(*twins), "admin")
        api.server.clock.pass_(1)
    found = walk(api, f"/v1/admin/endorsements?limit={limit}")
    assert [one["name"] for one in found] == ["b", "b", "a", "a"]
    assert len({one["sha256"] for one in found}) == 4


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_people_come_in_pages_by_name(api, limit):
    for number, name in enumerate(("oidc:carol", "alice", "bob", 'oidc:d"\\' + "e" * 110)):
        with api.server.opened.database.transaction() as rows:
            rows.people.insert(
                StoredPerson(pseudonym=f"person:{number}", salt=b"s" * 16, name=name)
            )
    found = [one["name"] for one in walk(api, f"/v1/admin/people?limit={limit}")]
    assert found == sorted({*found, "alice", "bob", "oidc:carol"})
    assert len(found) >= 4


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_tokens_come_in_pages_oldest_first(api, limit):
    # Made in the same instant: then the hash decides, and none is left out.
    for name in ("c", "a", "b"):
        token = TokenRequest(label=name, role="viewer", expires_in=3600)
        api.server.service.tokens.create(token, "admin")
    found = [one["label"] for one in walk(api, f"/v1/admin/tokens?limit={limit}")]
    assert sorted(found) == ["a", "admin", "b", "c", "eve"]
    assert whole(api.server.service.tokens.page) == listed(api.server.service.tokens)


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize("path", PAGED)
@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "%20",
        "a" * 512,
        encoded([]),
        encoded([1, 2]),
        encoded(["2026-01-01T00:00:00", "a"]),
        encoded({}),
        encoded(["a", "b", "c", "d"]),
        encoded([None, None, -1]),
        encoded("a") + "=",
    ],
)
def test_a_cursor_that_no_page_gave_is_refused(api, path, cursor):
    answer = api.admin("GET", f"{path.removeprefix('/v1/admin')}?cursor={cursor}")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad-cursor")


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        f"limit={MAX_PAGE + 1}",
        "limit=x",
        "limit=null",
        "cursor=Null",
        "limit=",
        "limit=1.5",
        "limit=1&limit=2",
        "offset=3",
        "cursor=",
        f"cursor={'a' * 513}",
        "Limit=2",
    ],
)
@pytest.mark.parametrize("path", PAGED)
def test_wrong_parameters_are_refused(api, path, query):
    answer = api.admin("GET", f"{path.removeprefix('/v1/admin')}?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad-query")


def test_parameters_where_there_are_none_are_refused(api):
    answer = api.admin("GET", "/policy?limit=3")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad-query")
    answer = api.http.post("/v1/nonce?x=y", content=b"{}")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad-query")


def test_the_command_line_follows_all_pages(api, monkeypatch):
    insert(api, *(node(number, seconds=number) for number in range(5)))
    monkeypatch.setattr("catena.server.client.MAX_PAGE", 2)
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path.decode())
        found = get(api, asked[-1])
        return httpx.Response(200, headers=found.headers, content=found.content)

    with AdminClient(client(answer)) as admin:
        assert [int(one.id, 16) for one in admin.nodes()] == [0, 1, 2, 3, 4]
    assert len(asked) == 3


def client(answer) -> httpx.Client:
    return httpx.Client(transport=httpx.MockTransport(answer), base_url="https://server.example")


@pytest.mark.parametrize(
    "link",
    [
        "</v1/admin/secrets?cursor=a>",
        "<https://other.example/v1/admin/nodes?cursor=a>",
        "</v1/admin/nodes?limit=500>",
    ],
)
def test_pages_that_lead_elsewhere_or_in_a_circle_are_not_followed(link):
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"link": f'{link}; rel="next"'}, content=b"[]")

    with AdminClient(client(answer)) as admin, pytest.raises(UnreadableAnswer):
        admin.nodes()
