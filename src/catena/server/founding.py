"""Making a server's folder (``catena server init``); ``folder`` has its plan.

The folder appears complete or not at all: it is furnished under another name and then renamed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding

from catena.audit.entries import AdminToken
from catena.errors import Unavailable, UsageError
from catena.keys.hierarchy import KeyFolder, KeyName
from catena.keys.signer import (
    KeyAlgorithm,
    generate_key,
    load_public_key,
    public_pem,
    write_key,
    write_new,
)
from catena.server import config as settings
from catena.server import logplace, tls
from catena.server.config import Config
from catena.server.folder import (
    CA_FILE,
    NONCE_KEY,
    database_url,
    read_roots,
    split_root,
)
from catena.server.profile import PROFILE_FILE, Profile
from catena.server.storagekeys import STORAGE_KEY
from catena.service.bearer import new_token, token_hash
from catena.service.journal import Journal
from catena.service.pseudonyms import SERVER, Pseudonyms
from catena.service.roles import Role
from catena.service.setting import KEY_SIZE
from catena.store.credentials import Token
from catena.store.database import Database

FIRST_TOKEN = "admin"  # noqa: S105 - a label, not a token


class ServerExists(UsageError):
    """Something is already where the server's folder would be."""

    code = "server-exists"
    remedy = "Choose another folder; a server is never made over."


class FolderUnwritable(Unavailable):
    """The server's folder could not be made."""

    code = "folder-unwritable"
    remedy = (
        "Check that the parent folder exists, that you may write to it, and that the disk has room."
    )


@dataclass(frozen=True, slots=True)
class Sources:
    """Where ``init`` takes everything from."""

    keys: KeyFolder
    config: Config
    """With ``ek_roots`` and ``release_keys`` as the files to import."""
    now: Callable[[], datetime]
    random: Callable[[int], bytes]


def init(folder: Path, sources: Sources) -> str:
    """Make a server's folder; the admin token, which is kept nowhere.

    Raises ``ServerExists``, ``FolderUnwritable``, and what opening the keys raises.
    """
    if os.path.lexists(folder):
        raise ServerExists("the server's folder exists already", got=str(folder))
    try:
        room = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise FolderUnwritable(f"cannot make {folder}: {error.strerror}") from error
    try:
        token = _furnish(room, sources)
        room.rename(folder)
    except OSError as error:
        raise FolderUnwritable(f"cannot make {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(room, ignore_errors=True)
    return token


def _furnish(room: Path, sources: Sources) -> str:
    config = _import_files(room, sources)
    ca, certificate = sources.keys.signer(KeyName.CA), sources.keys.certificate(KeyName.CA)
    write_new(room / settings.CONFIG_FILE, settings.render(config).encode(), mode=0o644)
    settings.load(room)  # what `run` would refuse is refused here
    write_new(room / CA_FILE, certificate.public_bytes(Encoding.PEM), mode=0o644)
    write_new(room / NONCE_KEY, sources.random(KEY_SIZE), mode=0o600)
    write_new(room / STORAGE_KEY, sources.random(KEY_SIZE), mode=0o600)
    write_key(room / tls.KEY_FILE, generate_key(KeyAlgorithm.ECDSA_P256))
    tls.renew(room, ca, certificate, config.names, sources.now())
    _, port = settings.split_address(config.listen)
    name = f"[{config.names[0]}]" if ":" in config.names[0] else config.names[0]
    profile = Profile(server=f"https://{name}:{port}", ca=CA_FILE)
    write_new(room / PROFILE_FILE, settings.to_toml(profile).encode(), mode=0o644)
    return _found_log(room, config, sources)


def _found_log(room: Path, config: Config, sources: Sources) -> str:
    """An empty database and a log whose first entry is the first admin token."""
    signer = sources.keys.signer(KeyName.LOG)
    token = new_token(sources.random)
    stored = Token(
        hash=token_hash(token), role=Role.ADMIN, label=FIRST_TOKEN, created_at=sources.now()
    )
    database = Database.create(database_url(room, config.database))
    try:
        log = logplace.create_log(room, config, signer, database, sources.now)
        journal = Journal(log, signer, database, Pseudonyms(database, sources.random))
        journal.record(
            AdminToken(
                at=stored.created_at,
                actor=SERVER,
                action="created",
                label=stored.label,
                role=stored.role,
                token_sha256=stored.hash,
            )
        )
        with journal.effect() as rows:
            rows.tokens.insert(stored)
        log.close()
    finally:
        database.close()
    return token


def _import_files(room: Path, sources: Sources) -> Config:
    """Copy roots and release keys into the folder; the settings that name the copies."""
    (room / "roots").mkdir()
    roots = []
    for number, text in enumerate(sources.config.ek_roots):
        kind, path = split_root(text)
        read_roots(kind, path)
        copy = f"roots/{number}-{kind}.pem"
        write_new(room / copy, path.read_bytes(), mode=0o644)
        roots.append(f"{kind}={copy}")
    releases = []
    for number, text in enumerate(sources.config.release_keys):
        copy = f"release-{number}.pub"
        write_new(room / copy, public_pem(load_public_key(Path(text))), mode=0o644)
        releases.append(copy)
    return msgspec.structs.replace(
        sources.config, ek_roots=tuple(roots), release_keys=tuple(releases)
    )
