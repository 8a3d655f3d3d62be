"""COSE_Sign1 messages (RFC 9052, sections 4.2 and 4.4): one signer, payload attached.

``COSE_Sign1 = #6.18([protected: bstr .cbor map, unprotected: map, payload: bstr, signature: bstr])``

What is signed is ``Sig_structure``: ``["Signature1", protected, external_aad, payload]``, where
``protected`` are the bytes as they stand in the message. Nothing here verifies a signature.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from catena.errors import FormatError
from catena.formats import cbor
from catena.formats.cbor import Tag, Value

COSE_SIGN1 = 18
ALG, CRIT, CONTENT_TYPE = 1, 2, 3
X5CHAIN = 33
"""Header labels (RFC 9052 section 3.1, RFC 9360 section 2)."""

Headers = dict[int | str, Value]


@dataclass(frozen=True, slots=True)
class CoseSign1:
    """A message. Everything in it is *untrusted* until a signature over ``to_be_signed`` holds.

    ``raw_protected`` are the signed bytes that ``protected`` was read from; the unprotected
    headers are never signed. A label stands in one of the two only.
    """

    raw_protected: bytes
    unprotected: Headers
    payload: bytes
    signature: bytes
    protected: Headers = field(init=False)

    def __post_init__(self) -> None:
        protected = cbor.parse(self.raw_protected)
        if not isinstance(protected, dict):
            raise FormatError("COSE protected headers are no map")
        if twice := sorted(map(str, protected.keys() & self.unprotected.keys())):
            raise FormatError("COSE header is protected and unprotected", got=ascii(twice[0])[:80])
        object.__setattr__(self, "protected", protected)

    def to_be_signed(self) -> bytes:
        """The bytes that the signature covers."""
        return cbor.encode(("Signature1", self.raw_protected, b"", self.payload))

    def encode(self) -> bytes:
        """The tagged message; ``parse`` gives it back."""
        parts = (self.raw_protected, self.unprotected, self.payload, self.signature)
        return cbor.encode(Tag(COSE_SIGN1, parts))


def parse(data: bytes) -> CoseSign1:
    """Read a tagged COSE_Sign1. Raises ``FormatError``; a detached payload is one."""
    match cbor.parse(data):
        case Tag(number=18, value=(bytes() as protected, dict() as headers, bytes() as payload, bytes() as signature)):  # fmt: skip
            pass
        case _:
            raise FormatError(
                "not a COSE_Sign1 message", expected="tag 18 and four parts, payload attached"
            )
    try:
        return CoseSign1(protected, headers, payload, signature)
    except FormatError as error:
        error.offset = 0  # of the headers, which stand somewhere inside
        raise
