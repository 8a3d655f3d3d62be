"""Nodes: unique names, clocks that are compared and swapped, prefixes that are not guessed."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from store_samples import NOON, make_node

from catena.ids import NodeId, NodeName
from catena.store.errors import AmbiguousNode, Conflict, NameTaken, NodeMoved, NoSuchRow
from catena.store.nodes import Attested, Clock, Reenrolment

NOBODY = NodeId("f" * 64)


def test_a_node_is_read_as_it_was_stored(database):
    boot_log = None
    with database.transaction() as tx:
        boot_log = tx.logs.put("tcg2", b"log")
        full = make_node(
            2,
            name=NodeName("n2"),
            role="worker",
            approved_at=NOON,
            readmitted=True,
            reset_count=2**32 - 1,
            restart_count=3,
            clock=2**63 - 1,
            last_attested=NOON,
            last_verdict="trusted",
            boot_log=boot_log,
        )
        tx.nodes.insert(full)
        tx.nodes.insert(make_node(3))
    with database.snapshot() as tx:
        assert tx.nodes.get(full.id) == full
        assert tx.nodes.list() == (full, make_node(3))
        assert tx.nodes.get(NOBODY) is None
    assert full.clock_triple == Clock(2**32 - 1, 3, 2**63 - 1)


def test_a_node_is_found_by_name_or_unique_prefix(database):
    named = make_node(1, name=NodeName("0202"))
    with database.transaction() as tx:
        tx.nodes.insert(named)
        tx.nodes.insert(make_node(2))
    with database.snapshot() as tx:
        assert tx.nodes.find("0202") == named  # a name goes before a prefix
        assert tx.nodes.find("0200") == make_node(2)
        assert tx.nodes.find("03") is None
        assert tx.nodes.find("") is None
        for wildcard in ("%", "_", "02%", "\\"):
            assert tx.nodes.find(wildcard) is None
        with pytest.raises(AmbiguousNode):
            tx.nodes.find("0")


def test_a_second_node_cannot_claim_a_name(database, node):
    with database.transaction() as tx:
        tx.nodes.insert(make_node(2))
        tx.nodes.approve(node.id, name=NodeName("n"), role="r", state="trusted", at=NOON)
    with pytest.raises(NameTaken), database.transaction() as tx:
        tx.nodes.approve(make_node(2).id, name=NodeName("n"), role="r", state="trusted", at=NOON)
    with pytest.raises(NameTaken), database.transaction() as tx:
        tx.nodes.insert(make_node(3, name=NodeName("n")))
    with database.transaction() as tx:  # its own name is no obstacle
        tx.nodes.approve(
            node.id, name=NodeName("n"), role="r2", state="trusted", at=NOON, readmitted=True
        )
        changed = tx.nodes.get(node.id)
    assert (changed.role, changed.approved_at, changed.readmitted) == ("r2", NOON, True)


def test_the_same_tpm_cannot_be_stored_twice(database, node):
    with pytest.raises(Conflict), database.transaction() as tx:
        tx.nodes.insert(node)


def test_a_clock_moves_only_from_where_it_was_read(database, node):
    first, second = Clock(1, 0, 10), Clock(1, 0, 20)
    with database.transaction() as tx:
        node = tx.nodes.get(node.id)
        assert tx.nodes.advance_clock(node, first)
        assert not tx.nodes.advance_clock(node, second)
        moved = tx.nodes.get(node.id)
        assert moved.clock_triple == first
        assert tx.nodes.advance_clock(moved, second)
        assert not tx.nodes.advance_clock(dataclasses.replace(moved, id=NOBODY), first)
        assert tx.nodes.get(node.id).clock_triple == second


@pytest.mark.parametrize(
    "change",
    [
        {"state": "untrusted"},
        {"state_reason": "revoked"},
        {"readmitted": True},
        {"name": "other"},
        {"role": "other"},
    ],
)
def test_nothing_decided_from_another_standing_takes_effect(database, node, change):
    with database.transaction() as tx:
        now = tx.nodes.get(node.id)
        tx.nodes.hold(now)
        with pytest.raises(NodeMoved):
            tx.nodes.hold(dataclasses.replace(now, **change))


def test_a_new_ak_starts_with_a_new_clock(database, node):
    with database.transaction() as tx:
        tx.nodes.advance_clock(node, Clock(1, 2, 3))
        tx.nodes.replace_ak(node.id, b"new")
        changed = tx.nodes.get(node.id)
    assert (changed.ak_public, changed.clock_triple) == (b"new", Clock())


def attested(node, **changes):
    values = {"at": NOON, "verdict": "trusted", "boot_log": None, "trusted_log": None}
    return Attested(before=node, after=node.clock_triple, **{**values, **changes})


def test_state_and_attestation_are_recorded(database, node):
    with database.transaction() as tx:
        tx.nodes.set_state(node.id, "untrusted", "secure boot is off")
        assert tx.nodes.attested([attested(tx.nodes.get(node.id), verdict="untrusted")])
        changed = tx.nodes.get(node.id)
        assert (changed.state, changed.state_reason) == ("untrusted", "secure boot is off")
        assert (changed.last_attested, changed.last_verdict) == (NOON, "untrusted")
        tx.nodes.set_state(node.id, "trusted", "", readmitted=True)
        assert tx.nodes.get(node.id).readmitted


def test_a_boot_log_that_is_not_stored_is_refused(database, node):
    with pytest.raises(Conflict), database.transaction() as tx:
        tx.nodes.attested([attested(tx.nodes.get(node.id), boot_log="0" * 64)])


def test_changing_an_unknown_node_is_an_error(database):
    for change in (
        lambda nodes: nodes.set_state(NOBODY, "trusted", ""),
        lambda nodes: nodes.replace_ak(NOBODY, b""),
        lambda nodes: nodes.approve(NOBODY, name=NodeName("n"), role="r", state="s", at=NOON),
    ):
        with pytest.raises(NoSuchRow), database.transaction() as tx:
            change(tx.nodes)


def test_an_attestation_of_an_unknown_node_does_not_count(database, node):
    with database.transaction() as tx:
        assert not tx.nodes.attested([attested(dataclasses.replace(node, id=NOBODY))])


def test_only_the_latest_second_enrolment_waits(database, node):
    later = Reenrolment(node_id=node.id, ak_public=b"two", at=NOON + timedelta(seconds=1))
    with database.transaction() as tx:
        tx.reenrolments.put(Reenrolment(node_id=node.id, ak_public=b"one", at=NOON))
        tx.reenrolments.put(later)
        assert tx.reenrolments.get(node.id) == later
        assert tx.reenrolments.list() == (later,)
        tx.reenrolments.remove(node.id)
        assert tx.reenrolments.get(node.id) is None


def test_a_second_enrolment_needs_a_first_one(database):
    with pytest.raises(Conflict), database.transaction() as tx:
        tx.reenrolments.put(Reenrolment(node_id=NOBODY, ak_public=b"", at=NOON))
