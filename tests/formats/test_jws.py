"""JWS envelopes: one spelling, one signature, and the signing input as it stands there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hostile import bit_flips, refuses_cleanly
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import jws
from small_signatures import JWS

CORPUS = Path(__file__).resolve().parents[2].parent / "shared/corpus/containers"
CONFORMANCE = CORPUS / "notaryproject+notation-core-go/signature/jws/testdata/conformance.json"


def with_fields(**fields):
    return json.dumps(json.loads(JWS.encode()) | fields).encode()


@given(st.binary(max_size=100), st.binary(max_size=100), st.binary(max_size=100))
def test_every_envelope_survives_its_encoding(payload, protected, signature):
    parts = map(jws.encode_base64url, (payload, protected, signature))
    envelope = jws.JwsEnvelope(*parts)
    assert jws.parse(envelope.encode()) == envelope
    assert jws.decode_base64url(envelope.payload) == payload


def test_the_signing_input_is_that_of_the_specification():
    # RFC 7515, section 5.1: protected, a dot, payload.
    assert JWS.to_be_signed() == f"{JWS.protected}.{JWS.payload}".encode()


@pytest.mark.parametrize("text", ["YQ==", "YQ=", "YR", "Y", "Y Q", "YQ\n", "+/+/", "ü", "=", "***"])
def test_base64url_with_another_spelling_is_refused(text):
    with pytest.raises(FormatError):
        jws.decode_base64url(text)


@pytest.mark.parametrize("part", ["payload", "protected", "signature"])
def test_every_part_is_checked(part):
    with pytest.raises(FormatError):
        jws.parse(with_fields(**{part: "YQ=="}))


@pytest.mark.parametrize("extra", [{"signatures": []}, {"signature2": "YQ"}])
def test_unknown_members_are_refused(extra):
    with pytest.raises(FormatError):
        jws.parse(with_fields(**extra))


def test_unsigned_headers_may_be_anything():
    assert jws.parse(with_fields(header={"x": [1, {"y": None}]})).header.keys() == {"x"}


@pytest.mark.parametrize("name", ["payload", "header"])
def test_a_member_that_stands_twice_is_refused(name):
    twice = JWS.encode()[:-1] + f',"{name}":'.encode() + json.dumps(getattr(JWS, name)).encode() + b"}"  # fmt: skip
    with pytest.raises(FormatError, match="twice"):
        jws.parse(twice)


def test_a_name_twice_deep_inside_is_refused():
    inner = JWS.encode().replace(b'"header":{}', b'"header":{"a":[{"b":1,"b":1}]}')
    with pytest.raises(FormatError, match="twice"):
        jws.parse(inner)


def test_more_than_the_limit_is_not_read():
    with pytest.raises(FormatError, match="too large"):
        jws.parse(b" " * (jws.MAX_ENVELOPE + 1))


def test_an_envelope_cut_at_any_byte_is_refused():
    wire = JWS.encode()
    for end in range(len(wire)):
        with pytest.raises(FormatError):
            jws.parse(wire[:end])


def test_flipped_bits_are_refused_cleanly():
    assert all(refuses_cleanly(jws.parse, damaged) for damaged in bit_flips(JWS.encode()))


@pytest.mark.skipif(not CONFORMANCE.is_file(), reason=f"no corpus at {CORPUS}")
def test_the_conformance_vector_is_read():
    found = jws.parse(CONFORMANCE.read_bytes())
    assert jws.decode_base64url(found.payload) == b'{"key":"hello JWS"}'
    assert json.loads(jws.decode_base64url(found.protected))["alg"] == "ES256"
    assert jws.parse(found.encode()) == found
