"""Request bodies: bounded in size while they stream, in time, and in sum.

A ``Content-Length`` is believed only when it already exceeds the limit; every byte is counted
anyway. All bodies that are read or wait for their decision share one budget, so that neither many
slow senders nor many queued requests can fill memory.
"""

from __future__ import annotations

import asyncio
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

    def reading(self, request: Request, limit: int | None = None) -> _Reading:
        """The whole body; its share of the budget is held for as long as the block uses it.

        Entering raises ``BodyTooLarge``, ``BodyTooSlow`` or ``Busy``.
        """
        return _Reading(self, request, self.limit if limit is None else min(limit, self.limit))


class _Reading:
    """One request's body, and what it holds of the budget."""

    __slots__ = ("_bound", "_reader", "_request", "_size")

    def __init__(self, reader: BodyReader, request: Request, bound: int) -> None:
        self._reader = reader
        self._request = request
        self._bound = bound
        self._size = 0

    async def __aenter__(self) -> bytes:
        declared = self._request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._bound:
            raise _too_large(self._bound)
        try:
            async with asyncio.timeout(self._reader.timeout):
                return await self._stream()
        except TimeoutError as error:
            self._give_back()
            raise BodyTooSlow(
                "the request body took too long", expected=f"at most {self._reader.timeout:g} s"
            ) from error
        except BaseException:
            self._give_back()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._give_back()

    async def _stream(self) -> bytes:
        body = bytearray()
        async for chunk in self._request.stream():
            self._take(len(chunk))
            body += chunk
            if len(body) > self._bound:
                raise _too_large(self._bound)
        return bytes(body)

    def _take(self, size: int) -> None:
        if self._reader._held + size > self._reader.budget:  # noqa: SLF001 - one class in two parts
            raise Busy("too many request bodies at once")
        self._size += size
        self._reader._held += size  # noqa: SLF001 - as above

    def _give_back(self) -> None:
        self._reader._held -= self._size  # noqa: SLF001 - as above
        self._size = 0


def _too_large(bound: int) -> BodyTooLarge:
    return BodyTooLarge("the request body is too large", expected=f"at most {bound} bytes")
