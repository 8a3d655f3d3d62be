"""``catena server backup``: a copy of a server's folder that can be restored, while the server runs.

In an order that makes it consistent: first what must not be ahead of the log (exports' cursors, the
cosigned checkpoint), then the database through SQLite's backup API, then the log, then evidence. So the
log contains what the database remembers of it, and evidence is there for every entry.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from catena import __version__
from catena.audit import checkpoint as checkpoints
from catena.audit import evidence, tiles
from catena.audit.folder import LogFolder, sync_folder
from catena.audit.hashes import TileUnavailable, read_checkpoint
from catena.audit.reader import LogReader
from catena.audit.tiles import CHECKPOINT, MAX_BUNDLE, TILE_LEVELS, TILE_WIDTH, Tile
from catena.errors import Unavailable, UsageError
from catena.formats import note
from catena.keys.hierarchy import load_certificate
from catena.keys.signer import PublicKey, key_id_of
from catena.server import config as settings
from catena.server import logplace
from catena.server.backup_file import (
    DATABASE,
    FORMAT,
    MANIFEST,
    SEALED,
    KeyPrint,
    Manifest,
    fingerprint,
    is_log_name,
    is_pack,
    limit_of,
    log_name,
    own_keys,
    seal_keys,
)
from catena.server.config import Config
from catena.server.folder import database_url, remembered_log
from catena.server.owned import read_owned
from catena.store import sqlite_copy
from catena.store.database import Database
from catena.store.logstate import LogState
from catena.store.schema import SCHEMA_VERSION

SQLITE = "sqlite:///"
ATTEMPTS = 20
PAUSE = 0.5
_MAX_KEY = 64 * 1024

Progress = Callable[[str, int], None]
"""Takes what is being copied and how many bytes more of it are."""


class BackupUnsupported(UsageError):
    """A server whose state does not lie in its folder."""

    code = "backup-unsupported"
    remedy = "Run `catena server migrate` if the schema is old; else back up the database server and the log's place with their own tools; see the manual."


class BackupExists(UsageError):
    """A file is already where the backup would be."""

    code = "backup-exists"
    remedy = "Choose another name; a backup is never written over."


class BackupUnwritable(Unavailable):
    """The backup could not be written."""

    code = "backup-unwritable"
    remedy = "Check that the folder exists, that you may write to it, and that the disk has room."


class LogBehind(Unavailable):
    """A log that readers do not see as far as the database remembers it."""

    code = "log-behind"
    remedy = "Start the server once, which publishes what a crash left; then back up again."


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """What was written."""

    file: str
    size: int
    log_origin: str
    log_size: int
    remembered_size: int
    keys: tuple[KeyPrint, ...]
    """What else a restored server needs, unless it is included."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What to back up, and how. ``passphrase`` seals the folder's keys into it; None: they stay out."""

    folder: Path
    log_key: PublicKey
    now: Callable[[], datetime]
    random: Callable[[int], bytes]
    passphrase: bytes | None = None
    progress: Progress = lambda _, __: None


def back_up(asked: Asked, file: Path) -> Backup:
    """Write a backup. It appears complete, or not at all.

    Raises ``NoServerFolder``, ``BadConfig``, ``BackupUnsupported``, ``BackupExists``,
    ``BackupUnwritable``, ``LogBehind``, ``MissingKey``, and what database and log raise.
    """
    config = settings.load(asked.folder)
    _require_inside(config)
    if os.path.lexists(file):
        raise BackupExists("there is a file already", got=str(file))
    with _unwritable(), tempfile.TemporaryDirectory(prefix=".backup.", dir=file.parent) as room:
        unfinished = Path(room) / "backup"
        made = _Making(asked, config, Path(room)).write(unfinished)
        os.link(unfinished, file)  # fails if somebody was faster
        sync_folder(file.parent)
        return msgspec.structs.replace(made, file=str(file), size=file.stat().st_size)


