"""Certificates and revocation lists that a person offers to accept: what each is, and whether it is of use.

Nothing here makes one trusted. A root is a certificate that signed itself, anything else that may
issue certificates is an intermediate; a revocation list needs an issuer that is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from catena.appraise.certificate import Certificate, parse_certificate
from catena.appraise.ekpath import ANY_USAGE, EK_USAGE
from catena.appraise.endorsement_refusal import EndorsementRefusal, MalformedEkCertificate
from catena.appraise.revocation import RevocationList, has_issued, parse_revocation_list
from catena.appraise.tolerance import tolerated
from catena.formats import der as der_format
from catena.formats import distinguished
from catena.formats.der import NotDer
from catena.formats.distinguished import Attribute
from catena.formats.endorsements import Type

MAX_NAME = 63
_VERSION = 0xA0
_UNFIT = re.compile(r"[^a-z0-9]+")


class UselessAuthority(EndorsementRefusal):
    """A certificate that could never stand on an EK certificate's path."""

    code = "endorsement-useless"
    remedy = "Import the authorities that issue EK certificates; leave out what issues others."


class UnknownCrlIssuer(EndorsementRefusal):
    """A revocation list that no accepted certificate's key signed."""

    code = "crl-issuer-unknown"
    remedy = "Import the issuer's certificate first, or with it."


@dataclass(frozen=True, slots=True)
class Offered:
    """One readable certificate or list. ``issuer`` and ``subject`` are for people.

    ``not_after`` of a list is its next update; ``revoked`` is None for a certificate.
    """

    type: Type
    name: str
    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime
    tolerances: tuple[str, ...]
    certificate: Certificate | None = None
    list: RevocationList | None = None

    @property
    def revoked(self) -> int | None:
        """How many certificates a list revokes."""
        return None if self.list is None else len(self.list.revoked)


def read_offered(content: bytes) -> Offered:
    """Tell what a DER value is. Raises an ``EndorsementRefusal`` or ``MalformedRevocationList``."""
    if not _is_certificate(content):
        return _offered_list(parse_revocation_list(content))
    try:
        certificate = parse_certificate(content)
    except ValueError as error:
        raise MalformedEkCertificate("a certificate cannot be read", got=str(error)) from error
    return _offered_certificate(certificate)


def check_useful(certificate: Certificate) -> None:
    """Refuse what no path could use, whatever the time. Raises ``UselessAuthority``."""
    usage, extended = certificate.key_usage, certificate.extended_key_usage
    complaints = (
        ("it may not issue certificates", not certificate.is_authority),
        ("its key usage lacks keyCertSign", bool(usage) and "key_cert_sign" not in usage),
        ("its key is of a kind or size that is not accepted", certificate.key_numbers is None),
        ("it has name constraints", certificate.has_name_constraints),
        ("it has an unknown critical extension", bool(certificate.unknown_critical)),
        ("it is for other certificates", bool(extended) and not extended & {EK_USAGE, ANY_USAGE}),
    )
    for complaint, holds in complaints:
        if holds:
            raise UselessAuthority(
                f"a certificate is no authority for EKs: {complaint}",
                got=certificate.subject_text[:80],
            )


def check_signed(offered: RevocationList, issuers: Iterable[Certificate]) -> None:
    """Refuse a list that none of ``issuers`` signed. Raises ``UnknownCrlIssuer``."""
    if not any(has_issued(one, offered) for one in issuers):
        raise UnknownCrlIssuer(
            "no accepted certificate that may sign revocation lists signed this one",
            got=offered.issuer_text[:80],
        )


def _is_certificate(content: bytes) -> bool:
    """TBSCertificate of version 3 begins with [0], TBSCertList with a number or a SEQUENCE.

    Whatever follows the value belongs to it for now: TPM memory pads certificates.
    """
    try:
        body = next(der_format.children(content, der_format.element(content)))
        return next(der_format.children(content, body)).tag == _VERSION
    except (NotDer, StopIteration):
        return True


def _offered_certificate(certificate: Certificate) -> Offered:
    return Offered(
        type="root" if certificate.is_self_signed else "intermediate",
        name=_name(certificate.subject_name),
        subject=certificate.subject_text,
        issuer=certificate.issuer_text,
        not_before=certificate.not_before,
        not_after=certificate.not_after,
        tolerances=tolerated(certificate),
        certificate=certificate,
    )


def _offered_list(found: RevocationList) -> Offered:
    return Offered(
        type="crl",
        name=f"crl-{_name(distinguished.attributes(found.issuer))}"[:MAX_NAME],
        subject=f"revocation list of {found.issuer_text}",
        issuer=found.issuer_text,
        not_before=found.this_update,
        not_after=found.next_update,
        tolerances=(),
        list=found,
    )


def _name(subject: tuple[Attribute, ...]) -> str:
    """A name to type: the common name, or what there is, as lower-case words."""
    kinds = (distinguished.COMMON_NAME, distinguished.UNIT, distinguished.ORGANISATION)
    text = next(filter(None, (distinguished.first(subject, kind) for kind in kinds)), "")
    return _UNFIT.sub("-", text.lower()).strip("-")[:MAX_NAME].rstrip("-") or "unnamed"
