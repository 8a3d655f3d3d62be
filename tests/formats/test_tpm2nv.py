"""NV indices on the wire; the vectors are from a software TPM (swtpm)."""

from __future__ import annotations

import pytest
from tpm2nv_vectors import CERTIFIED, NAME, PUBLIC, VALUE

from catena.errors import FormatError
from catena.formats import tpm2
from catena.formats.recordindex import RecordIndex, seal_event
from catena.formats.tpm2nv import (
    MAX_NV_BUFFER,
    TPM_ST_ATTEST_NV,
    NvCertifyInfo,
    parse_nv_certify_info,
)

INDEX = RecordIndex(0x01800F00, 15)
BODY = tpm2.parse_attest(CERTIFIED).body


def test_a_certificate_of_a_tpm_is_read():
    attest = tpm2.parse_attest(CERTIFIED)
    assert (attest.type, attest.quote, attest.extra_data) == (TPM_ST_ATTEST_NV, None, b"nonce")
    assert parse_nv_certify_info(attest.body) == NvCertifyInfo(NAME, 0, VALUE)


@pytest.mark.parametrize("size", range(len(BODY)))
def test_a_certificate_cut_anywhere_is_malformed(size):
    with pytest.raises(FormatError):
        parse_nv_certify_info(BODY[:size])


def test_a_certificate_that_was_padded_is_malformed():
    with pytest.raises(FormatError, match="trailing"):
        parse_nv_certify_info(BODY + b"\0")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param((67).to_bytes(2, "big") + bytes(100), id="name"),
        pytest.param(
            bytes(4) + (MAX_NV_BUFFER + 1).to_bytes(2, "big") + bytes(MAX_NV_BUFFER + 1),
            id="contents",
        ),
    ],
)
def test_lengths_are_bounded(body):
    with pytest.raises(FormatError, match="too long"):
        parse_nv_certify_info(body)


def test_an_index_is_what_the_tpm_says_it_is():
    assert INDEX.public(written=False).encode() == PUBLIC
    assert INDEX.public(written=True).name() == NAME


@pytest.mark.parametrize("other", [RecordIndex(0x01800F01, 15), RecordIndex(0x01800F00, 14)])
def test_another_index_or_another_seal_has_another_name(other):
    assert other.public(written=True).name() != NAME
    assert INDEX.public(written=False).name() != NAME


def test_a_seal_names_its_indices_in_order():
    assert len({seal_event(one) for one in [(1, 2), (2, 1), (1,), (12,), ()]}) == 5
