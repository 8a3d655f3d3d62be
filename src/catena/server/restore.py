"""``catena server restore``: a folder from a backup, whole and verified, or none.

1. Members are taken only under names that a backup has, within their limits, and must have the digests
   that the manifest names.
2. The database is sound and of a schema from which steps lead here; its log is the one meant.
3. The whole log verifies under the key that the caller gives, and contains what the database remembers.
4. It contains the checkpoint that the caller remembers from elsewhere, too: else restoring is a rewind
   of the log, which needs to be said out loud.
5. The folder appears under its name, and 3 is asked once more of what is there.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

import msgspec

from catena.audit import checkpoint as checkpoints
from catena.audit import evidencepack
from catena.audit.evidence import EvidenceAltered
from catena.audit.folder import LogFolder, sync_folder
from catena.audit.hashes import read_checkpoint
from catena.audit.past import LogRewound
from catena.audit.verify import verify_folder, verify_log
from catena.formats.note import Checkpoint
from catena.keys.signer import PublicKey, write_new
from catena.server import config as settings
from catena.server import logplace
from catena.server.backup import SQLITE
from catena.server.backup_file import (
    DATABASE,
    MANIFEST,
    MAX_MANIFEST,
    SEALED,
    KeyPrint,
    Manifest,
    NotABackup,
    is_digested,
    is_pack,
    limit_of,
    open_keys,
    parse_manifest,
    place_of,
)
from catena.server.config import Config
from catena.server.folder import database_url
from catena.server.founding import FolderUnwritable, ServerExists
from catena.server.logcheck import check_log
from catena.store import sqlite_copy
from catena.store.database import Database

CHUNK = 1 << 20


class RewindRefused(LogRewound):
    """A backup that ends before a checkpoint that somebody has seen."""

    code = "rewind-refused"
    remedy = (
        "Restore a newer backup. With --accept-rewind the log goes back: whoever saw the later entries "
        "holds proof of a fork, and witnesses will never cosign this log again."
    )


class KeysSealed(NotABackup):
    """A passphrase for a backup that has no keys."""

    code = "backup-without-keys"
    remedy = "Leave --passphrase-file out, and put the keys into the restored folder by hand."


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What is there now."""

    folder: str
    made_at: str
    log_origin: str
    log_size: int
    rewound_from: int | None
    """The size of the remembered log, if this one is shorter and that was accepted."""
    missing_keys: tuple[KeyPrint, ...]
    """What has to be put there before the server can run."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to restore, and what it is held against."""

    file: Path
    folder: Path
    log_key: PublicKey
    now: Callable[[], datetime]
    remembered: bytes | None = None
    """A checkpoint of this log that was kept elsewhere."""
    accept_rewind: bool = False
    passphrase: bytes | None = None
    progress: Callable[[str, int], None] = lambda _, __: None


