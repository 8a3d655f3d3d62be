from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from catena.containers.record.batches import MAX_BATCH, Batches
from catena.containers.record.failure import RecorderStopped, RecordFull
from living import await_that
from small_records import deny


class Held:
    """A commit that waits until it is let go; ``seen`` are the sizes of its batches."""

    def __init__(self, settle=lambda ticket: ticket.settle()) -> None:
        self.seen, self.settle, self.let_go = [], settle, threading.Event()

    def __call__(self, batch) -> None:
        self.seen.append(len(batch))
        assert self.let_go.wait(10)
        for ticket in batch:
            self.settle(ticket)


def submit_while_held(commit, count):
    """Submit ``count`` events, of which one commits and the rest wait; then let go."""
    batches = Batches(commit)
    with ThreadPoolExecutor(count) as pool:
        done = [pool.submit(batches.submit, deny()) for _ in range(count)]
        await_that(lambda: commit.seen and len(batches._waiting) == count - 1, "others wait")
        commit.let_go.set()
        return [one.exception() for one in done]


def test_a_lone_event_is_committed_in_the_callers_thread():
    threads = []

    def commit(batch):
        threads.append(threading.get_ident())
        for ticket in batch:
            ticket.settle()

    Batches(commit).submit(deny())
    assert threads == [threading.get_ident()]


def test_who_waits_goes_with_the_next_batch():
    commit = Held()
    assert submit_while_held(commit, 10) == [None] * 10
    assert commit.seen == [1, 9]


def test_batches_are_bounded_and_everybody_is_served():
    commit = Held()
    assert submit_while_held(commit, 2 * MAX_BATCH + 2) == [None] * (2 * MAX_BATCH + 2)
    assert commit.seen == [1, MAX_BATCH, MAX_BATCH, 1]


def test_who_was_refused_is_told():
    commit = Held(lambda ticket: ticket.settle(RecordFull("full")))
    said = submit_while_held(commit, 5)
    assert {type(one) for one in said} == {RecordFull}


def test_a_commit_that_breaks_leaves_nobody_waiting():
    commit = Held(lambda ticket: 1 / 0)
    said = submit_while_held(commit, 5)
    assert {type(one) for one in said} == {ZeroDivisionError, RecorderStopped}
    assert sum(isinstance(one, ZeroDivisionError) for one in said) == 2


def test_a_commit_that_forgets_a_ticket_has_not_committed_it():
    with pytest.raises(RecorderStopped):
        Batches(lambda batch: None).submit(deny())


def test_who_is_settled_early_does_not_wait_for_the_rest_of_its_batch():
    answered, commit = threading.Event(), Held()

    def settle(ticket):
        if ticket.event.container == "late":
            assert answered.wait(10)
        ticket.settle()

    commit.settle = settle
    batches = Batches(commit)

    def early():
        batches.submit(deny())
        answered.set()

    with ThreadPoolExecutor(4) as pool:
        done = []
        for count, one in enumerate(
            (
                lambda: batches.submit(deny()),  # commits alone
                lambda: batches.submit(deny()),  # commits the next batch
                early,
                lambda: batches.submit(deny(container="late")),
            )
        ):
            done.append(pool.submit(one))
            await_that(
                lambda n=count: commit.seen and len(batches._waiting) == n, "all before wait"
            )
        commit.let_go.set()
        assert [one.exception() for one in done] == [None] * 4
    assert commit.seen == [1, 3]
