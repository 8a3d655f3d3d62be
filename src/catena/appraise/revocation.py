"""Certificate revocation lists of TPM vendors (RFC 5280, clauses 5 and 6.3).

Full lists of an issuer's own certificates, with a next update. Delta and indirect lists, and lists
of some certificates only, say so in critical extensions and are refused when they are read.

A server needs no list. Once it has one for an issuer's name, certificates of that issuer count only
while a list is current that the issuer's key signed: fail closed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from asn1crypto import crl

from catena.appraise.certificate import Certificate, Signed, instant, signed_part
from catena.appraise.endorsement_refusal import (
    ForeignRevocationList,
    RevokedEkCertificate,
    StaleRevocationList,
)
from catena.errors import FormatError
from catena.formats import der as der_format
from catena.formats import distinguished

MAX_REVOKED = 100_000
_KNOWN_EXTENSIONS = frozenset({"crl_number", "authority_key_identifier"})


class MalformedRevocationList(FormatError):
    """Bytes that are no revocation list, or one of a kind that is not judged here."""

    code = "crl-malformed"
    remedy = "Import the vendor's full CRL, in DER or PEM."


@dataclass(frozen=True, slots=True)
class RevocationList:
    """One list; ``issuer`` is a raw DER name. *Untrusted* until its issuer ``has_signed`` it."""

    issuer: bytes
    issuer_text: str
    this_update: datetime
    next_update: datetime
    revoked: frozenset[int]
    signed: Signed


def parse_revocation_list(der: bytes) -> RevocationList:
    """Read a CRL. Raises ``MalformedRevocationList``."""
    try:
        der_format.whole(der)
        return _read(crl.CertificateList.load(der, strict=True))
    except MalformedRevocationList:
        raise
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
        OverflowError,
        RecursionError,
        FormatError,
    ) as error:
        raise MalformedRevocationList("not a certificate revocation list") from error


def _read(outer: Any) -> RevocationList:  # noqa: ANN401  asn1crypto has no types
    body = outer["tbs_cert_list"]
    if body["signature"].dump() != outer["signature_algorithm"].dump():
        raise MalformedRevocationList("a revocation list with two signature algorithms")
    _check_critical(body["crl_extensions"])
    issuer = body["issuer"].dump()
    return RevocationList(
        issuer=issuer,
        issuer_text=distinguished.text(distinguished.attributes(issuer)),
        this_update=instant(body["this_update"].native),
        next_update=instant(body["next_update"].native),
        revoked=frozenset(_serials(body["revoked_certificates"])),
        signed=signed_part(body, outer["signature_algorithm"], outer["signature"]),
    )


def _serials(entries: Any) -> Iterable[int]:  # noqa: ANN401
    if len(entries) > MAX_REVOKED:
        raise MalformedRevocationList(
            "a revocation list is too long",
            expected=f"at most {MAX_REVOKED}",
            got=f"{len(entries)}",
        )
    for entry in entries:
        _check_critical(entry["crl_entry_extensions"])
        yield entry["user_certificate"].native


def _check_critical(extensions: Any) -> None:  # noqa: ANN401
    for one in extensions:
        if one["critical"].native and one["extn_id"].native not in _KNOWN_EXTENSIONS:
            raise MalformedRevocationList(
                "a revocation list has a critical extension that is not known here",
                got=one["extn_id"].dotted,
            )


def has_issued(issuer: Certificate, found: RevocationList) -> bool:
    """Whether the list is in the issuer's name, signed by its key, which may sign lists (6.3.3 f)."""
    return (
        found.issuer == issuer.subject
        and (not issuer.key_usage or "crl_sign" in issuer.key_usage)
        and issuer.has_signed(found.signed)
    )


def check_revocation(
    certificate: Certificate,
    issuer: Certificate,
    lists: Iterable[RevocationList],
    at: datetime | None,
) -> None:
    """RFC 5280, 6.3.3, for full lists: ``issuer``, whose signature holds, has not revoked it.

    Without a time the newest list need not be current.

    Raises ``RevokedEkCertificate``, ``StaleRevocationList`` or ``ForeignRevocationList``.
    """
    named = [one for one in lists if one.issuer == issuer.subject]
    if not named:
        return
    own = [one for one in named if has_issued(issuer, one)]
    if not own:
        raise ForeignRevocationList(
            "no revocation list in this issuer's name is signed by its key",
            got=issuer.subject_text[:80],
        )
    # What any list of the issuer names stays revoked: the newest only tells whether all is known.
    if any(certificate.serial in one.revoked for one in own):
        raise RevokedEkCertificate(
            "a certificate of the EK's path was revoked by its issuer",
            got=f"serial {certificate.serial:x} of {issuer.subject_text[:80]}",
        )
    newest = max(own, key=lambda one: one.this_update)
    if at is not None and not newest.this_update <= at <= newest.next_update:
        raise StaleRevocationList(
            "the revocation list of an issuer is not current",
            expected=f"{newest.this_update:%Y-%m-%d} to {newest.next_update:%Y-%m-%d}",
            got=f"{at:%Y-%m-%d}",
        )
