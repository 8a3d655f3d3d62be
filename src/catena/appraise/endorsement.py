"""Who vouches for a TPM: the EK certificate's path to an accepted root (TRUST, enrolment step 2).

Standards: TCG EK Credential Profile 2.5, clause 3; path validation after RFC 5280, clause 6, which
``ekpath`` does. Faults of vendors' certificates are judged in ``tolerance``, each by its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from catena.appraise.certificate import Certificate, parse_certificate
from catena.appraise.ek_template import check_ek_template
from catena.appraise.ekpath import EK_USAGE, check_critical, check_validity, find_path, names_above
from catena.appraise.endorsement_refusal import (
    EkKeyMismatch,
    MalformedEkCertificate,
    MissingEkUsage,
    NoEkCertificate,
    UntrustedEkIssuer,
    WrongEkKeyUsage,
)
from catena.appraise.revocation import RevocationList
from catena.appraise.tolerance import KEY_USAGE_ABSENT, KEY_USAGE_OTHER, TOLERANCES, tolerated
from catena.appraise.tpmidentity import NOT_CERTIFIED, TpmIdentity, identify
from catena.formats.tpm2 import Public

KEPT_CERTIFICATES = 4096
"""A server's own certificates that are kept as they were read; a vendor bundle has hundreds."""

_read = lru_cache(maxsize=16)(parse_certificate)
"""Strangers' certificates: who judges one also asks who may stand above it, in the next moment."""
_WANTED_USAGE = {"rsa": "key_encipherment", "ecc": "key_agreement"}


class EndorsementKind(StrEnum):
    """What kind of root vouches for the TPM: a fact for policies."""

    VENDOR = "vendor"
    ENTERPRISE = "enterprise"
    SOFTWARE = "software"
    PINNED = "pinned"


@dataclass(frozen=True, slots=True)
class TrustRoot:
    """An accepted root (or an intermediate accepted as one): DER, with its name for people."""

    name: str
    kind: EndorsementKind
    certificate: bytes


@dataclass(frozen=True, slots=True)
class TrustRoots:
    """Everything that may vouch for a TPM.

    ``intermediates`` (DER) help to build a path and are trusted for nothing else; ``revoked``
    are lists that any issuer on a path may have signed. ``pinned`` holds SHA-256 digests (hex)
    of EK public areas that need no certificate.
    """

    roots: tuple[TrustRoot, ...] = ()
    intermediates: tuple[bytes, ...] = ()
    revoked: tuple[RevocationList, ...] = ()
    pinned: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class Endorsement:
    """Which root vouches for the TPM, for which subject, and which TPM that is.

    ``certificates`` are those of the node's own that say so (DER, the EK's first): the rest of the path
    is the server's. Of a pinned EK it is what was sent, unread.
    """

    root_name: str
    subject: str
    kind: EndorsementKind
    tpm: TpmIdentity = NOT_CERTIFIED
    certificates: tuple[bytes, ...] = ()


def endorse(
    ek_certificates: Sequence[bytes], ek_public: Public, roots: TrustRoots, at: datetime | None
) -> Endorsement:
    """Enrolment step 2: the EK's template, then a pin, or its certificate's path to a root.

    Without ``at`` it is whether anybody vouches at all: what has only become old is not refused.

    ``ek_certificates`` are DER, leaf first; the others may help, and one that cannot be read
    does not. Raises ``UnknownEkTemplate`` or an ``EndorsementRefusal``.
    """
    check_ek_template(ek_public)
    fingerprint = hashlib.sha256(ek_public.raw).hexdigest()
    if fingerprint in roots.pinned:
        return Endorsement(
            "pinned",
            f"EK {fingerprint}",
            EndorsementKind.PINNED,
            certificates=tuple(ek_certificates[:1]),
        )
    if not ek_certificates:
        raise NoEkCertificate("the TPM has no EK certificate and its EK is not pinned")
    leaf = _parse_leaf(ek_certificates[0])
    forgiven = _check_leaf(leaf, ek_public, at)
    anchors = {_accepted(root.certificate): root for root in roots.roots}
    sent = tuple(_readable(ek_certificates[1:]))
    pool = (*sent, *map(_accepted, roots.intermediates))
    try:
        path = find_path(leaf, tuple(anchors), pool, roots.revoked, at)
    except UntrustedEkIssuer as error:
        if len(sent) + 1 < len(ek_certificates):
            raise MalformedEkCertificate(
                "a certificate above the EK's cannot be read, and no path leads past it"
            ) from error
        raise
    root = anchors[path.anchor]
    return Endorsement(
        root.name,
        leaf.subject_text,
        root.kind,
        identify(
            leaf.attributes,
            is_software=root.kind is EndorsementKind.SOFTWARE,
            tolerances=tuple(sorted({*path.tolerances, *forgiven})),
        ),
        (leaf.der, *(one.der for one in path.certificates[1:-1] if one in sent)),
    )


