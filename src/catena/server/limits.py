"""Bounds on connections that uvicorn does not set: time and size of a request's head.

uvicorn closes a connection that is idle *between* requests. This protocol also aborts one that
does not complete the head of a request in time, or sends a head without end, so that opening
connections and saying nothing, or one header byte a minute, neither uses up
``max_connections`` for long nor fills memory.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 * 1024


def bounded_protocol(head_timeout: float) -> type[HttpToolsProtocol]:  # noqa: C901 - one class with six short methods
    """Uvicorn's HTTP protocol with bounds on every request's head."""

    class BoundedProtocol(HttpToolsProtocol):
        """One connection. A deadline runs whenever the head of a request is awaited."""

        _deadline: asyncio.TimerHandle | None = None
        _head_size = 0

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
            if self._deadline is None:
                self._await_head()

        def on_headers_complete(self) -> None:
            """The head is here: whoever handles the request bounds the rest."""
            self._forget_head()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            """The connection ended by itself."""
            self._forget_head()
            super().connection_lost(exc)

        def _await_head(self) -> None:
            self._head_size = 0
            self._deadline = self.loop.call_later(head_timeout, self.transport.abort)

        def _forget_head(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return BoundedProtocol
