"""JSON Web Tokens (RFC 7519) in the compact serialization of JWS (RFC 7515, sections 3.1 and 7.1).

``base64url(header) "." base64url(claims) "." base64url(signature)``

What is signed is everything before the second dot, as it stands. Header and claims are I-JSON: no name occurs
twice. Encrypted tokens, ``crit`` and detached content are not read. Nothing here verifies a signature.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from catena.errors import FormatError
from catena.formats import ijson
from catena.formats.jws import decode_base64url, encode_base64url

MAX_TOKEN = 16 * 1024
_PARTS = 3


class Header(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The JOSE header. ``jku``, ``jwk``, ``x5u`` and ``x5c`` are never looked at: a token does not say which
    key it is to be believed by.
    """

    alg: str
    kid: str | None = None
    typ: str | None = None
    crit: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    b64: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Claims(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The registered claims (RFC 7519, section 4.1) and those of an ID token (OpenID Connect Core, section 2).

    Times are seconds since 1970 UTC.
    """

    iss: str | None = None
    sub: str | None = None
    aud: str | tuple[str, ...] = ()
    exp: int | float | None = None
    nbf: int | float | None = None
    iat: int | float | None = None
    nonce: str | None = None
    azp: str | None = None

    @property
    def audiences(self) -> tuple[str, ...]:
        """For whom the token is."""
        return (self.aud,) if isinstance(self.aud, str) else self.aud


@dataclass(frozen=True, slots=True)
class Jwt:
    """A token as it was sent, *untrusted*."""

    header: Header
    claims: Claims
    payload: bytes = field(repr=False)
    to_be_signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    def words(self, claim: str) -> tuple[str, ...]:
        """A claim that is a string or an array of strings; nothing if it is absent or anything else."""
        value = msgspec.json.decode(self.payload, type=dict[str, object]).get(claim)
        if isinstance(value, str):
            return (value,)
        if isinstance(value, list):
            return tuple(one for one in value if isinstance(one, str))
        return ()

    def says(self, claim: str) -> bool:
        """Whether a claim is ``true``."""
        return msgspec.json.decode(self.payload, type=dict[str, object]).get(claim) is True


def parse(token: str) -> Jwt:
    """Read a token. Raises ``FormatError``."""
    if len(token) > MAX_TOKEN or not token.isascii():
        raise FormatError("not a JWT", expected=f"at most {MAX_TOKEN} ASCII characters")
    parts = token.split(".")
    if len(parts) != _PARTS:
        raise FormatError("not a signed JWT", expected="3 parts", got=f"{len(parts)}")
    header, payload, signature = map(decode_base64url, parts)
    jose = ijson.decode(header, Header, limit=MAX_TOKEN, what="JOSE header")
    if jose.crit is not msgspec.UNSET or jose.b64 is not msgspec.UNSET:
        raise FormatError("the JWT demands an extension that is not known")
    claims = ijson.decode(payload, Claims, limit=MAX_TOKEN, what="JWT claims set")
    signed = token.rpartition(".")[0].encode()
    return Jwt(jose, claims, payload, signed, signature)


def to_be_signed(header: Header, claims: msgspec.Struct) -> bytes:
    """What a token's signature is over."""
    parts = (msgspec.json.encode(header), msgspec.json.encode(claims))
    return ".".join(map(encode_base64url, parts)).encode()


def encode(signed: bytes, signature: bytes) -> str:
    """The token of ``to_be_signed`` and its signature."""
    return f"{signed.decode()}.{encode_base64url(signature)}"
