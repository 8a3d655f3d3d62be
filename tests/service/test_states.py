from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from catena.service import states
from catena.service.states import after_verdict, shown_state
from catena.store.nodes import Node

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LIFETIME = timedelta(minutes=10)


def node(**changes) -> Node:
    values = {
        "id": "5a" * 32,
        "state": states.PENDING,
        "ek_public": b"",
        "ak_public": b"",
        "ek_root": "vendor:Acme",
        "mode": "approve",
        "enrolled_at": NOW,
        "approved_at": NOW,
    }
    return Node(**{**values, **changes})


@pytest.mark.parametrize("trusted", [True, False])
def test_a_node_that_nobody_approved_stays_pending_whatever_the_verdict(trusted):
    standing = after_verdict(node(approved_at=None), trusted=trusted, why="x")
    assert (standing.state, standing.admitted) == ("pending", False)
    assert standing.withheld == states.AWAITING_APPROVAL


def test_an_approved_node_is_admitted_by_a_trusted_verdict():
    standing = after_verdict(node(), trusted=True, why="")
    assert (standing.state, standing.admitted, standing.withheld) == ("trusted", True, None)


@pytest.mark.parametrize("state", ["pending", "trusted", "untrusted"])
def test_an_untrusted_verdict_makes_any_approved_node_untrusted(state):
    standing = after_verdict(node(state=state, readmitted=True), trusted=False, why="no-release")
    assert (standing.state, standing.why, standing.admitted) == ("untrusted", "no-release", False)
    assert not standing.readmitted


def test_an_untrusted_node_stays_so_until_a_person_readmits_it():
    standing = after_verdict(node(state="untrusted"), trusted=True, why="")
    assert (standing.state, standing.admitted) == ("untrusted", False)
    assert standing.withheld == states.AWAITING_READMISSION


def test_a_readmitted_node_needs_a_trusted_verdict_and_uses_the_readmission_up():
    standing = after_verdict(node(state="untrusted", readmitted=True), trusted=True, why="")
    assert (standing.state, standing.admitted, standing.readmitted) == ("trusted", True, False)


def test_silence_expires_to_untrusted():
    trusted = node(state="trusted", last_attested=NOW)
    assert shown_state(trusted, NOW + LIFETIME, LIFETIME) == ("trusted", "")
    late = NOW + LIFETIME + timedelta(seconds=1)
    assert shown_state(trusted, late, LIFETIME) == ("untrusted", "verdict-expired")


def test_reasons_of_states_are_wire_reasons():
    for reason in (states.AWAITING_APPROVAL, states.AWAITING_READMISSION):
        assert msgspec.json.encode(reason)
