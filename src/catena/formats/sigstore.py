"""Sigstore bundles, version 0.3 (sigstore/protobuf-specs, ``sigstore_bundle.proto``, as JSON).

::

    {"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
     "verificationMaterial": {"publicKey": {"hint"} | "certificate": {"rawBytes"}
                              | "x509CertificateChain": {"certificates": [{"rawBytes"}]},
                              "tlogEntries"?: […], "timestampVerificationData"?: …},
     "dsseEnvelope": {"payload", "payloadType", "signatures": [{"sig", "keyid"?}]}
     | "messageSignature": {"messageDigest"?: {"algorithm", "digest"}, "signature"}}

Exactly one kind of key and one kind of content. Of a log entry the signed promise is read
(``formats.rekor``), not the inclusion proof; RFC 3161 timestamps are carried, never read.

An image's signature is an in-toto Statement with the predicate ``SIGN_PREDICATE`` about the image's
digest (cosign 3, ``pkg/cosign/bundle``). Any other predicate is a statement *about* an image, not a signature of it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from catena.errors import FormatError
from catena.formats import dsse, ijson
from catena.formats.rekor import Promise

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIGN_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
MAX_BUNDLE = 1024 * 1024
MAX_CERTIFICATES = 16
MAX_ENTRIES = 16
MAX_CERTIFICATE = 64 * 1024

_STATEMENTS = frozenset({"https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"})
_INTEGER = re.compile(r"[0-9]{1,18}\Z")


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    pass


class _Raw(_Strict, frozen=True, rename="camel"):
    raw_bytes: bytes


class _Chain(_Strict, frozen=True):
    certificates: Annotated[
        tuple[_Raw, ...], msgspec.Meta(min_length=1, max_length=MAX_CERTIFICATES)
    ]


class _Hint(_Strict, frozen=True):
    hint: str = ""


class _LogId(_Strict, frozen=True, rename="camel"):
    key_id: bytes


class _Kind(_Strict, frozen=True):
    kind: str
    version: str


class _InclusionPromise(_Strict, frozen=True, rename="camel"):
    signed_entry_timestamp: bytes


class _Entry(_Strict, frozen=True, rename="camel", kw_only=True):
    log_index: str = "0"
    log_id: _LogId | None = None
    kind_version: _Kind | None = None
    integrated_time: str = "0"
    inclusion_promise: _InclusionPromise | None = None
    inclusion_proof: msgspec.Raw = msgspec.Raw()
    canonicalized_body: bytes = b""


class _Material(_Strict, frozen=True, rename="camel", kw_only=True):
    public_key: _Hint | None = None
    certificate: _Raw | None = None
    x509_certificate_chain: _Chain | None = msgspec.field(default=None, name="x509CertificateChain")
    tlog_entries: Annotated[tuple[_Entry, ...], msgspec.Meta(max_length=MAX_ENTRIES)] = ()
    timestamp_verification_data: msgspec.Raw = msgspec.Raw()


class _Signature(_Strict, frozen=True):
    sig: bytes
    keyid: str = ""


class _Envelope(_Strict, frozen=True, rename="camel"):
    payload: bytes
    payload_type: str
    signatures: Annotated[tuple[_Signature, ...], msgspec.Meta(min_length=1, max_length=1)]


class _MessageDigest(_Strict, frozen=True):
    algorithm: str
    digest: bytes


class _MessageSignature(_Strict, frozen=True, rename="camel"):
    signature: bytes
    message_digest: _MessageDigest | None = None


class _Bundle(_Strict, frozen=True, rename="camel", kw_only=True):
    media_type: str
    verification_material: _Material
    dsse_envelope: _Envelope | None = None
    message_signature: _MessageSignature | None = None


class _Resource(_Strict, frozen=True, rename="camel", kw_only=True):
    """An in-toto ResourceDescriptor; only its digest and annotations are read."""

    name: str = ""
    uri: str = ""
    digest: dict[str, str] = {}
    content: str = ""
    download_location: str = ""
    media_type: str = ""
    annotations: dict[str, Any] = {}


class _Statement(_Strict, frozen=True, kw_only=True):
    type: str = msgspec.field(name="_type")
    subject: Annotated[tuple[_Resource, ...], msgspec.Meta(max_length=256)]
    predicate_type: str = msgspec.field(name="predicateType")
    predicate: msgspec.Raw = msgspec.Raw()


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """A DSSE envelope: ``message`` is what ``signature`` has to cover."""

    payload: bytes
    payload_type: str
    signature: bytes

    @property
    def message(self) -> bytes:
        """The pre-authentication encoding."""
        return dsse.pae(self.payload_type, self.payload)


@dataclass(frozen=True, slots=True)
class SignedDigest:
    """A signature over content of which only the digest is here; None if not even that."""

    sha256: str | None
    signature: bytes


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle, *untrusted*. ``certificates`` are DER, leaf first; empty for a bare key."""

    certificates: tuple[bytes, ...]
    promises: tuple[Promise, ...]
    content: SignedStatement | SignedDigest


