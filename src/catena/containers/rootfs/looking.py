"""What one identification works with, and what overlays and plain folders have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NoReturn

from catena.containers.rootfs import walk
from catena.containers.rootfs.catalog import Catalog, Chain
from catena.containers.rootfs.fingerprints import Contents, Fingerprints
from catena.containers.rootfs.fit import strangers
from catena.containers.rootfs.identity import RootIdentity, RootKind, RootRefused
from catena.containers.rootfs.mounts import MountTable, check_folder
from catena.containers.rootfs.nearest import NAMED
from catena.containers.rootfs.refusals import UnsteadyTree
from catena.containers.rootfs.tree import Tree


@dataclass(frozen=True, slots=True)
class Looking:
    """What one identification works with."""

    catalog: Catalog
    cache: Fingerprints
    listed: MountTable
    mounts: tuple[str, ...]
    strict: bool

    def contents(self, descriptor: int, marks: str | None, *, fresh: bool = False) -> Contents:
        """What a folder holds."""
        return self.cache.contents(descriptor, marks, fresh=fresh or self.strict)

    def folder(self, place: Path, marks: str) -> Folder:
        """A lower folder."""
        with walk.opened(place) as descriptor:
            check_folder(descriptor, self.listed)
            return Folder(self, place, marks, self.contents(descriptor, marks))

    def faults(
        self, question: tuple[object, ...], find: Callable[[], Iterable[bytes]]
    ) -> tuple[bytes, ...]:
        """The first paths at fault. What fits once fits for good, and is not asked again."""
        if self.catalog.memory.recall(question):
            return ()
        paths = tuple(islice(find(), NAMED + 1))
        if not paths:
            self.catalog.memory.keep(question, answer=True)
        return paths


@dataclass(frozen=True, slots=True)
class Folder:
    """A lower folder and what it holds."""

    looking: Looking
    place: Path
    marks: str | None
    contents: Contents

    def tree(self) -> Tree:
        """Its files, read again if only their digest is known."""
        if self.contents.tree is not None:
            return self.contents.tree
        with walk.opened(self.place) as descriptor:
            again = self.looking.contents(descriptor, self.marks, fresh=True)
        if again.digest != self.contents.digest or again.tree is None:
            raise UnsteadyTree("files changed while they were compared")
        return again.tree


def by_files(looking: Looking, folder: Folder) -> list[Chain]:
    """The images that have these files."""
    fitting = []
    for chain in looking.catalog.chains():
        question = ("whole", *chain.diff_ids, folder.contents.digest, looking.mounts)
        find = partial(_strangers, looking, chain, folder)
        if chain.core == folder.contents.core and not looking.faults(question, find):
            fitting.append(chain)
    return fitting


def _strangers(looking: Looking, chain: Chain, folder: Folder) -> Iterator[bytes]:
    return strangers(looking.catalog.whole(chain), folder.tree(), looking.mounts)


def identity_of(kind: RootKind, chains: list[Chain], hashed: int) -> RootIdentity:
    """The result. Several chains differ in what is not compared, such as times."""
    return RootIdentity(
        kind=kind,
        layers=chains[0].diff_ids,
        tree=chains[0].tree,
        images=tuple(sorted({image for chain in chains for image in chain.images})),
        hashed=hashed,
    )


def refuse(catalog: Catalog, question: tuple[object, ...], error: RootRefused) -> NoReturn:
    """Raise ``error``, and remember it: a container that is restarted again and again is not
    hashed and explained each time.
    """
    catalog.refused.keep(question, error)
    refuse_again(catalog, question)
    raise error


def refuse_again(catalog: Catalog, question: tuple[object, ...]) -> None:
    """Raise what the same files were refused with, as long as no more is known.

    A copy: an error that was raised holds on to everything that was in sight.
    """
    error = catalog.refused.recall(question)
    if isinstance(error, RootRefused):
        raise type(error)(error.message, expected=error.expected, got=error.got)
