"""Overlays: each lower folder is a layer, all of them an image, and the upper one is as good as empty."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from catena.containers.rootfs import tree as trees
from catena.containers.rootfs import walk
from catena.containers.rootfs.catalog import NOTHING, Catalog, Chain
from catena.containers.rootfs.fit import additions, differences
from catena.containers.rootfs.identity import RootIdentity, RootKind, RootRefused
from catena.containers.rootfs.looking import (
    Folder,
    Looking,
    by_files,
    identity_of,
    refuse,
    refuse_again,
)
from catena.containers.rootfs.mounts import Overlay, check_folder
from catena.containers.rootfs.nearest import altered, names, refuse_layer
from catena.containers.rootfs.refusals import UnknownLayers, WrittenUpper
from catena.containers.rootfs.tree import Tree
from catena.containers.rootfs.view import check_shown, check_view
from catena.ids import TreeDigest

MAX_UPPER = 4096


def identify_overlay(looking: Looking, descriptor: int, overlay: Overlay) -> RootIdentity:
    """Which image an overlay shows. Raises a ``RootRefused``."""
    lowers = [looking.folder(one, overlay.marks) for one in overlay.lowers]
    filled = [one for one in lowers if one.contents.outline != NOTHING]
    chains, tops = _image_of(looking, filled)
    for top in tops:
        _check_top(looking, chains[0], top.contents.digest, top.tree)
    if overlay.upper is not None:
        upper = _upper(looking, overlay.upper, overlay.marks)
        _check_top(looking, chains[0], trees.digest(upper), lambda: upper)
    layers = filled[: len(filled) - len(tops)]
    if chains[0].outlines == tuple(one.contents.outline for one in layers):
        check_shown(looking.catalog, chains[0], [one.place for one in layers], descriptor)
    hashed = sum(one.contents.hashed for one in lowers)
    if looking.strict:
        hashed += check_view(looking, chains[0], descriptor)
    return identity_of(RootKind.OVERLAY, chains, hashed)


def _image_of(looking: Looking, lowers: list[Folder]) -> tuple[list[Chain], list[Folder]]:
    """The known images whose layers these are, and lower folders that lie on top of them.

    Docker puts its mount points into a lower folder of their own; `podman run --rootfs DIR:O` has an
    unpacked image as its only one. Raises ``AlteredLayer`` or ``UnknownLayers``.
    """
    question = ("lowers", *(one.contents.digest for one in lowers))
    refuse_again(looking.catalog, question)
    chains, faults = _by_layers(looking, lowers)
    if not chains and not faults and len(lowers) > 1:
        chains, _ = _by_layers(looking, lowers[:-1])
        if chains:
            return chains, lowers[-1:]
    if not chains and not faults and len(lowers) == 1:
        chains = by_files(looking, lowers[0])
    if not chains:
        error = altered("a known image", faults) if faults else _unknown(looking, lowers)
        refuse(looking.catalog, question, error)
    return chains, []


def _by_layers(looking: Looking, lowers: list[Folder]) -> tuple[list[Chain], tuple[bytes, ...]]:
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


def _layer_faults(looking: Looking, chain: Chain, lowers: list[Folder]) -> tuple[bytes, ...]:
    """Folders of the first layer at fault that have another owner or mode than they should."""
    for place, lower in zip(chain.places, lowers, strict=True):
        question = ("layer", *chain.diff_ids[: place + 1], lower.contents.digest)
        find = partial(_layer_differences, looking.catalog, chain, place, lower)
        if paths := looking.faults(question, find):
            return paths
    return ()


def _layer_differences(
    catalog: Catalog, chain: Chain, place: int, lower: Folder
) -> Iterator[bytes]:
    beneath = trees.merged([catalog.layer(one) for one in chain.diff_ids[:place]])
    return differences(catalog.layer(chain.diff_ids[place]), lower.tree(), beneath)


def _unknown(looking: Looking, lowers: list[Folder]) -> RootRefused:
    """Why lower folders are no image: one is no layer, or they do not belong together."""
    known = {one for chain in looking.catalog.chains() for one in chain.outlines}
    for lower in lowers:
        if lower.contents.outline not in known:
            return refuse_layer(looking.catalog, lower.tree())
    return UnknownLayers("no known image consists of these layers in this order")


def _upper(looking: Looking, place: Path, marks: str) -> Tree:
    """What lies in the container's own layer."""
    with walk.opened(place) as descriptor:
        check_folder(descriptor, looking.listed)
        try:
            return walk.listing(descriptor, marks, content=False, limit=MAX_UPPER).tree
        except UnknownLayers as error:
            raise WrittenUpper("the container's own layer is full of files") from error


def _check_top(
    looking: Looking, chain: Chain, digest: TreeDigest, tree: Callable[[], Tree]
) -> None:
    """Refuse what no runtime puts on top of an image before the start."""
    question = ("top", chain.tree, digest, looking.mounts)
    paths = looking.faults(
        question, lambda: additions(looking.catalog.whole(chain), tree(), looking.mounts)
    )
    if paths:
        raise WrittenUpper("something was written on top of the image", got=names(paths))
