"""Content by digest: the one thing that layouts, registries and content stores have in common."""

from __future__ import annotations

from typing import BinaryIO, Protocol

from catena.errors import NotFound, Refusal


class MissingBlob(NotFound):
    """Content that no source has."""

    code = "blob-missing"
    remedy = "Fetch the image: `catena container fetch IMAGE`."


class AlteredBlob(Refusal):
    """Content that does not hash to its digest."""

    code = "blob-altered"
    remedy = "Delete the damaged content and fetch the image again."


class Blobs(Protocol):
    """A source of content. Digests are ``sha256:`` and 64 hex digits."""

    def read(self, digest: str, limit: int) -> bytes:
        """The content, already checked. Raises ``MissingBlob``, ``AlteredBlob``, or ``FormatError`` beyond ``limit`` bytes."""

    def open(self, digest: str) -> BinaryIO:
        """The content as a stream, *unchecked*: who reads it to the end has to hash it. Raises ``MissingBlob``."""
