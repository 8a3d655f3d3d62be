r"""Proofs that travel alone: an entry is in a log (C2SP tlog-proof).

==============  =============================================================
``c2sp.org/tlog-proof@v1``
``extra`` data   optional, base64; here the entry itself, *unauthenticated*
                until its hash is proven to be in the tree
``index`` N      zero-based, decimal
hashes           base64, one per line, from the leaf's sibling up
(blank)
checkpoint       a signed note, verbatim
==============  =============================================================

Parsing is strict: whatever would not be written the same way again is refused. Nothing here
verifies; ``audit.receipt`` does.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from catena.errors import FormatError
from catena.formats.note import HASH_SIZE, MAX_NOTE, MAX_TREE_SIZE

HEADER = "c2sp.org/tlog-proof@v1"
MAX_HASHES = 63
MAX_EXTRA = 0xFFFF
MAX_PROOF = MAX_NOTE + 4 * (MAX_EXTRA // 3 + 1) + 64 * (MAX_HASHES + 3)
_INDEX = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class TlogProof:
    """One proof: *untrusted* until verified. ``extra`` is None where there is no such line."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: str
    extra: bytes | None = None

    def encode(self) -> str:
        """The text; ``parse`` gives it back."""
        extra = "" if self.extra is None else f"extra {_base64(self.extra)}\n"
        hashes = b"".join(map(binascii.b2a_base64, self.hashes)).decode()  # a line each
        return f"{HEADER}\n{extra}index {self.index}\n{hashes}\n{self.checkpoint}"


def parse(data: bytes) -> TlogProof:
    """Read a proof. Raises ``FormatError``; the checkpoint is not looked into."""
    if len(data) > MAX_PROOF:
        raise FormatError("proof is too large", expected=f"at most {MAX_PROOF} bytes")
    try:
        head, blank, checkpoint = data.decode().partition("\n\n")
    except UnicodeDecodeError as error:
        raise FormatError("proof is not UTF-8", offset=error.start) from error
    header, *lines = head.split("\n")
    if header != HEADER:
        raise FormatError("not a tlog-proof", expected=HEADER, got=ascii(header[:60]))
    extra = _unbase64(lines.pop(0)[6:]) if lines and lines[0].startswith("extra ") else None
    if not blank or not lines or not lines[0].startswith("index "):
        raise FormatError("proof has no index, or no end")
    if len(lines) - 1 > MAX_HASHES:
        raise FormatError("proof has too many hashes", expected=f"at most {MAX_HASHES}")
    if extra is not None and len(extra) > MAX_EXTRA:
        raise FormatError("proof's extra data is too long", expected=f"at most {MAX_EXTRA} bytes")
    hashes = tuple(map(_unbase64, lines[1:]))
    if any(len(one) != HASH_SIZE for one in hashes):
        raise FormatError("proof holds something that is no hash", expected=f"{HASH_SIZE} bytes")
    return TlogProof(_index(lines[0][6:]), hashes, checkpoint, extra)


def _index(text: str) -> int:
    if not _INDEX.fullmatch(text) or int(text) > MAX_TREE_SIZE:
        raise FormatError("proof's index is no number", got=ascii(text[:40]))
    return int(text)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unbase64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError("proof has a line that is no base64") from error
    if _base64(data) != text:
        raise FormatError("proof has base64 in another spelling")
    return data
