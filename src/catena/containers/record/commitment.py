"""What a record says about the values of environment variables: that two are the same, or not.

``HMAC-SHA256(key, name=value)``. Without the key nobody can try out values; with it, a gate sees
whether a container was started with the same values as another. The key is made once in a boot
and never leaves the gate's runtime folder, which its owner has to have checked to be a tmpfs
of its own (as ``agent.delivery`` does): it must not survive the boot on a disk.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

from catena.containers.record.failure import ExposedRecord, RecordUnwritable

KEY_SIZE = 32
KEY_FILE = "commitment.key"


def commitments(key: bytes, env: Iterable[str]) -> dict[str, str]:
    """Commitments to ``NAME=value`` entries, by name.

    A name that comes twice has one commitment to all of its values, in order, NUL between them
    (no entry holds a NUL): programs differ in which of them they see.
    """
    entries: dict[str, list[str]] = {}
    for entry in env:
        entries.setdefault(entry.partition("=")[0], []).append(entry)
    return {name: _commitment(key, "\0".join(same)) for name, same in entries.items()}


def boot_key(folder: Path) -> bytes:
    """This boot's key, made if the folder has none. Raises ``ExposedRecord``, ``RecordUnwritable``."""
    path = folder / KEY_FILE
    try:
        return _read(path) if path.is_symlink() or path.exists() else _made(path)
    except OSError as error:
        raise RecordUnwritable(f"cannot keep a key at {path}", got=error.strerror) from error


def _commitment(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode("utf-8", "surrogateescape"), "sha256").hex()


def _made(path: Path) -> bytes:
    """A new key; complete or not there at all."""
    key = secrets.token_bytes(KEY_SIZE)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(draft, flags, 0o600), "wb") as stream:
            stream.write(key)
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
    return key


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        others = found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        key = stream.read(KEY_SIZE + 1)
    if found.st_uid != os.geteuid() or others or len(key) != KEY_SIZE:
        raise ExposedRecord(f"{path} is no private key of {KEY_SIZE} bytes")
    return key
