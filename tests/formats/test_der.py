"""DER, distinguished names, and what an EK certificate says of its TPM."""

from __future__ import annotations

import pytest
from asn1crypto import core
from hostile import bit_flips, refuses_cleanly
from hypothesis import given
from hypothesis import strategies as st

from catena.formats import der, distinguished
from catena.formats.der import Departure, NotDer
from catena.formats.distinguished import BadName
from catena.formats.ekattributes import EkAttributes, dotted_version, read_ek_attributes


def tlv(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    size = (len(body).bit_length() + 7) // 8
    return bytes([tag, 0x80 + size]) + len(body).to_bytes(size, "big") + body


@pytest.mark.parametrize("size", [0, 1, 0x7F, 0x80, 0xFF, 0x100, 70_000])
def test_an_element_is_found_whatever_its_size(size):
    data = tlv(0x04, bytes(size))
    found = der.whole(data)
    assert (found.tag, found.end - found.body) == (0x04, size)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x30\x01",
        b"\x30\x80\x00\x00",  # indefinite
        b"\x30\x81\x01\x00",  # long form for a short length
        b"\x30\x82\x00\x81" + bytes(0x81),  # one byte too many
        b"\x30\x85\x00\x00\x00\x00\x00",  # five bytes of length
        b"\x1f\x81\x01\x00",  # a tag number of several bytes
        b"\x30\x00\x00",  # bytes behind
    ],
)
def test_what_has_a_second_form_is_no_der(data):
    with pytest.raises(NotDer):
        der.departures(data)


@pytest.mark.parametrize(
    "inner",
    [
        b"\x01\x01\x01",  # a BOOLEAN that is 1
        b"\x01\x02\x00\x00",
        b"\x05\x01\x00",  # a NULL with contents
        b"\x02\x00",  # an empty INTEGER
        b"\x06\x00",
        b"\x03\x00",  # a BIT STRING without a count
        b"\x03\x01\x01",
        b"\x03\x02\x08\x00",
        b"\x03\x02\x01\x01",  # an unused bit that is set
        b"\x10\x00",  # a primitive SEQUENCE
        b"\x24\x02\x04\x00",  # a constructed OCTET STRING
        b"\x00\x00",  # end of contents
    ],
)
def test_contents_that_are_not_distinguished_are_no_der(inner):
    with pytest.raises(NotDer):
        der.departures(tlv(0x30, inner))


@pytest.mark.parametrize(
    ("inner", "departs"),
    [
        (b"\x02\x01\x00", False),
        (b"\x02\x02\x00\x80", False),
        (b"\x02\x02\xff\x7f", False),
        (b"\x02\x02\x00\x7f", True),
        (b"\x02\x02\xff\x80", True),
        (b"\x02\x03\x00\x00\x80", True),
    ],
)
def test_a_padded_number_is_named_with_its_place(inner, departs):
    expected = ((Departure.INTEGER_PADDING, 2),) if departs else ()
    assert der.departures(tlv(0x30, inner)) == expected


def test_a_set_out_of_order_is_named_wherever_it_is():
    one, two = tlv(0x0C, b"a"), tlv(0x0C, b"b")
    assert der.departures(tlv(0x30, tlv(0x31, one, two))) == ()
    assert der.departures(tlv(0x30, tlv(0x31, two, one))) == ((Departure.SET_ORDER, 2),)
    # Shorter ones come first, for their length is compared before their contents.
    assert der.departures(tlv(0x31, tlv(0x0C, b"aa"), one)) == ((Departure.SET_ORDER, 0),)


def test_depth_and_number_of_elements_are_bounded():
    deep = b"\x05\x00"
    for _ in range(der.MAX_DEPTH + 1):
        deep = tlv(0x30, deep)
    with pytest.raises(NotDer, match="too deep"):
        der.departures(deep)
    with pytest.raises(NotDer, match="too many"):
        der.departures(tlv(0x30, b"\x05\x00" * der.MAX_ELEMENTS))


@given(st.lists(st.integers(-(2**80), 2**80), max_size=20))
def test_what_another_encoder_writes_is_der(numbers):
    class Numbers(core.SequenceOf):
        _child_spec = core.Integer

    assert der.departures(Numbers(numbers).dump()) == ()


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_a_place_in_them(data):
    assert refuses_cleanly(der.departures, data)


@pytest.mark.parametrize(
    "text", ["2.5.4.3", "1.2.840.113549.1.1.7", "2.23.133.8.1", "0.9.2342", "2.999.3"]
)
def test_object_identifiers_in_dotted_form(text):
    body = core.ObjectIdentifier(text).contents
    assert der.dotted(body) == text
    with pytest.raises(NotDer):
        der.dotted(body[:-1] + bytes([body[-1] | 0x80]))


