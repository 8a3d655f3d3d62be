"""Request bodies: bounded in size while they stream, in time, and in sum.

A ``Content-Length`` is believed only when it already exceeds the limit; every byte is counted
anyway. All bodies that are read or wait for their decision share one budget, so that neither many
slow senders nor many queued requests can fill memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from starlette.requests import Request

from catena.server.faults import BodyTooLarge, BodyTooSlow, Busy


@dataclass(slots=True)
class BodyReader:
    """Reads bodies; ``limit`` and ``budget`` in bytes, ``timeout`` in seconds.

    Used from the event loop only, so the budget needs no lock.
    """

    limit: int
    budget: int
    timeout: float
    _held: int = field(default=0, init=False)

    @property
    def held(self) -> int:
        """Bytes held at this moment."""
        return self._held

    @asynccontextmanager
    async def reading(self, request: Request, limit: int | None = None) -> AsyncIterator[bytes]:
        """The whole body; its share of the budget is held for as long as the block uses it.

        Raises ``BodyTooLarge``, ``BodyTooSlow`` or ``Busy``.
        """
        bound = self.limit if limit is None else min(limit, self.limit)
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > bound:
            raise _too_large(bound)
        with self._share() as share:
            try:
                async with asyncio.timeout(self.timeout):
                    body = await self._stream(request, bound, share)
            except TimeoutError as error:
                raise BodyTooSlow(
                    "the request body took too long", expected=f"at most {self.timeout:g} s"
                ) from error
            yield body

    async def _stream(self, request: Request, bound: int, share: _Share) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            share.take(len(chunk))
            body += chunk
            if len(body) > bound:
                raise _too_large(bound)
        return bytes(body)

    @contextmanager
    def _share(self) -> Iterator[_Share]:
        share = _Share(self)
        try:
            yield share
        finally:
            self._held -= share.size


class _Share:
    """What one request holds of the budget."""

    __slots__ = ("_reader", "size")

    def __init__(self, reader: BodyReader) -> None:
        self._reader = reader
        self.size = 0

    def take(self, size: int) -> None:
        if self._reader._held + size > self._reader.budget:  # noqa: SLF001 - one class in two parts
            raise Busy("too many request bodies at once")
        self.size += size
        self._reader._held += size  # noqa: SLF001 - as above


def _too_large(bound: int) -> BodyTooLarge:
    return BodyTooLarge("the request body is too large", expected=f"at most {bound} bytes")
