from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from audit_samples import ORIGIN, sample_entry

from catena.audit.leaf import seal_entry
from catena.audit.log import TransparencyLog
from catena.cli.main import run
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key, public_pem
from served import served


@pytest.fixture(scope="session")
def signer():
    return PrivateKeySigner(generate_key(KeyAlgorithm.ED25519))


@pytest.fixture(scope="session")
def stranger():
    return PrivateKeySigner(generate_key(KeyAlgorithm.ED25519))


@pytest.fixture
def folder(tmp_path):
    """Where the log will be: in memory if possible, because each append waits for its disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path / "log"
        return
    with tempfile.TemporaryDirectory(dir=memory) as place:
        yield Path(place) / "log"


@pytest.fixture
def log(folder, signer):
    opened = TransparencyLog.create(folder, ORIGIN, signer)
    yield opened
    opened.close()


@pytest.fixture
def key(tmp_path, signer):
    """A file with the log's public key."""
    path = tmp_path / "log.pub"
    path.write_bytes(public_pem(signer.public_key))
    return str(path)


@pytest.fixture
def url(folder):
    """The log, behind HTTP."""
    with served(folder) as address:
        yield address


@pytest.fixture
def answer(capsys):
    """Exit code and what was printed as JSON."""

    def call(*words):
        capsys.readouterr()
        code = run([*map(str, words), "-o", "json"])
        return code, json.loads(capsys.readouterr().out)

    return call


@pytest.fixture(scope="session")
def sealed(signer):
    """Entries of several kinds, as many as asked for, the same ones every time."""
    cache: list[bytes] = []

    def make(count: int) -> list[bytes]:
        while len(cache) < count:
            cache.append(seal_entry(signer, sample_entry(len(cache))))
        return cache[:count]

    return make
