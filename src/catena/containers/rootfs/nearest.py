"""What refused files are most like: people look for the change, not for a digest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeVar

from catena.containers.rootfs.catalog import Catalog
from catena.containers.rootfs.fit import differences, strangers
from catena.containers.rootfs.refusals import AlteredLayer, UnknownLayers
from catena.containers.rootfs.tree import ROOT, Tree, shown

N = TypeVar("N", bound=str)
NAMED = 5
"""How many paths a refusal names."""


def altered(what: str, paths: Iterable[bytes]) -> AlteredLayer:
    """The refusal of files that are almost those of ``what``."""
    return AlteredLayer("files are not as they were published", expected=what, got=names(paths))


def names(paths: Iterable[bytes]) -> str:
    """The first few paths, for an error."""
    first = list(islice(paths, NAMED + 1))
    return ", ".join(map(shown, first[:NAMED])) + (" and more" if len(first) > NAMED else "")


def refuse_layer(catalog: Catalog, found: Tree) -> AlteredLayer | UnknownLayers:
    """A lower folder that is no known layer."""
    best = _nearest(found, catalog.layers(), catalog.layer)
    if best is None:
        return UnknownLayers("a lower folder holds the files of no known layer")
    return altered(best, differences(catalog.layer(best), found, found))


def refuse_whole(
    catalog: Catalog, found: Tree, mounts: Iterable[str]
) -> AlteredLayer | UnknownLayers:
    """A folder that is no known image."""
    known = {min(one.images): one for one in catalog.chains()}
    best = _nearest(found, known, lambda one: catalog.whole(known[one]).tree)
    if best is None:
        return UnknownLayers("the root holds the files of no known image")
    return altered(best, strangers(catalog.whole(known[best]), found, mounts))


def _nearest(found: Tree, known: Iterable[N], tree_of: Callable[[N], Tree]) -> N | None:
    """Which of ``known`` has most entries in common, if at least half of its paths are there."""
    best, most = None, (0, 0)
    for name in known:
        tree = tree_of(name)
        paths = tree.keys() & found.keys() - {ROOT}
        score = (sum(found[path] == tree[path] for path in paths), len(paths))
        if score > most and 2 * len(paths) >= len(tree) - 1:
            best, most = name, score
    return best
