"""A server process for tests: ``catena server run`` with real TLS, and its admin's files."""

from __future__ import annotations

import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import pytest

from service.fixtures import *  # noqa: F403 - one set of fixtures
from service.fixtures import Server, make_server
from service.machine import Call

SECONDS = 20
PIPE_SIZE = 1024 * 1024


@dataclass
class Running:
    """A server process."""

    process: subprocess.Popen[str]
    url: str
    folder: Path
    token: str

    def http(self) -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        return httpx.Client(base_url=self.url, verify=context, trust_env=False)

    def call(self, http: httpx.Client) -> Call:
        """What a node does."""

        def call(path: str, body: msgspec.Struct, kind: type) -> msgspec.Struct:
            response = http.post(path, content=msgspec.json.encode(body))
            assert response.status_code == 200, response.text
            return msgspec.json.decode(response.content, type=kind)

        return call

    @property
    def options(self) -> list[str]:
        """What an admin gives to every command."""
        token = self.folder.parent / "token"
        token.write_text(self.token)
        token.chmod(0o600)
        return [
            "--server",
            self.url,
            "--ca",
            str(self.folder / "ca.crt"),
            "--token-file",
            str(token),
        ]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "catena.cli.main", "server", "run", str(folder), *arguments]
    # A full pipe would stop the server: few tests read its lines before it ends.
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, pipesize=PIPE_SIZE
    )


@pytest.fixture
def running(tmp_path, keys, request) -> Iterator[Running]:
    server = make_server(tmp_path / "server", keys, **getattr(request, "param", {}))
    yield from lifetime(server)


@pytest.fixture(scope="module")
def standing(tmp_path_factory, keys) -> Iterator[Running]:
    """One server for all tests of a module that leave it as it is."""
    yield from lifetime(make_server(tmp_path_factory.mktemp("standing") / "server", keys))


@pytest.fixture
def trusting_running(trusting) -> Iterator[Running]:
    """As ``trusting``: it knows the TPM's vendor and what the boot may measure."""
    yield from lifetime(trusting)


def lifetime(server: Server) -> Iterator[Running]:
    server.opened.close()
    process = start(server.folder)
    line = process.stdout.readline()
    assert line.startswith("catena trust service at https://"), process.communicate()
    try:
        yield Running(process, line.split()[4].rstrip(","), server.folder, server.token)
    finally:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=SECONDS)
    return process.returncode, errors
