"""HTTP/1.1 over TLS as the load generator speaks it: one request at a time on a connection that stays.

A library's client would cost more than the server it is to measure. Only what our own server sends is
understood: a status line, headers with Content-Length, a body.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from catena.errors import Unavailable

_END = b"\r\n\r\n"
_MAX_HEAD = 16_384
TIMEOUT = 60.0


class ServerSilent(Unavailable):
    """The server closed the connection, or did not answer in time."""

    code = "server-silent"
    remedy = "See what the trust service wrote to its standard error."


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of one response."""

    status: int
    body: bytes


class Connection(asyncio.Protocol):
    """One connection to the trust service."""

    def __init__(self, host: str) -> None:
        self._host = host.encode()
        self._received = bytearray()
        self._answer: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(cls, host: str, port: int, context: ssl.SSLContext) -> Connection:
        """Connect. Raises ``ServerSilent``."""
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: cls(host), host, port, ssl=context, server_hostname=host
            )
        except OSError as error:
            raise ServerSilent("cannot connect to the trust service", got=str(error)) from error
        return connection

    @property
    def gone(self) -> bool:
        """Whether the server has ended it, as it does after some idle seconds."""
        return self._gone.done()

    async def post(self, path: str, body: bytes) -> Answer:
        """Send a body and wait for the answer. Raises ``ServerSilent``."""
        if self._transport is None or self.gone:
            raise ServerSilent("the trust service closed the connection")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(
            b"POST %s HTTP/1.1\r\nhost: %s\r\ncontent-length: %d\r\n\r\n"
            % (path.encode(), self._host, len(body))
            + body
        )
        patience = asyncio.get_running_loop().call_later(TIMEOUT, self._abort)
        try:
            return await self._answer
        finally:
            patience.cancel()

    async def close(self) -> None:
        """End the connection at once."""
        self._abort()
        await self._gone

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what to write to."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Complete the answer, once all of it is there."""
        self._received += data
        end = self._received.find(_END)
        if end < 0:
            if len(self._received) > _MAX_HEAD:
                self._abort()
            return
        head = bytes(self._received[:end]).lower()
        size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self._received) < end + len(_END) + size:
            return
        body = bytes(self._received[end + len(_END) :])
        self._received.clear()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Answer(int(head[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits is told."""
        self._gone.set_result(None)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ServerSilent(f"the connection was lost: {exc}"))


@dataclass(frozen=True, slots=True)
class Target:
    """Where the trust service is."""

    urls: tuple[str, ...]
    context: ssl.SSLContext

    async def connect(self, number: int) -> Connection:
        """A connection to one of its servers. Raises ``ServerSilent``."""
        place = urlsplit(self.urls[number % len(self.urls)])
        return await Connection.open(place.hostname or "", place.port or 443, self.context)


@dataclass(slots=True)
class Line:
    """A connection to server ``number`` that is opened again when the server ended it."""

    target: Target
    number: int
    _connection: Connection | None = None

    async def post(self, path: str, body: bytes) -> Answer:
        """As ``Connection.post``."""
        if self._connection is None or self._connection.gone:
            self._connection = await self.target.connect(self.number)
        return await self._connection.post(path, body)

    async def close(self) -> None:
        """End it."""
        if self._connection is not None:
            await self._connection.close()
