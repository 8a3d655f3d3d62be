from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hostile import bit_flips, refuses_cleanly
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import pe
from catena.ids import HashAlg
from small_images import small_pe

CORPUS = Path(__file__).resolve().parents[2].parent / "shared/corpus/efi"
needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at {CORPUS}")
DETACHED = "trailofbits+uthenticode__test__assets__YourPhone.exe"

IMAGE = small_pe()


def with_certificates(image: bytes, table: bytes) -> bytes:
    parsed = pe.parse(image)
    entry = len(image).to_bytes(4, "little") + len(table).to_bytes(4, "little")
    return image[: parsed.security_at] + entry + image[parsed.security_at + 8 :] + table


def certificate(content: bytes, kind: int = 2) -> bytes:
    head = (len(content) + 8).to_bytes(4, "little") + b"\0\2" + kind.to_bytes(2, "little")
    return head + content + bytes(-len(content) % 8)


def corpus_images():
    if not CORPUS.is_dir():
        return []
    with (CORPUS / "MANIFEST.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [
        (row["file"], json.loads(row["truth"]))
        for row in rows
        if row["kind"].startswith("pe") and row["file"] != DETACHED
    ]


@needs_corpus
@pytest.mark.parametrize(("name", "truth"), corpus_images())
def test_authenticode_digest_of_real_images(name, truth):
    image = pe.parse((CORPUS / name).read_bytes())
    assert image.authenticode(HashAlg.SHA256).hex() == truth["authenticode_sha256"]
    assert image.authenticode(HashAlg.SHA1).hex() == truth["authenticode_sha1"]
    assert len(image.certificates()) == int(truth["n_sigs"])


@needs_corpus
def test_bytes_behind_the_certificates_are_refused():
    """Firmware and signing tools disagree on such bytes: this one's own signature fails."""
    with pytest.raises(pe.PeError, match="does not end the file"):
        pe.parse((CORPUS / DETACHED).read_bytes())


@pytest.mark.parametrize("wide", [True, False])
def test_sections_are_read_with_their_content(wide):
    image = pe.parse(small_pe(wide=wide))
    assert [section.name for section in image.sections] == [".text", ".data"]
    assert image.content(image.section(".data")) == b"data"
    assert image.section(".none") is None
    assert image.certificates() == ()


def test_content_is_zero_filled_to_the_virtual_size():
    image = bytearray(IMAGE)
    parsed = pe.parse(IMAGE)
    at = parsed.section_table_at + 40 + 8
    image[at : at + 4] = (600).to_bytes(4, "little")
    grown = pe.parse(bytes(image))
    assert grown.content(grown.section(".data")) == b"data" + bytes(596)


@pytest.mark.parametrize("size", [512 + pe.MAX_ZERO_FILL + 1, 1 << 30, (1 << 32) - 1])
def test_absurd_virtual_size_allocates_nothing(size):
    image = bytearray(IMAGE)
    at = pe.parse(IMAGE).section_table_at + 8
    image[at : at + 4] = size.to_bytes(4, "little")
    parsed = pe.parse(bytes(image))
    with pytest.raises(pe.PeError, match="too large"):
        parsed.content(parsed.sections[0])


def test_section_twice_is_refused_when_asked_for():
    image = pe.parse(small_pe(((".a", b"1"), (".a", b"2"))))
    with pytest.raises(pe.PeError, match="twice"):
        image.section(".a")


@pytest.mark.parametrize("field", ["checksum_at", "security_at"])
def test_digest_does_not_cover_what_signing_changes(field):
    image = bytearray(IMAGE)
    at = getattr(pe.parse(IMAGE), field)
    image[at] ^= 0xFF
    changed = bytes(image)
    if field == "security_at":  # the offset alone, of an empty table
        assert pe.parse(changed).certificates_size == 0
    assert pe.parse(changed).authenticode(HashAlg.SHA256) == pe.parse(IMAGE).authenticode(
        HashAlg.SHA256
    )


