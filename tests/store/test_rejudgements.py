"""What is kept to judge nodes again, and how far that has come, in both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest
from store_samples import NOON, make_node

from catena.store.ekcertificates import KeptCertificates

NEVER = NOON - timedelta(days=1)


@pytest.fixture
def nodes(database):
    """Five nodes by id, of which four are below an authority."""
    made = [make_node(number, endorsement="") for number in range(1, 6)]
    with database.transaction() as tx:
        for number, node in enumerate(made):
            tx.nodes.insert(node)
            tx.ek_certificates.put(node.id, (b"ek", b"ca"), NOON + timedelta(minutes=number))
            tx.ek_certificates.place_under(node.id, frozenset({"acme", "root"} if number else {}))
    return made


def test_what_a_node_enrolled_with_comes_back(database, nodes):
    with database.transaction() as tx:
        kept = KeptCertificates(
            node_id=nodes[0].id, ek_public=b"ek", certificates=(b"ek", b"ca"), endorsement=""
        )
        assert tx.ek_certificates.get(nodes[0].id) == kept
        tx.ek_certificates.put(nodes[0].id, (), NOON)
        assert tx.ek_certificates.get(nodes[0].id).certificates == ()
        assert tx.ek_certificates.get("0" * 64) is None


def test_nodes_below_an_authority_come_in_pages(database, nodes):
    wanted = [node.id for node in nodes[1:]]
    with database.snapshot() as tx:
        assert tx.ek_certificates.count_under("acme") == 4
        first = tx.ek_certificates.under("acme", after="", limit=3)
        assert [one.node_id for one in first] == wanted[:3]
        rest = tx.ek_certificates.under("acme", after=wanted[2], limit=3)
        assert [one.node_id for one in rest] == wanted[3:]
        late = NOON + timedelta(minutes=3)
        found = tx.ek_certificates.under("acme", after="", limit=9, since=late)
        assert [one.node_id for one in found] == wanted[2:]
        assert tx.ek_certificates.under("other", after="", limit=9) == ()


def test_a_node_is_placed_anew(database, nodes):
    with database.transaction() as tx:
        tx.ek_certificates.place_under(nodes[1].id, frozenset({"other"}))
        above = tx.ek_certificates.above([nodes[0].id, nodes[1].id, nodes[2].id])
    assert above == {
        nodes[0].id: frozenset(),
        nodes[1].id: {"other"},
        nodes[2].id: {"acme", "root"},
    }


def test_nodes_without_certificates_are_counted(database, nodes):
    with database.transaction() as tx:
        tx.nodes.insert(make_node(7))
        tx.nodes.insert(make_node(8, state="retired"))
        assert tx.nodes.count_unjudgeable() == 1
        tx.nodes.endorse(nodes[0].id, "ek-certificate-revoked")
        assert tx.nodes.get(nodes[0].id).endorsement == "ek-certificate-revoked"


def test_a_change_has_two_passes_and_is_done(database):
    with database.transaction() as tx:
        tx.rejudgements.ask("acme", "CN=Acme", NOON)
        one = tx.rejudgements.next(second_before=NEVER)
        assert (one.title, one.after, one.judged, one.is_second) == ("CN=Acme", "", 0, False)
        tx.rejudgements.advance(one, after="5", judged=3)
        one = tx.rejudgements.next(second_before=NEVER)
        assert (one.after, one.judged) == ("5", 3)
        tx.rejudgements.finish(one)
        assert tx.rejudgements.next(second_before=NOON - timedelta(seconds=1)) is None
        second = tx.rejudgements.next(second_before=NOON)
        assert (second.after, second.judged, second.is_second) == ("", 0, True)
        tx.rejudgements.finish(second)
        assert tx.rejudgements.list() == ()


def test_another_change_begins_anew_whatever_was_read_before(database):
    with database.transaction() as tx:
        tx.rejudgements.ask("acme", "CN=Acme", NOON)
        read = tx.rejudgements.next(second_before=NEVER)
        tx.rejudgements.ask("acme", "CN=Acme", NOON)
        tx.rejudgements.advance(read, after="5", judged=3)
        tx.rejudgements.finish(read)
        (one,) = tx.rejudgements.list()
        assert (one.after, one.judged, one.is_second) == ("", 0, False)


def test_first_passes_go_before_second_ones(database):
    with database.transaction() as tx:
        tx.rejudgements.ask("acme", "CN=Acme", NOON)
        tx.rejudgements.finish(tx.rejudgements.next(second_before=NEVER))
        tx.rejudgements.ask("other", "CN=Other", NOON + timedelta(hours=1))
        assert tx.rejudgements.next(second_before=NOON).name == "other"
        assert [one.name for one in tx.rejudgements.list()] == ["acme", "other"]


def test_a_round_is_renewed_by_who_has_it(database):
    later = NOON + timedelta(seconds=5)
    with database.transaction() as tx:
        assert tx.rounds.take("x", NOON, not_after=NEVER)
        assert tx.rounds.renew("x", NOON, later)
        assert not tx.rounds.renew("x", NOON, later)
        assert not tx.rounds.take("x", later, not_after=NOON)
