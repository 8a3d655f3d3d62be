from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier
from forged import key
from hypothesis import given
from hypothesis import strategies as st

import small_eks
from catena.appraise import endorsement_refusal as ek
from catena.appraise.ek_template import UnknownEkTemplate
from catena.appraise.ekpath import EK_USAGE as EK_USAGE_OID
from catena.appraise.ekpath import MAX_INTERMEDIATES
from catena.appraise.endorsement import EndorsementKind, TrustRoot, TrustRoots, endorse
from catena.formats.tpm2 import (
    Public,
    Scheme,
    SymmetricDef,
    TpmAlg,
    TpmaObject,
    encode_public,
    parse_public,
)
from catena.ids import HashAlg
from changed import replace
from small_eks import EK_ATTRIBUTES, POLICY_A, usage

NOW = datetime(2030, 1, 1, tzinfo=UTC)
YEAR = timedelta(days=365)
EK_USAGE = ObjectIdentifier(EK_USAGE_OID)


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def rsa_ek(**changes) -> Public:
    """The TPMT_PUBLIC that template L-1 gives for our RSA key."""
    fields = {
        "kind": "rsa",
        "name_alg": HashAlg.SHA256,
        "attributes": EK_ATTRIBUTES,
        "auth_policy": POLICY_A,
        "symmetric": SymmetricDef(128, TpmAlg.CFB),
        "scheme": None,
        "key_bits": 2048,
        "raw": b"",
        "exponent": 65537,
        "modulus": rsa_key().public_key().public_numbers().n.to_bytes(256, "big"),
    }
    return parse_public(encode_public(Public(**{**fields, **changes})))


