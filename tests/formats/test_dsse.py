"""Envelopes and statements: strict decoding, exact pre-authentication encoding."""

from __future__ import annotations

import contextlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import dsse
from catena.formats.dsse import Envelope, Signature, Statement, Subject

ENVELOPE = Envelope(
    payload=b"hello world",
    payload_type="http://example.com/HelloWorld",
    signatures=(Signature(keyid="a" * 64, sig=b"\x01\x02"),),
)
STATEMENT = Statement(
    subject=(Subject(name="node:n", digest={"sha256": "0" * 64}),),
    predicate_type="urn:example:v1",
    predicate=msgspec.Raw(b'{"a":1}'),
)


def test_pre_authentication_encoding_is_that_of_the_specification():
    # The example of the DSSE protocol, "Test vectors".
    assert ENVELOPE.pae() == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_pre_authentication_encoding_counts_bytes_not_letters():
    assert dsse.pae("ü", "ß".encode()) == b"DSSEv1 2 \xc3\xbc 2 \xc3\x9f"


def test_moving_bytes_between_type_and_payload_changes_the_encoding():
    assert dsse.pae("ab", b"c") != dsse.pae("a", b"bc")


@given(
    payload=st.binary(max_size=300),
    kind=st.text(max_size=40),
    signatures=st.lists(
        st.builds(Signature, keyid=st.text(max_size=70), sig=st.binary(max_size=80)),
        min_size=1,
        max_size=dsse.MAX_SIGNATURES,
    ),
)
def test_every_envelope_survives_its_encoding(payload, kind, signatures):
    envelope = Envelope(payload=payload, payload_type=kind, signatures=tuple(signatures))
    assert dsse.parse(envelope.encode()) == envelope


def test_an_envelope_cut_at_any_byte_is_refused():
    data = ENVELOPE.encode()
    for end in range(len(data)):
        with pytest.raises(FormatError):
            dsse.parse(data[:end])


def test_a_flipped_bit_is_refused_or_changes_the_envelope():
    data = ENVELOPE.encode()
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            with contextlib.suppress(FormatError):
                parsed = dsse.parse(bytes(changed))
                # The spare bits of base64's last letter are the one spelling too many.
                assert parsed != ENVELOPE or chr(data[position + 1]) == "=", position


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"signatures": []},
        {"signatures": [{"keyid": "", "sig": "AA=="}] * (dsse.MAX_SIGNATURES + 1)},
        {"signatures": [{"sig": "AA=="}]},
        {"signatures": [{"keyid": "", "sig": "AA==", "cert": ""}]},
        {"payload": "not base64!"},
        {"payload": None},
        {"payloadType": 7},
    ],
)
def test_an_envelope_of_another_shape_is_refused(change):
    document = {**json.loads(ENVELOPE.encode()), **change}
    with pytest.raises(FormatError):
        dsse.parse(json.dumps(document).encode())


@pytest.mark.parametrize("suffix", [b"{}", b"x", b"\x00"])
def test_anything_behind_the_envelope_is_refused(suffix):
    with pytest.raises(FormatError):
        dsse.parse(ENVELOPE.encode() + suffix)


def test_an_oversized_envelope_is_refused_before_it_is_decoded():
    with pytest.raises(FormatError, match="too large"):
        dsse.parse(b" " * (dsse.MAX_ENVELOPE + 1))


def test_a_statement_survives_its_encoding():
    parsed = dsse.parse_statement(STATEMENT.encode())
    assert parsed.encode() == STATEMENT.encode()
    assert bytes(parsed.predicate) == b'{"a":1}'


def test_a_statement_cut_at_any_byte_is_refused():
    data = STATEMENT.encode()
    for end in range(len(data)):
        with pytest.raises(FormatError):
            dsse.parse_statement(data[:end])


@pytest.mark.parametrize(
    "change",
    [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"subject": "node"},
        {"subject": [{"name": "n"}]},
        {"predicateType": None},
        {"extra": 1},
    ],
)
def test_a_statement_of_another_shape_is_refused(change):
    document = {**json.loads(STATEMENT.encode()), **change}
    with pytest.raises(FormatError):
        dsse.parse_statement(json.dumps(document).encode())


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_format_errors(data):
    for parse in (dsse.parse, dsse.parse_statement):
        with contextlib.suppress(FormatError):
            parse(data)


def test_a_predicate_nested_too_deep_is_malformed():
    head, tail = STATEMENT.encode().split(b'"predicate":')[0], b"}"
    deep = head + b'"predicate":' + b"[" * 100_000 + b"]" * 100_000 + tail
    with pytest.raises(FormatError, match="recursion"):
        dsse.parse_statement(deep)