@given(st.data())
def test_digest_covers_every_other_byte(data):
    parsed = pe.parse(IMAGE)
    free = {*range(parsed.checksum_at, parsed.checksum_at + 4)}
    free |= {*range(parsed.security_at, parsed.security_at + 8)}
    # A flip in headers that are read may make the image malformed; there the digest is moot.
    at = data.draw(st.integers(1024, len(IMAGE) - 1).filter(lambda one: one not in free))
    changed = bytearray(IMAGE)
    changed[at] ^= 1
    assert pe.parse(bytes(changed)).authenticode(HashAlg.SHA256) != parsed.authenticode(
        HashAlg.SHA256
    )


def test_digest_covers_a_tail_but_not_the_certificates():
    plain, tailed = pe.parse(IMAGE), pe.parse(small_pe(tail=b"tail"))
    assert plain.authenticode(HashAlg.SHA256) != tailed.authenticode(HashAlg.SHA256)
    signed = pe.parse(with_certificates(IMAGE, certificate(b"signature")))
    assert signed.authenticode(HashAlg.SHA256) == plain.authenticode(HashAlg.SHA256)
    assert signed.certificates() == (pe.WinCertificate(0x0200, 2, b"signature"),)


def test_several_certificates_are_read():
    table = certificate(b"one") + certificate(b"second", 0xEF1)
    found = pe.parse(with_certificates(IMAGE, table)).certificates()
    assert [(one.type, one.content) for one in found] == [(2, b"one"), (0xEF1, b"second")]


@pytest.mark.parametrize(
    "table",
    [
        bytes(8),  # length 0 would loop for ever
        (7).to_bytes(4, "little") + bytes(4),
        (9000).to_bytes(4, "little") + bytes(4),
        certificate(b"x") * 17,
    ],
)
def test_malformed_certificate_table_is_refused(table):
    image = pe.parse(with_certificates(IMAGE, table))
    with pytest.raises(FormatError):
        image.certificates()


def patched(offset: int, value: bytes) -> bytes:
    image = bytearray(IMAGE)
    image[offset : offset + len(value)] = value
    return bytes(image)


PARSED = pe.parse(IMAGE)


@pytest.mark.parametrize(
    ("why", "image"),
    [
        ("not a PE", b"ELF" + IMAGE[3:]),
        ("PE header outside", patched(0x3C, b"\xff\xff\xff\x7f")),
        ("no PE signature", patched(0x40, b"NE")),
        ("too many sections", patched(PARSED.coff_at + 2, b"\xff\xff")),
        ("neither PE32 nor PE32+", patched(PARSED.optional_at, b"\x07\x01")),
        ("no security directory", patched(PARSED.security_at - 36, b"\4\0\0\0")),
        ("headers beyond the file", patched(PARSED.optional_at + 60, b"\xff\xff\xff\0")),
        ("headers shorter than the table", patched(PARSED.optional_at + 60, b"\x40\0\0\0")),
        ("section inside the headers", patched(PARSED.section_table_at + 20, b"\0\2\0\0")),
        ("section behind the end", patched(PARSED.section_table_at + 60, b"\0\0\xff\0")),
        ("overlapping sections", patched(PARSED.section_table_at + 56, b"\0\4\0\0\0\4\0\0")),
        ("certificates in front of the end", patched(PARSED.security_at, b"\0\4\0\0\x10\0\0\0")),
    ],
)
def test_malformed_image_is_refused(why, image):
    with pytest.raises(FormatError):
        pe.parse(image)


def test_truncation_anywhere_is_refused():
    assert all(refuses_cleanly(pe.parse, IMAGE[:size]) for size in range(len(IMAGE)))
    with pytest.raises(FormatError):
        pe.parse(IMAGE[:-1])


def test_flipped_bits_in_headers_never_crash():
    headers = 0x40 + 24 + 240 + 80
    for flipped in bit_flips(IMAGE[:headers]):
        assert refuses_cleanly(pe.parse, flipped + IMAGE[headers:])


@given(st.binary(max_size=600))
def test_arbitrary_bytes_never_crash(noise):
    assert refuses_cleanly(pe.parse, b"MZ" + noise)
    assert refuses_cleanly(pe.parse, IMAGE[:0x40] + noise)
