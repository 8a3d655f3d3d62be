"""The access log: one JSON line per request on standard error.

JSON escapes what a client sent; every field that a client chose is also bounded. Bodies,
headers and query strings never appear.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from catena.server import requestid

_MAX_FIELD = 200

Write = Callable[[str], object]
Count = Callable[[Scope, int, float], object]
"""Takes a request, its status and its seconds."""


class AccessLine(msgspec.Struct, frozen=True, kw_only=True):
    """One answered request."""

    at: str
    event: str = "request"
    method: str
    path: str
    status: int
    ms: float
    peer: str
    request: str
    """The request's id, as the answer has it."""
    code: str | None = None


class FaultLine(msgspec.Struct, frozen=True, kw_only=True):
    """Something that went wrong on our side; ``detail`` is for the operator alone."""

    at: str
    event: str = "fault"
    code: str
    detail: str
    request: str | None = None


class AccessLog:
    """ASGI middleware around the whole application; ``count`` is told of each request, too."""

    def __init__(
        self,
        app: ASGIApp,
        write: Write,
        random: Callable[[int], bytes],
        count: Count | None = None,
    ) -> None:
        self._app = app
        self._write = write
        self._names = requestid.Names(random)
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Name the request, pass it through, and write its line."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        called = self._names.name(scope)
        started = time.perf_counter()
        status = 500

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (requestid.RAW_HEADER, called.encode())]
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            seconds = time.perf_counter() - started
            write_line(self._write, _access_line(scope, status, round(seconds * 1000, 2)))
            if self._count is not None:
                self._count(scope, status, seconds)


def write_line(write: Write, line: AccessLine | FaultLine) -> None:
    """Write one line; JSON keeps it on one line whatever a client sent."""
    write(ascii_json(line) + "\n")


def ascii_json(line: msgspec.Struct) -> str:
    """JSON in ASCII: no character of a client reaches a terminal as it is."""
    text = msgspec.json.encode(line).decode()
    return text if text.isascii() and text.isprintable() else _escape(text)


def to_stderr(text: str) -> None:
    """The default sink."""
    sys.stderr.write(text)
    sys.stderr.flush()


def timestamp() -> str:
    """Now, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _access_line(scope: Scope, status: int, elapsed: float) -> AccessLine:
    client = scope.get("client")
    return AccessLine(
        at=timestamp(),
        method=scope["method"][:16],
        path=scope["path"][:_MAX_FIELD],
        status=status,
        ms=elapsed,
        peer=f"{client[0]}:{client[1]}" if client else "-",
        request=requestid.request_id(scope),
        code=scope.get("catena.code"),
    )


def _escape(text: str) -> str:
    """JSON's own escapes for all that is not printable ASCII (RFC 8259, section 7)."""
    utf16 = text.encode("utf-16-be", "replace")
    units = (int.from_bytes(utf16[at : at + 2], "big") for at in range(0, len(utf16), 2))
    return "".join(chr(unit) if 0x20 <= unit < 0x7F else f"\\u{unit:04x}" for unit in units)
