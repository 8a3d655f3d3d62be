"""JSON whose objects name no member twice.

Readers differ in which of two equal names they take, so a document with both says one thing to
who signs and another to who verifies (RFC 8259, section 4).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from catena.errors import FormatError

MAX_INPUT = 4 * 1024 * 1024
T = TypeVar("T")


def parse(data: bytes, kind: type[T], what: str) -> T:
    """Read ``kind`` from JSON. Raises ``FormatError`` that names ``what`` it should have been."""
    if len(data) > MAX_INPUT:
        raise FormatError(
            f"{what} is too large", expected=f"at most {MAX_INPUT}", got=f"{len(data)}"
        )
    try:
        document = msgspec.json.decode(data, type=kind)
        json.loads(data.decode(), object_pairs_hook=_unique)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise FormatError(f"not {what}: {ascii(str(error)[:200])[1:-1]}") from error
    return document


def _unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    names: dict[str, object] = {}
    for name, value in pairs:
        if name in names:
            raise ValueError(f"{name[:80]} stands twice in an object")
        names[name] = value
    return names
