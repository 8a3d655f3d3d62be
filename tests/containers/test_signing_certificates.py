"""Certificates that may sign images, and each rule broken once."""

from __future__ import annotations

import warnings
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from catena.containers.signature import certificates
from catena.containers.signature.certificates import (
    BrokenChain,
    CertificateOutOfDate,
    MalformedCertificate,
    UnknownExtension,
    UntrustedRoot,
    WeakCertificate,
    WrongBasicConstraints,
    WrongExtendedKeyUsage,
    WrongKeyUsage,
    check_chain,
    is_root,
    parse_certificates,
)
from code_signing import (
    CODE_SIGNING,
    NOW,
    SIGNS,
    authority,
    issue,
    key_usage,
    name,
    new_key,
    publisher,
)

USES = ExtendedKeyUsageOID
ROOT = issue(name("root"), key=new_key("p256", 1), extensions=authority())


def leaf(extensions=CODE_SIGNING, **options):
    return issue(name("leaf"), ROOT, key=options.pop("key", new_key("p256", 2)), extensions=extensions, **options)  # fmt: skip


def check(*issued, roots=None, at=NOW):
    chain = [one.certificate for one in issued]
    check_chain(chain, roots or [chain[-1]], at)


def with_uses(*uses, critical=False):
    return (*SIGNS, (x509.ExtendedKeyUsage(list(uses)), critical))


@pytest.mark.parametrize(
    "extensions",
    [
        CODE_SIGNING,
        SIGNS,
        with_uses(USES.CODE_SIGNING, critical=True),
        with_uses(USES.CODE_SIGNING, USES.CLIENT_AUTH),
        (*CODE_SIGNING, (x509.BasicConstraints(ca=False, path_length=None), True)),
    ],
)
def test_a_certificate_for_signing_code_is_accepted(extensions):
    check(leaf(extensions), ROOT)


@pytest.mark.parametrize("kind", ["rsa2048", "p384"])
def test_a_certificate_signed_by_itself_is_its_own_chain(kind):
    check(issue(name("alone"), key=new_key(kind)))


@pytest.mark.parametrize(
    "extensions",
    [
        (),
        ((key_usage("digital_signature"), False),),
        ((key_usage("key_encipherment"), True),),
        ((key_usage("digital_signature", "content_commitment"), True),),
        ((key_usage("digital_signature", "key_encipherment"), True),),
        ((key_usage("digital_signature", "key_agreement"), True),),
        ((key_usage("digital_signature", "key_cert_sign"), True),),
    ],
)
def test_a_signer_with_another_key_usage_is_refused(extensions):
    with pytest.raises(WrongKeyUsage):
        check(leaf(extensions), ROOT)


@pytest.mark.parametrize(
    "uses",
    [
        (USES.CLIENT_AUTH,),
        (USES.SERVER_AUTH,),
        (USES.ANY_EXTENDED_KEY_USAGE,),
        (USES.CODE_SIGNING, USES.SERVER_AUTH),
        (USES.CODE_SIGNING, USES.EMAIL_PROTECTION),
        (USES.CODE_SIGNING, USES.TIME_STAMPING),
        (USES.CODE_SIGNING, USES.OCSP_SIGNING),
        (USES.CODE_SIGNING, USES.ANY_EXTENDED_KEY_USAGE),
    ],
)
def test_a_signer_with_another_extended_key_usage_is_refused(uses):
    with pytest.raises(WrongExtendedKeyUsage):
        check(leaf(with_uses(*uses)), ROOT)


def test_an_authority_does_not_sign_images():
    with pytest.raises(WrongBasicConstraints):
        check(ROOT)


@pytest.mark.parametrize(
    ("extensions", "error"),
    [
        (CODE_SIGNING, WrongKeyUsage),
        (authority()[:1], WrongKeyUsage),
        (authority()[1:], WrongBasicConstraints),
        (
            ((x509.BasicConstraints(ca=True, path_length=None), False), authority()[1]),
            WrongBasicConstraints,
        ),
        (
            ((x509.BasicConstraints(ca=False, path_length=None), True), authority()[1]),
            WrongBasicConstraints,
        ),
        (
            (
                (x509.BasicConstraints(ca=True, path_length=None), True),
                (key_usage("key_cert_sign"), False),
            ),
            WrongKeyUsage,
        ),
    ],
)
def test_an_issuer_that_is_no_authority_is_refused(extensions, error):
    issuer = issue(name("issuer"), key=new_key("p256", 3), extensions=extensions)
    below = issue(name("below"), issuer, key=new_key("p256", 4))
    with pytest.raises(error):
        check(below, issuer)


