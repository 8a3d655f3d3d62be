"""The bytes of a secret are nowhere in what a whole run writes, in no encoding."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest

from catena.server.storagekeys import make_storage_key
from server.live import *  # noqa: F403 - fixtures
from server.live import Running, end
from swtpm import needs_swtpm

pytestmark = [needs_swtpm, pytest.mark.tpm]

VALUE = b"\xf0\x9f\x94\x91 the-quick/brown+fox?jumps\x00over\xff the lazy dog, thrice"
SIGNIFICANT = 24
"""So many bytes of it in a row are found, too."""


def encodings(value: bytes) -> Iterator[tuple[str, bytes]]:
    """How the value, or a long part of its middle, could be written down."""
    part = value[8 : 8 + SIGNIFICANT]
    yield "as it is", part
    yield "hexadecimal", part.hex().encode()
    yield "HEXADECIMAL", part.hex().upper().encode()
    yield "percent", quote_from_bytes(part, safe="").encode()
    yield "escaped", ascii(part)[2:-1].encode()
    yield "UTF-16", part.decode("latin-1").encode("utf-16-le")
    yield "backwards", part[::-1]
    for shift in range(3):
        whole = value[shift : shift + (len(value) - shift) // 3 * 3]
        for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            yield f"{name} at {shift}", encode(whole)[12 : 12 + SIGNIFICANT]


def found(content: bytes, where: object) -> list[str]:
    return [f"{name} in {where}" for name, form in encodings(VALUE) if form in content]


def catena(running: Running, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "catena.cli.main", *words, *running.options]
    return subprocess.run(command, input=given, capture_output=True, timeout=120, check=False)


def test_each_form_would_be_found():
    for name, form in encodings(VALUE):
        assert found(b"x" + form + b"y", "text"), name
    assert found(b"{" + base64.b64encode(b"ab" + VALUE) + b"}", "text")
    assert not found(os.urandom(10_000), "noise")


def test_a_whole_run_writes_a_secret_nowhere(trusting_running, machine):
    running = trusting_running
    told: list[tuple[str, bytes]] = []

    def run(*words: str, given: bytes = b"", code: int = 0) -> bytes:
        done = catena(running, *words, given=given)
        assert done.returncode == code, done.stderr
        told.append((f"stderr of {words}", done.stderr))
        if words[:2] != ("secret", "get"):
            told.append((f"stdout of {words}", done.stdout))
        return done.stdout

    run("secret", "put", "db", "--role", "web", given=VALUE)
    run("secret", "put", "db", "--role", "not a role", given=VALUE, code=14)
    run("secret", "put", "NO/NAME", "--role", "web", given=VALUE, code=3)
    with running.http() as http:
        call = running.call(http)
        machine.enrol(call)
        machine.attest(call)
        run("reference", "capture", machine.node_id, "--name", "ovmf", "--yes")
        run("node", "approve", machine.node_id, "--name", "n1", "--role", "web")
        (sealed,) = machine.attest(call).secrets
        assert machine.open(sealed) == VALUE
    assert run("secret", "get", "db") == VALUE
    kek = make_storage_key(running.folder, os.urandom).stem.removeprefix("storage-")
    run("secret", "rekey", kek)
    run("secret", "show", "db", "-o", "json")
    run("node", "revoke", "n1", "--reason", "end of the test")
    run("secret", "rotation", "-o", "json")
    arguments = Path(f"/proc/{running.process.pid}/cmdline").read_bytes()
    told.append(("the server's arguments", arguments))
    # Killed, so that SQLite's write-ahead log is there as it is between two checkpoints.
    assert (running.folder / "catena.db-wal").stat().st_size
    running.process.send_signal(signal.SIGKILL)
    told.append(("the server's stderr", end(running.process)[1].encode()))
    files = [path for path in running.folder.rglob("*") if path.is_file()]
    assert {"catena.db", "catena.db-wal"} < {path.name for path in files}
    leaks = [leak for path in files for leak in found(path.read_bytes(), path.name)]
    leaks += [leak for where, content in told for leak in found(content, where)]
    assert leaks == []
