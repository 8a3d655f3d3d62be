"""The two keys a node has, as templates: same template and seed, same key, on every boot.

========  ======================================================================
EK        TCG EK Credential Profile 2.5, Annex B: decrypts only, used through
          TPM2_PolicySecret(TPM_RH_ENDORSEMENT); L-1 and L-2 with policy A, H-3
          and H-6 with policy B, of which that is one branch
AK        restricted: it signs nothing but structures that the TPM itself
          generated; ECDSA or RSASSA with the hash that fits its size
========  ======================================================================

Both live in the endorsement hierarchy, so clearing the owner hierarchy does not change a
node's identity, and neither needs storage.
"""

from __future__ import annotations

from functools import lru_cache

from tpm2_pytss.constants import TPM2_ALG, TPM2_ECC, TPMA_OBJECT
from tpm2_pytss.types import (
    TPM2B_PUBLIC,
    TPMS_ECC_PARMS,
    TPMS_ECC_POINT,
    TPMS_RSA_PARMS,
    TPMS_SCHEME_HASH,
    TPMT_ECC_SCHEME,
    TPMT_KDF_SCHEME,
    TPMT_PUBLIC,
    TPMT_RSA_SCHEME,
    TPMT_SYM_DEF_OBJECT,
    TPMU_ASYM_SCHEME,
    TPMU_PUBLIC_ID,
    TPMU_PUBLIC_PARMS,
    TPMU_SYM_KEY_BITS,
    TPMU_SYM_MODE,
)

from catena.tpm.kinds import KeyKind

POLICY_A = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
"""TPM2_PolicySecret(TPM_RH_ENDORSEMENT), SHA-256 (EK profile, B.6.2)."""
POLICY_A_SHA384 = bytes.fromhex(
    "8bbf2266537c171cb56e403c4dc1d4b64f432611dc386e6f532050c3278c930e143e8bb1133824ccb431053871c6db53"
)
POLICY_C_SHA384 = bytes.fromhex(
    "d6032ce61f2fb3c240eb3cf6a33237ef2b6a16f4293c22b455e261cffd217ad5b4947c2d73e63005eed2dc2b3593d165"
)
"""TPM2_PolicyAuthorizeNV, the other branch of policy B, which catena never takes (B.6.4)."""
POLICY_B_SHA384 = bytes.fromhex(
    "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12"
)
"""TPM2_PolicyOR of A and C (B.6.3)."""

_ORIGIN = TPMA_OBJECT.FIXEDTPM | TPMA_OBJECT.FIXEDPARENT | TPMA_OBJECT.SENSITIVEDATAORIGIN
_LOW = _ORIGIN | TPMA_OBJECT.ADMINWITHPOLICY | TPMA_OBJECT.RESTRICTED | TPMA_OBJECT.DECRYPT
_AK = (
    _ORIGIN
    | TPMA_OBJECT.USERWITHAUTH
    | TPMA_OBJECT.NODA
    | TPMA_OBJECT.RESTRICTED
    | TPMA_OBJECT.SIGN_ENCRYPT
)
_RSA_BITS = {KeyKind.RSA_2048: 2048, KeyKind.RSA_3072: 3072}
_CURVES = {KeyKind.ECC_P256: TPM2_ECC.NIST_P256, KeyKind.ECC_P384: TPM2_ECC.NIST_P384}
_HASHES = {True: TPM2_ALG.SHA384, False: TPM2_ALG.SHA256}
_KEPT = 64
"""A machine has two templates; a pool of simulated nodes has two for each."""


