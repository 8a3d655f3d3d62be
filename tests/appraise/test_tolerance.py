"""What vendors got wrong, made by bending certificates that are right."""

from __future__ import annotations

import pytest
from asn1crypto import core, keys
from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID
from forged import key
from test_endorsement import (
    LEAF,
    NOW,
    ROOT_KEY,
    authority,
    ecc_ek,
    leaf,
    rsa_ek,
    rsa_key,
    usage,
)

from catena.appraise.authority import read_offered
from catena.appraise.certificate import Malformation, parse_certificate
from catena.appraise.endorsement import EndorsementKind, TrustRoot, TrustRoots, endorse
from catena.appraise.endorsement_refusal import (
    MalformedEkCertificate,
    UntrustedEkIssuer,
    WrongEkKeyUsage,
)
from catena.appraise.tolerance import KEY_USAGE_ABSENT, KEY_USAGE_OTHER, TOLERANCES


def der(tag: int, *parts: bytes) -> bytes:
    """One TLV."""
    body = b"".join(parts)
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    size = (len(body).bit_length() + 7) // 8
    return bytes([tag, 0x80 + size]) + len(body).to_bytes(size, "big") + body


def resigned(certificate: bytes, old: bytes, new: bytes, signer=ROOT_KEY) -> bytes:
    """The certificate with ``old`` in its body replaced, under a signature that holds again.

    The lengths around must not change, or be replaced with it.
    """
    outer = asn1.Certificate.load(certificate)
    body = outer["tbs_certificate"].contents
    assert old in body
    bent = der(0x30, body.replace(old, new))
    return signed(bent, outer["signature_algorithm"].dump(), signer)


def signed(body: bytes, algorithm: bytes, signer=ROOT_KEY) -> bytes:
    if isinstance(signer, ec.EllipticCurvePrivateKey):
        signature = signer.sign(body, ec.ECDSA(hashes.SHA256()))
        assert decode_dss_signature(signature)
    else:
        signature = signer.sign(body, padding.PKCS1v15(), hashes.SHA256())
    return der(0x30, body, algorithm, der(0x03, b"\0" + signature))


def roots(name: str) -> TrustRoots:
    """A root of this name, accepted as a vendor's."""
    root = authority(name, ROOT_KEY, name, ROOT_KEY)
    return TrustRoots(roots=(TrustRoot("Vendor", EndorsementKind.VENDOR, root),))


NUVOTON = "Nuvoton TPM Root CA 2112"
ST = "STMicroelectronics EK Intermediate CA 03"
INFINEON = "Infineon OPTIGA(TM) RSA Manufacturing CA 042"


def attribute(oid: str, text: str) -> bytes:
    kind = x509.ObjectIdentifier(oid)
    arcs = core.ObjectIdentifier(kind.dotted_string).dump()
    return der(0x30, arcs, der(0x13, text.encode()))


TPM_ATTRIBUTES = (
    attribute("2.23.133.2.1", "id:4E544300"),
    attribute("2.23.133.2.2", "NPCT75x"),
    attribute("2.23.133.2.3", "id:00070002"),
)


def with_alternative_name(*sets: bytes) -> bytes:
    """GeneralNames with one directoryName of these SETs."""
    return der(0x30, der(0xA4, der(0x30, *sets)))


def nuvoton_leaf(*attributes: bytes, issuer: str = NUVOTON) -> bytes:
    """As Nuvoton makes them: all attributes in one SET, PrintableStrings, in no order."""
    value = with_alternative_name(der(0x31, *attributes))
    san = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), value)
    return leaf(*LEAF, (san, True), issuer=issuer)


def test_attributes_out_of_order_are_read_and_named():
    found = endorse([nuvoton_leaf(*TPM_ATTRIBUTES)], rsa_ek(), roots(NUVOTON), NOW)
    assert found.tpm.tolerances == (Malformation.SET_ORDER,)
    assert (found.tpm.vendor, found.tpm.model, found.tpm.version) == ("NTC", "NPCT75x", "7.2")


def test_attributes_in_order_need_no_tolerance():
    ordered = sorted(TPM_ATTRIBUTES)
    found = endorse([nuvoton_leaf(*ordered)], rsa_ek(), roots(NUVOTON), NOW)
    assert found.tpm.tolerances == ()
    assert found.tpm.vendor == "NTC"


