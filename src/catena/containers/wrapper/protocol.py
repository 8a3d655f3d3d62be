r"""What the wrapper and the gate say to each other: one frame each way, over a Unix socket.

A frame is a length (u32, big-endian, at most ``MAX_FRAME``) and that many bytes: fields, with a
NUL between two. No path and no argument can hold a NUL, so there is nothing to escape.

=========  ===============================================================================
request    ``catena-gate/1`` · working folder · real runtime · the words behind ``runc``
answer     ``allow`` · real runtime · the words to run it with
answer     ``deny`` · code · message
=========  ===============================================================================

``gate-client.c`` holds the same constants; a test compares them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from catena.errors import CatenaError, FormatError

MAGIC = b"catena-gate/1"
MAX_FRAME = 1 << 20
MAX_WORDS = 16384
LENGTH = 4
_ALLOW = b"allow"
_DENY = b"deny"
_MAX_MESSAGE = 1500
"""Bytes of a message; longer ones are cut, whoever prints them has narrow lines."""


class BadRequest(FormatError):
    """A request that is not what the wrapper sends."""

    code = "gate-request-malformed"
    remedy = "Install the wrapper and the gate of one version: `catena container install`."


@dataclass(frozen=True, slots=True)
class Request:
    """One call of the wrapper; ``words`` are its arguments, as the caller gave them."""

    folder: Path
    runtime: Path
    words: tuple[str, ...]

    def encode(self) -> bytes:
        """The request's fields, without the length."""
        fields = (os.fspath(self.folder), os.fspath(self.runtime), *self.words)
        return b"\0".join((MAGIC, *map(os.fsencode, fields)))


def parse_request(data: bytes) -> Request:
    """Read a request. Raises ``BadRequest``."""
    if len(data) > MAX_FRAME:
        raise BadRequest("request is too long", expected=f"at most {MAX_FRAME} bytes")
    if data.count(b"\0") > MAX_WORDS:
        raise BadRequest("request has too many words", expected=f"at most {MAX_WORDS}")
    magic, *fields = data.split(b"\0")
    if magic != MAGIC:
        raise BadRequest(
            "not a request to the gate", expected=MAGIC.decode(), got=ascii(magic[:32])
        )
    if len(fields) < 3:
        raise BadRequest("request lacks fields", expected="folder, runtime, words")
    folder, runtime, *words = map(os.fsdecode, fields)
    if not (folder.startswith("/") and runtime.startswith("/")):
        raise BadRequest("request names no absolute paths", got=ascii(f"{folder} {runtime}"[:80]))
    return Request(Path(folder), Path(runtime), tuple(words))


def allow(runtime: Path, words: Sequence[str]) -> bytes:
    """The answer to what may start: exactly this command line."""
    return b"\0".join((_ALLOW, os.fsencode(runtime), *map(os.fsencode, words)))


def deny(error: CatenaError) -> bytes:
    """The answer to what may not; in ASCII, so that every engine's log can show it."""
    message = str(error).replace("\0", " ").encode("ascii", "backslashreplace")[:_MAX_MESSAGE]
    return b"\0".join((_DENY, error.code.encode(), message))


def frame(data: bytes) -> bytes:
    """The bytes on the socket."""
    return len(data).to_bytes(LENGTH, "big") + data