def authorities_above(
    ek_certificates: Sequence[bytes], ek_public: Public, roots: TrustRoots
) -> frozenset[str]:
    """Everything whose change may change what ``endorse`` says, by SHA-256 (hex).

    The EK itself, which may be pinned; the name of each authority that may stand above its
    certificate (``authority_digest``), known or not; and each root that has such a name.
    """
    fingerprint = hashlib.sha256(ek_public.raw).hexdigest()
    try:
        leaf = _read(ek_certificates[0]) if ek_certificates else None
    except ValueError:  # a pinned EK's certificate need not be readable
        leaf = None
    if leaf is None:
        return frozenset({fingerprint})
    own = {_accepted(root.certificate): root for root in roots.roots}
    known = (*_readable(ek_certificates[1:]), *own, *map(_accepted, roots.intermediates))
    names = names_above(leaf, known)
    held = (root.certificate for one, root in own.items() if one.subject in names)
    return frozenset(
        {
            fingerprint,
            *map(authority_digest, names),
            *(hashlib.sha256(one).hexdigest() for one in held),
        }
    )


def authority_digest(name: bytes) -> str:
    """A raw DER name as it is kept: names have no bound that a database likes."""
    return hashlib.sha256(name).hexdigest()


def authority_name(certificate: bytes) -> str:
    """``authority_digest`` of an accepted certificate. Raises ``MalformedEkCertificate``."""
    return authority_digest(_accepted(certificate).subject)


def _parse_leaf(der: bytes) -> Certificate:
    try:
        return _read(der)
    except ValueError as error:
        raise MalformedEkCertificate("an EK certificate cannot be read", got=str(error)) from error


def _readable(certificates: Sequence[bytes]) -> Iterator[Certificate]:
    for der in certificates:
        with suppress(ValueError):
            yield _read(der)


@lru_cache(maxsize=KEPT_CERTIFICATES)
def _accepted(der: bytes) -> Certificate:
    """A certificate of the server's own, which was read once before it was accepted."""
    try:
        return parse_certificate(der)
    except ValueError as error:
        raise MalformedEkCertificate("an accepted certificate cannot be read") from error


def _check_leaf(leaf: Certificate, ek_public: Public, at: datetime | None) -> tuple[str, ...]:
    """EK profile, clause 3: key, form, validity, extended key usage, key usage.

    Returns the tolerances that its key usage needed.
    """
    if leaf.key_numbers is None or leaf.key_numbers != _numbers(ek_public):
        raise EkKeyMismatch("the EK certificate is for another key")
    tolerated(leaf)
    check_validity(leaf, at)
    check_critical(leaf)
    if EK_USAGE not in leaf.extended_key_usage:
        raise MissingEkUsage(
            "the certificate is not an EK certificate", expected=f"extended key usage {EK_USAGE}"
        )
    return _check_key_usage(leaf, ek_public)


def _check_key_usage(leaf: Certificate, ek_public: Public) -> tuple[str, ...]:
    """What the key is used for is fixed by its template; the certificate must not say otherwise."""
    wanted = _WANTED_USAGE[ek_public.kind]
    if not leaf.is_authority and "key_cert_sign" not in leaf.key_usage:
        if wanted in leaf.key_usage:
            return ()
        if not leaf.key_usage and TOLERANCES[KEY_USAGE_ABSENT].covers(leaf):
            return (KEY_USAGE_ABSENT,)
        if leaf.key_usage & {*_WANTED_USAGE.values()} and TOLERANCES[KEY_USAGE_OTHER].covers(leaf):
            return (KEY_USAGE_OTHER,)
    raise WrongEkKeyUsage("the EK certificate has a wrong key usage", expected=wanted)


def _numbers(public: Public) -> tuple[int, ...]:
    if public.kind == "rsa":
        return (public.exponent, int.from_bytes(public.modulus, "big"))
    return (public.key_bits, int.from_bytes(public.x, "big"), int.from_bytes(public.y, "big"))
