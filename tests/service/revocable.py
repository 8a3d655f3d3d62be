"""Nodes that have something to lose: at one server, and at two over one database."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest

from catena.server.folder import open_server
from catena.service.views import RevocationRequest, RevocationView
from service.fixtures import Server, make_server, put_secret

STOLEN = RevocationRequest(reason="stolen from the rack")


def prepare(server: Server, machine) -> Server:
    """A node that received its first certificate and a secret."""
    put_secret(server.service, "db-password", "web")
    server.admit(machine)
    assert machine.attest(server.call).state == "trusted"
    server.clock.pass_(1)
    return server


@pytest.fixture
def admitted(trusting, machine) -> Server:
    return prepare(trusting, machine)


def revoke(server: Server, request: RevocationRequest = STOLEN) -> RevocationView:
    return server.service.revocations.revoke("n1", request, "alice")


@pytest.fixture
def replicas(tmp_path, keys, booted_tpm, machine, postgresql) -> Iterator[tuple[Server, Server]]:
    """Two servers over one PostgreSQL, with one node that both know."""
    roots = tuple(f"software={path}" for path in booted_tpm.root_ca_pem_paths)
    places = {"database": postgresql.new_database(), "log": "database:"}
    first = make_server(tmp_path / "first", keys, roots, **places)
    first.import_references(machine.boot)
    prepare(first, machine)
    shutil.copytree(first.folder, tmp_path / "second")
    opened = open_server(tmp_path / "second", now=first.clock, random=os.urandom)
    second = replace(first, folder=tmp_path / "second", opened=opened)
    yield first, second
    first.opened.close()
    second.opened.close()


__all__ = ["STOLEN", "admitted", "prepare", "replicas", "revoke"]
