"""Who vouches for a TPM: the EK certificate's path to an accepted root (TRUST, enrolment step 2).

Standards: TCG EK Credential Profile 2.5, clause 3; path validation after RFC 5280, clause 6,
without policies and name constraints (a critical extension this module does not know is refused).

EK certificates come from many vendors, some with faults that strict decoders stop at: an RSA key
labelled RSAES-OAEP, padding after the certificate in TPM memory, odd serial numbers. A
certificate that can be read is judged by its fields; signatures are checked over the exact bytes
that the issuer signed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from catena.appraise.certificate import Certificate, parse_certificate
from catena.appraise.ek_template import check_ek_template
from catena.errors import Refusal
from catena.formats.tpm2 import Public

EK_USAGE = "2.23.133.8.1"
"""tcg-kp-EKCertificate (EK profile, clause 3.2.16)."""

MAX_INTERMEDIATES = 4


class EndorsementRefusal(Refusal):
    """Nobody that this server accepts vouches for the TPM."""

    code = "endorsement-refused"
    remedy = "Add the TPM vendor's root to the accepted roots, or pin this EK."


class MalformedEkCertificate(EndorsementRefusal):
    """A certificate that cannot be read at all."""

    code = "ek-certificate-malformed"
    remedy = "Read the EK certificate again; if it is damaged in the TPM, pin this EK."


class NoEkCertificate(EndorsementRefusal):
    """No certificate was sent and the EK is not pinned."""

    code = "ek-certificate-missing"


class UntrustedEkIssuer(EndorsementRefusal):
    """No path of valid signatures leads to an accepted root."""

    code = "ek-issuer-untrusted"


class ExpiredEkCertificate(EndorsementRefusal):
    """A certificate of the path is expired or not yet valid."""

    code = "ek-certificate-expired"
    remedy = "Check the server's clock; ask the vendor for a new certificate, or pin this EK."


class MissingEkUsage(EndorsementRefusal):
    """Without extended key usage 2.23.133.8.1 this is some other certificate of that issuer."""

    code = "ek-usage-missing"


class WrongEkKeyUsage(EndorsementRefusal):
    """Key usage that does not suit the certificate's place in the path."""

    code = "ek-key-usage"


class EkPathTooLong(EndorsementRefusal):
    """More intermediate certificates than an issuer, or catena, allows."""

    code = "ek-path-too-long"


class EkKeyMismatch(EndorsementRefusal):
    """The certificate is for another key than the EK that was sent."""

    code = "ek-key-mismatch"
    remedy = "Send the certificate that belongs to this EK; another TPM's proves nothing."