@pytest.mark.parametrize(("length", "accepted"), [(None, True), (2, True), (1, True), (0, False)])
def test_the_path_length_of_an_authority_is_kept(length, accepted):
    top = issue(name("top"), key=new_key("p256", 5), extensions=authority(length))
    middle = issue(name("middle"), top, key=new_key("p256", 6), extensions=authority())
    below = issue(name("below"), middle, key=new_key("p256", 7))
    if accepted:
        check(below, middle, top)
        return
    with pytest.raises(WrongBasicConstraints, match="too many"):
        check(below, middle, top)


@pytest.mark.parametrize("days", [-31, 336])
def test_a_certificate_outside_its_time_is_refused(days):
    with pytest.raises(CertificateOutOfDate):
        check(leaf(), ROOT, at=NOW + timedelta(days=days))


def test_an_expired_authority_is_refused():
    old = issue(name("old"), key=new_key("p256", 8), extensions=authority(), days=1)
    with pytest.raises(CertificateOutOfDate):
        check(issue(name("below"), old, key=new_key("p256", 9)), old)


@pytest.mark.parametrize("kind", ["rsa1024", "k256"])
def test_a_weak_key_is_refused(kind):
    with pytest.raises(WeakCertificate):
        check(leaf(key=new_key(kind)), ROOT)


def test_a_broken_hash_is_refused():
    weak = issue(name("weak"), key=new_key("rsa2048", 1), algorithm=hashes.SHA224())
    with pytest.raises(WeakCertificate):
        check(weak)


def test_an_unknown_critical_extension_is_refused():
    strange = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\0")
    check(leaf((*CODE_SIGNING, (strange, False))), ROOT)
    with pytest.raises(UnknownExtension):
        check(leaf((*CODE_SIGNING, (strange, True))), ROOT)


def test_constraints_on_names_are_not_understood_and_so_refused():
    constraints = x509.NameConstraints([x509.DNSName("example.com")], None)
    issuer = issue(name("issuer"), key=new_key("p256", 10), extensions=(*authority(), (constraints, True)))  # fmt: skip
    with pytest.raises(UnknownExtension):
        check(issue(name("below"), issuer, key=new_key("p256", 11)), issuer)


def test_certificates_out_of_order_are_refused():
    chain = publisher(3).chain
    check_chain(chain, [chain[-1]], NOW)
    for wrong in ((chain[1], chain[0], chain[2]), (chain[0], chain[2]), chain[::-1], chain[:2]):
        with pytest.raises((BrokenChain, WrongBasicConstraints)):
            check_chain(wrong, chain, NOW)


def test_an_issuer_of_the_same_name_is_not_the_issuer():
    twin = issue(name("root"), key=new_key("p256", 12), extensions=authority())
    with pytest.raises(BrokenChain):
        check(leaf(), twin)


def test_a_root_of_the_same_name_is_not_the_root():
    twin = issue(name("root"), key=new_key("p256", 12), extensions=authority())
    with pytest.raises(UntrustedRoot):
        check(leaf(), ROOT, roots=[twin.certificate])
    with pytest.raises(UntrustedRoot):
        check_chain([leaf().certificate, ROOT.certificate], [], NOW)


def test_certificates_are_read_from_pem_and_der():
    chain = publisher(3).chain
    for encoding in (Encoding.PEM, Encoding.DER):
        data = b"".join(one.public_bytes(encoding) for one in chain)
        assert parse_certificates(data) == chain


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"invalid",
        b"\x30",
        b"\x30\x82",
        b"\x30\x82\xff\xff\0",
        b"\x30\0" * 65,
        b"-----BEGIN CERTIFICATE-----\nx",
        bytes(certificates.MAX_CERTIFICATE_FILE + 1),
    ],
)
def test_what_holds_no_certificates_is_refused(data):
    with pytest.raises(MalformedCertificate):
        parse_certificates(data)


def test_a_certificate_cut_at_any_byte_is_refused():
    der = ROOT.certificate.public_bytes(Encoding.DER)
    for end in range(len(der)):
        with pytest.raises(MalformedCertificate):
            parse_certificates(der[:end])


def test_roots_are_authorities_or_signed_by_themselves():
    chain = publisher(3).chain
    assert [is_root(one) for one in chain] == [False, True, True]
    assert is_root(issue(name("alone")).certificate)


@pytest.mark.parametrize("action", ["error", "ignore"])
def test_a_serial_number_below_one_is_malformed(action):
    der = ROOT.certificate.public_bytes(Encoding.DER)
    at = der.index(b"\xa0\x03\x02\x01\x02\x02") + 7
    negative = der[:at] + bytes((der[at] | 0x80,)) + der[at + 1 :]
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(MalformedCertificate):
            certificates.parse_chain([negative])
