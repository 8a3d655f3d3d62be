"""Waiting for one commit together: who comes while another commits waits, and goes with the next.

The first to come commits, in its own thread; all that came meanwhile make the next batch, which
the first of them commits. So nobody waits for more than the batch before its own, a lone caller
changes no thread, and at most one commits at any time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from catena.containers.record.failure import RecorderStopped
from catena.errors import CatenaError
from catena.formats.containerlog import ContainerEvent

MAX_BATCH = 64


class Ticket:
    """One event that waits; ``settled`` when it is committed or refused."""

    __slots__ = ("_error", "_woken", "event", "settled")

    def __init__(self, event: ContainerEvent) -> None:
        self.event = event
        self.settled = False
        self._error: CatenaError | None = None
        self._woken = threading.Event()

    def settle(self, error: CatenaError | None = None) -> None:
        """Answer who waits; the first answer counts."""
        if not self.settled:
            self._error = error
            self.settled = True
        self._woken.set()

    def lead(self) -> None:
        """Make who waits commit the next batch."""
        self._woken.set()

    def wait(self) -> None:
        """Wait until settled, or chosen to lead."""
        self._woken.wait()

    def answer(self) -> None:
        """Raise what the event was refused for, if it was."""
        if self._error is not None:
            raise self._error


class Batches:
    """Calls ``commit`` with up to ``MAX_BATCH`` tickets, which it has to settle, one call at a time."""

    def __init__(self, commit: Callable[[list[Ticket]], None]) -> None:
        self._commit = commit
        self._lock = threading.Lock()
        """Guards ``_waiting`` and ``_busy``; never held while committing."""
        self._waiting: list[Ticket] = []
        self._busy = False

    def submit(self, event: ContainerEvent) -> None:
        """Have ``event`` committed. Raises what it was refused for."""
        ticket = Ticket(event)
        with self._lock:
            self._waiting.append(ticket)
            leads, self._busy = not self._busy, True
        if not leads:
            ticket.wait()
        if not ticket.settled:
            self._lead()
        ticket.answer()

    def _lead(self) -> None:
        with self._lock:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
        try:
            self._commit(batch)
        finally:
            for ticket in batch:
                ticket.settle(RecorderStopped("the recorder was interrupted"))
            self._pass_on()

    def _pass_on(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting[0].lead()
            else:
                self._busy = False
