"""Where the server's private keys are: a file, or a PKCS#11 token (RFC 7512)."""

from __future__ import annotations

from pathlib import Path

from catena.keys.signer import Signer, load_signer

PKCS11 = "pkcs11:"


def open_signer(folder: Path, named: str, passphrase: bytes | None) -> Signer:
    """The key that a setting names; a file's path is relative to ``folder``.

    Raises what ``load_signer`` raises.
    """
    return load_signer(folder / named, passphrase)
