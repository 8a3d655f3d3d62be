"""JSON that two readers cannot understand differently.

Go's ``encoding/json``, which the container runtimes read with, takes the last of two equal keys and
takes ``Args`` for ``args`` (it folds case, and Unicode's ``ſ`` and ``K`` as well). A reader
written in C ends a text at a NUL. So a document that is judged here and obeyed there must not
have a key twice, a key that differs from a known one by case alone, or a NUL.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping

from catena.errors import FormatError


class AmbiguousJson(FormatError):
    """A document that its readers may understand differently."""

    code = "ambiguous-json"
    remedy = "Write every key once, spelled as its specification spells it."


def read_once(
    data: bytes, what: str, refusal: Callable[[str], FormatError] = AmbiguousJson
) -> object:
    """The tree of ``data``, in which no object has a key twice and no text a NUL.

    Says nothing else about the document: a strict reader has to follow. Raises ``refusal``, or
    ``FormatError`` for what is no JSON.
    """

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        tree = dict(pairs)
        if len(tree) != len(pairs):
            raise refusal(f"{what} has a key twice: {_repeated(pairs)}")
        return tree

    if b"\\u0000" in data:
        raise refusal(f"{what} has a NUL in a text")
    try:
        tree: object = json.JSONDecoder(object_pairs_hook=once).decode(data.decode())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not JSON") from error
    return tree


class Spelling:
    """The names that an object may have, as they are spelled."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self.folded = frozenset(name.casefold() for name in self.names)


def check_spelling(
    tree: object,
    known: Spelling,
    what: str,
    refusal: Callable[[str], FormatError] = AmbiguousJson,
) -> None:
    """Refuse an object with a key that is one of ``known`` but for its case."""
    for key in tree if isinstance(tree, Mapping) else ():
        if key not in known.names and key.casefold() in known.folded:
            raise refusal(f"{what} has a key in another spelling: {key[:80]!a}")


def _repeated(pairs: list[tuple[str, object]]) -> str:
    seen = set[str]()
    for key, _ in pairs:
        if key in seen:
            return ascii(key[:80])
        seen.add(key)
    return ""
