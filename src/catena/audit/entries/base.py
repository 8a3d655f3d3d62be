"""What all entries have in common, and the limits of their fields."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

import msgspec

from catena.formats.nodeapi import Hex256

MAX_TEXT = 256

Word = Annotated[str, msgspec.Meta(max_length=253)]
Words = Annotated[tuple[Word, ...], msgspec.Meta(max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Digests = Annotated[tuple[Hex256, ...], msgspec.Meta(max_length=64)]


class EntryBase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all entries. Each kind adds ``subjects()``, what was decided about, and
    ``summary()``, one line for a person that may hold text to be escaped on a terminal.
    """

    kind: ClassVar[str]
    personal: ClassVar[tuple[str, ...]] = ("actor",)
    """Fields that may name a person, and then hold a pseudonym (``audit.people``)."""

    at: datetime
    actor: Word

    @classmethod
    def predicate_type(cls) -> str:
        """The predicate's type URI."""
        return f"urn:catena:audit:{cls.kind}:v1"


def cut(text: str) -> str:
    """Text cut to what an entry's text field may hold."""
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def sha256(digest: str) -> dict[str, str]:
    """A digest as a Statement's subject has it."""
    return {"sha256": digest}
