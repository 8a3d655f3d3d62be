from __future__ import annotations

from catena.errors import Refusal
from catena.service.denials import Denials
from service.fixtures import Clock

DIGEST = "ab" * 32
NODE = "5a" * 32


class Written:
    """Stands where the journal is, to count: the real one is used by the other tests."""

    def __init__(self) -> None:
        self.entries = []

    def record(self, *entries):
        self.entries += entries


def denials(burst=3, refill=5.0):
    clock, written = Clock(), Written()
    return Denials(written, clock, burst=burst, refill=refill), clock, written.entries


def test_each_denial_is_logged_while_there_is_budget():
    book, _, entries = denials()
    for _ in range(3):
        book.record("attest", DIGEST, Refusal("no"), NODE)
    assert [(entry.request, entry.code, entry.node_id) for entry in entries] == [
        ("attest", "refused", NODE)
    ] * 3


def test_a_flood_of_denials_does_not_fill_the_log():
    book, _, entries = denials()
    for _ in range(1000):
        book.record("attest", DIGEST, Refusal("no"), NODE)
    assert len(entries) == 3


def test_the_next_logged_denial_says_how_many_were_not():
    book, clock, entries = denials()
    for _ in range(10):
        book.record("attest", DIGEST, Refusal("no"), NODE)
    clock.pass_(5)
    book.record("attest", DIGEST, Refusal("no"), NODE)
    assert entries[-1].message == "no (7 earlier refusals were not logged)"


def test_a_clock_that_goes_back_gives_no_budget():
    book, clock, entries = denials(burst=1)
    book.record("attest", DIGEST, Refusal("no"), NODE)
    clock.pass_(-1000)
    book.record("attest", DIGEST, Refusal("no"), NODE)
    assert len(entries) == 1


def test_a_denial_never_carries_what_was_got():
    book, _, entries = denials()
    book.record("attest", DIGEST, Refusal("no", got="from the node"), NODE)
    assert "from the node" not in entries[0].message
