"""PKCS #11 URIs (RFC 7512): which key on which token, by which module, and where its PIN is.

``pkcs11:token=NAME;object=NAME?module-path=/FILE&pin-source=file:/FILE``

============  ======  ===========================================
attribute     where   here
============  ======  ===========================================
token         path    label of the token
serial        path    its serial number
object        path    label of the key
id            path    its CKA_ID, bytes
type          path    ``private``, if it is there
module-path   query   absolute path of the module; needed
pin-source    query   absolute path of a file, or ``file:`` and one; needed
============  ======  ===========================================

Attributes that narrow in other ways are refused: passing one over would name another key. So is ``pin-value``, a PIN in
plain sight.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from catena.errors import FormatError

SCHEME = "pkcs11:"
MAX_URI = 2048
_PATH = frozenset({"token", "serial", "object", "id", "type"})
_QUERY = frozenset({"module-path", "pin-source"})
_ATTRIBUTE = re.compile(r"([a-z-]+)=((?:[A-Za-z0-9._~:\[\]@!$'()*+,=&/?|-]|%[0-9A-Fa-f]{2})*)")


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """One private key on a token."""

    module: Path
    pin_source: Path
    token: str | None = None
    serial: str | None = None
    object: str | None = None
    id: bytes | None = None


def parse(text: str) -> Pkcs11Uri:
    """Read a URI. Raises ``FormatError``, which never quotes one: somebody may have put a PIN there."""
    if not text.startswith(SCHEME) or len(text) > MAX_URI:
        raise FormatError("not a PKCS #11 URI", expected="pkcs11:…")
    path, _, query = text.removeprefix(SCHEME).partition("?")
    named, where = _attributes(path, ";", _PATH), _attributes(query, "&", _QUERY)
    if named.get("type", b"private") != b"private":
        raise FormatError("a PKCS #11 URI of another kind of object", expected="type=private")
    if not named.keys() & {"token", "serial"} or not named.keys() & {"object", "id"}:
        raise FormatError(
            "a PKCS #11 URI does not name one key", expected="token or serial, and object or id"
        )
    return Pkcs11Uri(
        module=_file(where, "module-path"),
        pin_source=_file(where, "pin-source"),
        token=_text(named, "token"),
        serial=_text(named, "serial"),
        object=_text(named, "object"),
        id=named.get("id"),
    )


def _attributes(part: str, separator: str, known: frozenset[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for text in part.split(separator) if part else ():
        match = _ATTRIBUTE.fullmatch(text)
        if match is None:
            raise FormatError("a PKCS #11 URI has an attribute that cannot be read")
        name = match[1]
        if name not in known:
            raise FormatError(
                "a PKCS #11 URI has an attribute that is not taken",
                expected=", ".join(sorted(known)),
                got=name[:40],
            )
        if name in found:
            raise FormatError("a PKCS #11 URI has an attribute twice", got=name)
        found[name] = unquote_to_bytes(match[2])
    return found


def _file(found: dict[str, bytes], name: str) -> Path:
    text = (_text(found, name) or "").removeprefix("file:")
    if not text.startswith("/") or "\0" in text:
        raise FormatError(f"a PKCS #11 URI needs `{name}`", expected="an absolute path")
    return Path(text)


def _text(found: dict[str, bytes], name: str) -> str | None:
    if name not in found:
        return None
    try:
        return found[name].decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"`{name}` of a PKCS #11 URI is no text") from error
