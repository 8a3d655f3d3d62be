"""Log rotation: a log ends with an entry that names the next, which begins with one that names it.

In this order, each step durable before the next; whatever stops the rotation, the same call finishes it:

1. the database says which log goes on: from here on nobody else appends to the old one, and no server
   starts with it;
2. the old log gets its last entry;
3. the new log is made, and its first entry has the old one's last tree;
4. ``server.toml`` names the new one, and the old one's public key if that changed: references and endorsements
   that the server signed with it go on to count.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from catena.audit import checkpoint as checkpoints
from catena.audit.entries import Entry, LogContinues, LogEnded
from catena.audit.folder import LogExists, replace_file
from catena.audit.leaves import Leaves
from catena.audit.log import TransparencyLog
from catena.errors import UsageError
from catena.formats.note import Checkpoint
from catena.keys.signer import PublicKey, Signer, key_id_of, public_pem
from catena.server import config as settings
from catena.server import logplace, settingsfile, tomlplace
from catena.server.config import CONFIG_FILE, Config
from catena.server.folder import database_url, read_passphrase, remembered_log
from catena.server.signers import open_signer
from catena.service.journal import Journal
from catena.service.pseudonyms import SERVER, Pseudonyms
from catena.store.database import Database


class LogKeepsItsName(UsageError):
    """A new log with the origin of the old: nobody could tell their checkpoints apart."""

    code = "log-keeps-its-name"
    remedy = "Give another --origin, such as the old one with a number behind it."


class AnotherRotation(UsageError):
    """The old log was said to go on in another one."""

    code = "another-rotation"
    remedy = "Finish the rotation that was begun: give the --origin that `got` names."


class SettingsUnchangeable(UsageError):
    """``server.toml`` is written in a way that its settings cannot be exchanged in place."""

    code = "settings-unchangeable"
    remedy = "Put the settings into server.toml yourself, as `expected` has them."


@dataclass(frozen=True, slots=True)
class Successor:
    """The log that goes on: its origin, where it lies, and the file of its key."""

    origin: str
    log: str
    log_key: str


@dataclass(frozen=True, slots=True)
class Rotated:
    """What became of a rotation: the old log's last tree, and the new log's settings."""

    ended: Checkpoint
    config: Config


def rotate(
    folder: Path,
    successor: Successor,
    *,
    now: Callable[[], datetime],
    random: Callable[[int], bytes],
) -> Rotated:
    """End the log of a server that does not run, and go on in another one.

    Raises ``LogKeepsItsName``, ``AnotherRotation``, ``LogInUse``, ``LogExists`` (at the new place is
    something else), ``SettingsUnchangeable``, and what opening a server raises.
    """
    old = settings.load(folder)
    passphrase = read_passphrase(folder / old.passphrase_file) if old.passphrase_file else None
    signers = (
        open_signer(folder, old.log_key, passphrase),
        open_signer(folder, successor.log_key, passphrase),
    )
    former = _former(old, *signers)
    new = msgspec.structs.replace(
        old, log=successor.log, log_origin=successor.origin, log_key=successor.log_key
    )
    if former is not None:
        new = msgspec.structs.replace(new, former_log_keys=(former, *old.former_log_keys))
    checkpoints.require_origin(new.log_origin)
    if new.log_origin == old.log_origin:
        raise LogKeepsItsName("the log has this origin already", got=ascii(new.log_origin[:80]))
    text = _rewritten(folder, new, former)  # refused before anything is done
    database = Database.open(database_url(folder, old.database))
    try:
        rotation = _Rotation(folder, database, now, Pseudonyms(database, random))
        ended = rotation.end(old, signers[0], new.log_origin, signers[1].public_key)
        rotation.begin(new, signers[1], ended, signers[0].public_key)
    finally:
        database.close()
    if former is not None:
        replace_file(folder / former, public_pem(signers[0].public_key))
    replace_file(folder / CONFIG_FILE, text.encode())  # 4.
    return Rotated(ended, new)


@dataclass(frozen=True, slots=True)
class _Rotation:
    """Steps 1 to 3, for one database."""

    folder: Path
    database: Database
    now: Callable[[], datetime]
    pseudonyms: Pseudonyms

    def end(self, old: Config, signer: Signer, successor: str, key: PublicKey) -> Checkpoint:
        """Steps 1 and 2; the old log's last tree."""
        state = remembered_log(self.database, old.log_origin)
        with self._open(old, signer, state.checkpoint) as log:  # nobody else has a folder open
            self._say(old.log_origin, successor)
            last = LogEnded(
                at=self.now(), actor=SERVER, origin=successor, log_key_sha256=key_id_of(key)
            )
            journal = self._journal(log, signer)
            if not _has(log, signer.public_key, log.size - 1, last):
                journal.record(last)
            _remember(journal)
            return checkpoints.verify(log.checkpoint().encode(), signer.public_key)

    def begin(self, new: Config, signer: Signer, ended: Checkpoint, key: PublicKey) -> None:
        """Step 3."""
        first = LogContinues(
            at=self.now(),
            actor=SERVER,
            origin=ended.origin,
            log_key_sha256=key_id_of(key),
            tree_size=ended.size,
            root_sha256=ended.root.hex(),
        )
        with self._made(new, signer) as log:
            journal = self._journal(log, signer)
            if log.size == 0:
                journal.record(first)
            elif log.origin != new.log_origin or not _has(log, signer.public_key, 0, first):
                raise LogExists("at this place is another log", got=ascii(log.origin[:80]))
            _remember(journal)

    def _say(self, origin: str, successor: str) -> None:
        """Step 1. The row is locked, so that no server is in the middle of an append."""
        with self.database.transaction() as rows:
            state = rows.log_states.lock(origin)
            if state is not None and state.successor not in {None, successor}:
                raise AnotherRotation(
                    "this log was said to go on elsewhere", got=ascii(state.successor)
                )
            rows.log_states.end(origin, successor)

    def _journal(self, log: TransparencyLog, signer: Signer) -> Journal:
        return Journal(log, signer, self.database, self.pseudonyms)

    @contextlib.contextmanager
    def _made(self, new: Config, signer: Signer) -> Iterator[TransparencyLog]:
        """The new log, which an earlier attempt may have left."""
        with self.database.snapshot() as rows:
            state = rows.log_states.get(new.log_origin)
        try:
            log = logplace.create_log(self.folder, new, signer, self.database, self.now)
        except LogExists:
            checkpoint = None if state is None else state.checkpoint
            with self._open(new, signer, checkpoint) as log:
                yield log
            return
        with contextlib.closing(log):
            yield log

    @contextlib.contextmanager
    def _open(
        self, config: Config, signer: Signer, remembered: str | None
    ) -> Iterator[TransparencyLog]:
        log = logplace.open_log(
            self.folder,
            config,
            signer,
            self.database,
            self.now,
            remembered=remembered,
            ending=True,
        )
        with contextlib.closing(log):
            yield log


