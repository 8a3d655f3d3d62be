"""What a root file system was found to be."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from catena.errors import Refusal
from catena.ids import DiffId, ImageDigest, TreeDigest


class RootKind(StrEnum):
    """How the runtime keeps the files."""

    OVERLAY = "overlay"
    DIRECTORY = "directory"


class RootRefused(Refusal):
    """The files are not those of a known image. Subclasses say what differs."""

    code = "root-refused"
    remedy = "Remove the unpacked image and pull it again; find out who changed it."


@dataclass(frozen=True, slots=True)
class RootIdentity:
    """Proven: the files at the container's root are those of ``layers``, bottom first.

    ``tree`` is the digest over all of it, which records carry; it is the same whichever way the files
    are stored. ``images`` are the known images with exactly these files, at least one: of two that differ only
    in times, or (in a plain folder) in how files are spread over layers, both are named, and ``layers``
    are those of the one whose DiffIDs sort first. ``hashed`` says how many bytes had to be read.
    """

    kind: RootKind
    layers: tuple[DiffId, ...]
    tree: TreeDigest
    images: tuple[ImageDigest, ...]
    hashed: int
