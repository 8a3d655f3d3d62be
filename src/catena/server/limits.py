"""Bounds on connections that uvicorn does not set: a request's head, and a client that does not read.

uvicorn closes a connection that is idle *between* requests. This protocol also aborts one that
does not complete the head of a request in time, sends a head without end, or takes nothing of an
answer that waits for it: opening connections and saying nothing, one header byte a minute, or
asking and not listening, neither uses up ``max_connections`` for long nor fills memory.

How long a body may take is ``body.BodyReader``'s, how long a request may wait is ``answer.Desk``'s.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 * 1024
HEADER_COST = 32
"""Bytes that each header counts for besides its own."""


class HeadTooLarge(ValueError):
    """Tells the parser to stop: the answer is 400, and the connection ends."""


def bounded_protocol(head_timeout: float) -> type[HttpToolsProtocol]:  # noqa: C901 - one class with ten short methods
    """Uvicorn's HTTP protocol with bounds on every request's head."""

    class BoundedProtocol(HttpToolsProtocol):
        """One connection. A deadline runs whenever the head of a request is awaited."""

        _deadline: asyncio.TimerHandle | None = None
        _stalled: asyncio.TimerHandle | None = None
        _head_size = 0
        _fields_size = 0

        def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - uvicorn's signature
            """Await the first head."""
            super().connection_made(transport)
            self._await_head()

        def data_received(self, data: bytes) -> None:
            """Count the bytes of a head that is not complete yet."""
            super().data_received(data)
            if self._deadline is not None:
                self._head_size += len(data)
                if self._head_size > MAX_HEAD:
                    self.transport.abort()

        def on_message_begin(self) -> None:
            """A further request on the same connection awaits its head, too."""
            super().on_message_begin()
            self._fields_size = 0
            if self._deadline is None:
                self._await_head()

        def on_url(self, url: bytes) -> None:
            """A part of the target."""
            self._count(len(url))
            super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            """One header: a head that came in one piece has its limit, too."""
            self._count(len(name) + len(value) + HEADER_COST)
            super().on_header(name, value)

        def pause_writing(self) -> None:
            """The client does not read: it has as long to go on as for a head."""
            super().pause_writing()
            self._stalled = self.loop.call_later(head_timeout, self.transport.abort)

        def resume_writing(self) -> None:
            """It reads again."""
            super().resume_writing()
            self._forget_stall()

        def on_headers_complete(self) -> None:
            """The head is here: whoever handles the request bounds the rest."""
            self._forget_head()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            """The connection ended by itself."""
            self._forget_head()
            self._forget_stall()
            super().connection_lost(exc)

        def _await_head(self) -> None:
            self._head_size = self._fields_size = 0
            self._deadline = self.loop.call_later(head_timeout, self.transport.abort)

        def _forget_head(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _forget_stall(self) -> None:
            if self._stalled is not None:
                self._stalled.cancel()
                self._stalled = None

        def _count(self, size: int) -> None:
            self._fields_size += size
            if self._fields_size > MAX_HEAD:
                raise HeadTooLarge

    return BoundedProtocol
