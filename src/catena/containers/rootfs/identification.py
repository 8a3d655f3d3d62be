"""From a container's root back to the image that its files are, by content alone.

1. The root is an absolute folder without links on the way, on a local file system, with nothing
   mounted inside and no mapping of owners.
2. If an overlay is mounted there: each lower folder's files are those of a layer, and the layers, bottom
   first, are those of a known image. Layers without files do not count: storage drivers
   keep or drop them. The upper folder holds only what runtimes put there before the start.
3. Otherwise its files are those of a known image with all layers applied, and what runtimes add.
4. ``strict``: everything is hashed again, and an overlay's files once more *through the mount*, as
   the container will see them; without it the names in the mount's options are believed.

What is not proven: that nothing changes between this and the start, or later. On a running system only
the host's root can do that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NoReturn

from catena.containers.rootfs import tree as trees
from catena.containers.rootfs import walk
from catena.containers.rootfs.catalog import NOTHING, Catalog, Chain
from catena.containers.rootfs.fingerprints import Contents, Fingerprints
from catena.containers.rootfs.fit import additions, differences, strangers
from catena.containers.rootfs.identity import RootIdentity, RootKind, RootRefused
from catena.containers.rootfs.mounts import (
    Mount,
    Overlay,
    check_folder,
    mount_of,
    overlay_of,
    parse_mounts,
)
from catena.containers.rootfs.nearest import (
    NAMED,
    altered,
    names,
    refuse_layer,
    refuse_whole,
)
from catena.containers.rootfs.refusals import (
    ForeignMount,
    UnknownLayers,
    UnsteadyTree,
    WrittenUpper,
)
from catena.containers.rootfs.tree import Tree
from catena.ids import TreeDigest

MAX_UPPER = 4096


def identify(
    root: Path,
    *,
    mountinfo: str,
    catalog: Catalog,
    cache: Fingerprints,
    strict: bool,
    mounts: Collection[str] = (),
) -> RootIdentity:
    """Which image the files at ``root`` are.

    ``mountinfo`` is this process's own; ``mounts`` are the places that the container's configuration
    mounts on, where empty files and folders may be left from an earlier start. Raises a
    ``RootRefused``.
    """
    listed = parse_mounts(mountinfo)
    with walk.opened(root) as descriptor:
        if Path(f"/proc/self/fd/{descriptor}").readlink() != root:
            raise ForeignMount("the root is not named by its own path", got=ascii(str(root)[-128:]))
        check_folder(descriptor, listed)
        mount = mount_of(descriptor, listed)
        looking = _Looking(catalog, cache, listed, tuple(sorted(mounts)), strict)
        if mount.type == "overlay" and mount.root == "/" and mount.point == str(root):
            return _overlay(looking, descriptor, overlay_of(mount))
        return _directory(looking, descriptor)


@dataclass(frozen=True, slots=True)
class _Looking:
    """What one identification works with."""

    catalog: Catalog
    cache: Fingerprints
    listed: tuple[Mount, ...]
    mounts: tuple[str, ...]
    strict: bool

    def contents(self, descriptor: int, marks: str | None, *, fresh: bool = False) -> Contents:
        """What a folder holds."""
        return self.cache.contents(descriptor, marks, fresh=fresh or self.strict)

    def folder(self, place: Path, marks: str) -> _Folder:
        """A lower folder."""
        with walk.opened(place) as descriptor:
            check_folder(descriptor, self.listed)
            return _Folder(self, place, marks, self.contents(descriptor, marks))

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
class _Folder:
    """A lower folder and what it holds."""

    looking: _Looking
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


# Overlays ----------------------------------------------------------------------------------


def _overlay(looking: _Looking, descriptor: int, overlay: Overlay) -> RootIdentity:
    lowers = [looking.folder(one, overlay.marks) for one in overlay.lowers]
    filled = [one for one in lowers if one.contents.outline != NOTHING]
    chains, tops = _image_of(looking, filled)
    for top in tops:
        _check_top(looking, chains[0], top.contents.digest, top.tree)
    if overlay.upper is not None:
        upper = _upper(looking, overlay.upper, overlay.marks)
        _check_top(looking, chains[0], trees.digest(upper), lambda: upper)
    hashed = sum(one.contents.hashed for one in lowers)
    if looking.strict:
        hashed += _check_view(looking, chains[0], descriptor)
    return _identity(RootKind.OVERLAY, chains, hashed)


def _image_of(looking: _Looking, lowers: list[_Folder]) -> tuple[list[Chain], list[_Folder]]:
    """The known images whose layers these are, and lower folders that lie on top of them.

    Docker puts its mount points into a lower folder of their own; `podman run --rootfs DIR:O` has an
    unpacked image as its only one. Raises ``AlteredLayer`` or ``UnknownLayers``.
    """
    question = ("lowers", *(one.contents.digest for one in lowers))
    _refuse_again(looking.catalog, question)
    chains, faults = _by_layers(looking, lowers)
    if not chains and not faults and len(lowers) > 1:
        chains, _ = _by_layers(looking, lowers[:-1])
        if chains:
            return chains, lowers[-1:]
    if not chains and not faults and len(lowers) == 1:
        chains = _by_files(looking, lowers[0])
    if not chains:
        error = altered("a known image", faults) if faults else _unknown(looking, lowers)
        _refuse(looking.catalog, question, error)
    return chains, []


def _by_layers(looking: _Looking, lowers: list[_Folder]) -> tuple[list[Chain], tuple[bytes, ...]]:
    """The images that consist of these layers; if none, the first paths of which only owner or
    mode differ.
    """
    outlines = tuple(one.contents.outline for one in lowers)
    fitting: list[Chain] = []
    faults: tuple[bytes, ...] = ()
    for chain in looking.catalog.chains():
        if chain.outlines == outlines:
            found = _layer_faults(looking, chain, lowers)
            faults = faults or found
            fitting += [] if found else [chain]
    return fitting, () if fitting else faults


def _layer_faults(looking: _Looking, chain: Chain, lowers: list[_Folder]) -> tuple[bytes, ...]:
    """Folders of the first layer at fault that have another owner or mode than they should."""
    for place, lower in zip(chain.places, lowers, strict=True):
        question = ("layer", *chain.diff_ids[: place + 1], lower.contents.digest)
        find = partial(_layer_differences, looking.catalog, chain, place, lower)
        if paths := looking.faults(question, find):
            return paths
    return ()


def _layer_differences(
    catalog: Catalog, chain: Chain, place: int, lower: _Folder
) -> Iterator[bytes]:
    beneath = trees.merged([catalog.layer(one) for one in chain.diff_ids[:place]])
    return differences(catalog.layer(chain.diff_ids[place]), lower.tree(), beneath)


def _unknown(looking: _Looking, lowers: list[_Folder]) -> RootRefused:
    """Why lower folders are no image: one is no layer, or they do not belong together."""
    known = {one for chain in looking.catalog.chains() for one in chain.outlines}
    for lower in lowers:
        if lower.contents.outline not in known:
            return refuse_layer(looking.catalog, lower.tree())
    return UnknownLayers("no known image consists of these layers in this order")


def _upper(looking: _Looking, place: Path, marks: str) -> Tree:
    """What lies in the container's own layer."""
    with walk.opened(place) as descriptor:
        check_folder(descriptor, looking.listed)
        try:
            return walk.listing(descriptor, marks, content=False, limit=MAX_UPPER).tree
        except UnknownLayers as error:
            raise WrittenUpper("the container's own layer is full of files") from error


