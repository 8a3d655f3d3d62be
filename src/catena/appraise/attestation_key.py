"""The attestation key: what makes its quotes worth anything (TRUST, enrolment step 3).

A quote proves the state of a TPM only if the key can sign nothing but what the TPM itself made
(``restricted``) and cannot be copied out of it (``fixedTPM``, ``fixedParent``). That this TPM
really holds the key is shown later, by TPM2_ActivateCredential (step 5).
Attributes: TPM 2.0 Library Part 2, clause 8.3 (TPMA_OBJECT).
"""

from __future__ import annotations

from catena.errors import Refusal
from catena.formats.tpm2 import EccCurve, Public, TpmAlg, TpmaObject
from catena.ids import HashAlg

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 4096
ALLOWED_CURVES = (EccCurve.P256, EccCurve.P384)
ALLOWED_HASHES = (HashAlg.SHA256, HashAlg.SHA384, HashAlg.SHA512)
ALLOWED_SCHEMES = {"rsa": (TpmAlg.RSASSA, TpmAlg.RSAPSS), "ecc": (TpmAlg.ECDSA,)}


class AttestationKeyRefusal(Refusal):
    """A public area that does not belong to an attestation key."""

    code = "ak-refused"
    remedy = "Make the attestation key from catena's template; another kind proves nothing."


class MovableAttestationKey(AttestationKeyRefusal):
    """Without ``fixedTPM`` and ``fixedParent`` the key can be duplicated to another TPM."""

    code = "ak-movable"


class ImportedAttestationKey(AttestationKeyRefusal):
    """Without ``sensitiveDataOrigin`` the private key was made outside and may be known."""

    code = "ak-imported"


class UnrestrictedAttestationKey(AttestationKeyRefusal):
    """Without ``restricted`` the key signs any bytes, also those of a quote that never was."""

    code = "ak-unrestricted"


class NonSigningAttestationKey(AttestationKeyRefusal):
    """The key cannot sign."""

    code = "ak-not-signing"


class DecryptingAttestationKey(AttestationKeyRefusal):
    """A key that also decrypts is a storage key, not an attestation key."""

    code = "ak-decrypting"


class WeakAttestationKey(AttestationKeyRefusal):
    """An algorithm, size, curve or hash below what catena accepts."""

    code = "ak-weak"


def check_attestation_key(public: Public) -> None:
    """Enrolment step 3; a key is refused at its first fault.

    Raises an ``AttestationKeyRefusal``, or ``FormatError`` if the numbers are no key at all.
    """
    _check_attributes(public.attributes)
    _check_strength(public)
    _check_scheme(public)


def _check_attributes(attributes: TpmaObject) -> None:
    if not (attributes & TpmaObject.FIXED_TPM and attributes & TpmaObject.FIXED_PARENT):
        raise MovableAttestationKey("the attestation key could be moved to another TPM")
    if not attributes & TpmaObject.SENSITIVE_DATA_ORIGIN:
        raise ImportedAttestationKey("the attestation key was not made by the TPM")
    if not attributes & TpmaObject.RESTRICTED:
        raise UnrestrictedAttestationKey("the attestation key signs data from outside the TPM")
    if not attributes & TpmaObject.SIGN_ENCRYPT:
        raise NonSigningAttestationKey("the attestation key cannot sign")
    if attributes & TpmaObject.DECRYPT:
        raise DecryptingAttestationKey("the attestation key also decrypts")


def _check_strength(public: Public) -> None:
    if public.kind == "rsa" and not MIN_RSA_BITS <= public.key_bits <= MAX_RSA_BITS:
        raise WeakAttestationKey(
            "the attestation key's size is not allowed",
            expected=f"{MIN_RSA_BITS} to {MAX_RSA_BITS} bits",
            got=f"{public.key_bits}",
        )
    if public.kind == "ecc" and public.curve not in ALLOWED_CURVES:
        raise WeakAttestationKey(
            "the attestation key's curve is not allowed",
            expected=" or ".join(curve.name for curve in ALLOWED_CURVES),
            got=public.curve.name if public.curve else "none",
        )
    if public.name_alg not in ALLOWED_HASHES:
        raise WeakAttestationKey("the attestation key's name hash is too weak", got=public.name_alg)
    public.key()


def _check_scheme(public: Public) -> None:
    """A restricted key signs with the one scheme of its public area (Part 1, clause 25.1.5)."""
    scheme = public.scheme
    if scheme is None or scheme.algorithm not in ALLOWED_SCHEMES[public.kind]:
        raise WeakAttestationKey("the attestation key has no allowed signing scheme")
    if scheme.hash not in ALLOWED_HASHES:
        raise WeakAttestationKey("the attestation key signs with a weak hash", got=scheme.hash)
