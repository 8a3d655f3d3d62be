"""The file that ``catena server backup`` writes: a gzip'd tar with these members, in this order.

::

    backup.json            what it is of, with the SHA-256 of every member down to catena.db
    keys.sealed            only if asked for: the folder's own keys, under a passphrase
    server.toml …          settings, certificates, public keys, cursors
    catena.db              a consistent copy of the database
    logs/NAME/…            checkpoint and tiles of each log that lies in the folder NAME of the server's
    evidence/…             named by their own digests, or packs of such

The log proves itself by its key and evidence by its names; the digests find damage in the rest, not
deceit: whoever can write a backup can write another. So keep it as safe as the server.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from catena.audit import evidencepack, tiles
from catena.audit.folder import MAX_CHECKPOINT
from catena.audit.tiles import CHECKPOINT, MAX_BUNDLE
from catena.errors import FormatError, UsageError
from catena.server.config import CONFIG_FILE
from catena.server.folder import NONCE_KEY
from catena.server.storagekeys import is_storage_key, storage_key_files
from catena.server.tls import KEY_FILE

FORMAT = "catena-backup/1"
MANIFEST = "backup.json"
SEALED = "keys.sealed"
DATABASE = "catena.db"
MAX_MANIFEST = 16 * 1024 * 1024
MAX_SMALL = 16 * 1024 * 1024
MAX_DATABASE = 1 << 40

_SMALL = re.compile(
    r"(server|admin)\.toml|(ca|tls)\.crt|release-\d{1,4}\.pub|log-[0-9a-f]{16}\.pub|checkpoint\.cosigned"
    r"|exports/[0-9a-f]{32}\.json|roots/[A-Za-z0-9][A-Za-z0-9._-]{0,100}"
)
_LOG = re.compile(r"logs/([A-Za-z0-9][A-Za-z0-9._-]{0,63})/(.+)")
_NO_LOGS = frozenset({"evidence", "exports", "roots", "keys"})
_PACK = re.compile(r"evidence/packs/pack-\d{8}")
_MAX_PACK = 2 * evidencepack.FULL
_EVIDENCE = re.compile(r"evidence/([0-9a-f]{2})/\1[0-9a-f]{62}")
_MAX_EVIDENCE = 32 * 1024 * 1024
_CONTEXT = b"catena/backup-keys/v1"
_SALT = 16
_NONCE = 12
_SCRYPT = {"n": 1 << 16, "r": 8, "p": 1, "maxmem": 128 * 1024 * 1024, "dklen": 32}


class NotABackup(FormatError):
    """A file that is no backup, or a damaged one."""

    code = "not-a-backup"
    remedy = "Use another copy of the backup; one that was cut short or changed cannot be restored."


class WrongBackupPassphrase(UsageError):
    """A passphrase that does not open the backup's keys."""

    code = "wrong-backup-passphrase"
    remedy = "Give the passphrase that the backup was made with (--passphrase-file)."


class KeyPrint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A key that the server needs: where it was, and how to recognise it."""

    name: str
    fingerprint: str
    included: bool


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a backup is of."""

    format: str
    at: str
    version: str
    schema: int
    log_origin: str
    log_place: str
    checkpoint: str
    """What the database remembers of the log: the log in the backup contains it."""
    keys: tuple[KeyPrint, ...]
    digests: dict[str, str]


def parse_manifest(content: bytes) -> Manifest:
    """Read ``backup.json``. Raises ``NotABackup``."""
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.DecodeError as error:
        raise NotABackup("the backup does not begin with what it is") from error
    if manifest.format != FORMAT:
        raise NotABackup("another kind of backup", expected=FORMAT, got=manifest.format[:40])
    return manifest


def limit_of(name: str) -> int | None:
    """How long a member of this name may be; None for a name that no backup has."""
    if name in {SEALED, CONFIG_FILE} or _SMALL.fullmatch(name):
        return MAX_SMALL
    if name == DATABASE:
        return MAX_DATABASE
    if _EVIDENCE.fullmatch(name):
        return _MAX_EVIDENCE
    if is_pack(name):
        return _MAX_PACK
    found = _LOG.fullmatch(name)
    if found is None or found[1] in _NO_LOGS:
        return None
    if found[2] == CHECKPOINT:
        return MAX_CHECKPOINT
    try:
        tiles.parse_path(found[2])
    except FormatError:
        return None
    return MAX_BUNDLE


def is_pack(name: str) -> bool:
    """Whether the member is a pack of evidence (``audit.evidencepack``)."""
    return _PACK.fullmatch(name) is not None


def place_of(name: str) -> str:
    """Where a member lies below the server's folder."""
    return name.removeprefix("logs/")


def log_name(folder: str) -> str:
    """What the members of a log begin with. ``folder`` is a name that ``is_log_name`` accepts."""
    return f"logs/{folder}"


def is_log_name(folder: str) -> bool:
    """Whether a log may lie in a folder of this name."""
    return limit_of(f"{log_name(folder)}/{CHECKPOINT}") is not None


def is_digested(name: str) -> bool:
    """Whether the manifest has its digest; the others prove themselves."""
    return not name.startswith(("logs/", "evidence/"))


def fingerprint(key: bytes) -> str:
    """How a symmetric key is recognised without being shown."""
    return hashlib.sha256(b"catena/key-fingerprint/v1" + key).hexdigest()[:32]


def seal_keys(
    keys: Mapping[str, bytes], passphrase: bytes, random: Callable[[int], bytes]
) -> bytes:
    """Keys under a passphrase: scrypt, then AES-256-GCM; salt and nonce stand before."""
    salt, nonce = random(_SALT), random(_NONCE)
    key = hashlib.scrypt(passphrase, salt=salt, **_SCRYPT)
    return salt + nonce + AESGCM(key).encrypt(nonce, msgspec.json.encode(dict(keys)), _CONTEXT)


def own_keys(folder: Path) -> tuple[str, ...]:
    """The files in a server's folder that hold its own keys."""
    return NONCE_KEY, *(path.name for path in storage_key_files(folder)), KEY_FILE


def open_keys(sealed: bytes, passphrase: bytes) -> dict[str, bytes]:
    """The keys again. Raises ``WrongBackupPassphrase``, ``NotABackup``."""
    salt, nonce = sealed[:_SALT], sealed[_SALT : _SALT + _NONCE]
    if len(nonce) != _NONCE:
        raise NotABackup("the backup's keys are cut short")
    key = hashlib.scrypt(passphrase, salt=salt, **_SCRYPT)
    try:
        content = AESGCM(key).decrypt(nonce, sealed[_SALT + _NONCE :], _CONTEXT)
    except InvalidTag as error:
        raise WrongBackupPassphrase("the passphrase does not open the backup's keys") from error
    keys = msgspec.json.decode(content, type=dict[str, bytes])
    if not all(name in {NONCE_KEY, KEY_FILE} or is_storage_key(name) for name in keys):
        raise NotABackup("the backup has keys of unknown names")
    return keys
