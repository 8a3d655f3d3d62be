"""What if: real evidence judged again, and nothing changed by asking."""

from __future__ import annotations

import pytest

from appraise.forged import keyset_of, release_of
from catena.appraise.policy import EmptyPolicy, default_policy_text
from catena.errors import Refusal
from catena.formats.references import KEYSET_TYPE, RELEASE_TYPE
from catena.keys.hierarchy import KeyName
from catena.service.references import NoSuchReference
from catena.service.simulation import SimulationRunning
from catena.service.views import SimulationRequest
from service.fixtures import listed, signed

VENDOR = default_policy_text() + "\n[vendor] a vendor vouches for the TPM\n  tpm_kind == 'vendor'\n"


@pytest.fixture
def attested(trusting, machine):
    trusting.admit(machine)
    assert machine.attest(trusting.call).verdict == "trusted"
    return trusting


def simulate(server, **fields):
    return server.service.simulation.run(SimulationRequest(**fields))


def test_the_present_policy_and_references_change_nobody(attested):
    found = simulate(attested)
    (node,) = found.nodes
    assert (found.changed, node.before, node.after, node.reasons) == (0, "trusted", "trusted", ())
    assert simulate(attested, policy=default_policy_text()) == found


def test_a_stricter_policy_says_whom_it_would_refuse_and_why(attested):
    found = simulate(attested, policy=VENDOR)
    (node,) = found.nodes
    assert (found.changed, node.name, node.after) == (1, "n1", "untrusted")
    assert [one.code for one in node.reasons] == ["policy:vendor"]


def test_without_its_release_a_node_would_not_be_trusted(attested):
    found = simulate(attested, without=("lab-1",))
    assert found.changed == 1
    assert "no-release" in [one.code for one in found.nodes[0].reasons]


def test_a_raised_floor_refuses_old_releases(attested):
    assert simulate(attested, floor=1).changed == 0
    found = simulate(attested, floor=2)
    assert [one.code for one in found.nodes[0].reasons] == ["release-below-floor"]


def test_a_release_that_revokes_the_present_one_is_foreseen(attested, boot):
    newer = release_of(boot, version="2", security_version=2, revokes=("lab-1",))
    other = newer.events[0].digests | {"sha256": "00" * 32}
    first = type(newer.events[0])(id="uki", pcr=4, what="another image", digests=other)
    unlike = type(newer)(**{**_fields(newer), "events": (first, *newer.events[1:])})
    added = signed(attested.keys, RELEASE_TYPE, unlike)
    found = simulate(attested, references=(added,))
    assert [one.code for one in found.nodes[0].reasons] == ["release-revoked"]


def _fields(document):
    return {name: getattr(document, name) for name in document.__struct_fields__}


def test_references_must_be_signed_to_be_tried(attested, boot):
    forged = signed(attested.keys, KEYSET_TYPE, keyset_of(boot), KeyName.CA)
    with pytest.raises(Refusal):
        simulate(attested, references=(forged,))


def test_a_name_that_is_not_active_is_refused(attested):
    with pytest.raises(NoSuchReference):
        simulate(attested, without=("lab-9",))


def test_a_policy_that_could_not_be_applied_cannot_be_tried(attested):
    with pytest.raises(EmptyPolicy):
        simulate(attested, policy="// nothing\n")


def test_a_node_that_would_be_let_in_is_found_too(trusting, machine):
    """Before its firmware is captured a node is untrusted; a policy that does not ask lets it in."""
    machine.enrol(trusting.call)
    machine.attest(trusting.call)
    lenient = "[release] runs a release\n  release != '' && secure_boot\n"
    found = simulate(trusting, policy=lenient)
    assert found.nodes[0].before == "untrusted"
    assert found.nodes[0].after == "untrusted"  # its firmware's events are still nobody's
    assert "unclaimed-event" in [one.code for one in found.nodes[0].reasons]


def test_a_node_without_evidence_is_unknown(trusting, machine):
    machine.enrol(trusting.call)
    (node,) = simulate(trusting, policy=VENDOR).nodes
    assert (node.before, node.after, node.changed) == ("unknown", "unknown", False)


def test_asking_changes_nothing(attested):
    before, entries = listed(attested.service.nodes), attested.kinds()
    simulate(attested, policy=VENDOR, without=("lab-1",), floor=9)
    assert (listed(attested.service.nodes), attested.kinds()) == (before, entries)
    assert attested.service.policies.current().version == 0


def test_only_one_simulation_runs_at_a_time(attested):
    simulation = attested.service.simulation
    simulation._running.acquire()
    with pytest.raises(SimulationRunning):
        simulate(attested)
    simulation._running.release()
    assert simulate(attested).changed == 0
