"""OpenPGP's outside: armor, packets and compression, bounded before any library sees them."""

from __future__ import annotations

import subprocess
import zlib

import pytest
from hostile import bit_flips, refuses_cleanly
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import openpgp
from small_signatures import COMPRESSED_PACKETS, OPENPGP, packet

KIND = openpgp.SIGNATURE_ARMOR
ARMORED = openpgp.armor(OPENPGP, KIND)


def lines(*changed):
    """Armor with its lines changed: pairs of number and text, or None to leave one out."""
    text = ARMORED.splitlines()
    for number, line in changed:
        text[number] = line
    return "\n".join(line for line in text if line is not None).encode()


@given(st.binary(max_size=300))
def test_armor_gives_back_what_is_in_it(content):
    assert openpgp.dearmor(openpgp.armor(content, KIND).encode(), KIND) == content


def test_armor_is_what_gnupg_writes(tmp_path):
    made = subprocess.run(
        ["gpg", "--homedir", tmp_path, "--enarmor"],
        input=OPENPGP,
        capture_output=True,
        check=True,
        timeout=60,
    )
    body = made.stdout.decode().split("\n\n", 1)[1].split("-----END")[0]
    assert body == ARMORED.split("\n\n", 1)[1].split("-----END")[0]


def test_the_checksum_is_that_of_the_specification():
    # CRC-24/OPENPGP of the customary check input.
    assert openpgp.crc24(b"123456789").hex() == "21cf02"


def test_binary_data_passes_through():
    assert openpgp.dearmor(OPENPGP, KIND) == OPENPGP


def test_carriage_returns_headers_and_a_missing_checksum_are_fine():
    again = lines((1, "Comment: x\n"), (-2, None)).replace(b"\n", b"\r\n") + b"\r\n\r\n"
    assert openpgp.dearmor(again, KIND) == OPENPGP


@pytest.mark.parametrize(
    "wire",
    [
        lines((0, "-----BEGIN PGP MESSAGE-----")),
        lines((-1, "-----END PGP MESSAGE-----")),
        lines((-1, None)),
        lines((1, None)),
        lines((1, "no header\n")),
        lines((2, "*" * 64)),
        lines((-2, "=AAAA")),
        lines((-2, "=")),
        b"-----BEGIN PGP SIGNATURE-----",
        ARMORED.encode() + b"more",
        ARMORED.encode() * 2,
        b"-----",
    ],
)
def test_bad_armor_is_refused(wire):
    with pytest.raises(FormatError):
        openpgp.dearmor(wire, KIND)


def test_packets_are_split_and_put_together_again():
    found = openpgp.parse(OPENPGP)
    assert [one.tag for one in found] == [4, 11, 2]
    assert [len(one.body) for one in found] == [8, 300, 9000]
    assert b"".join(one.raw for one in found) == OPENPGP


@pytest.mark.parametrize(
    ("wire", "tag", "body"),
    [
        (b"\x88\x01a", 2, b"a"),
        (b"\x89\x00\x01a", 2, b"a"),
        (b"\x8a\x00\x00\x00\x01a", 2, b"a"),
        (b"\xa3abc", 8, b"abc"),
        (b"\xc2\x01a", 2, b"a"),
        (b"\xc2\xff\x00\x00\x00\x01a", 2, b"a"),
        (b"\xcb\xe1ab\xe0c\x02de", 11, b"abcde"),
    ],
)
def test_every_kind_of_header_is_read(wire, tag, body):
    (found,) = openpgp.parse(wire)
    assert (found.tag, found.body, found.raw) == (tag, body, wire)


@pytest.mark.parametrize("wire", [b"\x00", b"\x7f\x01a", b"\xc2\x02a", b"\xcb\xe1ab", b"\xc2"])
def test_bad_packets_are_refused(wire):
    with pytest.raises(FormatError):
        openpgp.parse(wire)


def test_too_many_packets_and_chunks_are_refused():
    with pytest.raises(FormatError, match="too many OpenPGP packets"):
        openpgp.parse(b"\xc2\0" * (openpgp.MAX_PACKETS + 1))
    with pytest.raises(FormatError, match="too many chunks"):
        openpgp.parse(b"\xcb" + b"\xe0a" * (openpgp.MAX_CHUNKS + 1) + b"\0")


@pytest.mark.parametrize("kind", COMPRESSED_PACKETS)
def test_compressed_packets_come_out_once(kind):
    (found,) = openpgp.parse(COMPRESSED_PACKETS[kind])
    assert openpgp.inflate(found) == openpgp.parse(OPENPGP)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\4x",
        b"\1x",
        b"\2x",
        b"\3x",
        b"\2" + zlib.compress(OPENPGP)[:-1],
        b"\2" + zlib.compress(OPENPGP) + b"more",
        b"\2" + zlib.compress(packet(2, bytes(openpgp.MAX_INFLATED))),
        b"\0" + COMPRESSED_PACKETS["zlib"],
        b"\2" + zlib.compress(COMPRESSED_PACKETS["zlib"]),
    ],
)
def test_what_grows_too_large_goes_on_or_is_compressed_twice_is_refused(body):
    (found,) = openpgp.parse(packet(openpgp.COMPRESSED, body))
    with pytest.raises(FormatError):
        openpgp.inflate(found)


def test_packets_cut_at_any_byte_are_refused_or_shorter():
    for end in range(len(OPENPGP)):
        try:
            found = openpgp.parse(OPENPGP[:end])
        except FormatError:
            continue
        assert b"".join(one.raw for one in found) == OPENPGP[:end]


def test_flipped_bits_are_refused_cleanly():
    assert all(refuses_cleanly(openpgp.parse, one) for one in bit_flips(OPENPGP, step=97))
    for damaged in bit_flips(ARMORED.encode(), step=211):
        assert refuses_cleanly(lambda wire: openpgp.dearmor(wire, KIND), damaged)
