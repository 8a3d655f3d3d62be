"""JSON Web Signatures in the flattened JSON serialization (RFC 7515, section 7.2.2).

``{"payload": base64url, "protected": base64url, "header": {…}, "signature": base64url}``

What is signed is ``ASCII(protected "." payload)`` as the two stand in the envelope. base64url has
no padding and only zero bits at its end, so that every content has one spelling. Nothing here
verifies a signature.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from catena.errors import FormatError
from catena.formats import ijson

MAX_ENVELOPE = 1024 * 1024


class JwsEnvelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An envelope as it was sent, *untrusted*; ``header`` is never signed."""

    payload: str
    protected: str
    signature: str
    header: dict[str, msgspec.Raw] = msgspec.field(default_factory=dict)

    def to_be_signed(self) -> bytes:
        """The JWS signing input."""
        return f"{self.protected}.{self.payload}".encode()

    def encode(self) -> bytes:
        """Compact JSON; ``parse`` gives the envelope back."""
        return msgspec.json.encode(self)


def parse(data: bytes) -> JwsEnvelope:
    """Read an envelope with one signature. Raises ``FormatError``."""
    if len(data) > MAX_ENVELOPE:
        raise FormatError(
            "JWS envelope is too large", expected=f"at most {MAX_ENVELOPE}", got=f"{len(data)}"
        )
    envelope = ijson.decode(data, JwsEnvelope, what="JWS envelope")
    for part in (envelope.payload, envelope.protected, envelope.signature):
        decode_base64url(part)
    return envelope


def decode_base64url(text: str) -> bytes:
    """The bytes behind unpadded base64url (RFC 7515, section 2). Raises ``FormatError``."""
    try:
        content = base64.b64decode(
            text.translate(_FROM_URL).encode() + b"=" * (-len(text) % 4), validate=True
        )
    except (binascii.Error, ValueError) as error:
        raise FormatError("not base64url") from error
    if encode_base64url(content) != text:
        raise FormatError("base64url is not in its only form")
    return content


def encode_base64url(content: bytes) -> str:
    """Unpadded base64url."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


_FROM_URL = str.maketrans("-_+/=", "+/***")
