"""Backup and restore: what comes back is the server that was, verified, or nothing at all."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import threading
from datetime import UTC, datetime

import msgspec
import pytest

from catena.audit.evidence import EvidenceAltered
from catena.audit.folder import LogMissing
from catena.audit.past import LogForked, LogRewound
from catena.audit.verify import LogFault, verify_folder
from catena.cli.main import run
from catena.errors import LogInconsistent
from catena.keys.hierarchy import KeyName
from catena.keys.signer import public_pem
from catena.server import backup as making
from catena.server import backup_file
from catena.server.backup import (
    Asked,
    BackupExists,
    BackupUnsupported,
    BackupUnwritable,
    LogBehind,
    back_up,
)
from catena.server.backup_file import NotABackup, WrongBackupPassphrase, open_keys, seal_keys
from catena.server.checkup import check
from catena.server.config import load
from catena.server.folder import open_server
from catena.server.founding import FolderUnwritable, ServerExists
from catena.server.restore import KeysSealed, RewindRefused, Wanted, restore
from catena.server.rotation import Successor, rotate
from catena.store.errors import DatabaseDamaged, SchemaMismatch
from server.live import *  # noqa: F403 - fixtures
from server.live import end, start
from service.fixtures import PASSWORD, listed, make_server, put_secret

PASSPHRASE = b"a long passphrase"


EVIDENCE = b"what a node said"
PACK = b"catena evidence pack 1\n" + bytes(32) + (1).to_bytes(4) + b"x"


def asked(server, **changes) -> Asked:
    values = {
        "folder": server.folder,
        "log_key": server.keys.public_key(KeyName.LOG),
        "now": lambda: datetime.now(UTC),
        "random": os.urandom,
    }
    return Asked(**{**values, **changes})


def wanted(server, file, folder, **changes) -> Wanted:
    values = {
        "file": file,
        "folder": folder,
        "log_key": server.keys.public_key(KeyName.LOG),
        "now": lambda: datetime.now(UTC),
    }
    return Wanted(**{**values, **changes})


def members(file):
    with tarfile.open(file) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar}


def rewrite(file, change):
    """The backup with other members; ``change`` gets and gives a list of name and content."""
    with tarfile.open(file) as tar:
        found = [(one.name, tar.extractfile(one).read()) for one in tar]
    with tarfile.open(file, "w:gz") as tar:
        for name, content in change(found):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def filled(server):
    for number in range(300):  # more than one tile
        put_secret(server.service, f"s{number}", "web")
    digest = hashlib.sha256(EVIDENCE).hexdigest()
    server.service.setting.evidence.keep({}, {digest: EVIDENCE})
    return server


def test_what_comes_back_is_the_server_that_was(filled, tmp_path):
    file, again = tmp_path / "b", tmp_path / "again"
    former = f"log-{'0a' * 8}.pub"
    (filled.folder / former).write_bytes((filled.keys.path / "log.pub").read_bytes())
    made = back_up(asked(filled, passphrase=PASSPHRASE), file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert made.size == file.stat().st_size
    assert made.log_size == made.remembered_size == filled.opened.log.size
    entries = filled.entries()
    restored = restore(wanted(filled, file, again, passphrase=PASSPHRASE))
    assert restored.missing_keys == ()  # those of the enterprise are where they were
    assert restored.log_size == made.log_size
    opened = open_server(again, now=filled.clock, random=os.urandom)
    try:
        with opened.database.snapshot() as rows:
            assert len(rows.secrets.list()) == 300
        (stored,) = [one for one in listed(opened.service.secrets) if one.name == "s7"]
        assert stored.roles == ("web",)
        digest = hashlib.sha256(EVIDENCE).hexdigest()
        assert opened.service.setting.evidence.read(digest) == EVIDENCE
        put_secret(opened.service, "more", "web")  # and it goes on
    finally:
        opened.close()
    filled.folder, old = again, filled.folder
    assert filled.entries()[: len(entries)] == entries
    filled.folder = old
    public = ("server.toml", "ca.crt", "release-0.pub", former)
    for name in ("nonce.key", "storage.key", "tls.key", *public):
        assert (again / name).read_bytes() == (old / name).read_bytes()
    for name in ("nonce.key", "storage.key", "tls.key", "catena.db"):
        assert (again / name).stat().st_mode & 0o777 == 0o600
    assert {one.name for one in tmp_path.iterdir()} == {"b", "again", "server"}


def test_keys_stay_out_unless_asked_for_and_then_they_are_sealed(filled, tmp_path):
    made = back_up(asked(filled), tmp_path / "without")
    assert not any(key.included for key in made.keys)
    keys = {
        name: (filled.folder / name).read_bytes() for name in backup_file.own_keys(filled.folder)
    }
    ca = (filled.keys.path / "ca.key").read_bytes()
    log = (filled.keys.path / "log.key").read_bytes()
    back_up(asked(filled, passphrase=PASSPHRASE), tmp_path / "with")
    for name in ("without", "with"):
        content = b"".join(members(tmp_path / name).values())
        for key in (*keys.values(), ca, log, PASSPHRASE, PASSWORD, filled.token.encode()):
            assert key not in content
    restored = restore(wanted(filled, tmp_path / "without", tmp_path / "again"))
    assert {key.name for key in restored.missing_keys} >= set(backup_file.own_keys(filled.folder))
    found = check(tmp_path / "again", datetime.now(UTC))
    assert [one.code for one in found.findings].count("missing-key") == 3
    for name, key in keys.items():
        (tmp_path / "again" / name).write_bytes(key)
        (tmp_path / "again" / name).chmod(0o600)
        (one,) = [one for one in restored.missing_keys if one.name == name]
        assert one.fingerprint == backup_file.fingerprint(key)
    open_server(tmp_path / "again", now=filled.clock, random=os.urandom).close()


def test_a_backup_beside_writers_is_never_ahead_of_its_log(server, tmp_path):
    stop = threading.Event()

    def write(writer):
        number = 0
        while not stop.is_set():
            put_secret(server.service, f"w{writer}-{number}", "web")
            number += 1

    writers = [threading.Thread(target=write, args=(one,)) for one in range(3)]
    for one in writers:
        one.start()
    try:
        for number in range(4):
            made = back_up(asked(server, passphrase=PASSPHRASE), tmp_path / f"b{number}")
            assert made.log_size >= made.remembered_size
    finally:
        stop.set()
        for one in writers:
            one.join()
    for number in range(4):
        again = tmp_path / f"again{number}"
        restore(wanted(server, tmp_path / f"b{number}", again, passphrase=PASSPHRASE))
        open_server(again, now=server.clock, random=os.urandom).close()


def test_a_log_in_the_database_comes_with_it(tmp_path, keys):
    server = make_server(tmp_path / "server", keys, log="database:")
    put_secret(server.service, "a", "web")
    made = back_up(asked(server, passphrase=PASSPHRASE), tmp_path / "b")
    assert "logs/log/checkpoint" not in members(tmp_path / "b")
    restored = restore(wanted(server, tmp_path / "b", tmp_path / "again", passphrase=PASSPHRASE))
    assert restored.log_size == made.log_size == server.opened.log.size
    open_server(tmp_path / "again", now=server.clock, random=os.urandom).close()
    server.opened.close()


def test_logs_that_ended_come_along(filled, tmp_path):
    filled.opened.close()
    ended = verify_folder(filled.folder / "log", filled.keys.public_key(KeyName.LOG)).size + 1
    log_key = load(filled.folder).log_key
    successor = Successor("acme.example/log/2", "log-2", log_key)
    rotate(filled.folder, successor, now=filled.clock, random=os.urandom)
    filled.opened = open_server(filled.folder, now=filled.clock, random=os.urandom)
    put_secret(filled.service, "later", "web")
    back_up(asked(filled, passphrase=PASSPHRASE), tmp_path / "b")
    again = tmp_path / "again"
    restored = restore(wanted(filled, tmp_path / "b", again, passphrase=PASSPHRASE))
    assert restored.log_origin == "acme.example/log/2"
    assert verify_folder(again / "log", filled.keys.public_key(KeyName.LOG)).size == ended
    open_server(again, now=filled.clock, random=os.urandom).close()


def test_nothing_is_written_over(filled, tmp_path):
    (tmp_path / "b").write_text("mine")
    with pytest.raises(BackupExists):
        back_up(asked(filled), tmp_path / "b")
    assert (tmp_path / "b").read_text() == "mine"
    back_up(asked(filled), tmp_path / "c")
    with pytest.raises(ServerExists):
        restore(wanted(filled, tmp_path / "c", filled.folder))
    with pytest.raises(FolderUnwritable):
        restore(wanted(filled, tmp_path / "c", tmp_path / "nowhere/again"))
    with pytest.raises(BackupUnwritable):
        back_up(asked(filled), tmp_path / "nowhere/b")


def test_a_backup_that_fails_leaves_nothing(filled, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(making, "_add", fail)
    with pytest.raises(BackupUnwritable, match="No space"):
        back_up(asked(filled), tmp_path / "b")
    assert [one.name for one in tmp_path.iterdir()] == ["server"]


def edit(server, old, new):
    path = server.folder / "server.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('database = "sqlite:///catena.db"', 'database = "postgresql+psycopg://h/n"'),
        ('database = "sqlite:///catena.db"', 'database = "sqlite:////var/catena.db"'),
        ('log = "log"', 'log = "/var/log"'),
        ('log = "log"', 'log = "s3+https://h/bucket"'),
    ],
)
def test_what_lies_elsewhere_is_not_pretended_to_be_backed_up(server, tmp_path, old, new):
    edit(server, old, new)
    with pytest.raises(BackupUnsupported):
        back_up(asked(server), tmp_path / "b")


def test_a_log_that_readers_do_not_see_yet_is_waited_for_and_then_refused(
    server, tmp_path, monkeypatch
):
    monkeypatch.setattr(making, "PAUSE", 0)
    before = (server.folder / "log/checkpoint").read_bytes()
    put_secret(server.service, "a", "web")
    after = (server.folder / "log/checkpoint").read_bytes()
    (server.folder / "log/checkpoint").write_bytes(before)
    with pytest.raises(LogBehind):
        back_up(asked(server), tmp_path / "b")
    (server.folder / "log/checkpoint").write_bytes(after)
    back_up(asked(server), tmp_path / "b")


# Rewinds ------------------------------------------------------------------------------------


def test_a_backup_older_than_what_was_seen_is_a_rewind_and_refused(filled, tmp_path):
    back_up(asked(filled), tmp_path / "old")
    put_secret(filled.service, "later", "web")
    seen = (filled.folder / "log/checkpoint").read_bytes()
    again = tmp_path / "again"
    with pytest.raises(RewindRefused) as caught:
        restore(wanted(filled, tmp_path / "old", again, remembered=seen))
    assert "witnesses will never cosign" in caught.value.remedy
    assert isinstance(caught.value, LogRewound)
    assert not again.exists()
    accepted = wanted(filled, tmp_path / "old", again, remembered=seen, accept_rewind=True)
    restored = restore(accepted)
    assert restored.rewound_from == restored.log_size + 1


def test_a_backup_of_another_history_is_refused_whatever_is_accepted(filled, tmp_path, keys):
    other = make_server(tmp_path / "other", keys)
    for name in ("x", "y"):
        put_secret(other.service, name, "web")
    seen = (other.folder / "log/checkpoint").read_bytes()
    other.opened.close()
    back_up(asked(filled), tmp_path / "b")
    with pytest.raises(LogForked):
        restore(
            wanted(filled, tmp_path / "b", tmp_path / "again", remembered=seen, accept_rewind=True)
        )
    back_up(asked(filled), tmp_path / "newer")
    newest = (filled.folder / "log/checkpoint").read_bytes()
    restore(wanted(filled, tmp_path / "newer", tmp_path / "again", remembered=newest))


# Damage and deceit --------------------------------------------------------------------------


def replaced(name, content):
    return lambda found: [(one, content if one == name else old) for one, old in found]


def without(name):
    return lambda found: [(one, content) for one, content in found if one != name]


def added(name, content=b"x"):
    return lambda found: [*found, (name, content)]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (without("backup.json"), NotABackup),
        (without("catena.db"), NotABackup),
        (without("server.toml"), NotABackup),
        (without("logs/log/checkpoint"), LogMissing),
        (replaced("server.toml", b"listen = 1"), NotABackup),
        (replaced("catena.db", b"SQLite"), NotABackup),
        (replaced("logs/log/checkpoint", b"x"), LogInconsistent),
        (replaced("logs/log/tile/0/000", bytes(8192)), LogFault),
        (replaced("logs/log/tile/entries/000", b"\x00\x01x" * 256), LogFault),
        (added("../evil"), NotABackup),
        (added("/etc/passwd"), NotABackup),
        (added("logs/log/../../evil"), NotABackup),
        (added("storage.key"), NotABackup),
        (added("logs/evidence/checkpoint"), NotABackup),
        (added("logs/../checkpoint"), NotABackup),
        (added("logs/log/tile/0/x1"), NotABackup),
        (added("evidence/ab/" + "ab" * 32), EvidenceAltered),
        (added("evidence/packs/pack-00000009"), NotABackup),
        (added("evidence/packs/pack-9", PACK), NotABackup),
        (added("evidence/packs/pack-00000009", PACK), EvidenceAltered),
        (added("roots/extra.pem"), NotABackup),
        (added("server.toml", b"again"), (NotABackup, FolderUnwritable)),
        (lambda _: [], NotABackup),
        (lambda _: [("backup.json", b"{}")], NotABackup),
    ],
)
def test_a_changed_backup_is_refused_and_leaves_nothing(filled, tmp_path, change, error):
    file = tmp_path / "b"
    back_up(asked(filled), file)
    rewrite(file, change)
    with pytest.raises(error) as caught:
        restore(wanted(filled, file, tmp_path / "again"))
    assert caught.value.code
    assert {one.name for one in tmp_path.iterdir()} == {"b", "server"}


def test_links_and_devices_are_refused(filled, tmp_path):
    file = tmp_path / "b"
    back_up(asked(filled), file)
    found = members(file)
    with tarfile.open(file, "w:gz") as tar:
        member = tarfile.TarInfo("backup.json")
        member.size = len(found["backup.json"])
        tar.addfile(member, io.BytesIO(found["backup.json"]))
        link = tarfile.TarInfo("server.toml")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(NotABackup):
        restore(wanted(filled, file, tmp_path / "again"))


@pytest.mark.parametrize("cut", [0, 10, 1000, -2000])
def test_a_backup_that_was_cut_short_is_refused(filled, tmp_path, cut):
    file = tmp_path / "b"
    back_up(asked(filled), file)
    file.write_bytes(file.read_bytes()[:cut] if cut else b"")
    with pytest.raises(NotABackup):
        restore(wanted(filled, file, tmp_path / "again"))


def with_database(file, change, tmp_path):
    """The backup with another database, and a manifest that agrees."""
    found = members(file)
    path = tmp_path / "edited.db"
    path.write_bytes(found["catena.db"])
    change(path)
    content = path.read_bytes()
    path.unlink()
    manifest = json.loads(found["backup.json"])
    manifest["digests"]["catena.db"] = hashlib.sha256(content).hexdigest()
    rewrite(file, replaced("catena.db", content))
    rewrite(file, replaced("backup.json", json.dumps(manifest).encode()))


def sql(statement):
    def change(path):
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA foreign_keys=OFF")
            connection.execute(statement)
        connection.close()

    return change


def garble(path):
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 9] = os.urandom(4096 * 6)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (sql("UPDATE schema_version SET version = 99"), SchemaMismatch),
        (sql("INSERT INTO reenrolments VALUES ('nobody', x'00', 1)"), DatabaseDamaged),
        (garble, DatabaseDamaged),
        (sql("DELETE FROM log_state"), LogInconsistent),
    ],
)
def test_a_database_that_contradicts_itself_or_the_log_is_refused(filled, tmp_path, change, error):
    file = tmp_path / "b"
    back_up(asked(filled), file)
    with_database(file, change, tmp_path)
    with pytest.raises(error):
        restore(wanted(filled, file, tmp_path / "again"))
    assert not (tmp_path / "again").exists()


def test_a_database_ahead_of_the_log_is_refused(filled, tmp_path):
    back_up(asked(filled), tmp_path / "old")
    put_secret(filled.service, "later", "web")
    back_up(asked(filled), tmp_path / "new")
    newer = members(tmp_path / "new")["catena.db"]
    with_database(tmp_path / "old", lambda path: path.write_bytes(newer), tmp_path)
    with pytest.raises(LogRewound):
        restore(wanted(filled, tmp_path / "old", tmp_path / "again"))


def test_a_wrong_passphrase_and_one_for_no_keys(filled, tmp_path):
    back_up(asked(filled, passphrase=PASSPHRASE), tmp_path / "b")
    with pytest.raises(WrongBackupPassphrase):
        restore(wanted(filled, tmp_path / "b", tmp_path / "again", passphrase=b"other"))
    back_up(asked(filled), tmp_path / "c")
    with pytest.raises(KeysSealed):
        restore(wanted(filled, tmp_path / "c", tmp_path / "again", passphrase=PASSPHRASE))


def test_sealed_keys_that_were_changed_or_are_of_other_names():
    sealed = seal_keys({"storage.key": b"k" * 32}, PASSPHRASE, os.urandom)
    assert open_keys(sealed, PASSPHRASE) == {"storage.key": b"k" * 32}
    with pytest.raises(NotABackup):
        open_keys(sealed[:20], PASSPHRASE)
    for at in (0, 20, 40):
        with pytest.raises(WrongBackupPassphrase):
            open_keys(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], PASSPHRASE)
    with pytest.raises(NotABackup):
        open_keys(seal_keys({"../x": b""}, PASSPHRASE, os.urandom), PASSPHRASE)


# The commands -------------------------------------------------------------------------------


def test_a_running_server_is_backed_up_and_its_restored_copy_runs(running, tmp_path, keys, capsys):
    key = tmp_path / "log.pub"
    key.write_bytes(public_pem(keys.public_key(KeyName.LOG)))
    phrase = tmp_path / "phrase"
    phrase.write_bytes(PASSPHRASE)
    phrase.chmod(0o600)
    options = ["--with-keys", "--passphrase-file", str(phrase)]
    words = ["server", "backup", str(tmp_path / "b"), "--folder", str(running.folder)]
    assert run([*words, *options]) == 0
    assert "storage.key" in (out := capsys.readouterr().out)
    assert "in the backup" in out
    running.process.terminate()
    end(running.process)
    shutil.rmtree(running.folder)
    words = ["server", "restore", str(tmp_path / "b"), str(running.folder), "--key", str(key)]
    assert run([*words, *options[1:], "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["missing_keys"] == []
    assert verify_folder(running.folder / "log", keys.public_key(KeyName.LOG)).size
    again = start(running.folder)
    assert again.stdout.readline().startswith("catena trust service")
    again.terminate()
    assert end(again)[0] == 0


def test_the_commands_refuse_what_makes_no_sense(server, tmp_path, capsys):
    key = tmp_path / "log.pub"
    key.write_bytes(public_pem(server.keys.public_key(KeyName.LOG)))
    words = ["server", "backup", str(tmp_path / "b"), "--folder", str(server.folder)]
    assert run([*words, "--with-keys"]) == 2
    assert "keys-without-passphrase" in capsys.readouterr().err
    assert run(words) == 0
    put_secret(server.service, "later", "web")
    seen = str(server.folder / "log/checkpoint")
    words = ["server", "restore", str(tmp_path / "b"), str(tmp_path / "again"), "--key", str(key)]
    assert run([*words, "--remembered", seen]) == 20
    assert "rewind-refused" in capsys.readouterr().err
    assert run([*words, "--remembered", seen, "--accept-rewind"]) == 0
    assert "WARNING: the log was rewound" in capsys.readouterr().err


def test_the_manifest_says_what_the_backup_is_of(filled, tmp_path):
    back_up(asked(filled), tmp_path / "b")
    manifest = msgspec.json.decode(members(tmp_path / "b")["backup.json"])
    assert manifest["format"] == "catena-backup/1"
    assert manifest["log_origin"] == "acme.example/log"
    with gzip.open(tmp_path / "b") as unpacked:
        assert unpacked.read(11) == b"backup.json"