def test_an_object_identifier_has_one_encoding():
    with pytest.raises(NotDer, match="padded"):
        der.dotted(b"\x55\x80\x03")


# Names -------------------------------------------------------------------------------------


def attribute(oid: str, value: bytes) -> bytes:
    return tlv(0x30, core.ObjectIdentifier(oid).dump(), value)


def test_names_are_read_whatever_strings_and_sets_they_are_made_of():
    name = tlv(
        0x30,
        tlv(0x31, attribute("2.5.4.6", tlv(0x13, b"TW"))),
        tlv(
            0x31,
            attribute("2.5.4.10", tlv(0x1E, "Ümlaut".encode("utf-16-be"))),
            attribute("2.5.4.3", tlv(0x0C, b"a\nb")),
        ),
    )
    found = distinguished.attributes(name)
    assert [one.text for one in found] == ["TW", "Ümlaut", "a\nb"]
    assert distinguished.text(found) == "CN=a?b,O=?mlaut,C=TW"
    assert distinguished.first(found, distinguished.COMMON_NAME) == "a?b"
    assert distinguished.first(found, "1.2.3") == ""
    assert distinguished.attributes(tlv(0x30)) == ()


@pytest.mark.parametrize(
    "name",
    [
        tlv(0x31),
        tlv(0x30, tlv(0x30)),
        tlv(0x30, tlv(0x31, tlv(0x31))),
        tlv(0x30, tlv(0x31, tlv(0x30))),
        tlv(0x30, tlv(0x31, attribute("2.5.4.3", tlv(0x02, b"\1")))),
        tlv(0x30, tlv(0x31, attribute("2.5.4.3", tlv(0x0C, b"\xff")))),
        tlv(0x30, tlv(0x31, *[attribute("2.5.4.3", tlv(0x0C, b"a"))] * 65)),
    ],
)
def test_what_is_no_name_is_refused(name):
    with pytest.raises((NotDer, BadName)):
        distinguished.attributes(name)


def test_a_long_name_is_cut():
    name = tlv(0x30, tlv(0x31, attribute("2.5.4.3", tlv(0x0C, b"x" * 500))))
    assert len(distinguished.text(distinguished.attributes(name))) == distinguished.MAX_TEXT


# TPMs --------------------------------------------------------------------------------------


def alternative_name(**values: str) -> bytes:
    oids = {"vendor": "2.23.133.2.1", "model": "2.23.133.2.2", "version": "2.23.133.2.3"}
    sets = (
        tlv(0x31, attribute(oids[name], tlv(0x0C, value.encode())))
        for name, value in values.items()
    )
    return tlv(0x30, tlv(0xA4, tlv(0x30, *sets)))


@pytest.mark.parametrize(
    ("vendor", "shown"),
    [
        ("id:49465800", "IFX"),
        ("id:4E544300", "NTC"),
        ("id:53544D20", "STM"),
        ("id:414d4400", "AMD"),
        ("id:494E5443", "INTC"),
        ("id:00001014", "id:00001014"),
        ("id:FFFFFFFF", "id:FFFFFFFF"),
        ("id:4946580", "id:4946580"),
        ("id:", "id:"),
        ("id: 4946580", "id: 4946580"),
        ("Acme", "Acme"),
    ],
)
def test_the_vendor_is_four_characters_or_what_is_written(vendor, shown):
    assert read_ek_attributes(alternative_name(vendor=vendor)).vendor == shown


@pytest.mark.parametrize(
    ("version", "shown"),
    [
        ("id:00070002", "7.2"),
        ("id:0007000200010000", "7.2.1.0"),
        ("id:13", "id:13"),
        ("1.3", "1.3"),
        ("x" * 100, "x" * 64),
    ],
)
def test_the_version_is_in_decimal_or_what_is_written(version, shown):
    assert read_ek_attributes(alternative_name(version=version)).version == shown


def test_a_certificate_may_say_nothing_of_its_tpm():
    assert read_ek_attributes(tlv(0x30)) == EkAttributes()
    assert read_ek_attributes(tlv(0x30, tlv(0x82, b"example.org"))) == EkAttributes()


def test_a_tpm_with_two_vendors_is_refused():
    two = alternative_name(vendor="id:49465800")[2:] + alternative_name(vendor="id:4E544300")[2:]
    with pytest.raises(NotDer, match="two values"):
        read_ek_attributes(tlv(0x30, two))


def test_damaged_attributes_are_refused_with_a_place_in_them():
    whole = alternative_name(vendor="id:49465800", model="SLB9672", version="id:000F0014")
    for damaged in bit_flips(whole):
        assert refuses_cleanly(read_ek_attributes, damaged)
    for size in range(len(whole)):
        with pytest.raises(NotDer):
            read_ek_attributes(whole[:size])


def test_a_firmware_version_is_its_words():
    assert dotted_version(0x0007000200010000, 8) == "7.2.1.0"
