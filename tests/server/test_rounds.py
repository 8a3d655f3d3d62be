from __future__ import annotations

import threading

import pytest

from catena.server.rounds import Rounds
from catena.service.pages import PageRequest
from catena.store.errors import DatabaseGone
from service.endorsed import fleet
from service.vendor import Authority, request


def test_a_round_that_fails_is_told_of_once_and_tried_again():
    lines: list[str] = []
    faults = [DatabaseGone("the database failed"), DatabaseGone("the database failed")]
    done = threading.Event()

    def work() -> None:
        if faults:
            raise faults.pop()
        done.set()

    rounds = Rounds(work, "working", write=lines.append, pause=0.01)
    rounds.start()
    assert done.wait(20)
    rounds.stop()
    assert len(lines) == 1
    assert "database-gone" in lines[0]
    assert "working: the database failed" in lines[0]


def test_a_defect_ends_no_round_after_it():
    lines: list[str] = []
    calls, done = [], threading.Event()

    def work() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("secret text")
        done.set()

    rounds = Rounds(work, "working", write=lines.append, pause=0.01)
    rounds.start()
    assert done.wait(20)
    rounds.stop()
    assert "internal" in lines[0]
    assert "secret text" not in lines[0]


def test_rounds_that_never_began_can_be_stopped():
    Rounds(lambda: None, "working").stop()


@pytest.mark.parametrize("change", ["silence", "withdrawal"])
def test_a_running_server_notices_silence_and_what_no_longer_vouches_for_a_node(server, change):
    """Both by threads of its own, which are started as ``serve`` does."""
    acme = Authority("Acme TPM Root CA")
    server.service.endorsements.accept(request(acme.der), "alice")
    (node,) = fleet(server, acme, 1)
    (root,) = server.service.endorsements.page(PageRequest()).items
    expected = {"silence": "stale", "withdrawal": "untrusted"}[change]
    if change == "silence":
        server.service.staleness.notice()  # the server listens from now on
        server.clock.pass_(24 * 3600)
    else:
        server.service.endorsements.withdraw(root.sha256, "alice")
    moved = threading.Event()

    def look() -> None:
        with server.opened.database.snapshot() as rows:
            if rows.nodes.get(node).state == expected:
                moved.set()

    watching = Rounds(look, "looking", pause=0.01)
    for one in (*server.opened.rounds, watching):
        one.start()
    assert moved.wait(20)
    watching.stop()
