from __future__ import annotations

import hashlib

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hostile import bit_flips, refuses_cleanly
from hypothesis import given
from hypothesis import strategies as st
from tpm2_vectors import (
    AK_NAME,
    AK_PUBLIC_2B,
    AK_QUALIFIED_NAME,
    EK_NAME,
    EK_PUBLIC_2B,
    PSS_NAME,
    PSS_PUBLIC_2B,
    PSS_QUALIFIED_NAME,
    PSS_QUOTE,
    PSS_SIGNATURE,
    QUOTE,
    QUOTE_SIGNATURE,
    TIME,
)

from catena.errors import FormatError
from catena.formats import tpm2
from catena.formats.tpm2 import EccCurve, PcrSelection, Scheme, SymmetricDef, TpmAlg, TpmaObject
from catena.ids import HashAlg
from changed import replace

AK, EK, PSS = AK_PUBLIC_2B[2:], EK_PUBLIC_2B[2:], PSS_PUBLIC_2B[2:]
PUBLICS = {"ak": AK, "ek": EK, "pss": PSS}
DECODERS = [
    pytest.param(tpm2.parse_public, AK, id="ecc-public"),
    pytest.param(tpm2.parse_public, EK, id="rsa-public"),
    pytest.param(tpm2.parse_public_2b, PSS_PUBLIC_2B, id="public-2b"),
    pytest.param(tpm2.parse_attest, QUOTE, id="quote"),
    pytest.param(tpm2.parse_attest, PSS_QUOTE, id="quote-of-two-banks"),
    pytest.param(tpm2.parse_signature, QUOTE_SIGNATURE, id="ecdsa"),
    pytest.param(tpm2.parse_signature, PSS_SIGNATURE, id="rsapss"),
    pytest.param(
        tpm2.parse_pcr_selections, tpm2.encode_pcr_selection(HashAlg.SHA256, range(16)), id="pcrs"
    ),
]


@pytest.mark.parametrize(("parse", "vector"), DECODERS)
def test_every_truncation_is_malformed_with_an_offset_inside(parse, vector):
    for size in range(len(vector)):
        with pytest.raises(FormatError) as refused:
            parse(vector[:size])
        assert 0 <= refused.value.offset <= size


@pytest.mark.parametrize(("parse", "vector"), DECODERS)
def test_trailing_bytes_are_malformed(parse, vector):
    with pytest.raises(FormatError, match="trailing"):
        parse(vector + b"\0")


@pytest.mark.parametrize(("parse", "vector"), DECODERS)
def test_a_flipped_bit_parses_or_is_malformed_but_never_breaks(parse, vector):
    assert all(refuses_cleanly(parse, flipped) for flipped in bit_flips(vector))


@given(st.binary(max_size=400))
def test_any_bytes_parse_or_are_malformed(data):
    for parse in (
        tpm2.parse_public,
        tpm2.parse_public_2b,
        tpm2.parse_attest,
        tpm2.parse_signature,
        tpm2.parse_pcr_selections,
    ):
        assert refuses_cleanly(parse, data)


def test_attestation_key_is_read_as_the_tpm_made_it():
    ak = tpm2.parse_public_2b(AK_PUBLIC_2B)
    assert (ak.kind, ak.curve, ak.key_bits) == ("ecc", EccCurve.P256, 256)
    assert ak.scheme == Scheme(TpmAlg.ECDSA, HashAlg.SHA256)
    assert ak.symmetric is None
    assert TpmaObject.RESTRICTED | TpmaObject.FIXED_TPM in ak.attributes
    assert TpmaObject.DECRYPT not in ak.attributes
    assert isinstance(ak.key(), ec.EllipticCurvePublicKey)


def test_endorsement_key_is_read_as_the_tpm_made_it():
    ek = tpm2.parse_public(EK)
    assert (ek.kind, ek.key_bits, ek.exponent) == ("rsa", 2048, 65537)
    assert ek.symmetric == SymmetricDef(128, TpmAlg.CFB)
    assert ek.scheme is None
    assert TpmaObject.DECRYPT in ek.attributes
    assert len(ek.auth_policy) == 32
    assert isinstance(ek.key(), rsa.RSAPublicKey)


@pytest.mark.parametrize(("public", "name"), [(EK, EK_NAME), (AK, AK_NAME), (PSS, PSS_NAME)])
def test_name_is_the_tpms(public, name):
    assert tpm2.parse_public(public).name() == name


