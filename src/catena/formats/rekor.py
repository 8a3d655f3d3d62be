"""What Rekor, sigstore's transparency log, promises about a signature (Rekor 1, API 0.0.1).

A *signed entry timestamp* is the log's signature over ``{body, integratedTime, logID, logIndex}``
in canonical JSON (RFC 8785). It promises that the entry is in the log since ``integratedTime``; that it
really is would take an inclusion proof, which is not read here. cosign's older signatures carry it
as the annotation ``dev.sigstore.cosign/bundle``::

    {"SignedEntryTimestamp": base64, "Payload": {"body", "integratedTime", "logIndex", "logID"}}

Entries: ``hashedrekord`` 0.0.1 (digest, signature, verifier) and ``dsse`` 0.0.1 (the same of an envelope).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated

import msgspec

from catena.errors import FormatError
from catena.formats import ijson

MAX_ENTRY = 256 * 1024
MAX_ANNOTATION = 512 * 1024
MAX_TIME = 2**37

Time = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME)]
Number = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class _Hash(_Strict, frozen=True):
    algorithm: str
    value: str


class _Data(_Strict, frozen=True):
    hash: _Hash


class _Key(_Strict, frozen=True):
    content: bytes


class _Signature(_Strict, frozen=True, rename="camel"):
    content: bytes
    public_key: _Key


class _HashedRekord(_Strict, frozen=True):
    data: _Data
    signature: _Signature


class _EnvelopeSignature(_Strict, frozen=True):
    signature: bytes
    verifier: bytes


class _Dsse(_Strict, frozen=True, rename="camel"):
    envelope_hash: _Hash
    payload_hash: _Hash
    signatures: Annotated[tuple[_EnvelopeSignature, ...], msgspec.Meta(min_length=1, max_length=1)]


class _Entry(_Strict, frozen=True, rename="camel"):
    api_version: str
    kind: str
    spec: msgspec.Raw


class _Promised(_Strict, frozen=True):
    body: str
    integrated_time: Time = msgspec.field(name="integratedTime")
    log_index: Number = msgspec.field(name="logIndex")
    log_id: str = msgspec.field(name="logID")


class _Annotation(_Strict, frozen=True):
    timestamp: bytes = msgspec.field(name="SignedEntryTimestamp")
    payload: _Promised = msgspec.field(name="Payload")


@dataclass(frozen=True, slots=True)
class Promise:
    """A log's promise, *untrusted*. ``body`` is the entry in base64, as the log signs it.

    ``log_id`` is the hex SHA-256 of the log's key; ``integrated_time`` is Unix time.
    """

    body: str
    integrated_time: int
    log_index: int
    log_id: str
    signature: bytes

    def signed(self) -> bytes:
        """What the log signs: members in the order of their names, nothing between them."""
        return msgspec.json.encode(
            {
                "body": self.body,
                "integratedTime": self.integrated_time,
                "logID": self.log_id,
                "logIndex": self.log_index,
            }
        )


@dataclass(frozen=True, slots=True)
class LogEntry:
    """Which signature an entry is about: SHA-256 of what was signed, and who verifies it (PEM)."""

    sha256: str
    signature: bytes
    verifier: bytes


def parse_annotation(data: bytes) -> Promise:
    """Read the annotation of cosign's older signatures. Raises ``FormatError``."""
    found = ijson.decode(data, _Annotation, limit=MAX_ANNOTATION, what="log entry's annotation")
    said = found.payload
    return Promise(said.body, said.integrated_time, said.log_index, said.log_id, found.timestamp)


def parse_entry(body: str) -> LogEntry:
    """Read the entry of a promise. Raises ``FormatError``, also for other kinds of entries."""
    try:
        data = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError("log entry is not base64") from error
    entry = ijson.decode(data, _Entry, limit=MAX_ENTRY, what="log entry")
    match entry.kind, entry.api_version:
        case "hashedrekord", "0.0.1":
            rekord = ijson.decode(
                bytes(entry.spec), _HashedRekord, limit=MAX_ENTRY, what="hashedrekord"
            )
            signature = rekord.signature
            digest = _sha256(rekord.data.hash)
            return LogEntry(digest, signature.content, signature.public_key.content)
        case "dsse", "0.0.1":
            dsse = ijson.decode(bytes(entry.spec), _Dsse, limit=MAX_ENTRY, what="dsse entry")
            (only,) = dsse.signatures
            return LogEntry(_sha256(dsse.payload_hash), only.signature, only.verifier)
        case _:
            raise FormatError(
                "log entry is of another kind",
                expected="hashedrekord or dsse, 0.0.1",
                got=ascii(f"{entry.kind[:40]} {entry.api_version[:20]}"),
            )


def _sha256(digest: _Hash) -> str:
    if digest.algorithm != "sha256":
        raise FormatError("log entry has another digest", got=ascii(digest.algorithm[:40]))
    return digest.value
