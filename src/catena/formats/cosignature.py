"""Cosignatures of checkpoints by witnesses (C2SP tlog-cosignature v1, Ed25519: kind 0x04).

======== ======================================================
bytes    what
======== ======================================================
0–7      POSIX time of signing, big-endian, at most 2**63 − 1
8–71     Ed25519 signature over ``message``
======== ======================================================

The signature says: at this time, this was the largest consistent tree of this log that the
witness had seen. Nothing here verifies it; ``audit.cosigned`` does.
"""

from __future__ import annotations

from dataclasses import dataclass

from catena.errors import FormatError
from catena.formats.reader import Reader

MAX_TIME = 2**63 - 1
TIME_SIZE = 8
SIGNATURE_SIZE = 64
_HEADER = "cosignature/v1"


@dataclass(frozen=True, slots=True)
class Cosignature:
    """What follows the key id in a witness's signature line: *untrusted* until verified.

    ``time`` in seconds since 1970.
    """

    time: int
    signature: bytes

    def encode(self) -> bytes:
        """The 72 bytes."""
        return self.time.to_bytes(TIME_SIZE, "big") + self.signature


def message(text: str, time: int) -> bytes:
    """What is signed over a note's text: it ends in a newline (section "Ed25519 signed message")."""
    return f"{_HEADER}\ntime {time}\n{text}".encode()


def parse(data: bytes) -> Cosignature:
    """Read a signature of kind 0x04, without the key id. Raises ``FormatError``."""
    reader = Reader(data, order="big")
    time = reader.uint(TIME_SIZE, "time")
    if time > MAX_TIME:
        raise FormatError("cosignature's time is out of range", expected=f"at most {MAX_TIME}")
    signature = reader.take(SIGNATURE_SIZE, "signature")
    reader.done("cosignature")
    return Cosignature(time, signature)