@pytest.mark.parametrize(
    ("name", "hierarchy", "qualified"),
    [
        (AK_NAME, tpm2.RH_ENDORSEMENT, AK_QUALIFIED_NAME),
        (PSS_NAME, tpm2.RH_OWNER, PSS_QUALIFIED_NAME),
    ],
)
def test_qualified_name_of_a_primary_is_the_tpms(name, hierarchy, qualified):
    assert tpm2.primary_qualified_name(name, hierarchy) == qualified


def test_quote_names_its_signer_by_qualified_name():
    assert tpm2.parse_attest(QUOTE).qualified_signer == AK_QUALIFIED_NAME


@pytest.mark.parametrize("name", [b"", AK_NAME[:-1], AK_NAME + b"\0", b"\0\x99" + AK_NAME[2:]])
def test_what_is_no_name_has_no_qualified_name(name):
    with pytest.raises(FormatError):
        tpm2.primary_qualified_name(name, tpm2.RH_OWNER)


@pytest.mark.parametrize("public", PUBLICS.values(), ids=PUBLICS)
def test_public_area_encodes_to_what_it_was_read_from(public):
    parsed = tpm2.parse_public(public)
    assert tpm2.encode_public(parsed) == parsed.raw == public


def test_uncommon_exponent_survives():
    odd = replace(tpm2.parse_public(EK), exponent=3)
    assert tpm2.parse_public(tpm2.encode_public(odd)).exponent == 3


KEY_HASHES = [alg for alg in HashAlg if alg is not HashAlg.SM3_256]
ECC_FIELDS = st.fixed_dictionaries(
    {
        "attributes": st.sets(st.sampled_from(list(TpmaObject))).map(lambda s: TpmaObject(sum(s))),
        "auth_policy": st.binary(max_size=64),
        "scheme": st.none() | st.builds(Scheme, st.just(TpmAlg.ECDSA), st.sampled_from(KEY_HASHES)),
        "symmetric": st.none() | st.builds(SymmetricDef, st.just(128), st.just(TpmAlg.CFB)),
        "x": st.binary(max_size=32),
        "y": st.binary(max_size=32),
    }
)


@given(curve=st.sampled_from(list(EccCurve)), fields=ECC_FIELDS)
def test_any_ecc_public_area_round_trips(curve, fields):
    public = replace(tpm2.parse_public(AK), curve=curve, key_bits=curve.bits, **fields)
    wire = tpm2.encode_public(public)
    assert tpm2.parse_public(wire) == replace(public, raw=wire)


def test_point_off_the_curve_is_no_key():
    ak = tpm2.parse_public(AK)
    with pytest.raises(FormatError, match="no ecc public key"):
        replace(ak, y=bytes(32)).key()


def test_even_exponent_is_no_key():
    with pytest.raises(FormatError, match="no rsa public key"):
        replace(tpm2.parse_public(EK), exponent=2).key()


def _patched(wire, offset, content):
    return wire[:offset] + content + wire[offset + len(content) :]


@pytest.mark.parametrize(
    ("wire", "offset", "content", "fault"),
    [
        (AK, 0, b"\0\x25", "public type"),  # SYMCIPHER
        (AK, 2, b"\0\x10", "nameAlg"),  # NULL
        (AK, 4, b"\x80", "reserved"),
        (AK, 10, b"\0\x06", "authPolicy|cipher|mode|runs past|scheme|curve"),
        (EK, 42, b"\0\x13", "cipher is not AES"),  # SM4
        (AK, 12, b"\0\x1a", "unsupported scheme"),  # ECDAA
        (AK, 14, b"\0\x12", "scheme hash"),  # SM3
        (AK, 16, b"\0\x20", "unsupported curve"),  # SM2
        (AK, 18, b"\0\x20", "key derivation"),
        (AK, 20, b"\0\x21", "too long"),
        (EK, 50, b"\x04\0", "keyBits"),
        (EK, 58, b"\x7f", "keyBits"),
    ],
)
def test_public_area_with_a_wrong_field_is_malformed(wire, offset, content, fault):
    with pytest.raises(FormatError, match=fault):
        tpm2.parse_public(_patched(wire, offset, content))