def ecc_ek(private=None) -> Public:
    """The TPMT_PUBLIC that template L-2 gives."""
    return small_eks.ecc_ek(private or key(5))


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(
    subject: str,
    public,
    issuer: str,
    issuer_key,
    *extensions: tuple[x509.ExtensionType, bool],
    start: datetime = NOW - YEAR,
    end: datetime = NOW + YEAR,
    alg: hashes.HashAlgorithm | None = None,
) -> bytes:
    builder = x509.CertificateBuilder(
        subject_name=name(subject),
        issuer_name=name(issuer),
        public_key=public,
        serial_number=7,
        not_valid_before=start,
        not_valid_after=end,
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    if not isinstance(issuer_key, ed25519.Ed25519PrivateKey):
        alg = alg or hashes.SHA256()
    return builder.sign(issuer_key, alg).public_bytes(Encoding.DER)


def authority(subject: str, private, issuer: str, issuer_key, *, length=None, **changes) -> bytes:
    constraints = (x509.BasicConstraints(ca=True, path_length=length), True)
    signs = (usage("key_cert_sign"), True)
    return certificate(
        subject, private.public_key(), issuer, issuer_key, constraints, signs, **changes
    )


LEAF = (
    (x509.BasicConstraints(ca=False, path_length=None), True),
    (usage("key_encipherment"), True),
    (x509.ExtendedKeyUsage([EK_USAGE]), False),
)
ROOT_KEY, MIDDLE_KEY = key(101), key(102)
ROOT = authority("root", ROOT_KEY, "root", ROOT_KEY)
MIDDLE = authority("middle", MIDDLE_KEY, "root", ROOT_KEY)
ROOTS = TrustRoots(roots=(TrustRoot("Vendor", EndorsementKind.VENDOR, ROOT),))


def leaf(*extensions, issuer="root", issuer_key=ROOT_KEY, public=None, **changes) -> bytes:
    public = public or rsa_key().public_key()
    return certificate("EK", public, issuer, issuer_key, *(extensions or LEAF), **changes)


def test_an_ek_certificate_of_an_accepted_root_endorses():
    found = endorse([leaf()], rsa_ek(), ROOTS, NOW)
    assert (found.root_name, found.kind) == ("Vendor", EndorsementKind.VENDOR)
    assert "EK" in found.subject


def test_an_ecc_ek_certificate_endorses():
    der = leaf(LEAF[0], (usage("key_agreement"), True), LEAF[2], public=key(5).public_key())
    endorse([der], ecc_ek(), ROOTS, NOW)


def test_the_path_may_use_certificates_that_the_node_sent():
    endorse([leaf(issuer="middle", issuer_key=MIDDLE_KEY), MIDDLE], rsa_ek(), ROOTS, NOW)


def test_the_path_may_use_the_servers_own_intermediates():
    roots = replace(ROOTS, intermediates=(MIDDLE,))
    endorse([leaf(issuer="middle", issuer_key=MIDDLE_KEY)], rsa_ek(), roots, NOW)


def test_an_intermediate_may_be_accepted_as_a_root():
    roots = TrustRoots(roots=(TrustRoot("Lab", EndorsementKind.SOFTWARE, MIDDLE),))
    found = endorse([leaf(issuer="middle", issuer_key=MIDDLE_KEY)], rsa_ek(), roots, NOW)
    assert found.kind is EndorsementKind.SOFTWARE


def test_a_pinned_ek_needs_no_certificate():
    public = rsa_ek()
    pinned = TrustRoots(pinned=frozenset({hashlib.sha256(public.raw).hexdigest()}))
    assert endorse([], public, pinned, NOW).kind is EndorsementKind.PINNED


def test_a_pin_does_not_cover_another_ek():
    pinned = TrustRoots(pinned=frozenset({"00" * 32}))
    with pytest.raises(ek.NoEkCertificate):
        endorse([], rsa_ek(), pinned, NOW)


def test_an_unknown_issuer_is_refused():
    with pytest.raises(ek.UntrustedEkIssuer):
        endorse([leaf(issuer="stranger", issuer_key=key(103))], rsa_ek(), ROOTS, NOW)


def test_an_issuer_that_only_borrows_the_roots_name_is_refused():
    with pytest.raises(ek.UntrustedEkIssuer):
        endorse([leaf(issuer_key=key(103))], rsa_ek(), ROOTS, NOW)


def test_a_root_that_the_node_brings_along_is_refused():
    own = authority("own", key(104), "own", key(104))
    with pytest.raises(ek.UntrustedEkIssuer):
        endorse([leaf(issuer="own", issuer_key=key(104)), own], rsa_ek(), ROOTS, NOW)


def test_a_signature_with_a_weak_hash_is_refused():
    weak = leaf(issuer="rsa root", issuer_key=rsa_key(), alg=hashes.SHA224())
    root = authority("rsa root", rsa_key(), "rsa root", rsa_key())
    roots = TrustRoots(roots=(TrustRoot("Old", EndorsementKind.VENDOR, root),))
    with pytest.raises(ek.UntrustedEkIssuer):
        endorse([weak], rsa_ek(), roots, NOW)


def root_of(private, name="other root", **changes) -> TrustRoots:
    der = authority(name, private, name, private, **changes)
    return TrustRoots(roots=(TrustRoot("Other", EndorsementKind.VENDOR, der),))


def test_a_root_with_another_kind_of_key_endorses_nothing():
    private = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    der = leaf(issuer="other root", issuer_key=private, alg=None)
    with pytest.raises(ek.UntrustedEkIssuer):
        endorse([der], rsa_ek(), root_of(private), NOW)


def test_a_root_with_a_small_rsa_key_endorses_nothing():
    small = rsa.generate_private_key(65537, 1024)
    with pytest.raises(ek.UntrustedEkIssuer):
        endorse([leaf(issuer="other root", issuer_key=small)], rsa_ek(), root_of(small), NOW)


@pytest.mark.parametrize("private", [ROOT_KEY, None])
def test_a_signature_of_another_scheme_than_the_roots_key_is_refused(private):
    """An RSA signature under an ECDSA root's name, and the other way round."""
    root, signer = (private, rsa_key()) if private else (rsa_key(), ROOT_KEY)
    der = leaf(issuer="other root", issuer_key=signer)
    with pytest.raises(ek.UntrustedEkIssuer):
        endorse([der], rsa_ek(), root_of(root), NOW)


def test_an_rsa_pss_signature_is_verified():
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    builder = x509.CertificateBuilder(
        subject_name=name("EK"),
        issuer_name=name("other root"),
        public_key=rsa_key().public_key(),
        serial_number=7,
        not_valid_before=NOW - YEAR,
        not_valid_after=NOW + YEAR,
    )
    for extension, critical in LEAF:
        builder = builder.add_extension(extension, critical)
    der = builder.sign(rsa_key(), hashes.SHA256(), rsa_padding=pss).public_bytes(Encoding.DER)
    endorse([der], rsa_ek(), root_of(rsa_key()), NOW)


def test_an_rsa_root_endorses():
    root = authority("rsa root", rsa_key(), "rsa root", rsa_key())
    roots = TrustRoots(roots=(TrustRoot("RSA", EndorsementKind.VENDOR, root),))
    endorse([leaf(issuer="rsa root", issuer_key=rsa_key())], rsa_ek(), roots, NOW)


@pytest.mark.parametrize("at", [NOW - 2 * YEAR, NOW + 2 * YEAR])
def test_an_expired_or_future_certificate_is_refused(at):
    with pytest.raises(ek.ExpiredEkCertificate):
        endorse([leaf()], rsa_ek(), ROOTS, at)


def test_an_expired_intermediate_is_refused():
    old = authority("middle", MIDDLE_KEY, "root", ROOT_KEY, end=NOW - timedelta(days=1))
    with pytest.raises(ek.ExpiredEkCertificate):
        endorse([leaf(issuer="middle", issuer_key=MIDDLE_KEY), old], rsa_ek(), ROOTS, NOW)


def test_an_expired_root_is_refused():
    old = authority("root", ROOT_KEY, "root", ROOT_KEY, end=NOW - timedelta(days=1))
    roots = TrustRoots(roots=(TrustRoot("Vendor", EndorsementKind.VENDOR, old),))
    with pytest.raises(ek.ExpiredEkCertificate):
        endorse([leaf()], rsa_ek(), roots, NOW)


def test_a_certificate_without_the_ek_usage_is_refused():
    with pytest.raises(ek.MissingEkUsage):
        endorse([leaf(*LEAF[:2])], rsa_ek(), ROOTS, NOW)
    other = x509.ExtendedKeyUsage([ObjectIdentifier("2.23.133.8.3")])
    with pytest.raises(ek.MissingEkUsage):
        endorse([leaf(*LEAF[:2], (other, False))], rsa_ek(), ROOTS, NOW)


@pytest.mark.parametrize(
    "extensions",
    [
        (LEAF[0], LEAF[2]),
        (LEAF[0], (usage("digital_signature"), True), LEAF[2]),
        (LEAF[0], (usage("key_encipherment", "key_cert_sign"), True), LEAF[2]),
        ((x509.BasicConstraints(ca=True, path_length=None), True), *LEAF[1:]),
    ],
)
def test_an_ek_certificate_with_a_wrong_key_usage_is_refused(extensions):
    with pytest.raises(ek.WrongEkKeyUsage):
        endorse([leaf(*extensions)], rsa_ek(), ROOTS, NOW)


@pytest.mark.parametrize(
    "extensions",
    [
        ((usage("key_cert_sign"), True),),
        ((x509.BasicConstraints(ca=False, path_length=None), True),),
        (
            (x509.BasicConstraints(ca=True, path_length=None), True),
            (usage("digital_signature"), True),
        ),
    ],
)
def test_an_intermediate_that_may_not_issue_is_refused(extensions):
    middle = certificate("middle", MIDDLE_KEY.public_key(), "root", ROOT_KEY, *extensions)
    with pytest.raises(ek.WrongEkKeyUsage):
        endorse([leaf(issuer="middle", issuer_key=MIDDLE_KEY), middle], rsa_ek(), ROOTS, NOW)


def test_a_path_longer_than_its_issuer_allows_is_refused():
    root = authority("root", ROOT_KEY, "root", ROOT_KEY, length=0)
    roots = TrustRoots(roots=(TrustRoot("Vendor", EndorsementKind.VENDOR, root),))
    endorse([leaf()], rsa_ek(), roots, NOW)
    with pytest.raises(ek.EkPathTooLong):
        endorse([leaf(issuer="middle", issuer_key=MIDDLE_KEY), MIDDLE], rsa_ek(), roots, NOW)


def test_a_path_longer_than_catena_allows_is_refused():
    chain, above = [], ("root", ROOT_KEY)
    for number in range(MAX_INTERMEDIATES + 1):
        private = key(200 + number)
        chain.append(authority(f"ca{number}", private, *above))
        above = (f"ca{number}", private)
    with pytest.raises(ek.EkPathTooLong):
        endorse([leaf(issuer=above[0], issuer_key=above[1]), *chain], rsa_ek(), ROOTS, NOW)


def test_a_circle_of_certificates_ends():
    one = authority("one", key(301), "two", key(302))
    two = authority("two", key(302), "one", key(301))
    with pytest.raises(ek.UntrustedEkIssuer):
        endorse([leaf(issuer="one", issuer_key=key(301)), one, two], rsa_ek(), ROOTS, NOW)


def test_another_tpms_certificate_is_refused():
    other = rsa.generate_private_key(65537, 2048).public_key()
    with pytest.raises(ek.EkKeyMismatch):
        endorse([leaf(public=other)], rsa_ek(), ROOTS, NOW)
    with pytest.raises(ek.EkKeyMismatch):
        endorse([leaf(public=key(6).public_key())], ecc_ek(), ROOTS, NOW)
    with pytest.raises(ek.EkKeyMismatch):
        endorse([leaf()], ecc_ek(), ROOTS, NOW)


def test_an_unknown_critical_extension_is_refused():
    odd = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    with pytest.raises(ek.UnknownCriticalExtension):
        endorse([leaf(*LEAF, (odd, True))], rsa_ek(), ROOTS, NOW)
    endorse([leaf(*LEAF, (odd, False))], rsa_ek(), ROOTS, NOW)


def test_critical_name_constraints_of_an_issuer_are_refused():
    limits = x509.NameConstraints([x509.DNSName("example.org")], None)
    constraints = (x509.BasicConstraints(ca=True, path_length=None), True)
    middle = certificate(
        "middle", MIDDLE_KEY.public_key(), "root", ROOT_KEY, constraints, (limits, True)
    )
    with pytest.raises(ek.UnknownCriticalExtension):
        endorse([leaf(issuer="middle", issuer_key=MIDDLE_KEY), middle], rsa_ek(), ROOTS, NOW)


@pytest.mark.parametrize("padding", [b"", b"\0" * 40, b"\xff" * 40])
def test_padding_from_tpm_memory_is_not_part_of_the_certificate(padding):
    endorse([leaf() + padding], rsa_ek(), ROOTS, NOW)


def test_other_trailing_bytes_are_malformed():
    with pytest.raises(ek.MalformedEkCertificate):
        endorse([leaf() + b"\x01\x02"], rsa_ek(), ROOTS, NOW)


def test_a_truncated_certificate_is_malformed():
    der = leaf()
    for size in range(len(der)):
        with pytest.raises(ek.MalformedEkCertificate):
            endorse([der[:size]], rsa_ek(), ROOTS, NOW)


@given(bit=st.integers(0, 8 * 700))
def test_no_bit_of_a_certificate_can_be_changed(bit):
    """Whatever a flipped bit hits, the certificate is refused in a named way."""
    der = bytearray(leaf_once())
    position = bit % (8 * len(der))
    der[position // 8] ^= 1 << position % 8
    with pytest.raises((ek.EndorsementRefusal, UnknownEkTemplate)):
        endorse([bytes(der)], rsa_ek(), ROOTS, NOW)


@cache
def leaf_once() -> bytes:
    return leaf()


@given(st.binary(max_size=300))
def test_bytes_that_are_no_certificate_are_malformed(data):
    with pytest.raises(ek.MalformedEkCertificate):
        endorse([data], rsa_ek(), ROOTS, NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"attributes": EK_ATTRIBUTES | TpmaObject.SIGN_ENCRYPT},
        {"attributes": EK_ATTRIBUTES & ~TpmaObject.RESTRICTED},
        {"attributes": EK_ATTRIBUTES | TpmaObject.NO_DA},
        {"auth_policy": bytes(32)},
        {"auth_policy": b""},
        {"symmetric": SymmetricDef(256, TpmAlg.CFB)},
        {"symmetric": SymmetricDef(128, 0x44)},
        {"symmetric": None},
        {"scheme": Scheme(TpmAlg.OAEP, HashAlg.SHA256)},
        {"name_alg": HashAlg.SHA1},
        {"exponent": 3},
    ],
)
def test_one_tpm_cannot_show_its_ek_under_another_public_area(changes):
    with pytest.raises((UnknownEkTemplate, ek.EkKeyMismatch)):
        endorse([leaf()], rsa_ek(**changes), ROOTS, NOW)


def test_the_default_exponent_has_one_encoding():
    raw = rsa_ek().raw
    spelled = raw.replace(b"\x08\x00\x00\x00\x00\x00\x01\x00", b"\x08\x00\x00\x01\x00\x01\x01\x00")
    assert spelled != raw
    with pytest.raises(UnknownEkTemplate):
        endorse([leaf()], parse_public(spelled), ROOTS, NOW)


def test_a_shortened_point_is_refused():
    private = next(
        key(seed)
        for seed in range(1, 10_000)
        if key(seed).public_key().public_numbers().x < 1 << 248
    )
    public = ecc_ek(private)
    short = public.raw.replace(b"\x00\x20" + public.x, b"\x00\x1f" + public.x[1:])
    with pytest.raises(UnknownEkTemplate):
        endorse([], parse_public(short), ROOTS, NOW)
