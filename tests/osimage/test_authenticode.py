from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import pe
from catena.ids import HashAlg
from catena.keys import authority
from catena.keys.hierarchy import KeyName
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key
from catena.osimage import authenticode
from catena.osimage.authenticode import (
    DigestMismatch,
    ForeignSigner,
    ForgedImage,
    UnsignedImage,
    UnsuitableImage,
    UnsuitableKey,
)
from small_images import small_pe

CORPUS = Path(__file__).resolve().parents[2].parent / "shared/corpus/efi"
needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at {CORPUS}")
SIGNED_BY_ANOTHER_TOOL = "Foxboron+go-uefi__authenticode__testdata__test.pecoff.signed"
SIGNED_WITH_SHA1 = "trailofbits+uthenticode__test__assets__32__pegoat-authenticode.exe"
ALTERED_AFTER_SIGNING = (
    "trailofbits+uthenticode__test__assets__A_SSLippery_Slope_by_Jonathan_Cutrer.exe"
)

IMAGE = small_pe(tail=b"odd")


@pytest.fixture(scope="module")
def db(keys):
    return keys.certificate(KeyName.DB)


@pytest.fixture(scope="module")
def signed(keys, db):
    return authenticode.sign(IMAGE, keys.signer(KeyName.DB), db)


def test_signed_image_verifies(signed, db, keys):
    image = pe.parse(signed)
    others = [keys.certificate(KeyName.KEK), db]
    assert authenticode.verify(image, others) == db
    assert len(image.certificates()) == 1


def test_sbverify_agrees(signed, keys, tmp_path):
    if shutil.which("sbverify") is None:
        pytest.skip("sbverify is not installed")
    (tmp_path / "image.efi").write_bytes(signed)
    verdicts = [
        subprocess.run(
            ["sbverify", "--cert", keys.path / f"{name}.crt", tmp_path / "image.efi"],
            check=False,
            capture_output=True,
        ).returncode
        for name in ("db", "KEK")
    ]
    assert verdicts == [0, 1]


def test_signing_is_deterministic_and_aligned(signed, keys, db):
    assert authenticode.sign(IMAGE, keys.signer(KeyName.DB), db) == signed
    assert len(signed) % 8 == 0
    image = pe.parse(signed)
    assert image.certificates_at % 8 == 0


def test_digest_is_that_of_the_final_file(signed):
    padded = IMAGE + bytes(-len(IMAGE) % 8)
    assert pe.parse(signed).authenticode(HashAlg.SHA256) == pe.parse(padded).authenticode(
        HashAlg.SHA256
    )


def test_unsigned_image_is_refused(db):
    with pytest.raises(UnsignedImage):
        authenticode.verify(pe.parse(IMAGE), [db])


def test_foreign_signer_is_refused(signed, keys):
    with pytest.raises(ForeignSigner):
        authenticode.verify(pe.parse(signed), [keys.certificate(KeyName.PK)])
    with pytest.raises(ForeignSigner):
        authenticode.verify(pe.parse(signed), [])


def test_altered_image_is_refused(signed, db):
    changed = bytearray(signed)
    changed[1024] ^= 1
    with pytest.raises(DigestMismatch) as refused:
        authenticode.verify(pe.parse(bytes(changed)), [db])
    assert refused.value.expected != refused.value.got


def test_certificate_with_the_same_name_and_number_but_another_key_is_refused(signed, db):
    """The names in a signature are claims: only the accepted certificate's key counts."""
    impostor = PrivateKeySigner(generate_key(KeyAlgorithm.RSA_2048))
    builder = (
        x509.CertificateBuilder()
        .subject_name(db.subject)
        .issuer_name(db.issuer)
        .serial_number(db.serial_number)
        .public_key(impostor.public_key)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2040, 1, 1, tzinfo=UTC))
    )
    twin = authority._sign(builder, impostor)
    forged = authenticode.sign(IMAGE, impostor, twin)
    assert authenticode.verify(pe.parse(forged), [twin]) == twin
    with pytest.raises(ForgedImage, match="does not hold"):
        authenticode.verify(pe.parse(forged), [db])


def test_signature_moved_from_another_image_is_refused(signed, keys, db):
    other = small_pe(((".text", b"evil" * 100), (".data", b"data")), tail=b"odd")
    donor = pe.parse(authenticode.sign(other, keys.signer(KeyName.DB), db))
    image = pe.parse(signed)
    moved = signed[: image.certificates_at] + donor.data[donor.certificates_at :]
    with pytest.raises(DigestMismatch):
        authenticode.verify(pe.parse(moved), [db])


def test_digest_replaced_in_the_signature_is_refused(signed, db):
    """Changing image and claimed digest together breaks the signed attributes."""
    changed = bytearray(signed)
    changed[1024] ^= 1
    before = pe.parse(signed).authenticode(HashAlg.SHA256)
    after = pe.parse(bytes(changed)).authenticode(HashAlg.SHA256)
    assert signed.count(before) == 1
    with pytest.raises(ForgedImage, match="does not cover"):
        authenticode.verify(pe.parse(bytes(changed).replace(before, after)), [db])


@given(st.data())
def test_no_flipped_bit_of_a_signature_passes_as_something_else(signed, db, data):
    """Some bits carry no meaning (padding, names of unused parts); none changes the signer."""
    image = pe.parse(signed)
    at = data.draw(st.integers(image.certificates_at * 8, len(signed) * 8 - 1))
    changed = bytearray(signed)
    changed[at // 8] ^= 1 << at % 8
    try:
        accepted = authenticode.verify(pe.parse(bytes(changed)), [db])
    except (FormatError, UnsignedImage, ForgedImage, DigestMismatch, ForeignSigner):
        return
    assert accepted == db


def test_signature_that_is_no_structure_is_refused(signed, db):
    image = pe.parse(signed)
    start = image.certificates_at + 8
    for content in (b"\0" * 64, b"\x30\x80" + b"\xff" * 62, b"\x30\x03\x02\x01\x01" + bytes(59)):
        broken = signed[:start] + content + signed[start + len(content) :]
        with pytest.raises(ForgedImage):
            authenticode.verify(pe.parse(broken), [db])


def test_only_rsa_keys_with_their_own_certificate_sign(keys, db, signed):
    with pytest.raises(UnsuitableKey, match="RSA"):
        authenticode.sign(IMAGE, keys.signer(KeyName.CA), keys.certificate(KeyName.CA))
    with pytest.raises(UnsuitableKey, match="another key"):
        authenticode.sign(IMAGE, keys.signer(KeyName.KEK), db)
    with pytest.raises(UnsuitableImage):
        authenticode.sign(signed, keys.signer(KeyName.DB), db)


@needs_corpus
@pytest.mark.parametrize(
    ("name", "refusal"),
    [(SIGNED_BY_ANOTHER_TOOL, ForeignSigner), (SIGNED_WITH_SHA1, ForgedImage)],
)
def test_images_signed_by_others_are_refused_for_the_right_reason(name, refusal, db):
    with pytest.raises(refusal):
        authenticode.verify(pe.parse((CORPUS / name).read_bytes()), [db])


def test_a_signature_that_is_too_long_is_not_read(db):
    """Its object identifiers would cost the square of their length."""
    table = authenticode._win_certificate(b"\x30" * (authenticode.MAX_SIGNATURE + 1))
    image = pe.parse(IMAGE + bytes(-len(IMAGE) % 8))
    forged = authenticode._with_table(image.data, image, table)
    with pytest.raises(ForgedImage, match="too long"):
        authenticode.verify(pe.parse(forged), [db])
