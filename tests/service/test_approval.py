from __future__ import annotations

import hashlib

import pytest

from appraise.forged import ecc_public, key
from catena.service.approval import NameAndRoleNeeded, NothingToApprove, WaitingKeyUnseen
from catena.service.nodes import UnknownNode
from catena.service.views import ApprovalRequest
from catena.store.errors import AmbiguousNode, NameTaken
from catena.store.nodes import Node, Reenrolment
from service.fixtures import START

AK, OTHER_AK = ecc_public(key(1)), ecc_public(key(2))


def enrolled(server, node_id: str, **changes) -> str:
    """A node as an enrolment leaves it."""
    values = {
        "id": node_id,
        "state": "pending",
        "state_reason": "awaiting-approval",
        "ek_public": b"ek",
        "ak_public": AK,
        "ek_root": "vendor:Acme",
        "mode": "approve",
        "enrolled_at": START,
        "name_hint": "root\x1b[31m",
    }
    with server.opened.database.transaction() as rows:
        rows.nodes.insert(Node(**{**values, **changes}))
    return node_id


def approve(server, node, **request):
    return server.service.approval.approve(node, ApprovalRequest(**request), "alice")


def test_a_person_assigns_name_and_role(server):
    enrolled(server, "aa" * 32)
    view = approve(server, "aa", name="web-1", role="web")
    assert (view.name, view.role, view.state) == ("web-1", "web", "pending")
    assert view.state_reason == "awaiting-attestation"
    entry = server.entries()[-1]
    assert (entry.kind, server.name(entry.actor), entry.node_name, entry.role) == (
        "approval",
        "alice",
        "web-1",
        "web",
    )


def test_a_second_node_cannot_claim_a_name(server):
    enrolled(server, "aa" * 32)
    enrolled(server, "bb" * 32)
    approve(server, "aa", name="web-1", role="web")
    before = server.kinds()
    with pytest.raises(NameTaken):
        approve(server, "bb", name="web-1", role="web")
    assert server.node("bb").name is None
    assert server.kinds() == before


@pytest.mark.parametrize("request_", [{}, {"name": "web-1"}, {"role": "web"}])
def test_a_first_approval_needs_name_and_role(server, request_):
    enrolled(server, "aa" * 32)
    with pytest.raises(NameAndRoleNeeded):
        approve(server, "aa", **request_)


def test_an_approved_node_that_waits_for_nothing_is_left_alone(server):
    enrolled(server, "aa" * 32)
    approve(server, "aa", name="web-1", role="web")
    with pytest.raises(NothingToApprove):
        approve(server, "web-1")


def test_a_node_can_be_renamed_and_given_another_role(server):
    enrolled(server, "aa" * 32)
    approve(server, "aa", name="web-1", role="web")
    view = approve(server, "web-1", name="db-1", role="db")
    assert (view.name, view.role) == ("db-1", "db")


def test_readmission_is_marked_and_logged_but_does_not_make_trusted(server):
    enrolled(server, "aa" * 32, state="untrusted", approved_at=START, name="web-1", role="web")
    assert approve(server, "web-1").state == "untrusted"
    assert server.node("web-1").readmitted
    assert server.entries()[-1].readmitted


def test_a_waiting_key_is_accepted_only_by_its_digest(server):
    node_id = enrolled(server, "aa" * 32, approved_at=START, name="web-1", role="web")
    with server.opened.database.transaction() as rows:
        rows.reenrolments.put(Reenrolment(node_id=node_id, ak_public=OTHER_AK, at=START))
    for wrong in ("", "0" * 64, hashlib.sha256(AK).hexdigest()):
        with pytest.raises(WaitingKeyUnseen):
            approve(server, "web-1", accept_key=wrong)
    assert server.node("web-1").ak_public == AK
    waiting = server.service.nodes.show("web-1").waiting_key
    assert approve(server, "web-1", accept_key=waiting).waiting_key is None
    assert server.node("web-1").ak_public == OTHER_AK


def test_readmitting_does_not_accept_a_waiting_key_by_the_way(server):
    node_id = enrolled(
        server, "aa" * 32, state="untrusted", approved_at=START, name="web-1", role="web"
    )
    with server.opened.database.transaction() as rows:
        rows.reenrolments.put(Reenrolment(node_id=node_id, ak_public=OTHER_AK, at=START))
    approve(server, "web-1")
    assert server.node("web-1").ak_public == AK
    assert server.service.nodes.show("web-1").waiting_key is not None


def test_unknown_and_ambiguous_nodes_are_refused(server):
    enrolled(server, "aa" * 32)
    enrolled(server, "ab" * 32)
    with pytest.raises(UnknownNode):
        approve(server, "cc", name="x", role="y")
    with pytest.raises(AmbiguousNode):
        approve(server, "a", name="x", role="y")
