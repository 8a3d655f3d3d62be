"""The files with the keys that encrypt secrets at rest (KEKs).

``storage.key`` is the one that ``init`` made; ``storage-ID.key`` came later. Each server of a fleet has a
copy of those in use. A file that nothing is under any more may be deleted. A file holds a key, or the
PKCS #11 URI of one on a token: servers may reach the same token by different modules.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from catena.formats import pkcs11uri
from catena.keys.signer import UnusableKey, write_new
from catena.server.owned import read_owned
from catena.service.setting import KEY_SIZE
from catena.service.tokenvault import TokenVault
from catena.service.vault import Kek, Vault

STORAGE_KEY = "storage.key"
_LATER = "storage-*.key"
_NAME = re.compile(r"storage(-[0-9a-f]{16})?\.key")


def read_key(path: Path) -> bytes:
    """A symmetric key. Raises ``MissingKey``, ``ExposedKey`` or ``UnusableKey``."""
    key = read_owned(path, KEY_SIZE + 1)
    if len(key) != KEY_SIZE:
        raise UnusableKey(f"{path.name} is no key", expected=f"{KEY_SIZE} bytes")
    return key


def read_storage_key(path: Path) -> Kek:
    """A storage key, or where it is; no token is asked. Raises as ``read_key``, and ``FormatError``."""
    content = read_owned(path, pkcs11uri.MAX_URI + 2)
    if not content.startswith(pkcs11uri.SCHEME.encode()) or len(content) == KEY_SIZE:
        return Vault(read_key(path))
    uri = content.decode("utf-8", errors="replace").removesuffix("\n")
    pkcs11uri.parse(uri)
    return TokenVault(uri, path.stem.partition("-")[2] or None)


def storage_key_files(folder: Path) -> tuple[Path, ...]:
    """The files that are there, or at least the first one's name."""
    later = sorted(folder.glob(_LATER))
    first = folder / STORAGE_KEY
    return tuple(later if later and not first.exists() else [first, *later])


def is_storage_key(name: str) -> bool:
    """Whether a file of this name holds one."""
    return _NAME.fullmatch(name) is not None


def read_storage_keys(folder: Path) -> tuple[Kek, ...]:
    """All of them, the first one first. Raises as ``read_storage_key``."""
    return tuple(map(read_storage_key, storage_key_files(folder)))


def check_storage_keys(folder: Path) -> None:
    """Use each of them. Raises as ``read_storage_key``, and ``KekUnusable``."""
    for kek in read_storage_keys(folder):
        _ = kek.digest


def make_storage_key(folder: Path, random: Callable[[int], bytes]) -> Path:
    """A new key's file, durable and not in force yet."""
    key = random(KEY_SIZE)
    return _written(folder, Vault(key).id, key)


def name_storage_key(folder: Path, uri: str) -> Path:
    """The file that names a key on a token, which works; not in force yet.

    Raises ``FormatError``, ``KekUnusable``.
    """
    pkcs11uri.parse(uri)
    return _written(folder, TokenVault(uri).id, f"{uri}\n".encode())


def _written(folder: Path, kek: str, content: bytes) -> Path:
    path = folder / f"storage-{kek}.key"
    write_new(path, content, mode=0o600)
    return path
