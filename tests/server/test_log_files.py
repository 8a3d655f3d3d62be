"""The log as it is served: exactly its files, to those who may read them."""

from __future__ import annotations

import pytest

from catena.audit.folder import LogFolder
from catena.audit.receipt import prove
from catena.server.log_reader import BadLogAddress, LogUnreachable, UrlReader

OWN = object()


def get(api, path, token=OWN):
    token = api.server.token if token is OWN else token
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return api.http.request("GET", path, headers=headers)


def test_checkpoint_and_tiles_are_served(api):
    opened = api.server.opened
    folder = opened.folder / opened.config.log
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name == "checkpoint" or (name.startswith("tile/") and path.is_file()):
            answer = get(api, f"/log/{name}")
            assert (answer.status_code, answer.content) == (200, path.read_bytes())
            fresh = answer.headers["cache-control"] == "no-cache"
            assert fresh == (name == "checkpoint")


@pytest.mark.parametrize(
    "name",
    [
        "lock",
        "tile/0/999",
        "tile/0/0",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile//checkpoint",
        "tile/%2e%2e/checkpoint",
        "../server.toml",
        "%2e%2e/server.toml",
        "checkpoint/",
        "",
        "tile/entries/x000/000",
    ],
)
def test_nothing_else_is_served(api, name):
    answer = get(api, f"/log/{name}")
    assert answer.status_code == 404
    assert answer.json()["code"] in {"no-such-tile", "no-such-route"}


@pytest.mark.parametrize("token", [None, "catena_wrong"])
def test_reading_takes_a_token(api, token):
    answer = get(api, "/log/checkpoint", token)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


@pytest.mark.parametrize("url", ["log", "ftp://x/log", "https://x/log?y", "https://x/#"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(BadLogAddress):
        UrlReader(url)


def test_a_server_that_is_not_there_is_told():
    with UrlReader("http://127.0.0.1:9/log") as reader, pytest.raises(LogUnreachable):
        reader.read("checkpoint", 100)


def test_the_served_log_is_the_one_on_disk(api):
    opened = api.server.opened

    class Served:
        def read(self, name, limit):
            answer = get(api, f"/log/{name}")
            return answer.content[: limit + 1] if answer.status_code == 200 else None

    key = opened.service.setting.journal.public_key
    assert get(api, "/log/checkpoint").status_code == 200  # the first read is an entry, too
    local = prove(LogFolder(opened.folder / opened.config.log), "0", key)
    assert prove(Served(), "0", key) == local