@dataclass(frozen=True, slots=True)
class ImageStatement:
    """What a statement says about its only subject, with its SHA-256 in hex."""

    predicate_type: str
    sha256: str
    annotations: Mapping[str, str]


def parse(data: bytes) -> Bundle:
    """Read a bundle. Raises ``FormatError``."""
    bundle = ijson.decode(data, _Bundle, limit=MAX_BUNDLE, what="sigstore bundle")
    if bundle.media_type != BUNDLE_TYPE:
        raise FormatError(
            "bundle has another version", expected=BUNDLE_TYPE, got=ascii(bundle.media_type[:80])
        )
    material = bundle.verification_material
    return Bundle(_certificates(material), _promises(material.tlog_entries), _content(bundle))


def parse_statement(payload: bytes) -> ImageStatement:
    """Read the statement of an envelope. Raises ``FormatError``."""
    statement = ijson.decode(payload, _Statement, limit=MAX_BUNDLE, what="in-toto statement")
    if statement.type not in _STATEMENTS:
        raise FormatError("not an in-toto statement", got=ascii(statement.type[:80]))
    if len(statement.subject) != 1:
        raise FormatError(
            "statement is not about one image", expected="1", got=str(len(statement.subject))
        )
    subject = statement.subject[0]
    texts = {name: text for name, text in subject.annotations.items() if isinstance(text, str)}
    return ImageStatement(statement.predicate_type, subject.digest.get("sha256", ""), texts)


def statement(sha256: str, annotations: Mapping[str, str]) -> bytes:
    """The statement that signs an image, as cosign writes it."""
    return msgspec.json.encode(
        {
            "_type": dsse.STATEMENT_TYPE,
            "subject": [{"digest": {"sha256": sha256}, "annotations": dict(annotations)}],
            "predicateType": SIGN_PREDICATE,
            "predicate": {},
        }
    )


def encode(payload: bytes, signature: bytes, hint: str) -> bytes:
    """A bundle around a statement that a bare key has signed."""
    return msgspec.json.encode(
        {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {"publicKey": {"hint": hint}},
            "dsseEnvelope": {
                "payload": payload,
                "payloadType": dsse.IN_TOTO,
                "signatures": [{"sig": signature}],
            },
        }
    )


def _certificates(material: _Material) -> tuple[bytes, ...]:
    kinds = (material.public_key, material.certificate, material.x509_certificate_chain)
    given = [one for one in kinds if one is not None]
    if len(given) != 1:
        raise FormatError("bundle does not have one kind of key", got=str(len(given)))
    raw: tuple[_Raw, ...] = ()
    if material.certificate is not None:
        raw = (material.certificate,)
    elif material.x509_certificate_chain is not None:
        raw = material.x509_certificate_chain.certificates
    if any(len(one.raw_bytes) > MAX_CERTIFICATE for one in raw):
        raise FormatError("certificate is too large", expected=f"at most {MAX_CERTIFICATE}")
    return tuple(one.raw_bytes for one in raw)


def _content(bundle: _Bundle) -> SignedStatement | SignedDigest:
    envelope, message = bundle.dsse_envelope, bundle.message_signature
    if envelope is not None and message is None:
        return SignedStatement(envelope.payload, envelope.payload_type, envelope.signatures[0].sig)
    if message is not None and envelope is None:
        return SignedDigest(_sha256(message.message_digest), message.signature)
    raise FormatError("bundle does not have one kind of content")


def _sha256(digest: _MessageDigest | None) -> str | None:
    if digest is None:
        return None
    if digest.algorithm != "SHA2_256":
        raise FormatError(
            "message digest has another algorithm",
            expected="SHA2_256",
            got=ascii(digest.algorithm[:40]),
        )
    if len(digest.digest) != 32:
        raise FormatError("message digest has a wrong size", got=f"{len(digest.digest)} bytes")
    return digest.digest.hex()


def _promises(entries: tuple[_Entry, ...]) -> tuple[Promise, ...]:
    """Entries of logs that promise nothing (Rekor 2 proves inclusion only) are left out."""
    return tuple(
        Promise(
            body=base64.b64encode(one.canonicalized_body).decode(),
            integrated_time=_integer(one.integrated_time),
            log_index=_integer(one.log_index),
            log_id=one.log_id.key_id.hex(),
            signature=one.inclusion_promise.signed_entry_timestamp,
        )
        for one in entries
        if one.inclusion_promise is not None and one.log_id is not None
    )


def _integer(text: str) -> int:
    """A 64-bit integer, which protobuf's JSON writes as text."""
    if not _INTEGER.match(text):
        raise FormatError("not a number of a log entry", got=ascii(text[:40]))
    return int(text)
