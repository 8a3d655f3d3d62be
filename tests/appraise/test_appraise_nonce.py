from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.appraise.nonce import (
    LIFETIME,
    NONCE_SIZE,
    SKEW,
    ForgedNonce,
    PrematureNonce,
    SpentNonce,
    StaleNonce,
    check_nonce,
    make_nonce,
)
from catena.errors import ExitCode, UsageError
from catena.ids import NodeId

KEY, RANDOM = b"k" * 32, b"r" * 16
NODE, OTHER = NodeId("01" * 32), NodeId("02" * 32)
NOW = datetime(2030, 1, 1, tzinfo=UTC)
NONCE = make_nonce(KEY, NODE, NOW, RANDOM)


def test_a_nonce_is_good_for_its_whole_lifetime():
    assert len(NONCE) == NONCE_SIZE
    check_nonce(KEY, NODE, NONCE, NOW)
    check_nonce(KEY, NODE, NONCE, NOW + LIFETIME)
    check_nonce(KEY, NODE, NONCE, NOW - SKEW)


def test_two_nonces_of_one_moment_differ_by_their_random_part():
    assert make_nonce(KEY, NODE, NOW, b"s" * 16) != NONCE


def test_a_stale_nonce_is_refused():
    with pytest.raises(StaleNonce) as refusal:
        check_nonce(KEY, NODE, NONCE, NOW + LIFETIME + timedelta(milliseconds=1))
    assert refusal.value.exit_code is ExitCode.STALE
    assert not refusal.value.authenticated


def test_a_nonce_from_the_future_is_refused():
    with pytest.raises(PrematureNonce):
        check_nonce(KEY, NODE, NONCE, NOW - SKEW - timedelta(milliseconds=1))


def test_a_nonce_from_before_the_last_attestation_is_spent():
    with pytest.raises(SpentNonce) as refusal:
        check_nonce(KEY, NODE, NONCE, NOW + SKEW, concluded=NOW + timedelta(milliseconds=1))
    assert not refusal.value.authenticated


def test_a_nonce_made_after_the_last_attestation_is_good():
    check_nonce(KEY, NODE, NONCE, NOW + SKEW, concluded=NOW)
    check_nonce(KEY, NODE, NONCE, NOW + SKEW, concluded=NOW - SKEW)


def test_another_nodes_nonce_is_refused():
    with pytest.raises(ForgedNonce):
        check_nonce(KEY, OTHER, NONCE, NOW)


def test_another_servers_nonce_is_refused():
    with pytest.raises(ForgedNonce):
        check_nonce(b"l" * 32, NODE, NONCE, NOW)


@pytest.mark.parametrize("size", range(NONCE_SIZE))
def test_a_truncated_nonce_is_refused(size):
    with pytest.raises(ForgedNonce):
        check_nonce(KEY, NODE, NONCE[:size], NOW)


def test_a_padded_nonce_is_refused():
    with pytest.raises(ForgedNonce):
        check_nonce(KEY, NODE, NONCE + b"\0", NOW)


@given(bit=st.integers(0, 8 * NONCE_SIZE - 1))
def test_no_bit_of_a_nonce_can_be_changed(bit):
    changed = bytearray(NONCE)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ForgedNonce):
        check_nonce(KEY, NODE, bytes(changed), NOW)


@pytest.mark.parametrize(("key", "random"), [(b"", RANDOM), (b"k" * 31, RANDOM), (KEY, b"r")])
def test_a_weak_key_or_random_part_is_an_error(key, random):
    with pytest.raises(UsageError):
        make_nonce(key, NODE, NOW, random)


def test_checking_with_a_weak_key_is_an_error():
    with pytest.raises(UsageError):
        check_nonce(b"", NODE, NONCE, NOW)
