"""Where the server's private keys are: a file, or a PKCS#11 token (RFC 7512)."""

from __future__ import annotations

from pathlib import Path

from catena.formats.pkcs11uri import SCHEME
from catena.keys.signer import Signer, load_signer


def open_signer(folder: Path, named: str, passphrase: bytes | None) -> Signer:
    """The key that a setting names; a file's path is relative to ``folder``.

    Raises what ``load_signer`` and ``hsm.open_signer`` raise.
    """
    if named.startswith(SCHEME):
        from catena.keys import hsm  # noqa: PLC0415 - most servers have their keys in files

        return hsm.open_signer(named)
    return load_signer(folder / named, passphrase)