def restore(wanted: Wanted) -> Restored:
    """Make the folder. Raises ``ServerExists``, ``FolderUnwritable``, ``NotABackup``,
    ``WrongBackupPassphrase``, ``DatabaseDamaged``, ``SchemaMismatch``, ``RewindRefused``, and what
    verifying the log raises.
    """
    folder = wanted.folder
    if os.path.lexists(folder):
        raise ServerExists("there is something at the folder's path already", got=str(folder))
    try:
        room = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise FolderUnwritable(f"cannot make {folder}: {error.strerror}") from error
    try:
        manifest = _unpack(wanted, room)
        config = settings.load(room)
        _require_sound(room)
        head, rewound = _verify(wanted, room, config, manifest)
        missing = tuple(key for key in manifest.keys if not _is_there(room, key))
        room.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise FolderUnwritable(f"cannot make {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(room, ignore_errors=True)
    _check_log(wanted, folder, config)  # 5.
    return Restored(
        folder=str(folder),
        made_at=manifest.at,
        log_origin=manifest.log_origin,
        log_size=head.size,
        rewound_from=rewound,
        missing_keys=missing,
    )


def _unpack(wanted: Wanted, room: Path) -> Manifest:
    """1."""
    with _readable(wanted.file) as tar:
        manifest: Manifest | None = None
        left: set[str] = set()
        for member, content in _members(tar):
            if manifest is None:
                if member.name != MANIFEST or member.size > MAX_MANIFEST:
                    raise NotABackup("the backup does not begin with what it is")
                manifest = parse_manifest(content.read())
                left = set(manifest.digests)
                continue
            limit = limit_of(member.name)
            if limit is None or member.size > limit:
                raise NotABackup("the backup has a member that it cannot have")
            digest = _write(room, member.name, content, wanted.progress)
            if is_pack(member.name):
                _require_pack(room / place_of(member.name))
            else:
                _require_digest(member.name, digest, manifest)
            left.discard(member.name)
    if manifest is None or left:
        raise NotABackup("the backup is not complete")
    _unseal(wanted, room)
    return manifest


@contextmanager
def _readable(file: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(file, "r:gz") as tar:
            yield tar
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, UnicodeDecodeError) as error:
        raise NotABackup("the backup is damaged") from error


def _members(tar: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    for member in tar:
        content = tar.extractfile(member) if member.isreg() else None
        if content is None:
            raise NotABackup("the backup has something that is no file")
        yield member, content


def _write(room: Path, name: str, content: IO[bytes], progress: Callable[[str, int], None]) -> str:
    """A member at its place, durably; its digest."""
    path = room / place_of(name)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    digest = hashlib.sha256()
    is_secret = name in {DATABASE, SEALED} or "/" in name
    descriptor = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if is_secret else 0o644
    )
    with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor has no path
        while chunk := content.read(CHUNK):
            digest.update(chunk)
            file.write(chunk)
            progress(name.split("/", 1)[0], len(chunk))
        file.flush()
        os.fsync(descriptor)
    return digest.hexdigest()


def _require_pack(pack: Path) -> None:
    try:
        altered = evidencepack.altered_in(pack)
    except ValueError as error:
        raise NotABackup("the backup has a pack of evidence that is none") from error
    if altered is not None:
        raise EvidenceAltered("a content of the backup does not have its digest", expected=altered)


def _require_digest(name: str, digest: str, manifest: Manifest) -> None:
    if is_digested(name) and manifest.digests.get(name) != digest:
        raise NotABackup("a member of the backup does not have its digest", got=name)
    if name.startswith("evidence/") and not name.endswith(f"/{digest}"):
        raise EvidenceAltered("a content of the backup does not have the digest it is named by")


def _unseal(wanted: Wanted, room: Path) -> None:
    sealed = room / SEALED
    if not sealed.exists():
        if wanted.passphrase is not None:
            raise KeysSealed("this backup has no keys")
        return
    if wanted.passphrase is not None:
        for name, key in open_keys(sealed.read_bytes(), wanted.passphrase).items():
            write_new(room / name, key, mode=0o600)
    sealed.unlink()


def _require_sound(room: Path) -> None:
    """2."""
    sqlite_copy.require_sound(room / DATABASE)
    Database.pending(f"{SQLITE}{(room / DATABASE).resolve()}")


def _verify(
    wanted: Wanted, room: Path, config: Config, manifest: Manifest
) -> tuple[Checkpoint, int | None]:
    """3 and 4; the log's head, and the remembered size if that is larger."""
    past: Checkpoint | None = None
    rewound: int | None = None
    if wanted.remembered is not None:
        past = checkpoints.verify(wanted.remembered, wanted.log_key, origin=manifest.log_origin)
    head = _check_log(wanted, room, config)
    if past is not None and past.size > head.size:
        if not wanted.accept_rewind:
            raise RewindRefused(
                "the backup is older than a checkpoint that was seen",
                expected=f"at least {past.size} entries",
                got=f"{head.size}",
            )
        rewound = past.size
        past = None
    _verify_all(wanted, room, config, past)
    return head, rewound


def _check_log(wanted: Wanted, folder: Path, config: Config) -> Checkpoint:
    """That the log contains what the database remembers."""
    url = database_url(folder, config.database)
    if Database.pending(url):
        # Of an earlier schema: looked at when the server has taken the steps.
        return checkpoints.verify(read_checkpoint(LogFolder(folder / config.log)), wanted.log_key)
    database = Database.open(url)
    try:
        return check_log(folder, config, wanted.log_key, database, wanted.now)
    finally:
        database.close()
        sqlite_copy.make_whole(folder / DATABASE)


def _verify_all(wanted: Wanted, room: Path, config: Config, past: Checkpoint | None) -> None:
    """Every entry and tile, under the caller's key."""
    if config.log != logplace.DATABASE:
        verify_folder(room / config.log, wanted.log_key, origin=config.log_origin, remembered=past)
        return
    database = Database.open(database_url(room, config.database))
    try:
        with logplace.reading(room, config, database, wanted.now) as log:
            head = checkpoints.verify(
                read_checkpoint(log), wanted.log_key, origin=config.log_origin
            )
            verify_log(log, head, wanted.log_key, remembered=past)
    finally:
        database.close()


def _is_there(room: Path, key: KeyPrint) -> bool:
    return (room / key.name).exists()
