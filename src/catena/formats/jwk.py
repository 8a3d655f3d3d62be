"""JSON Web Keys and sets of them (RFC 7517; parameters of RFC 7518, section 6, and RFC 8037).

Public keys only: a set in which a private parameter stands is refused. Members that nobody here needs are passed
over, as section 5 asks; a key of a type that is not known stays in the set, unusable.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from catena.errors import FormatError
from catena.formats import ijson

MAX_SET = 512 * 1024
MAX_KEYS = 100


class Jwk(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One public key; numbers are base64url, certificates (``x5c``) base64 of DER."""

    kty: str
    use: str | None = None
    kid: str | None = None
    alg: str | None = None
    crv: str | None = None
    x: str | None = None
    y: str | None = None
    n: str | None = None
    e: str | None = None
    x5c: tuple[str, ...] = ()
    d: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """A private key's, so never here."""


class JwkSet(msgspec.Struct, frozen=True, kw_only=True):
    """The keys that an issuer signs with, or that a trust domain is believed by."""

    keys: Annotated[tuple[Jwk, ...], msgspec.Meta(max_length=MAX_KEYS)]


def parse(data: bytes) -> JwkSet:
    """Read a set. Raises ``FormatError``."""
    keys = ijson.decode(data, JwkSet, limit=MAX_SET, what="JWK set")
    if any(one.d is not msgspec.UNSET or one.kty == "oct" for one in keys.keys):
        raise FormatError("a JWK set that shows a private or a symmetric key")
    return keys
