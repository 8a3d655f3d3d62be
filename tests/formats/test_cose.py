"""COSE_Sign1: what is signed are the bytes that came, and nothing stands in two places."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hostile import bit_flips, refuses_cleanly

from catena.errors import FormatError
from catena.formats import cbor, cose
from catena.formats.cbor import Tag
from small_signatures import COSE

CORPUS = Path(__file__).resolve().parents[2].parent / "shared/corpus/containers"
CONFORMANCE = CORPUS / "notaryproject+notation-core-go/signature/cose/testdata/conformance.json"


def message(*parts, tag=18):
    return cbor.encode(Tag(tag, parts))


def test_a_message_survives_its_encoding():
    assert cose.parse(COSE.encode()) == COSE


def test_the_signed_structure_is_that_of_the_specification():
    # RFC 9052, section 4.4: context, protected, external data, payload.
    signed = cbor.parse(COSE.to_be_signed())
    assert signed == ("Signature1", COSE.raw_protected, b"", COSE.payload)


def test_protected_headers_are_signed_in_the_order_they_came_in():
    unordered = bytes.fromhex("a2 03 61 61 01 26")
    found = cose.parse(message(unordered, {}, b"", b""))
    assert found.protected == {1: -7, 3: "a"}
    assert found.raw_protected == unordered
    assert unordered in found.to_be_signed()


@pytest.mark.parametrize(
    "wire",
    [
        cbor.encode((b"", {}, b"", b"")),
        message(b"\xa0", {}, b"", b"", tag=98),
        message(b"\xa0", {}, None, b""),
        message(b"\xa0", {}, b""),
        message(b"\xa0", {}, b"", b"", b""),
        message(b"\xa0", {}, "", b""),
        message({}, {}, b"", b""),
        message(b"", {}, b"", b""),
        message(b"\x80", {}, b"", b""),
        message(b"\xa0\x00", {}, b"", b""),
    ],
)
def test_other_structures_are_refused(wire):
    with pytest.raises(FormatError):
        cose.parse(wire)


def test_a_header_in_both_places_is_refused():
    with pytest.raises(FormatError, match="protected and unprotected"):
        cose.parse(message(cbor.encode({1: -7}), {1: -7}, b"", b""))


def test_a_message_cut_at_any_byte_is_refused():
    wire = COSE.encode()
    for end in range(len(wire)):
        with pytest.raises(FormatError):
            cose.parse(wire[:end])


def test_flipped_bits_are_refused_cleanly():
    assert all(refuses_cleanly(cose.parse, damaged) for damaged in bit_flips(COSE.encode()))


@pytest.mark.skipif(not CONFORMANCE.is_file(), reason=f"no corpus at {CORPUS}")
def test_the_conformance_vector_is_read_and_written_byte_by_byte():
    vector = json.loads(CONFORMANCE.read_text())
    wire = bytes.fromhex(vector["expectedOutput"]["cborHex"])
    found = cose.parse(wire)
    assert found.raw_protected.hex() == vector["protectedHeaders"]["cborHex"].lower()
    assert found.payload.hex() == vector["payload"].lower()
    assert cbor.encode(found.unprotected).hex() == vector["unprotectedHeaders"]["cborHex"].lower()
    assert found.encode() == wire