def _check_top(
    looking: _Looking, chain: Chain, digest: TreeDigest, tree: Callable[[], Tree]
) -> None:
    """Refuse what no runtime puts on top of an image before the start."""
    question = ("top", chain.tree, digest, looking.mounts)
    paths = looking.faults(
        question, lambda: additions(looking.catalog.whole(chain), tree(), looking.mounts)
    )
    if paths:
        raise WrittenUpper("something was written on top of the image", got=names(paths))


def _check_view(looking: _Looking, chain: Chain, descriptor: int) -> int:
    """Hash the files as the container will see them; how many bytes that took."""
    found = walk.listing(descriptor, None)
    paths = strangers(looking.catalog.whole(chain), found.tree, looking.mounts)
    first = tuple(islice(paths, NAMED + 1))
    if first:
        raise altered("through the mount, the image", first)
    return found.hashed


# Plain folders -----------------------------------------------------------------------------


def _directory(looking: _Looking, descriptor: int) -> RootIdentity:
    folder = _Folder(
        looking,
        Path(f"/proc/self/fd/{descriptor}"),
        None,
        looking.contents(descriptor, None),
    )
    question = ("files", folder.contents.digest, looking.mounts)
    _refuse_again(looking.catalog, question)
    chains = _by_files(looking, folder)
    if not chains:
        error = refuse_whole(looking.catalog, folder.tree(), looking.mounts)
        _refuse(looking.catalog, question, error)
    return _identity(RootKind.DIRECTORY, chains, folder.contents.hashed)


def _by_files(looking: _Looking, folder: _Folder) -> list[Chain]:
    """The images that have these files."""
    fitting = []
    for chain in looking.catalog.chains():
        question = ("whole", *chain.diff_ids, folder.contents.digest, looking.mounts)
        find = partial(_strangers, looking, chain, folder)
        if chain.core == folder.contents.core and not looking.faults(question, find):
            fitting.append(chain)
    return fitting


def _strangers(looking: _Looking, chain: Chain, folder: _Folder) -> Iterator[bytes]:
    return strangers(looking.catalog.whole(chain), folder.tree(), looking.mounts)


# Both --------------------------------------------------------------------------------------


def _identity(kind: RootKind, chains: list[Chain], hashed: int) -> RootIdentity:
    """The result. Several chains differ in what is not compared, such as times."""
    return RootIdentity(
        kind=kind,
        layers=chains[0].diff_ids,
        tree=chains[0].tree,
        images=tuple(sorted({image for chain in chains for image in chain.images})),
        hashed=hashed,
    )


def _refuse(catalog: Catalog, question: tuple[object, ...], error: RootRefused) -> NoReturn:
    """Raise ``error``, and remember it: a container that is restarted again and again is not
    hashed and explained each time.
    """
    catalog.refused.keep(question, error)
    _refuse_again(catalog, question)
    raise error


def _refuse_again(catalog: Catalog, question: tuple[object, ...]) -> None:
    """Raise what the same files were refused with, as long as no more is known.

    A copy: an error that was raised holds on to everything that was in sight.
    """
    error = catalog.refused.recall(question)
    if isinstance(error, RootRefused):
        raise type(error)(error.message, expected=error.expected, got=error.got)
