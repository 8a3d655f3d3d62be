"""Another key for secrets at rest: online, from any place on where it was stopped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

from catena.server.storagekeys import STORAGE_KEY, make_storage_key
from catena.service import rekeying
from catena.service.rekeying import UnknownKek
from catena.service.vault import KekMissing, UnreadableSecret, kek_digest
from catena.service.views import RekeyRequest, SecretReading
from catena.store.errors import KekMoved
from service.fixtures import PASSWORD, Server, listed, put_secret
from service.revocable import *  # noqa: F403 - fixtures
from swtpm import needs_swtpm


def new_kek(server: Server) -> str:
    return make_storage_key(server.folder, os.urandom).stem.removeprefix("storage-")


def rekey(server: Server, kek: str):
    while True:
        view = server.service.rekeying.rekey(RekeyRequest(kek=kek), "alice")
        if not view.remaining:
            return view


def read(server: Server, name: str) -> bytes:
    return server.service.secret_reader.read(name, SecretReading(), "alice").value


def keks(server: Server) -> set[str]:
    with server.opened.database.snapshot() as rows:
        names = [one.name for one in rows.secrets.list()]
        return {one.kek for name in names for one in rows.secrets.versions(name)}


@pytest.fixture
def filled(server) -> Server:
    """More secrets than one batch has, with several versions."""
    for number in range(rekeying.BATCH + 3):
        put_secret(server.service, f"s{number}", "web", b"old value")
        put_secret(server.service, f"s{number}", "web", PASSWORD + b"%d" % number)
    return server


def test_everything_moves_and_the_old_key_is_not_needed_any_more(filled):
    old = keks(filled)
    kek = new_kek(filled)
    first = filled.service.rekeying.rekey(RekeyRequest(kek=kek), "alice")
    assert (first.rekeyed, first.ended) == (rekeying.BATCH, ())
    assert first.remaining == 2 * (rekeying.BATCH + 3) - rekeying.BATCH
    assert rekey(filled, kek).ended == tuple(old)
    assert keks(filled) == {kek}
    (filled.folder / STORAGE_KEY).unlink()
    filled.reopen()
    assert read(filled, "s7") == PASSWORD + b"7"
    put_secret(filled.service, "s7", "web", b"newer")
    assert read(filled, "s7") == b"newer"


def test_both_changes_are_in_the_log_without_a_key(filled):
    kek = new_kek(filled)
    rekey(filled, kek)
    added, removed = (one for one in filled.entries() if one.kind == "key-change")
    assert (added.action, added.key, added.key_sha256[:16]) == ("added", "secrets", kek)
    old = (filled.folder / STORAGE_KEY).read_bytes()
    assert (removed.action, removed.key_sha256) == ("removed", kek_digest(old))
    assert filled.name(added.actor) == "alice"
    assert rekey(filled, kek).ended == ()  # once more changes nothing
    assert [one.kind for one in filled.entries()].count("key-change") == 2


def test_secrets_are_read_stored_and_removed_between_two_batches(filled):
    kek = new_kek(filled)
    filled.service.rekeying.rekey(RekeyRequest(kek=kek), "alice")
    names = [one.name for one in listed(filled.service.secrets)]
    assert all(read(filled, name).startswith(PASSWORD) for name in names)
    put_secret(filled.service, "new", "web", b"fresh")
    filled.service.secrets.remove("s9", "alice")
    rekey(filled, kek)
    assert keks(filled) == {kek}
    assert "s9" not in [one.name for one in listed(filled.service.secrets)]
    assert read(filled, "new") == b"fresh"


def test_a_secret_from_before_key_ids_moves_too(server):
    put_secret(server.service, "db", "web")
    with server.opened.database.transaction() as rows:
        connection = rows.secrets._connection
        connection.exec_driver_sql("UPDATE secrets SET kek = ''")
        connection.exec_driver_sql("DELETE FROM keks")
    assert read(server, "db") == PASSWORD
    kek = new_kek(server)
    rekey(server, kek)
    assert keks(server) == {kek}
    assert read(server, "db") == PASSWORD


def test_a_key_that_is_not_here_is_refused(server):
    put_secret(server.service, "db", "web")
    with pytest.raises(UnknownKek):
        rekey(server, "0" * 16)
    assert "key-change" not in server.kinds()[1:]


def test_a_ciphertext_that_does_not_open_stops_it_and_stays(filled):
    with filled.opened.database.transaction() as rows:
        connection = rows.secrets._connection
        connection.exec_driver_sql("UPDATE secrets SET ciphertext = x'00' WHERE name = 's0'")
    with pytest.raises(UnreadableSecret):
        rekey(filled, new_kek(filled))
    assert read(filled, "s5") == PASSWORD + b"5"


KILLED = """
    import os, signal, sys
    from datetime import UTC, datetime
    from pathlib import Path
    from catena.server.folder import open_server
    from catena.service.views import RekeyRequest
    from catena.store.database import Database

    folder, kek, wanted = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    server = open_server(folder, now=lambda: datetime.fromisoformat(sys.argv[4]), random=os.urandom)
    steps = 0

    def counted(function):
        def run(*arguments, **named):
            global steps
            if steps == wanted:
                os.kill(os.getpid(), signal.SIGKILL)
            steps += 1
            return function(*arguments, **named)
        return run

    journal = server.service.setting.journal
    journal.record = counted(journal.record)
    Database.transaction = counted(Database.transaction)
    for name in ("snapshot",):
        setattr(Database, name, counted(getattr(Database, name)))
    while server.service.rekeying.rekey(RekeyRequest(kek=kek), "alice").remaining:
        pass
"""


@pytest.mark.parametrize("step", [*range(0, 24, 2)])
def test_killed_at_any_step_it_goes_on(filled, step):
    kek = new_kek(filled)
    filled.opened.close()
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(filled.folder), kek, str(step)]
    done = subprocess.run([*command, filled.clock().isoformat()], timeout=120, check=False)
    assert done.returncode in (-signal.SIGKILL, 0)
    filled.reopen()
    rekey(filled, kek)
    assert keks(filled) == {kek}
    for number in range(rekeying.BATCH + 3):
        assert read(filled, f"s{number}") == PASSWORD + b"%d" % number
    filled.entries()


@needs_swtpm
@pytest.mark.tpm
def test_a_replica_finds_a_key_that_was_copied_while_it_serves(replicas, machine):
    first, second = replicas
    kek = new_kek(first)
    rekey(first, kek)
    first.clock.pass_(1)
    with pytest.raises(KekMissing):
        machine.attest(second.call)
    name = f"storage-{kek}.key"
    shutil.copy(first.folder / name, second.folder / name)
    (sealed,) = machine.attest(second.call).secrets
    assert machine.open(sealed) == PASSWORD


@needs_swtpm
@pytest.mark.tpm
def test_what_a_replica_stores_under_the_old_key_meanwhile_is_refused(replicas):
    first, second = replicas
    kek = new_kek(first)
    record = second.service.setting.journal.record

    def raced(*entries):
        second.service.setting.journal.record = record
        receipts = record(*entries)
        rekey(first, kek)
        return receipts

    second.service.setting.journal.record = raced
    with pytest.raises(KekMoved):
        put_secret(second.service, "late", "web")
    assert keks(first) == {kek}