def _require_inside(config: Config) -> None:
    if config.database != f"{SQLITE}{DATABASE}":
        raise BackupUnsupported("the database is not `catena.db` in the server's folder")
    if config.log != logplace.DATABASE and not is_log_name(config.log):
        raise BackupUnsupported("the log lies neither in the server's folder nor in the database")


@contextmanager
def _unwritable() -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise BackupExists("there is a file already") from error
    except OSError as error:
        raise BackupUnwritable(f"the backup cannot be written: {error.strerror}") from error


class _Making:
    """One backup that is being made."""

    def __init__(self, asked: Asked, config: Config, room: Path) -> None:
        self._asked = asked
        self._config = config
        self._room = room
        self._folder = asked.folder

    def write(self, target: Path) -> Backup:
        small = self._small_files()
        self._copy_database()
        state = self._remembered()
        keys = {name: read_owned(self._folder / name, _MAX_KEY) for name in own_keys(self._folder)}
        prints = self._prints(keys)
        if self._asked.passphrase is not None:
            small = {SEALED: seal_keys(keys, self._asked.passphrase, self._asked.random), **small}
        manifest = self._manifest(state, prints, small)
        with (
            target.open("xb") as out,
            tarfile.open(
                fileobj=out, mode="w:gz", compresslevel=1, format=tarfile.PAX_FORMAT
            ) as tar,
        ):
            target.chmod(0o600)
            _add(tar, MANIFEST, msgspec.json.encode(manifest))
            for name, content in small.items():
                _add(tar, name, content)
            self._add_file(tar, DATABASE, self._room / DATABASE)
            size = self._add_log(tar, state)
            self._add_evidence(tar)
            tar.close()
            out.flush()
            os.fsync(out.fileno())
        return Backup(
            file="",
            size=0,
            log_origin=state.origin,
            log_size=size,
            remembered_size=state.size,
            keys=prints,
        )

    def _small_files(self) -> dict[str, bytes]:
        folders = (self._folder, self._folder / "roots", self._folder / "exports")
        paths = sorted(
            path for one in folders if one.is_dir() for path in one.iterdir() if path.is_file()
        )
        found = {path.relative_to(self._folder).as_posix(): path for path in paths}
        large = {DATABASE, SEALED}
        return {
            name: path.read_bytes()
            for name, path in found.items()
            if limit_of(name) is not None and name not in large
        }

    def _copy_database(self) -> None:
        sqlite_copy.copy(
            self._folder / DATABASE,
            self._room / DATABASE,
            lambda size: self._asked.progress("database", size),
        )

    def _remembered(self) -> LogState:
        url = database_url(self._room, f"{SQLITE}{DATABASE}")
        if Database.pending(url):
            raise BackupUnsupported("the database is of an earlier schema")
        database = Database.open(url)
        try:
            state = remembered_log(database, self._config.log_origin)
        finally:
            database.close()
        sqlite_copy.make_whole(self._room / DATABASE)
        return state

    def _prints(self, keys: dict[str, bytes]) -> tuple[KeyPrint, ...]:
        included = self._asked.passphrase is not None
        own = [
            KeyPrint(name=name, fingerprint=fingerprint(key), included=included)
            for name, key in keys.items()
        ]
        certificate = load_certificate(self._folder / self._config.ca_certificate)
        public = certificate.public_key()
        ca = key_id_of(public) if isinstance(public, PublicKey) else ""
        log = key_id_of(self._asked.log_key)
        return (
            *own,
            KeyPrint(name=self._config.ca_key, fingerprint=ca, included=False),
            KeyPrint(name=self._config.log_key, fingerprint=log, included=False),
        )

    def _manifest(
        self, state: LogState, prints: tuple[KeyPrint, ...], small: dict[str, bytes]
    ) -> Manifest:
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in small.items()}
        with (self._room / DATABASE).open("rb") as copy:
            digests[DATABASE] = hashlib.file_digest(copy, "sha256").hexdigest()
        return Manifest(
            format=FORMAT,
            at=self._asked.now().isoformat(timespec="seconds"),
            version=__version__,
            schema=SCHEMA_VERSION,
            log_origin=state.origin,
            log_place=self._config.log,
            checkpoint=state.checkpoint,
            keys=prints,
            digests=digests,
        )

    def _add_file(self, tar: tarfile.TarFile, name: str, path: Path) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = path.stat().st_size, 0o600
        with path.open("rb") as content:
            tar.addfile(member, content)

    def _add_log(self, tar: tarfile.TarFile, state: LogState) -> int:
        """Ended logs that lie here, then the newest tree of the log that readers see; its size."""
        current = self._folder / self._config.log
        for path in sorted(self._folder.glob(f"*/{CHECKPOINT}")):
            if path.parent != current and is_log_name(path.parent.name):
                self._add_tree(tar, LogFolder(path.parent), path.read_bytes(), {})
        if self._config.log == logplace.DATABASE:
            return state.size
        log = LogFolder(current)
        head, edge = self._edge(log, state)
        self._add_tree(tar, log, head, edge)
        return checkpoints.verify(head, self._asked.log_key, origin=state.origin).size

    def _add_tree(
        self, tar: tarfile.TarFile, log: LogFolder, head: bytes, edge: dict[Tile, bytes]
    ) -> None:
        """A log up to a checkpoint. Nothing is proven here; restoring proves it."""
        name = log_name(log.path.name)
        _add(tar, f"{name}/{CHECKPOINT}", head)
        for tile in _tiles(note.parse_checkpoint(note.parse(head).text).size):
            content = edge.get(tile) or log.read(tile.path, MAX_BUNDLE)
            if content is None:
                raise TileUnavailable("a tile of the log is missing", got=tile.path)
            _add(tar, f"{name}/{tile.path}", content)
            self._asked.progress("log", len(content))

    def _edge(self, log: LogReader, state: LogState) -> tuple[bytes, dict[Tile, bytes]]:
        """A checkpoint that contains what is remembered, and its partial tiles: they are there now.

        Full tiles stay as they are; a partial one is removed when it has become full.
        """
        for _ in range(ATTEMPTS):
            head = read_checkpoint(log)
            found = checkpoints.verify(head, self._asked.log_key, origin=state.origin)
            if found.size >= state.size:
                partial = [tile for tile in _tiles(found.size) if tile.partial]
                edge = {tile: log.read(tile.path, MAX_BUNDLE) for tile in partial}
                held = {tile: content for tile, content in edge.items() if content is not None}
                if len(held) == len(partial):
                    return head, held
            time.sleep(PAUSE if found.size < state.size else 0)
        raise LogBehind(
            "readers do not see all of the log",
            expected=f"at least {state.size} entries",
            got=f"{found.size}",
        )

    def _add_evidence(self, tar: tarfile.TarFile) -> None:
        store = logplace.beside(self._folder, self._config) / evidence.FOLDER
        for path in sorted(store.rglob("*")):
            name = f"evidence/{path.relative_to(store).as_posix()}"
            if is_pack(name):
                self._add_pack(tar, name, path)
            elif path.is_file() and limit_of(name):
                content = path.read_bytes()
                _add(tar, name, content)
                self._asked.progress("evidence", len(content))

    def _add_pack(self, tar: tarfile.TarFile, name: str, path: Path) -> None:
        """As much of it as there is now: a pack only grows."""
        member = tarfile.TarInfo(name)
        member.size, member.mode = path.stat().st_size, 0o600
        with path.open("rb") as pack:
            tar.addfile(member, pack)
        self._asked.progress("evidence", member.size)


def _tiles(size: int) -> Iterator[Tile]:
    """Every file of a log of this size, besides the checkpoint (C2SP tlog-tiles)."""
    for level in (None, *range(tiles.levels(size))):
        count = size >> (TILE_LEVELS * (level or 0))
        for index in range(-(-count // TILE_WIDTH)):
            yield Tile(level, index, tiles.width_at(level, index, size))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o600
    tar.addfile(member, io.BytesIO(content))
