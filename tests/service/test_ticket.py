from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from catena.service.ticket import (
    LIFETIME,
    ExpiredTicket,
    ForgedTicket,
    Memory,
    TicketOffice,
    WrongActivationSecret,
    expiry,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SECRET = b"s" * 32
OFFICE = TicketOffice(b"k" * 32)
MEMORY = Memory(
    node_id="5a" * 32,
    ek_public=b"ek",
    ak_public=b"ak",
    endorsed_by="vendor:Acme",
    name_hint=None,
    secret_sha256=hashlib.sha256(SECRET).digest(),
    expires=expiry(NOW),
)


def ticket() -> bytes:
    return OFFICE.issue(MEMORY, os.urandom)


def test_a_ticket_gives_back_what_was_remembered():
    assert OFFICE.redeem(ticket(), SECRET, NOW + LIFETIME) == MEMORY


def test_another_replica_with_the_same_key_redeems_it():
    assert TicketOffice(b"k" * 32).redeem(ticket(), SECRET, NOW) == MEMORY


def test_a_ticket_of_another_server_is_forged():
    with pytest.raises(ForgedTicket):
        TicketOffice(b"K" * 32).redeem(ticket(), SECRET, NOW)


def test_a_ticket_truncated_anywhere_is_forged():
    whole = ticket()
    for size in range(len(whole)):
        with pytest.raises(ForgedTicket):
            OFFICE.redeem(whole[:size], SECRET, NOW)


def test_a_ticket_with_any_byte_changed_is_forged():
    whole = ticket()
    for index in range(len(whole)):
        changed = bytearray(whole)
        changed[index] ^= 1
        with pytest.raises(ForgedTicket):
            OFFICE.redeem(bytes(changed), SECRET, NOW)


def test_an_old_ticket_is_expired_even_with_the_right_secret():
    with pytest.raises(ExpiredTicket):
        OFFICE.redeem(ticket(), SECRET, NOW + LIFETIME + timedelta(seconds=1))


@pytest.mark.parametrize("guess", [b"", b"s" * 31, b"S" * 32, bytes(32)])
def test_a_guessed_secret_is_refused(guess):
    with pytest.raises(WrongActivationSecret):
        OFFICE.redeem(ticket(), guess, NOW)


def test_a_ticket_does_not_hold_the_secret():
    assert SECRET not in msgspec.msgpack.encode(MEMORY)


def test_two_tickets_for_the_same_memory_differ():
    assert ticket() != ticket()
