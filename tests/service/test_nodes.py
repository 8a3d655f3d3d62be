from __future__ import annotations

import pytest

from catena.service.nodes import NeverAttested, UnknownNode
from service.fixtures import START, listed
from service.test_approval import enrolled


def test_nodes_are_listed_with_what_they_say_of_themselves_marked_untrusted(server):
    enrolled(server, "aa" * 32)
    (view,) = listed(server.service.nodes)
    assert (view.name, view.untrusted_name_hint) == (None, "root\x1b[31m")
    assert view.enrolled_at == f"{START:%Y-%m-%dT%H:%M:%SZ}"


def test_a_trusted_verdict_that_nobody_renews_is_shown_as_expired(server):
    enrolled(
        server, "aa" * 32, state="trusted", approved_at=START, last_attested=START, name="web-1"
    )
    assert server.service.nodes.show("web-1").state == "trusted"
    server.clock.pass_(601)
    view = server.service.nodes.show("web-1")
    assert (view.state, view.state_reason) == ("stale", "verdict-expired")


def test_an_unknown_node_and_one_that_never_attested_are_told_apart(server):
    enrolled(server, "aa" * 32)
    with pytest.raises(NeverAttested):
        server.service.nodes.explain("aa")
    with pytest.raises(UnknownNode):
        server.service.nodes.explain("bb")
