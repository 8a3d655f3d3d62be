"""Node certificates by the thousand: everything that is the same for all is encoded once.

``keys.authority`` says what a node's certificate looks like; one is made there, for no node, and taken
apart. Of its TBSCertificate (RFC 5280, 4.1) these fields are a node's own, all others are copied:

=====================  ==============================================================
serialNumber            fresh and random
validity                of this certificate
subject                 the node's name
subjectPublicKeyInfo    the key that the node proved
subjectAltName          the node's SPIFFE ID
subjectKeyIdentifier    SHA-1 of the key's bits (4.2.1.2, method 1)
=====================  ==============================================================

An extension of another kind than those that are known not to depend on the node is an error here,
lest one node's be copied into another's certificate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID

from catena.errors import CatenaError
from catena.ids import NodeName
from catena.keys.authority import CLOCK_SKEW, issue_node_certificate
from catena.keys.signer import Signer

_SEQUENCE, _SET, _INTEGER, _BIT_STRING, _OCTET_STRING, _UTF8 = 0x30, 0x31, 0x02, 0x03, 0x04, 0x0C
_URI = 0x86
"""GeneralName, uniformResourceIdentifier."""
_MAX_COMMON_NAME = 64
_GENERALIZED_TIME, _EXTENSIONS = 0x18, 0xA3
_SHARED = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        ExtensionOID.AUTHORITY_INFORMATION_ACCESS,
    }
)
_OWN = frozenset({ExtensionOID.SUBJECT_ALTERNATIVE_NAME, ExtensionOID.SUBJECT_KEY_IDENTIFIER})
_P256_HEAD = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
"""SubjectPublicKeyInfo of a P-256 key up to its 65 bytes (RFC 5480)."""


class UncopiableExtension(CatenaError):
    """The template has an extension that may depend on the node: a defect, stopped here."""

    code = "uncopiable-extension"
    remedy = "This is a defect in catena; report it."


class UnnameableNode(CatenaError):
    """A node whose name a certificate cannot hold (RFC 5280, ub-common-name)."""

    code = "unnameable-node"
    remedy = "Approve the node again with a name of at most 52 characters."


@dataclass(frozen=True, slots=True)
class NodeCertificate:
    """A certificate as it was issued: ``der`` is all of it, the others say what is in it."""

    der: bytes
    serial: int
    not_after: datetime


@dataclass(frozen=True, slots=True)
class NodeCertificates:
    """Issues node certificates under one CA, for one trust domain."""

    ca: Signer
    trust_domain: str
    head: bytes
    """The version."""
    middle: bytes
    """Signature algorithm and issuer."""
    algorithm: bytes
    shared: bytes
    """The extensions that all have."""

    @classmethod
    def under(
        cls,
        ca: Signer,
        ca_cert: x509.Certificate,
        trust_domain: str,
        *,
        crl_url: str | None = None,
    ) -> NodeCertificates:
        """Take a certificate for no node apart. Raises ``UncopiableExtension``."""
        template = issue_node_certificate(
            ca,
            ca_cert,
            ec.generate_private_key(ec.SECP256R1()).public_key(),
            trust_domain=trust_domain,
            node_name=NodeName("template"),
            not_before=datetime(2000, 1, 1, tzinfo=UTC),
            lifetime=timedelta(seconds=1),
            crl_url=crl_url,
        )
        kinds = [one.oid for one in template.extensions]
        unknown = [kind.dotted_string for kind in kinds if kind not in _SHARED | _OWN]
        if unknown:
            raise UncopiableExtension("an extension may not be copied", got=unknown[0])
        [body] = _items(template.tbs_certificate_bytes)
        version, _, algorithm, issuer, _, _, _, wrapped = _items(_content(body))
        encoded = _items(_content(_content(wrapped)))
        shared = [one for one, kind in zip(encoded, kinds, strict=True) if kind in _SHARED]
        return cls(ca, trust_domain, version, algorithm + issuer, algorithm, b"".join(shared))

    def issue(
        self, spki: bytes, *, node_name: NodeName, not_before: datetime, lifetime: timedelta
    ) -> NodeCertificate:
        """A certificate for a P-256 key, as ``authority.issue_node_certificate`` would issue it.

        ``spki`` is the key's SubjectPublicKeyInfo in DER, found sound before.
        """
        if len(spki) != len(_P256_HEAD) + 65 or not spki.startswith(_P256_HEAD):
            raise UncopiableExtension("the key is not a P-256 key in DER")
        serial = x509.random_serial_number()
        not_after = (not_before + lifetime).replace(microsecond=0)
        validity = _time(not_before - CLOCK_SKEW) + _time(not_after)
        key_id = hashlib.sha1(spki[-65:], usedforsecurity=False).digest()
        if len(f"system:node:{node_name}") > _MAX_COMMON_NAME:
            raise UnnameableNode("the node's name is too long for a certificate", got=node_name)
        name = _der(_URI, f"spiffe://{self.trust_domain}/node/{node_name}".encode())
        names = _der(_SEQUENCE, _NAME_OID + _der(_OCTET_STRING, _der(_SEQUENCE, name)))
        body = _der(
            _SEQUENCE,
            self.head
            + _der(_INTEGER, serial.to_bytes(serial.bit_length() // 8 + 1, "big"))
            + self.middle
            + _der(_SEQUENCE, validity)
            + _subject(node_name)
            + spki
            + _der(_EXTENSIONS, _der(_SEQUENCE, self.shared + names + _KEY_ID_HEAD + key_id)),
        )
        signature = _der(_BIT_STRING, b"\0" + self.ca.sign(body))
        der = _der(_SEQUENCE, body + self.algorithm + signature)
        return NodeCertificate(der, serial, not_after)


def _subject(node_name: NodeName) -> bytes:
    """The name of ``authority.issue_node_certificate``: O, then CN (RFC 5280, 4.1.2.4)."""
    common = _der(_SEQUENCE, _COMMON_OID + _der(_UTF8, f"system:node:{node_name}".encode()))
    return _der(_SEQUENCE, _ORGANISATION + _der(_SET, common))


def _time(moment: datetime) -> bytes:
    """Until 2049 UTCTime, then GeneralizedTime (RFC 5280, 4.1.2.5)."""
    return _encoded_time(moment.astimezone(UTC).replace(microsecond=0))


@lru_cache(maxsize=64)
def _encoded_time(utc: datetime) -> bytes:
    """Certificates of one second share their times."""
    if utc.year < 2050:
        return _UTC_TIME + f"{utc:%y%m%d%H%M%SZ}".encode()
    return _der(_GENERALIZED_TIME, f"{utc:%Y%m%d%H%M%SZ}".encode())


def _der(tag: int, content: bytes) -> bytes:
    """One DER item (X.690, 8.1.3 and 10.1)."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


_UTC_TIME = b"\x17\x0d"
"""Tag and length of a UTCTime, which always has 13 characters."""
_COMMON_OID = bytes.fromhex("0603550403")
_NAME_OID = bytes.fromhex("0603551d11")
_KEY_ID_HEAD = bytes.fromhex("301d0603551d0e04160414")
"""Extension subjectKeyIdentifier, not critical, up to its 20 bytes."""
_ORGANISATION = _der(
    _SET, _der(_SEQUENCE, bytes.fromhex("060355040a") + _der(_UTF8, b"system:nodes"))
)


def _content(item: bytes) -> bytes:
    return item[2 + (item[1] & 0x7F if item[1] & 0x80 else 0) :]


def _items(content: bytes) -> list[bytes]:
    """The DER items in ``content``, which we encoded ourselves, one behind the other."""
    return list(_each(content))


def _each(content: bytes) -> Iterator[bytes]:
    while content:
        size, head = content[1], 2
        if size & 0x80:
            head += size & 0x7F
            size = int.from_bytes(content[2:head], "big")
        yield content[: head + size]
        content = content[head + size :]