def _remember(journal: Journal) -> None:
    """Let the database remember the log's checkpoint, without any other effect."""
    with journal.effect():
        pass


def _has(log: TransparencyLog, key: PublicKey, index: int, wanted: Entry) -> bool:
    """Whether the log has this entry there, apart from when it was made."""
    if index < 0:
        return False
    found = Leaves(log.reader, log.size).entry(index, key)
    return type(found) is type(wanted) and msgspec.structs.replace(found, at=wanted.at) == wanted


def _former(config: Config, old: Signer, new: Signer) -> str | None:
    """The file for the old log's public key; None if the new log has the same one."""
    name = f"log-{old.key_id[:16]}.pub"
    return None if old.key_id == new.key_id or name in config.former_log_keys else name


def _rewritten(folder: Path, new: Config, former: str | None) -> str:
    """The settings' text with the new log in it. Raises ``SettingsUnchangeable``."""
    text = (folder / CONFIG_FILE).read_text(encoding="utf-8")
    wanted = {"log": new.log, "log_origin": new.log_origin, "log_key": new.log_key}
    for key, value in wanted.items():
        text = tomlplace.with_string(text, key, value)
    if former is not None:
        text = tomlplace.with_element(text, "former_log_keys", former)
    if settingsfile.read(text, Config).settings != new:
        raise SettingsUnchangeable(
            "these settings cannot be exchanged in place",
            expected=", ".join(
                [
                    *(f"{key} = {value!r}" for key, value in wanted.items()),
                    *([] if former is None else [f"{former!r} in former_log_keys"]),
                ]
            ),
        )
    return text