@lru_cache(maxsize=_KEPT)
def ek_template(kind: KeyKind, individual: bytes = b"") -> TPM2B_PUBLIC:
    """The EK of this kind. The low templates fill ``unique`` with zeros, the high leave it empty.

    ``individual`` begins it instead (``kinds.NodeKeys``).
    """
    high = kind.is_high
    cipher = TPMT_SYM_DEF_OBJECT(
        algorithm=TPM2_ALG.AES,
        keyBits=TPMU_SYM_KEY_BITS(aes=256 if high else 128),
        mode=TPMU_SYM_MODE(aes=TPM2_ALG.CFB),
    )
    return TPM2B_PUBLIC(
        publicArea=TPMT_PUBLIC(
            type=TPM2_ALG.RSA if kind in _RSA_BITS else TPM2_ALG.ECC,
            nameAlg=_HASHES[high],
            objectAttributes=_LOW | TPMA_OBJECT.USERWITHAUTH if high else _LOW,
            authPolicy=POLICY_B_SHA384 if high else POLICY_A,
            parameters=_ek_parameters(kind, cipher),
            unique=_unique(kind, individual),
        )
    )


def _ek_parameters(kind: KeyKind, cipher: TPMT_SYM_DEF_OBJECT) -> TPMU_PUBLIC_PARMS:
    if kind in _RSA_BITS:
        scheme = TPMT_RSA_SCHEME(scheme=TPM2_ALG.NULL)
        bits = _RSA_BITS[kind]
        return TPMU_PUBLIC_PARMS(
            rsaDetail=TPMS_RSA_PARMS(symmetric=cipher, scheme=scheme, keyBits=bits)
        )
    return TPMU_PUBLIC_PARMS(
        eccDetail=TPMS_ECC_PARMS(
            symmetric=cipher,
            scheme=TPMT_ECC_SCHEME(scheme=TPM2_ALG.NULL),
            curveID=_CURVES[kind],
            kdf=TPMT_KDF_SCHEME(scheme=TPM2_ALG.NULL),
        )
    )


def _unique(kind: KeyKind, individual: bytes) -> TPMU_PUBLIC_ID:
    if kind in _RSA_BITS:
        return TPMU_PUBLIC_ID(rsa=individual.ljust(0 if kind.is_high else 256, b"\0"))
    size = 0 if kind.is_high else 32
    point = TPMS_ECC_POINT(x=individual.ljust(size, b"\0"), y=bytes(size))
    return TPMU_PUBLIC_ID(ecc=point)


@lru_cache(maxsize=_KEPT)
def ak_template(kind: KeyKind, individual: bytes = b"") -> TPM2B_PUBLIC:
    """The attestation key. ``noDA``: wrong guesses elsewhere must not stop attestation."""
    is_rsa = kind in _RSA_BITS
    point = TPMS_ECC_POINT(x=individual)
    return TPM2B_PUBLIC(
        publicArea=TPMT_PUBLIC(
            type=TPM2_ALG.RSA if is_rsa else TPM2_ALG.ECC,
            nameAlg=_HASHES[kind.is_high],
            objectAttributes=_AK,
            parameters=_ak_parameters(kind, TPMS_SCHEME_HASH(hashAlg=_HASHES[kind.is_high])),
            unique=TPMU_PUBLIC_ID(rsa=individual) if is_rsa else TPMU_PUBLIC_ID(ecc=point),
        )
    )


def _ak_parameters(kind: KeyKind, digest: TPMS_SCHEME_HASH) -> TPMU_PUBLIC_PARMS:
    none = TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL)
    if kind in _RSA_BITS:
        scheme = TPMT_RSA_SCHEME(scheme=TPM2_ALG.RSASSA, details=TPMU_ASYM_SCHEME(rsassa=digest))
        bits = _RSA_BITS[kind]
        return TPMU_PUBLIC_PARMS(
            rsaDetail=TPMS_RSA_PARMS(symmetric=none, scheme=scheme, keyBits=bits)
        )
    return TPMU_PUBLIC_PARMS(
        eccDetail=TPMS_ECC_PARMS(
            symmetric=none,
            scheme=TPMT_ECC_SCHEME(scheme=TPM2_ALG.ECDSA, details=TPMU_ASYM_SCHEME(ecdsa=digest)),
            curveID=_CURVES[kind],
            kdf=TPMT_KDF_SCHEME(scheme=TPM2_ALG.NULL),
        )
    )
