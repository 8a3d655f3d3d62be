from __future__ import annotations

import pytest

from catena.service.approval import NameAndRoleNeeded
from catena.service.demands import NothingToDemand
from catena.service.nodes import UnknownNode
from catena.service.pages import NodesRequest
from catena.service.retirement import AlreadyRetired, NothingToReject, UnfitReplacement
from catena.service.views import DemandRequest, FarewellRequest, ReplacementRequest
from catena.store.nodes import Reenrolment
from service.fixtures import START, listed
from service.test_approval import AK, OTHER_AK, approve, enrolled

WHY = FarewellRequest(reason="sold")


def admitted(server, node_id: str, name: str, role: str = "web", **changes) -> str:
    values = {"state": "trusted", "last_attested": START, "approved_at": START}
    return enrolled(server, node_id, name=name, role=role, **{**values, **changes})


def test_a_retired_node_is_off_the_rolls_and_its_name_is_free(server):
    admitted(server, "aa" * 32, "web-1")
    done = server.service.retirement.retire("web-1", WHY, "alice")
    assert (done.node.state, done.node.state_reason, done.node.former_name) == (
        "retired",
        "sold",
        "web-1",
    )
    entry = server.entries()[-1]
    assert (entry.kind, entry.before, entry.state, entry.reason, server.name(entry.actor)) == (
        "transition",
        "trusted",
        "retired",
        "sold",
        "alice",
    )
    assert server.service.nodes.page(NodesRequest()).items == ()
    assert len(server.service.nodes.page(NodesRequest(retired=True)).items) == 1
    assert len(server.service.nodes.page(NodesRequest(state="retired")).items) == 1
    enrolled(server, "bb" * 32)
    assert approve(server, "bb", name="web-1", role="web").name == "web-1"


def test_a_node_is_retired_once(server):
    admitted(server, "aa" * 32, "web-1")
    server.service.retirement.retire("aa", WHY, "alice")
    before = server.kinds()
    with pytest.raises(AlreadyRetired):
        server.service.retirement.retire("aa", WHY, "alice")
    with pytest.raises(AlreadyRetired):
        server.service.retirement.replace("aa", ReplacementRequest(by="aa"), "alice")
    with pytest.raises(UnknownNode):
        server.service.retirement.retire("web-1", WHY, "alice")
    assert server.kinds() == before


def test_only_a_person_brings_a_retired_node_back_and_names_it_anew(server):
    admitted(server, "aa" * 32, "web-1")
    server.service.retirement.retire("aa", WHY, "alice")
    with pytest.raises(NameAndRoleNeeded):
        approve(server, "aa")
    with pytest.raises(NameAndRoleNeeded):
        approve(server, "aa", name="web-2")
    view = approve(server, "aa", name="web-2", role="web")
    assert (view.state, view.state_reason) == ("pending", "awaiting-attestation")
    assert server.entries()[-1].readmitted


def test_a_machine_that_waits_can_be_rejected(server):
    enrolled(server, "aa" * 32)
    done = server.service.retirement.reject("aa", FarewellRequest(reason="not ours"), "alice")
    assert (done.node.state, done.node.state_reason) == ("retired", "not ours")
    assert server.service.nodes.page(NodesRequest(state="pending")).items == ()


def test_a_rejected_key_leaves_the_node_as_it_was(server):
    admitted(server, "aa" * 32, "web-1")
    with server.opened.database.transaction() as rows:
        rows.reenrolments.put(Reenrolment(node_id="aa" * 32, ak_public=OTHER_AK, at=START))
    done = server.service.retirement.reject("web-1", WHY, "alice")
    assert (done.node.state, done.node.waiting_key) == ("trusted", None)
    assert server.node("web-1").ak_public == AK
    assert server.entries()[-1].kind == "key-rejected"
    with pytest.raises(NothingToReject):
        server.service.retirement.reject("web-1", WHY, "alice")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {"state": "trusted", "approved_at": START}),
        ({}, {"approved_at": START}),
        ({}, {"state": "retired"}),
        ({"name": None, "role": None}, {}),
    ],
)
def test_what_cannot_take_a_place_does_not(server, old, new):
    admitted(server, "aa" * 32, **{"name": "web-1", **old})
    enrolled(server, "bb" * 32, **new)
    before = server.kinds()
    with pytest.raises(UnfitReplacement):
        server.service.retirement.replace("aa", ReplacementRequest(by="bb"), "alice")
    assert server.kinds() == before
    assert server.node("aa").state == "trusted"


def test_a_replacement_stands_where_the_old_one_stood(server):
    admitted(server, "aa" * 32, "web-1", site="berlin", channel="stable")
    enrolled(server, "bb" * 32)
    done = server.service.retirement.replace("web-1", ReplacementRequest(by="bb"), "alice")
    assert (done.node.id, done.node.site, done.node.channel) == ("bb" * 32, "berlin", "stable")
    assert [entry.kind for entry in server.entries()[-2:]] == ["transition", "approval"]


def test_nodes_are_listed_by_the_state_they_are_in_now_and_by_role(server):
    admitted(server, "aa" * 32, "web-1")
    admitted(server, "bb" * 32, "db-1", role="db")
    enrolled(server, "cc" * 32)

    def found(**options) -> list[str]:
        page = server.service.nodes.page(NodesRequest(**options))
        return [one.name or one.id[:2] for one in page.items]

    assert found() == ["web-1", "db-1", "cc"]
    assert found(role="db") == ["db-1"]
    assert found(state="trusted") == ["web-1", "db-1"]
    assert found(state="pending") == ["cc"]
    server.clock.pass_(601)
    assert found(state="trusted") == []
    assert found(state="stale", role="web") == ["web-1"]


def test_a_demand_is_a_deadline_for_those_it_is_about(server):
    admitted(server, "aa" * 32, "web-1")
    admitted(server, "bb" * 32, "db-1", role="db")
    enrolled(server, "cc" * 32, state="retired")

    def demand(**request) -> int:
        return server.service.demands.demand(DemandRequest(**request), "alice").nodes

    assert demand(role="db", within=5) == 1
    server.clock.pass_(6)
    states = {one.name: one.state for one in listed(server.service.nodes) if one.name}
    assert states == {"web-1": "trusted", "db-1": "stale"}
    assert demand() == 2
    assert [entry.kind for entry in server.entries()[-3:]] == ["demand"] * 3
    with pytest.raises(NothingToDemand):
        demand(role="nobody")
    with pytest.raises(NothingToDemand):
        demand(node="cc")
    assert not server.service.demands.is_open("99" * 32)
