from __future__ import annotations

import threading

from catena.server.rounds import Rounds
from catena.store.errors import DatabaseGone


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
