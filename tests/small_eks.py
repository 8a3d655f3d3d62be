"""Endorsement keys without a TPM, and what their certificates say they are for."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from catena.formats.tpm2 import (
    EccCurve,
    Public,
    SymmetricDef,
    TpmAlg,
    TpmaObject,
    encode_public,
    parse_public,
)
from catena.ids import HashAlg

EK_ATTRIBUTES = TpmaObject(0x000300B2)
POLICY_A = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")


def ecc_ek(private: ec.EllipticCurvePrivateKey) -> Public:
    """The TPMT_PUBLIC that template L-2 gives for this P-256 key."""
    point = private.public_key().public_numbers()
    public = Public(
        kind="ecc",
        name_alg=HashAlg.SHA256,
        attributes=EK_ATTRIBUTES,
        auth_policy=POLICY_A,
        symmetric=SymmetricDef(128, TpmAlg.CFB),
        scheme=None,
        key_bits=256,
        raw=b"",
        curve=EccCurve.P256,
        x=point.x.to_bytes(32, "big"),
        y=point.y.to_bytes(32, "big"),
    )
    return parse_public(encode_public(public))


def usage(*names: str) -> x509.KeyUsage:
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in names for name in every})