def test_attributes_out_of_order_are_another_issuers_fault():
    with pytest.raises(MalformedEkCertificate, match="out of DER's order"):
        endorse([nuvoton_leaf(*TPM_ATTRIBUTES, issuer="Acme")], rsa_ek(), roots("Acme"), NOW)


def test_an_issuers_name_may_be_out_of_order_too():
    """The whole name in one SET: CN, O, C, where DER wants C first."""
    parts = [
        attribute("2.5.4.3", NUVOTON),
        attribute("2.5.4.10", "Nuvoton Technology Corporation"),
        attribute("2.5.4.6", "TW"),
    ]
    assert parts != sorted(parts)
    bent = der(0x30, der(0x31, *parts))
    plain = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NUVOTON)]).public_bytes()
    root = authority(NUVOTON, ROOT_KEY, NUVOTON, ROOT_KEY)
    bent_root = TrustRoot("Nuvoton", EndorsementKind.VENDOR, resigned(root, plain, bent))
    accepted = TrustRoots(roots=(bent_root,))
    found = endorse([resigned(leaf(issuer=NUVOTON), plain, bent)], rsa_ek(), accepted, NOW)
    assert found.tpm.tolerances == (Malformation.SET_ORDER,)


@pytest.mark.parametrize("filler", [b"\0", b"\xff"])
def test_padding_is_dropped_and_named(filler):
    found = endorse([leaf().ljust(1600, filler)], rsa_ek(), roots("root"), NOW)
    assert found.tpm.tolerances == (Malformation.NV_PADDING,)


def test_padding_of_two_kinds_is_malformed():
    with pytest.raises(MalformedEkCertificate):
        endorse([leaf() + b"\0\xff"], rsa_ek(), roots("root"), NOW)


SERIAL = bytes([2, 1, 7])


@pytest.mark.parametrize("bent", [b"\x02\x02\x00\x07", b"\x02\x01\x00", b"\x02\x01\x87"])
def test_an_odd_serial_number_is_read_and_named(bent):
    odd = resigned(
        leaf(issuer=ST), b"\xa0\x03\x02\x01\x02" + SERIAL, b"\xa0\x03\x02\x01\x02" + bent
    )
    found = endorse([odd], rsa_ek(), roots(ST), NOW)
    assert found.tpm.tolerances == (Malformation.SERIAL_ENCODING,)
    odd = resigned(leaf(), b"\xa0\x03\x02\x01\x02" + SERIAL, b"\xa0\x03\x02\x01\x02" + bent)
    with pytest.raises(MalformedEkCertificate, match="serial"):
        endorse([odd], rsa_ek(), roots("root"), NOW)


RSA_LABEL = bytes.fromhex("06092a864886f70d010101")
OAEP_LABEL = bytes.fromhex("06092a864886f70d010107")


def test_a_key_labelled_for_oaep_is_judged_by_its_numbers_and_named():
    """id-RSAES-OAEP (1.2.840.113549.1.1.7), which decoders reject."""
    bent = resigned(leaf(issuer=INFINEON), RSA_LABEL, OAEP_LABEL)
    found = endorse([bent], rsa_ek(), roots(INFINEON), NOW)
    assert found.tpm.tolerances == (Malformation.OAEP_LABEL,)
    with pytest.raises(MalformedEkCertificate, match="OAEP"):
        endorse([resigned(leaf(), RSA_LABEL, OAEP_LABEL)], rsa_ek(), roots("root"), NOW)


@pytest.mark.parametrize("issuer", ["AMDTPM", "Intel TPM EK intermediate"])
def test_a_firmware_tpms_missing_key_usage_is_named(issuer):
    found = endorse([leaf(LEAF[0], LEAF[2], issuer=issuer)], rsa_ek(), roots(issuer), NOW)
    assert found.tpm.tolerances == (KEY_USAGE_ABSENT,)


def test_a_firmware_tpms_key_usage_of_another_key_is_named():
    der = leaf(*LEAF, issuer="AMDTPM", public=key(5).public_key())
    assert endorse([der], ecc_ek(), roots("AMDTPM"), NOW).tpm.tolerances == (KEY_USAGE_OTHER,)
    der = leaf(*LEAF, public=key(5).public_key())
    with pytest.raises(WrongEkKeyUsage):
        endorse([der], ecc_ek(), roots("root"), NOW)


