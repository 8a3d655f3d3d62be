"""From an EK certificate up to an accepted root (RFC 5280, clause 6), at a given time.

An issuer is found by its name and by its signature, so key identifiers are not needed. Several
certificates may have signed the same one (an authority that was certified twice, or renewed), so
the search goes back and tries the next; it is bounded in depth, never uses a certificate twice on
one path, and verifies at most ``MAX_SIGNATURES`` signatures, whatever was sent.

Checked of each issuer on the path:

1. validity at the time asked for (6.1.3 a 2);
2. basic constraints and key usage: it may issue certificates (6.1.4 k, n);
3. path length, in which self-issued certificates do not count (6.1.4 l, m);
4. no critical extension that is not known here (6.1.4 o), no name constraints (6.1.4 g);
5. extended key usage, if it has any, covers EK certificates;
6. it has not revoked the certificate below it (6.1.3 a 3).

Policies are not judged: EK certificates are not issued under any that a server could name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from catena.appraise.certificate import Certificate
from catena.appraise.endorsement_refusal import (
    ConstrainedEkNames,
    EkPathSearchTooWide,
    EkPathTooLong,
    EkUsageNotNested,
    EndorsementRefusal,
    ExpiredEkCertificate,
    UnknownCriticalExtension,
    UntrustedEkIssuer,
    WrongEkKeyUsage,
)
from catena.appraise.revocation import RevocationList, check_revocation
from catena.appraise.tolerance import tolerated

EK_USAGE = "2.23.133.8.1"
"""tcg-kp-EKCertificate (EK profile, clause 3.2.16)."""
ANY_USAGE = "2.5.29.37.0"
"""anyExtendedKeyUsage (RFC 5280, 4.2.1.12)."""

MAX_INTERMEDIATES = 6
"""An on-die authority (Intel) puts three to four certificates between the EK's and the vendor's."""
MAX_SIGNATURES = 64


@dataclass(frozen=True, slots=True)
class Path:
    """A path that holds: certificates from the EK's own to the anchor, and what was forgiven."""

    certificates: tuple[Certificate, ...]
    tolerances: tuple[str, ...]

    @property
    def anchor(self) -> Certificate:
        """The accepted root at its end."""
        return self.certificates[-1]


@dataclass(slots=True)
class _Search:
    """One search; ``refusal`` is the first one that a path whose signatures hold met."""

    anchors: Sequence[Certificate]
    pool: Sequence[Certificate]
    lists: Sequence[RevocationList]
    at: datetime | None
    signatures: int = 0
    refusal: EndorsementRefusal | None = None

    def climb(self, path: tuple[Certificate, ...]) -> tuple[Certificate, ...] | None:
        """The first path that goes on from here and holds."""
        for issuers, ends in ((self.anchors, True), (self.pool, False)):
            for issuer in issuers:
                if issuer in path or not self._has_signed(issuer, path[-1]):
                    continue
                longer = self._extended(path, issuer)
                found = longer if ends or longer is None else self.climb(longer)
                if found is not None:
                    return found
        return None

    def _has_signed(self, issuer: Certificate, subject: Certificate) -> bool:
        if issuer.subject != subject.issuer:
            return False
        self.signatures += 1
        if self.signatures > MAX_SIGNATURES:
            raise EkPathSearchTooWide(
                "too many certificates could be issuers of the EK's path",
                expected=f"at most {MAX_SIGNATURES} signatures to verify",
            )
        return issuer.has_signed(subject.signed)

    def _extended(
        self, path: tuple[Certificate, ...], issuer: Certificate
    ) -> tuple[Certificate, ...] | None:
        """The path with its next issuer, or None if that may not stand there."""
        try:
            if issuer not in self.anchors and len(path) > MAX_INTERMEDIATES:
                raise EkPathTooLong(
                    "the EK certificate's path is too long",
                    expected=f"at most {MAX_INTERMEDIATES} intermediate certificates",
                )
            check_issuer(issuer, path, self.at)
            check_revocation(path[-1], issuer, self.lists, self.at)
        except EndorsementRefusal as refusal:
            self.refusal = self.refusal or refusal
            return None
        return (*path, issuer)


def find_path(
    leaf: Certificate,
    anchors: Sequence[Certificate],
    pool: Sequence[Certificate],
    lists: Sequence[RevocationList],
    at: datetime | None,
) -> Path:
    """The path from ``leaf`` to one of ``anchors``, over certificates of ``pool``.

    Without ``at`` certificates and lists count whatever the time is.

    Raises the refusal of the first path whose signatures hold, or ``UntrustedEkIssuer``.
    """
    search = _Search(anchors, pool, lists, at)
    found = search.climb((leaf,))
    if found is None:
        raise search.refusal or UntrustedEkIssuer("no accepted root vouches for the EK certificate")
    used = {name for certificate in found for name in tolerated(certificate)}
    return Path(found, tuple(sorted(used)))


def names_above(leaf: Certificate, known: Iterable[Certificate]) -> frozenset[bytes]:
    """The name of each authority that a path from ``leaf`` over certificates of ``known`` may run over.

    Nothing is verified. What becomes known, or unknown, or is listed as revoked, under a name that is not
    among them changes no path of ``leaf``.
    """
    issuers: dict[bytes, set[bytes]] = {}
    for one in known:
        issuers.setdefault(one.subject, set()).add(one.issuer)
    found: set[bytes] = set()
    wanted = {leaf.issuer}
    while wanted:
        name = wanted.pop()
        found.add(name)
        wanted |= issuers.get(name, set()) - found
    return frozenset(found)


def check_issuer(issuer: Certificate, below: Sequence[Certificate], at: datetime | None) -> None:
    """Steps 1 to 5; ``below`` are the certificates under it, the EK's first."""
    tolerated(issuer)
    check_validity(issuer, at)  # 1.
    if not issuer.is_authority or (issuer.key_usage and "key_cert_sign" not in issuer.key_usage):
        raise WrongEkKeyUsage("an issuer in the EK certificate's path may not issue certificates")
    _check_length(issuer, below)  # 3.
    check_critical(issuer)  # 4.
    if issuer.has_name_constraints:
        raise ConstrainedEkNames(
            "an issuer in the EK certificate's path has name constraints",
            got=issuer.subject_text[:80],
        )
    usage = issuer.extended_key_usage
    if usage and not usage & {EK_USAGE, ANY_USAGE}:  # 5.
        raise EkUsageNotNested(
            "an issuer in the EK certificate's path is for other certificates",
            expected=f"extended key usage {EK_USAGE}, or none",
            got=", ".join(sorted(usage))[:120],
        )


def _check_length(issuer: Certificate, below: Sequence[Certificate]) -> None:
    counted = sum(not one.is_self_issued for one in below[1:])
    if issuer.path_length is not None and counted > issuer.path_length:
        raise EkPathTooLong(
            "an issuer allows fewer certificates below it",
            expected=f"at most {issuer.path_length}",
            got=f"{counted}",
        )


def check_validity(certificate: Certificate, at: datetime | None) -> None:
    """Step 1, if there is a time. Raises ``ExpiredEkCertificate``."""
    if at is not None and not certificate.not_before <= at <= certificate.not_after:
        raise ExpiredEkCertificate(
            "a certificate of the EK's path is not valid now",
            expected=f"{certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d}",
            got=f"{at:%Y-%m-%d}",
        )


def check_critical(certificate: Certificate) -> None:
    """Step 4. Raises ``UnknownCriticalExtension``."""
    if certificate.unknown_critical:
        raise UnknownCriticalExtension(
            "a certificate of the EK's path has an unknown critical extension",
            got=certificate.unknown_critical[0],
        )
