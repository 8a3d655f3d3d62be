from __future__ import annotations

import pytest
from forged import AK_ATTRIBUTES, AK_PUBLIC, SHA1, SHA256, SHA384, ecc_public, key

from catena.appraise import attestation_key as ak
from catena.appraise.attestation_key import check_attestation_key
from catena.errors import FormatError
from catena.formats.tpm2 import EccCurve, Public, Scheme, TpmAlg, TpmaObject, parse_public


def rsa_public(bits: int = 2048, scheme: Scheme | None = Scheme(TpmAlg.RSASSA, SHA256)) -> Public:  # noqa: B008  frozen
    return Public(
        kind="rsa",
        name_alg=SHA256,
        attributes=AK_ATTRIBUTES,
        auth_policy=b"",
        symmetric=None,
        scheme=scheme,
        key_bits=bits,
        raw=b"",
        exponent=65537,
        modulus=b"\xff" * (bits // 8),
    )


def test_an_attestation_key_from_the_template_is_accepted():
    check_attestation_key(parse_public(AK_PUBLIC))


def test_an_rsa_attestation_key_is_accepted():
    check_attestation_key(rsa_public())
    check_attestation_key(rsa_public(scheme=Scheme(TpmAlg.RSAPSS, SHA384)))


@pytest.mark.parametrize(
    ("missing", "refusal"),
    [
        (TpmaObject.FIXED_TPM, ak.MovableAttestationKey),
        (TpmaObject.FIXED_PARENT, ak.MovableAttestationKey),
        (TpmaObject.SENSITIVE_DATA_ORIGIN, ak.ImportedAttestationKey),
        (TpmaObject.RESTRICTED, ak.UnrestrictedAttestationKey),
        (TpmaObject.SIGN_ENCRYPT, ak.NonSigningAttestationKey),
    ],
)
def test_a_missing_attribute_is_refused(missing, refusal):
    public = parse_public(ecc_public(key(3), attributes=AK_ATTRIBUTES & ~missing))
    with pytest.raises(refusal):
        check_attestation_key(public)


def test_a_key_that_also_decrypts_is_refused():
    public = parse_public(ecc_public(key(3), attributes=AK_ATTRIBUTES | TpmaObject.DECRYPT))
    with pytest.raises(ak.DecryptingAttestationKey):
        check_attestation_key(public)


@pytest.mark.parametrize("scheme", [None, Scheme(TpmAlg.ECDSA, SHA1), Scheme(TpmAlg.ECDH, SHA256)])
def test_a_weak_or_missing_scheme_is_refused(scheme):
    with pytest.raises(ak.WeakAttestationKey):
        check_attestation_key(parse_public(ecc_public(key(3), scheme=scheme)))


def test_a_weak_name_hash_is_refused():
    with pytest.raises(ak.WeakAttestationKey):
        check_attestation_key(parse_public(ecc_public(key(3), name_alg=SHA1)))


@pytest.mark.parametrize("bits", [1024, 1536, 8192])
def test_an_rsa_key_of_a_wrong_size_is_refused(bits):
    with pytest.raises(ak.WeakAttestationKey):
        check_attestation_key(rsa_public(bits))


def test_an_rsa_key_for_encryption_is_refused():
    with pytest.raises(ak.WeakAttestationKey):
        check_attestation_key(rsa_public(scheme=Scheme(TpmAlg.OAEP, SHA256)))


def test_a_curve_that_is_not_allowed_is_refused():
    public = Public(
        kind="ecc",
        name_alg=SHA256,
        attributes=AK_ATTRIBUTES,
        auth_policy=b"",
        symmetric=None,
        scheme=Scheme(TpmAlg.ECDSA, SHA256),
        key_bits=521,
        raw=b"",
        curve=EccCurve.P521,
        x=bytes(66),
        y=bytes(66),
    )
    with pytest.raises(ak.WeakAttestationKey):
        check_attestation_key(public)


def test_a_point_off_its_curve_is_malformed():
    broken = AK_PUBLIC[:-1] + bytes([AK_PUBLIC[-1] ^ 1])
    with pytest.raises(FormatError):
        check_attestation_key(parse_public(broken))
