"""The files with the keys that encrypt secrets at rest (KEKs).

``storage.key`` is the one that ``init`` made; ``storage-ID.key`` came later. Each server of a fleet has a
copy of those in use. A file that nothing is under any more may be deleted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from catena.keys.signer import UnusableKey, write_new
from catena.server.owned import read_owned
from catena.service.setting import KEY_SIZE
from catena.service.vault import kek_id

STORAGE_KEY = "storage.key"
_LATER = "storage-*.key"
_NAME = re.compile(r"storage(-[0-9a-f]{16})?\.key")


def read_key(path: Path) -> bytes:
    """A symmetric key. Raises ``MissingKey``, ``ExposedKey`` or ``UnusableKey``."""
    key = read_owned(path, KEY_SIZE + 1)
    if len(key) != KEY_SIZE:
        raise UnusableKey(f"{path.name} is no key", expected=f"{KEY_SIZE} bytes")
    return key


def storage_key_files(folder: Path) -> tuple[Path, ...]:
    """The files that are there, or at least the first one's name."""
    later = sorted(folder.glob(_LATER))
    first = folder / STORAGE_KEY
    return tuple(later if later and not first.exists() else [first, *later])


def is_storage_key(name: str) -> bool:
    """Whether a file of this name holds one."""
    return _NAME.fullmatch(name) is not None


def read_storage_keys(folder: Path) -> tuple[bytes, ...]:
    """All of them, the first one first. Raises as ``read_key``."""
    return tuple(map(read_key, storage_key_files(folder)))


def make_storage_key(folder: Path, random: Callable[[int], bytes]) -> Path:
    """A new key's file, durable and not in force yet."""
    key = random(KEY_SIZE)
    path = folder / f"storage-{kek_id(key)}.key"
    write_new(path, key, mode=0o600)
    return path
