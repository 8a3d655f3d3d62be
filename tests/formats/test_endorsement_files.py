"""Files of certificates and revocation lists, as vendors publish them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.formats.endorsements import MAX_BLOCKS, NoEndorsements, pem, split


@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=4))
def test_blocks_are_taken_out_of_the_text_around_them(values):
    text = "Subject: Acme\n".join(pem(value, "root") for value in values)
    assert split(text.encode()) == tuple(values)
    assert split(text.replace("\n", "\r\n").encode()) == tuple(values)


def test_lists_and_certificates_stand_side_by_side():
    assert split((pem(b"one", "crl") + pem(b"two", "intermediate")).encode()) == (b"one", b"two")


def test_what_is_no_pem_is_one_value():
    assert split(b"\x30\x00") == (b"\x30\x00",)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"-----BEGIN CERTIFICATE-----\nAA",
        b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nAA==\n-----END X509 CRL-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n",
    ],
)
def test_an_empty_file_a_damaged_block_and_another_kind_are_refused(text):
    with pytest.raises(NoEndorsements):
        split(text)


def test_the_number_of_blocks_is_bounded():
    with pytest.raises(NoEndorsements, match="too many"):
        split(pem(b"x", "root").encode() * (MAX_BLOCKS + 1))