def test_quote_is_read_as_the_tpm_made_it():
    attest = tpm2.parse_attest(QUOTE)
    assert (attest.magic, attest.type) == (tpm2.TPM_GENERATED_VALUE, tpm2.TPM_ST_ATTEST_QUOTE)
    assert attest.extra_data == bytes.fromhex("00112233445566778899aabbccddeeff")
    assert (attest.clock.reset_count, attest.clock.safe) == (1, True)
    assert attest.quote is not None
    assert attest.quote.selections == (PcrSelection(HashAlg.SHA256, tuple(range(16))),)
    assert attest.quote.pcr_digest == hashlib.sha256(bytes(32 * 16)).digest()


def test_quote_of_two_banks_keeps_them_apart():
    quote = tpm2.parse_attest(PSS_QUOTE).quote
    assert quote is not None
    assert quote.selections == (
        PcrSelection(HashAlg.SHA1, (0, 23)),
        PcrSelection(HashAlg.SHA256, (1,)),
    )


def test_another_attestation_is_returned_without_a_quote():
    attest = tpm2.parse_attest(TIME)
    assert (attest.type, attest.quote) == (0x8019, None)


def test_wrong_magic_is_left_to_the_verifier():
    assert tpm2.parse_attest(bytes(4) + QUOTE[4:]).magic == 0


def test_clock_that_is_neither_safe_nor_unsafe_is_malformed():
    safe_at = 6 + 2 + 34 + 2 + 16 + 16
    assert QUOTE[safe_at] == 1
    with pytest.raises(FormatError, match="TPMI_YES_NO"):
        tpm2.parse_attest(_patched(QUOTE, safe_at, b"\2"))


def test_over_long_selection_count_is_malformed():
    with pytest.raises(FormatError, match="too many PCR selections"):
        tpm2.parse_pcr_selections(b"\xff\xff\xff\xff")


def test_over_long_selection_mask_is_malformed():
    with pytest.raises(FormatError, match="too long"):
        tpm2.parse_pcr_selections(b"\0\0\0\1\0\x0b\xff" + bytes(255))


def test_unknown_bank_stays_visible():
    assert tpm2.parse_pcr_selections(b"\0\0\0\1\0\x27\3\0\0\x80") == (PcrSelection(0x27, (23,)),)


@given(bank=st.sampled_from(list(HashAlg)), pcrs=st.sets(st.integers(0, 23)))
def test_pcr_selection_round_trips(bank, pcrs):
    wire = tpm2.encode_pcr_selection(bank, pcrs)
    assert tpm2.parse_pcr_selections(wire) == (PcrSelection(bank, tuple(sorted(pcrs))),)


def test_ecdsa_signature_verifies_the_quote_and_nothing_else():
    signature = tpm2.parse_signature(QUOTE_SIGNATURE)
    assert (signature.scheme, signature.hash) == ("ecdsa", HashAlg.SHA256)
    key = tpm2.parse_public(AK).key()
    key.verify(signature.signature_bytes(), QUOTE, ec.ECDSA(hashes.SHA256()))
    with pytest.raises(InvalidSignature):
        key.verify(signature.signature_bytes(), TIME, ec.ECDSA(hashes.SHA256()))


def test_rsapss_signature_verifies_the_quote():
    signature = tpm2.parse_signature(PSS_SIGNATURE)
    assert signature.scheme == "rsapss"
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)
    key = tpm2.parse_public(PSS).key()
    key.verify(signature.signature_bytes(), PSS_QUOTE, pss, hashes.SHA256())


def test_unsupported_signature_scheme_is_malformed():
    with pytest.raises(FormatError, match="signature scheme"):
        tpm2.parse_signature(b"\0\x1a" + QUOTE_SIGNATURE[2:])


def test_sealed_object_is_encoded_as_the_library_specification_says():
    public = tpm2.encode_keyedhash_public(
        name_alg=HashAlg.SHA256,
        attributes=TpmaObject.FIXED_TPM | TpmaObject.FIXED_PARENT,
        auth_policy=b"p" * 32,
        unique=b"u" * 32,
    )
    expected = "0008 000b 00000012 0020" + "70" * 32 + "0010 0020" + "75" * 32
    assert public == bytes.fromhex(expected)
    sensitive = tpm2.encode_keyedhash_sensitive(auth_value=b"", seed_value=b"s", secret=b"xyz")
    assert sensitive == bytes.fromhex("0008 0000 0001 73 0003 78797a")


def test_sized_content_has_a_sixteen_bit_length():
    assert tpm2.sized2b(b"abc") == b"\0\3abc"
    with pytest.raises(OverflowError):
        tpm2.sized2b(bytes(65536))
