"""A whole run in which everything secret is used; none of it is in what the server wrote."""

from __future__ import annotations

import base64
import json
import signal

import msgspec
import pytest

from catena.cli.main import run
from catena.formats.nodeapi import NonceRequest, NonceResponse
from catena.keys.hierarchy import KeyName
from catena.keys.signer import public_pem
from server.live import *  # noqa: F403 - fixtures
from server.live import end, lifetime
from service.fixtures import PASSWORD
from service.machine import Call
from swtpm import needs_swtpm

PASSPHRASE = "the passphrase of a backup"


@pytest.fixture
def chatty(trusting):
    """With every part that writes: metrics, an export that fails, rates that refuse."""
    settings = trusting.folder / "server.toml"
    text = settings.read_text()
    text = text.replace("exports = []", 'exports = ["http http://127.0.0.1:1/x"]')
    settings.write_text(text.replace("rate_address = 4000", "rate_address = 6"))
    yield from lifetime(trusting)


def shapes(secret: bytes) -> set[bytes]:
    """A secret as it might be written: as it is, hex, base64 in both alphabets."""
    return {
        secret,
        secret.hex().encode(),
        base64.b64encode(secret).rstrip(b"="),
        base64.urlsafe_b64encode(secret).rstrip(b"="),
        repr(secret).encode()[2:-1],
    }


@needs_swtpm
@pytest.mark.tpm
def test_nothing_secret_is_written(chatty, machine, tmp_path, keys, capsys):
    folder = chatty.folder
    secrets = {PASSWORD, chatty.token.encode(), PASSPHRASE.encode()}
    for name in ("nonce.key", "storage.key"):
        secrets.add((folder / name).read_bytes())
    for path in (folder / "tls.key", keys.path / "ca.key", keys.path / "log.key"):
        secrets.update(line for line in path.read_bytes().splitlines() if len(line) > 40)
    headers = {"authorization": f"Bearer {chatty.token}"}
    with chatty.http() as http:
        call: Call = chatty.call(http)
        body = msgspec.json.encode({"roles": ["web"], "value": PASSWORD})
        assert http.put("/v1/admin/secrets/db", content=body, headers=headers).status_code == 200
        machine.enrol(call)
        request = NonceRequest(node_id=machine.node_id)
        nonce = call("/v1/nonce", request, NonceResponse).nonce
        secrets.add(nonce)
        machine.attest(call)
        # Secrets where none belong: in paths, queries, headers, broken bodies, wrong tokens.
        stray = "stray-secret-in-a-query"
        secrets.add(stray.encode())
        http.get(f"/v1/admin/nodes?token={stray}", headers=headers)
        http.put("/v1/admin/secrets/x", content=body[:-1], headers=headers)
        http.post("/v1/attest", content=b'{"nonce": "' + base64.b64encode(nonce) + b'"')
        http.get("/v1/admin/nodes", headers={"authorization": f"Bearer {stray}"})
        statuses = [http.get("/v1/admin/nodes", headers=headers).status_code for _ in range(40)]
        assert 429 in statuses
    phrase, key = tmp_path / "phrase", tmp_path / "log.pub"
    phrase.write_text(PASSPHRASE)
    phrase.chmod(0o600)
    key.write_bytes(public_pem(keys.public_key(KeyName.LOG)))
    options = ["--with-keys", "--passphrase-file", str(phrase)]
    assert run(["server", "backup", str(tmp_path / "b"), "--folder", str(folder), *options]) == 0
    assert run(["server", "check", str(folder), "-o", "json"]) in {0, 10}
    chatty.process.send_signal(signal.SIGTERM)
    code, errors = end(chatty.process)
    assert code == 0
    lines = [json.loads(line) for line in errors.splitlines()]  # every line has a structure
    events = {one["event"] for one in lines}
    assert events == {"start", "ready", "request", "fault", "drain", "stop"}
    said = capsys.readouterr()
    written = (errors + said.out + said.err).encode()
    for secret in secrets:
        assert len(secret) >= 8
        for shape in shapes(secret):
            assert shape not in written, shape
