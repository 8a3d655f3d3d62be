"""A certificate that loads but cannot be read is refused or ``unreadable``, never a crash."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from catena.agent import trust
from catena.appraise.endorsement import EndorsementKind
from catena.containers.signature.certificates import MalformedCertificate, parse_chain
from catena.containers.signature.x509 import present
from catena.errors import FormatError
from catena.formats import efi, pe
from catena.keys.hierarchy import load_certificate
from catena.keys.signer import PrivateKeySigner, UnusableKey
from catena.measure import signers, verification
from catena.osimage import authenticode
from catena.server.folder import BadRoot, read_roots
from small_images import small_pe

KEY = rsa.generate_private_key(65537, 2048)
UTF8_NAME, BIT_STRING_NAME = b"\x0c\x04Acme", b"\x03\x04\x00cme"
VERSION_3, VERSION_8 = b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07"


def made() -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Acme")])
    builder = x509.CertificateBuilder(name, name, KEY.public_key(), 7)
    builder = builder.not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
    builder = builder.not_valid_after(datetime(2027, 1, 1, tzinfo=UTC))
    return builder.sign(KEY, hashes.SHA256())


CERTIFICATE = made()
SOUND = CERTIFICATE.public_bytes(Encoding.DER)
NAMELESS = SOUND.replace(UTF8_NAME, BIT_STRING_NAME)
OTHER_VERSION = SOUND.replace(VERSION_3, VERSION_8)
UNREADABLE = pytest.mark.parametrize("der", [NAMELESS, OTHER_VERSION], ids=["name", "version"])


def pem(der: bytes) -> bytes:
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n".encode()


def database(*entries: bytes) -> bytes:
    owner = UUID(int=1)
    return efi.encode_signature_lists(
        efi.SignatureList(efi.EFI_CERT_X509, (efi.SignatureEntry(owner, one),)) for one in entries
    )


def test_the_certificates_are_what_their_tests_need():
    assert len({SOUND, NAMELESS, OTHER_VERSION}) == 3
    with pytest.raises(TypeError, match="BitString"):
        assert x509.load_der_x509_certificate(NAMELESS).subject
    with pytest.raises(x509.InvalidVersion):
        x509.load_der_x509_certificate(OTHER_VERSION)


@UNREADABLE
def test_a_key_that_cannot_be_read_is_mentioned_all_the_same(der):
    assert signers.owners(database(SOUND, der)) == ("CN=Acme", "unreadable")


@UNREADABLE
def test_an_unreadable_certificate_of_db_accepts_no_image(der):
    image = pe.parse(authenticode.sign(small_pe(), PrivateKeySigner(KEY), CERTIFICATE))
    assert verification.accepting_entry(image, database(der), b"") is None
    accepting = verification.accepting_entry(image, database(der, SOUND), database(der))
    assert accepting is not None
    assert accepting.data == SOUND


@pytest.mark.parametrize("change", [(UTF8_NAME, BIT_STRING_NAME), (VERSION_3, VERSION_8)])
def test_an_image_signed_by_an_unreadable_certificate_is_accepted_by_none(change):
    signed = authenticode.sign(small_pe(), PrivateKeySigner(KEY), CERTIFICATE)
    changed = signed.replace(*change)
    assert changed != signed
    assert verification.accepting_entry(pe.parse(changed), database(SOUND), b"") is None


@UNREADABLE
def test_an_unreadable_chain_is_refused(der):
    with pytest.raises(MalformedCertificate):
        parse_chain([der])


def test_a_certificate_of_another_version_is_no_certificate_anywhere(tmp_path):
    path = tmp_path / "one.pem"
    path.write_bytes(pem(OTHER_VERSION))
    with pytest.raises(FormatError):
        present([OTHER_VERSION], (), b"", "")
    with pytest.raises(FormatError):
        trust.parse(path.read_bytes())
    with pytest.raises(UnusableKey):
        load_certificate(path)


@UNREADABLE
def test_an_unreadable_root_of_tpms_is_named(der, tmp_path):
    path = tmp_path / "roots.pem"
    path.write_bytes(pem(der))
    with pytest.raises(BadRoot, match=r"roots\.pem"):
        read_roots(next(iter(EndorsementKind)), path)
