"""DSSE envelopes around in-toto Statements (DSSE 1.0.2; in-toto Attestation Framework v1).

An envelope is ``{"payload": base64, "payloadType": str, "signatures": [{"keyid", "sig"}]}``.
What is signed is the pre-authentication encoding:

``"DSSEv1" SP LEN(type) SP type SP LEN(body) SP body``, lengths in **bytes**, decimal.

Encoding is compact and deterministic, so equal input gives equal bytes. This module does not
verify signatures: ``keys.envelope`` does, and hands out the payload only afterwards.
"""

from __future__ import annotations

import msgspec

from catena.errors import FormatError

IN_TOTO = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
MAX_ENVELOPE = 4 * 1024 * 1024
MAX_SIGNATURES = 16


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One signature: ``keyid`` is a hint (hex SHA-256 of the SPKI), never trusted."""

    keyid: str
    sig: bytes


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A parsed envelope; ``payload`` is *untrusted* until a signature over ``pae`` holds."""

    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]

    def pae(self) -> bytes:
        """The bytes that signatures cover."""
        return pae(self.payload_type, self.payload)

    def encode(self) -> bytes:
        """Compact JSON; parse() gives the same envelope back."""
        return msgspec.json.encode(self)


class Subject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a statement speaks about, by digest (algorithm name to hex)."""

    name: str
    digest: dict[str, str]


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An in-toto Statement v1; ``predicate`` stays raw for the module that owns its type."""

    type: str = msgspec.field(name="_type", default=STATEMENT_TYPE)
    subject: tuple[Subject, ...]
    predicate_type: str = msgspec.field(name="predicateType")
    predicate: msgspec.Raw

    def encode(self) -> bytes:
        """Compact JSON in declared field order."""
        return msgspec.json.encode(self)


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding of ``payload`` (DSSE protocol, "Signature definition")."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def parse(data: bytes) -> Envelope:
    """Read an envelope. Raises ``FormatError`` for anything but exactly one."""
    if len(data) > MAX_ENVELOPE:
        raise FormatError(
            "DSSE envelope is too large", expected=f"at most {MAX_ENVELOPE}", got=f"{len(data)}"
        )
    try:
        envelope = msgspec.json.decode(data, type=Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"not a DSSE envelope: {error}") from error
    if not 1 <= len(envelope.signatures) <= MAX_SIGNATURES:
        raise FormatError(
            "DSSE envelope has a wrong number of signatures",
            expected=f"1 to {MAX_SIGNATURES}",
            got=f"{len(envelope.signatures)}",
        )
    return envelope


def parse_statement(payload: bytes) -> Statement:
    """Read an in-toto Statement v1. Raises ``FormatError``."""
    try:
        statement = msgspec.json.decode(payload, type=Statement)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"not an in-toto statement: {error}") from error
    if statement.type != STATEMENT_TYPE:
        raise FormatError(
            "not an in-toto Statement v1", expected=STATEMENT_TYPE, got=statement.type[:80]
        )
    return statement
