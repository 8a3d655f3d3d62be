"""rkt's trust store on disk, read into a ``TrustStore``.

::

    <store>/root.d/<fingerprint>                keys for every image
    <store>/prefix.d/<name…>/<fingerprint>      keys for the names from <name…> down

A key file is named after the fingerprint of the key in it; an empty one masks that key. rkt reads
two stores, ``/usr/lib/rkt/trustedkeys`` of the system and ``/etc/rkt/trustedkeys`` of the
administrator, whose root keys come before all prefixes; in a prefix, shorter names come first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from catena.containers.signature import openpgp
from catena.containers.signature.aci import ROOT, TrustedKey, TrustStore
from catena.errors import FormatError, NotFound
from catena.formats.openpgp import MAX_INPUT

STORES = (Path("/usr/lib/rkt/trustedkeys"), Path("/etc/rkt/trustedkeys"))
MAX_FILES = 4096
_FINGERPRINT = re.compile(r"^[0-9a-f]{40}([0-9a-f]{24})?\Z")


class BadTrustStore(FormatError):
    """A trust store with files that do not belong there."""

    code = "aci-trust-store"
    remedy = "Name each key file after its key's fingerprint, in lower case, or remove it."


class NoTrustStore(NotFound):
    """None of the folders exists."""

    code = "aci-trust-store-missing"
    remedy = "Name the folder that holds root.d and prefix.d."


def read_trust_store(folders: Sequence[Path] = STORES) -> TrustStore:
    """Read stores, the system's first. Raises ``NoTrustStore``, ``BadTrustStore``, ``UnusableOpenPgpKey``."""
    stores = [folder for folder in folders if folder.is_dir()]
    if not stores:
        raise NoTrustStore("no trust store", got=", ".join(map(str, folders))[:200])
    roots = [file for store in stores for file in _folder(store / "root.d", ROOT)]
    prefixed = [file for store in stores for file in _prefixes(store / "prefix.d")]
    return TrustStore((*roots, *prefixed))


def _prefixes(top: Path) -> Iterator[TrustedKey]:
    folders = [path for path in sorted(top.rglob("*")) if path.is_dir() and not path.is_symlink()]
    for folder in sorted(folders, key=lambda path: len(path.parts)):
        yield from _folder(folder, folder.relative_to(top).as_posix())


def _folder(folder: Path, prefix: str) -> Iterator[TrustedKey]:
    """The key files of one folder; of ``root.d`` and ``prefix.d`` either may be absent."""
    if not folder.is_dir():
        return
    files = [path for path in sorted(folder.iterdir()) if not path.is_dir()]
    if len(files) > MAX_FILES:
        raise BadTrustStore("trust store has too many files", expected=f"{MAX_FILES}")
    for path in files:
        if not _FINGERPRINT.match(path.name) or not path.is_file():
            raise BadTrustStore("trust store has a file that is no key", got=ascii(path.name[:80]))
        yield _key(path, prefix)


def _key(path: Path, prefix: str) -> TrustedKey:
    with path.open("rb") as file:
        key = file.read(MAX_INPUT + 1)
    if key and (found := openpgp.fingerprints([key])) != (path.name,):
        raise BadTrustStore(
            "key file is named after another key", expected=path.name, got=", ".join(found)[:200]
        )
    return TrustedKey(prefix, path.name, key)
