"""I-JSON documents (RFC 7493): JSON of which no two readers can see different things.

A name that occurs twice in one object (section 2.3) is an error here, because readers disagree on
which of the two counts: one verifies the first, another runs the second. So are unpaired
surrogates, numbers that are none, and anything behind the document. Unknown members are for the
struct that is asked for to allow or forbid.
"""

from __future__ import annotations

import json
from typing import Never, TypeVar

import msgspec

from catena.errors import FormatError

T = TypeVar("T")


def decode(data: bytes, kind: type[T], *, limit: int, what: str) -> T:
    """One document of at most ``limit`` bytes as ``kind``. Raises ``FormatError``."""
    if len(data) > limit:
        raise FormatError(f"{what} is too large", expected=f"at most {limit}", got=f"{len(data)}")
    try:
        value = msgspec.json.decode(data, type=kind)
        json.loads(data, object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:  # msgspec's and json's are ValueErrors
        raise FormatError(f"not {_article(what)}: {str(error)[:200]}") from error
    return value


def _unique(members: list[tuple[str, object]]) -> None:
    """Only the names count: nothing is built."""
    names = {name for name, _ in members}
    if len(names) != len(members):
        raise ValueError("a name occurs twice")


def _no_number(word: str) -> Never:
    raise ValueError(f"{word} is no number")


def _article(what: str) -> str:
    return f"an {what}" if what[0] in "aeiouAEIOU" else f"a {what}"