class UnknownCriticalExtension(EndorsementRefusal):
    """A critical extension whose meaning this verifier does not know (RFC 5280, 4.2)."""

    code = "ek-critical-extension"


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

    ``intermediates`` (DER) help to build a path and are trusted for nothing else. ``pinned``
    holds SHA-256 digests (hex) of EK public areas that need no certificate.
    """

    roots: tuple[TrustRoot, ...] = ()
    intermediates: tuple[bytes, ...] = ()
    pinned: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class Endorsement:
    """Which root vouches for the TPM, for which subject."""

    root_name: str
    subject: str
    kind: EndorsementKind


def endorse(
    ek_certificates: Sequence[bytes], ek_public: Public, roots: TrustRoots, at: datetime
) -> Endorsement:
    """Enrolment step 2: the EK's template, then a pin, or its certificate's path to a root.

    ``ek_certificates`` are DER, leaf first. Raises ``UnknownEkTemplate`` or an
    ``EndorsementRefusal``.
    """
    check_ek_template(ek_public)
    fingerprint = hashlib.sha256(ek_public.raw).hexdigest()
    if fingerprint in roots.pinned:
        return Endorsement("pinned", f"EK {fingerprint}", EndorsementKind.PINNED)
    if not ek_certificates:
        raise NoEkCertificate("the TPM has no EK certificate and its EK is not pinned")
    leaf, *sent = [_parse(der) for der in ek_certificates]
    _check_leaf(leaf, ek_public, at)
    pool = (*sent, *(_parse(der) for der in roots.intermediates))
    anchors = [(root, _parse(root.certificate)) for root in roots.roots]
    root = _find_path(leaf, pool, anchors, at)
    return Endorsement(root.name, leaf.subject_text, root.kind)


def _parse(der: bytes) -> Certificate:
    try:
        return parse_certificate(der)
    except ValueError as error:
        raise MalformedEkCertificate("an EK certificate cannot be read") from error


def _check_leaf(leaf: Certificate, ek_public: Public, at: datetime) -> None:
    """EK profile, clause 3: key, validity, key usage, extended key usage."""
    if leaf.key_numbers is None or leaf.key_numbers != _numbers(ek_public):
        raise EkKeyMismatch("the EK certificate is for another key")
    _check_validity(leaf, at)
    _check_critical(leaf)
    if EK_USAGE not in leaf.extended_key_usage:
        raise MissingEkUsage(
            "the certificate is not an EK certificate", expected=f"extended key usage {EK_USAGE}"
        )
    wanted = "key_encipherment" if ek_public.kind == "rsa" else "key_agreement"
    if leaf.is_authority or wanted not in leaf.key_usage or "key_cert_sign" in leaf.key_usage:
        raise WrongEkKeyUsage("the EK certificate has a wrong key usage", expected=wanted)


def _numbers(public: Public) -> tuple[int, ...]:
    if public.kind == "rsa":
        return (public.exponent, int.from_bytes(public.modulus, "big"))
    return (public.key_bits, int.from_bytes(public.x, "big"), int.from_bytes(public.y, "big"))


def _find_path(
    leaf: Certificate,
    pool: Sequence[Certificate],
    anchors: Sequence[tuple[TrustRoot, Certificate]],
    at: datetime,
) -> TrustRoot:
    """Climb from the leaf by issuer name and signature until a root has signed.

    Each intermediate is used once and the climb stops at ``MAX_INTERMEDIATES``, so it ends
    whatever was sent.
    """
    current, left = leaf, list(pool)
    for depth in range(MAX_INTERMEDIATES + 1):
        for root, anchor in anchors:
            if _has_signed(anchor, current):
                _check_issuer(anchor, depth, at)
                return root
        issuer = next((candidate for candidate in left if _has_signed(candidate, current)), None)
        if issuer is None:
            raise UntrustedEkIssuer("no accepted root vouches for the EK certificate")
        _check_issuer(issuer, depth, at)
        left.remove(issuer)
        current = issuer
    raise EkPathTooLong(
        "the EK certificate's path is too long",
        expected=f"at most {MAX_INTERMEDIATES} intermediate certificates",
    )


def _has_signed(issuer: Certificate, subject: Certificate) -> bool:
    return issuer.subject == subject.issuer and issuer.has_signed(subject)


def _check_issuer(issuer: Certificate, below: int, at: datetime) -> None:
    """RFC 5280, 6.1.4 (k) to (o); ``below`` is the number of intermediates under it."""
    _check_validity(issuer, at)
    _check_critical(issuer)
    if not issuer.is_authority or (issuer.key_usage and "key_cert_sign" not in issuer.key_usage):
        raise WrongEkKeyUsage("an issuer in the EK certificate's path may not issue certificates")
    if issuer.path_length is not None and below > issuer.path_length:
        raise EkPathTooLong(
            "an issuer allows fewer certificates below it",
            expected=f"at most {issuer.path_length}",
            got=f"{below}",
        )


def _check_validity(certificate: Certificate, at: datetime) -> None:
    if not certificate.not_before <= at <= certificate.not_after:
        raise ExpiredEkCertificate(
            "a certificate of the EK's path is not valid now",
            expected=f"{certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d}",
            got=f"{at:%Y-%m-%d}",
        )


def _check_critical(certificate: Certificate) -> None:
    if certificate.unknown_critical:
        raise UnknownCriticalExtension(
            "a certificate of the EK's path has an unknown critical extension",
            got=certificate.unknown_critical[0],
        )
