"""The log's new entries for many listeners: who waits, who reads, and when all of them leave.

A listener reads the log's own files from the entry that it wants next, so that any server with the same log can go on
where another one stopped. Waiting costs no thread; an append wakes all, and every ``LOOK`` seconds the log is read
again, because another server may have written to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from catena.audit import checkpoint as checkpoints
from catena.audit.hashes import read_bundle, read_checkpoint
from catena.audit.leaf import open_entry
from catena.audit.reader import LogReader
from catena.audit.tiles import TILE_WIDTH
from catena.errors import Unavailable
from catena.keys.signer import PublicKey
from catena.server.logevent import LogEvent, event_of

LOOK = 1.0


class TooManyListeners(Unavailable):
    """As many follow the events of this server as it allows."""

    code = "too-many-listeners"
    remedy = "Ask another server, end a stream that nobody reads, or raise `max_listeners`."


class Feed:
    """A log's entries. ``wake`` is for any thread, ``wait`` and ``listening`` for the event loop."""

    def __init__(self, log: LogReader, key: PublicKey, origin: str, listeners: int) -> None:
        self._log = log
        self._key = key
        self._origin = origin
        self._free = listeners
        self._waiting: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._lock = threading.Lock()  # guards ``_waiting``, for the time of a copy
        self._stopped = False

    @property
    def origin(self) -> str:
        """The log's name."""
        return self._origin

    @property
    def stopped(self) -> bool:
        """Whether every listener has to leave."""
        return self._stopped

    def stop(self) -> None:
        """Let everybody leave: the server ends."""
        self._stopped = True
        self.wake()

    def wake(self) -> None:
        """The log has grown."""
        with self._lock:
            waiting = list(self._waiting.items())
        for event, loop in waiting:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and who waited with it
                loop.call_soon_threadsafe(event.set)

    @contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """A listener's place, with what wakes it. Raises ``TooManyListeners``."""
        if not self._free:
            raise TooManyListeners("too many listeners")
        self._free -= 1
        woken = asyncio.Event()
        with self._lock:
            self._waiting[woken] = asyncio.get_running_loop()
        try:
            yield woken
        finally:
            with self._lock:
                del self._waiting[woken]
            self._free += 1

    def size(self) -> int:
        """How many entries the log has. Raises ``LogInconsistent`` or ``LogUnreadable``."""
        checkpoint = checkpoints.verify(read_checkpoint(self._log), self._key, origin=self._origin)
        return checkpoint.size

    def read(self, start: int) -> list[LogEvent]:
        """The entries from ``start`` on, verified; at most a bundle of them. Raises as ``size``."""
        size = self.size()
        if start >= size:
            return []
        bundle, skipped = divmod(start, TILE_WIDTH)
        leaves = read_bundle(self._log, bundle, size)[skipped:]
        return [
            event_of(self._origin, number, open_entry(leaf, self._key))
            for number, leaf in enumerate(leaves, start)
        ]
