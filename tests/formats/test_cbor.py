"""CBOR: one spelling for every value, bounded, and nothing that COSE does not need."""

from __future__ import annotations

import pytest
from hostile import bit_flips, refuses_cleanly
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import cbor
from catena.formats.cbor import Tag
from small_signatures import CBOR, CBOR_VALUE

NUMBERS = st.integers(-(2**64), 2**64 - 1)
PLAIN = st.none() | st.booleans() | NUMBERS | st.binary(max_size=300) | st.text(max_size=80)


def nested(inner):
    """Arrays, maps and tags around values."""
    return (
        st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(NUMBERS | st.text(max_size=8), inner, max_size=4)
        | st.builds(Tag, st.integers(0, 2**64 - 1), inner)
    )


VALUES = PLAIN | nested(PLAIN | nested(PLAIN | nested(PLAIN)))


@given(VALUES)
def test_every_value_survives_its_encoding(value):
    assert cbor.parse(cbor.encode(value)) == value


# RFC 8949, appendix A: examples with the types that are used here.
@pytest.mark.parametrize(
    ("wire", "value"),
    [
        ("00", 0),
        ("17", 23),
        ("1818", 24),
        ("1903e8", 1000),
        ("1a000f4240", 1000000),
        ("1b000000e8d4a51000", 1000000000000),
        ("1bffffffffffffffff", 18446744073709551615),
        ("3bffffffffffffffff", -18446744073709551616),
        ("20", -1),
        ("3903e7", -1000),
        ("f4", False),
        ("f5", True),
        ("f6", None),
        ("c11a514b67b0", Tag(1, 1363896240)),
        ("40", b""),
        ("4401020304", b"\1\2\3\4"),
        ("60", ""),
        ("62c3bc", "ü"),
        ("80", ()),
        ("8301820203820405", (1, (2, 3), (4, 5))),
        ("a0", {}),
        ("a201020304", {1: 2, 3: 4}),
        ("a26161016162820203", {"a": 1, "b": (2, 3)}),
    ],
)
def test_examples_of_the_specification(wire, value):
    assert cbor.parse(bytes.fromhex(wire)) == value
    assert cbor.encode(value).hex() == wire


@pytest.mark.parametrize(
    ("wire", "words"),
    [
        ("1817", "shortest"),
        ("190018", "shortest"),
        ("1a0000ffff", "shortest"),
        ("1b00000000ffffffff", "shortest"),
        ("5801aa", "shortest"),
        ("5f42010243030405ff", "not used"),
        ("9fff", "not used"),
        ("bf61610161629f0203ffff", "not used"),
        ("f90000", "not used"),
        ("fb3ff199999999999a", "not used"),
        ("f7", "not used"),
        ("f818", "not used"),
        ("1c", "not used"),
        ("a201020103", "twice"),
        ("a2616101616102", "twice"),
        ("a14000", "neither"),
        ("a1f500", "neither"),
        ("a18000", "neither"),
        ("62c328", "UTF-8"),
        ("0000", "trailing"),
        ("81" * 10 + "00", "deep"),
        ("9a00100000", "too many"),
        ("ba00100000", "too many"),
        ("5bffffffffffffffff", "past the end"),
        ("", "past the end"),
    ],
)
def test_what_has_another_spelling_or_no_use_is_refused(wire, words):
    with pytest.raises(FormatError, match=words):
        cbor.parse(bytes.fromhex(wire))


def test_items_are_counted_over_the_whole_document():
    half = cbor.encode((0,) * (cbor.MAX_ITEMS // 2))
    with pytest.raises(FormatError, match="too many items"):
        cbor.parse(b"\x82" + half + half)


def test_more_than_the_limit_is_not_read():
    with pytest.raises(FormatError, match="too large"):
        cbor.parse(bytes(cbor.MAX_INPUT + 1))


def test_keys_are_written_in_the_order_of_their_encodings():
    assert cbor.encode({"b": 1, 10: 2, -1: 3, "aa": 4}).hex() == "a40a02200361620162616104"


def test_the_order_of_keys_is_free_when_read():
    assert cbor.parse(bytes.fromhex("a203040102")) == {1: 2, 3: 4}


def test_a_value_cut_at_any_byte_is_refused():
    assert cbor.parse(CBOR) == CBOR_VALUE
    for end in range(len(CBOR)):
        with pytest.raises(FormatError):
            cbor.parse(CBOR[:end])


def test_flipped_bits_are_refused_cleanly():
    assert all(refuses_cleanly(cbor.parse, damaged) for damaged in bit_flips(CBOR))
