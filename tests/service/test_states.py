from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from catena.service import states
from catena.service.states import RetiredNode, Rhythm, after_verdict, shown_state, stale_at
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


# What vouches for the TPM --------------------------------------------------------------------


@pytest.mark.parametrize("state", ["pending", "trusted", "untrusted", "stale"])
@pytest.mark.parametrize("trusted", [True, False])
def test_nobody_is_admitted_whose_tpm_is_not_vouched_for(state, trusted):
    lost = node(state=state, readmitted=True, endorsement="ek-issuer-untrusted")
    standing = after_verdict(lost, trusted=trusted, why="no-release")
    assert (standing.state, standing.why) == ("untrusted", "ek-issuer-untrusted")
    assert (standing.admitted, standing.readmitted) == (False, False)
    assert standing.withheld is not None
    assert (standing.withheld.code, bool(standing.withheld.remedy)) == ("ek-issuer-untrusted", True)


@pytest.mark.parametrize("endorsement", [None, states.VOUCHED_FOR])
def test_a_node_that_cannot_be_judged_again_is_admitted_as_before(endorsement):
    assert after_verdict(node(endorsement=endorsement), trusted=True, why="").admitted


def test_a_node_of_which_the_same_is_judged_keeps_its_state():
    for state, reason in (("trusted", ""), ("stale", "missed-intervals"), ("untrusted", "x")):
        same = node(state=state, state_reason=reason, readmitted=True, endorsement="")
        assert states.after_judgement(same, "") == (state, reason, True)


def test_a_node_that_is_vouched_for_again_waits_for_a_person():
    back = node(state="untrusted", state_reason="ek-crl-foreign", endorsement="ek-crl-foreign")
    assert states.after_judgement(back, "") == ("untrusted", "awaiting-readmission", False)


def test_another_reason_not_to_be_vouched_for_replaces_the_first():
    lost = node(state="untrusted", state_reason="ek-crl-foreign", endorsement="ek-crl-foreign")
    after = states.after_judgement(lost, "ek-certificate-revoked")
    assert after == ("untrusted", "ek-certificate-revoked", False)


RHYTHM = Rhythm(interval=60, missed=4, lifetime=LIFETIME, of_role={"edge": 10})


def test_a_trusted_node_is_stale_after_the_intervals_it_may_miss():
    trusted = node(state="trusted", last_attested=NOW)
    last = NOW + timedelta(seconds=60 * 4 * 1.1)
    assert shown_state(trusted, last, RHYTHM) == ("trusted", "")
    assert shown_state(trusted, last + timedelta(seconds=1), RHYTHM) == (
        "stale",
        "missed-intervals",
    )


def test_a_role_has_an_interval_of_its_own():
    trusted = node(state="trusted", last_attested=NOW, role="edge")
    assert RHYTHM.interval_of("edge") == 10
    assert shown_state(trusted, NOW + timedelta(seconds=45), RHYTHM)[0] == "stale"
    assert RHYTHM.shortest == timedelta(seconds=44)


def test_a_verdict_expires_with_its_certificate_however_long_the_interval_is():
    trusted, slow = node(state="trusted", last_attested=NOW), Rhythm(3600, 9, LIFETIME)
    assert shown_state(trusted, NOW + LIFETIME, slow) == ("trusted", "")
    late = NOW + LIFETIME + timedelta(seconds=1)
    assert shown_state(trusted, late, slow) == ("stale", "verdict-expired")
    assert shown_state(node(state="trusted"), NOW, slow) == ("stale", "verdict-expired")


def test_a_demand_that_is_not_answered_makes_a_node_stale():
    asked = node(state="trusted", last_attested=NOW, attest_by=NOW + timedelta(seconds=5))
    assert shown_state(asked, NOW + timedelta(seconds=5), RHYTHM) == ("trusted", "")
    late = NOW + timedelta(seconds=6)
    assert shown_state(asked, late, RHYTHM) == ("stale", "demand-unanswered")
    assert stale_at(asked, RHYTHM) == NOW + timedelta(seconds=5)


@pytest.mark.parametrize("state", ["pending", "untrusted", "retired"])
def test_silence_gets_nobody_round_a_readmission(state):
    silent = node(state=state, last_attested=NOW, state_reason="x")
    assert shown_state(silent, NOW + timedelta(days=9), RHYTHM) == (state, "x")
    assert stale_at(silent, RHYTHM) is None


def test_a_stale_node_is_trusted_again_by_a_verdict_alone():
    stale = node(state="stale")
    assert after_verdict(stale, trusted=True, why="").admitted
    assert after_verdict(stale, trusted=False, why="x").state == "untrusted"


@pytest.mark.parametrize("trusted", [True, False])
def test_no_verdict_brings_a_retired_node_back(trusted):
    with pytest.raises(RetiredNode):
        after_verdict(node(state="retired"), trusted=trusted, why="")


def test_a_state_that_this_version_does_not_know_is_shown_as_untrusted():
    assert shown_state(node(state="blessed"), NOW, RHYTHM) == ("untrusted", "")


def test_reasons_of_states_are_wire_reasons():
    for reason in (states.AWAITING_APPROVAL, states.AWAITING_READMISSION):
        assert msgspec.json.encode(reason)