def test_no_tolerance_lets_an_ek_sign():
    for wrong in (("digital_signature",), ("key_encipherment", "key_cert_sign")):
        der = leaf(LEAF[0], (usage(*wrong), True), LEAF[2], issuer="AMDTPM")
        with pytest.raises(WrongEkKeyUsage):
            endorse([der], rsa_ek(), roots("AMDTPM"), NOW)


def test_a_certificate_without_key_identifiers_is_linked_by_name_and_signature():
    """As AMD's: none of the certificates here has any."""
    assert b"\x55\x1d\x23" not in leaf()
    endorse([leaf(issuer="AMDTPM")], rsa_ek(), roots("AMDTPM"), NOW)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\xa0\x03\x02\x01\x02", b"\xa0\x81\x03\x02\x01\x02"),  # a length in the long form
        (b"\x01\x01\xff\x04", b"\x01\x01\x01\x04"),  # a true that is 1
    ],
)
def test_what_has_a_second_reading_is_malformed_for_every_issuer(old, new):
    for issuer in ("Nuvoton", "STMicroelectronics", "Intel"):
        certificate = leaf(*LEAF[:1], LEAF[2], issuer=issuer)
        with pytest.raises(MalformedEkCertificate):
            endorse([resigned(certificate, old, new)], rsa_ek(), roots(issuer), NOW)


def test_a_negative_modulus_is_no_key():
    """Its bits are as many as a good one's, and libraries overflow on it."""
    numbers = keys.RSAPublicKey({"modulus": -(1 << 2047) - 1, "public_exponent": 65537})
    outer = asn1.Certificate.load(authority("root", rsa_key(), "root", rsa_key()))
    body = outer["tbs_certificate"]
    body["subject_public_key_info"]["public_key"] = keys.PublicKeyInfo.wrap(numbers, "rsa")[
        "public_key"
    ]
    bent = signed(body.dump(force=True), outer["signature_algorithm"].dump(), rsa_key())
    assert parse_certificate(bent).key_numbers is None
    accepted = TrustRoots(roots=(TrustRoot("Bent", EndorsementKind.VENDOR, bent),))
    with pytest.raises(UntrustedEkIssuer):
        endorse([leaf(issuer_key=rsa_key())], rsa_ek(), accepted, NOW)


def test_an_extension_that_is_there_twice_is_malformed():
    certificate = asn1.Certificate.load(leaf())
    body = certificate["tbs_certificate"]
    body["extensions"].append(body["extensions"][2].copy())
    twice = signed(body.dump(force=True), certificate["signature_algorithm"].dump())
    with pytest.raises(MalformedEkCertificate, match="twice"):
        endorse([twice], rsa_ek(), roots("root"), NOW)


def test_two_signature_algorithms_are_malformed():
    outer = asn1.Certificate.load(leaf())
    sha384 = asn1.SignedDigestAlgorithm({"algorithm": "sha384_ecdsa"}).dump()
    with pytest.raises(MalformedEkCertificate, match="two signature algorithms"):
        endorse([signed(outer["tbs_certificate"].dump(), sha384)], rsa_ek(), roots("root"), NOW)


def test_an_old_root_may_have_signed_itself_with_sha1_and_nothing_else():
    """As Nuvoton's first ones: a root's own signature vouches for nothing."""

    def with_sha1(certificate: bytes) -> bytes:
        outer = asn1.Certificate.load(certificate)
        outer["tbs_certificate"]["signature"] = {"algorithm": "sha1_ecdsa"}
        body = outer["tbs_certificate"].dump(force=True)
        signature = ROOT_KEY.sign(body, ec.ECDSA(hashes.SHA1()))
        algorithm = asn1.SignedDigestAlgorithm({"algorithm": "sha1_ecdsa"}).dump()
        return der(0x30, body, algorithm, der(0x03, b"\0" + signature))

    root = with_sha1(authority("root", ROOT_KEY, "root", ROOT_KEY))
    assert read_offered(root).type == "root"
    accepted = TrustRoots(roots=(TrustRoot("Old", EndorsementKind.VENDOR, root),))
    endorse([leaf()], rsa_ek(), accepted, NOW)
    with pytest.raises(UntrustedEkIssuer):
        endorse([with_sha1(leaf())], rsa_ek(), accepted, NOW)
    rolled = authority("root", key(6), "root", ROOT_KEY)
    assert read_offered(rolled).type == "intermediate"


def test_every_malformation_has_a_tolerance_or_it_would_not_have_a_name():
    assert set(Malformation) <= set(TOLERANCES)
