"""The images that may be found, and what their layers hold.

A layer's blob is read once per process: it is unpacked, its two digests (the blob's, and the DiffID of the
tar inside) are checked to the last byte, and what remains is the listing of its files. With a folder
that only root can write, listings outlive the process.
"""

from __future__ import annotations

import os
import stat
import threading
import zlib
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, replace
from pathlib import Path

from catena.containers.images.blobs import AlteredBlob, Blobs
from catena.containers.rootfs import tree as trees
from catena.containers.rootfs.fit import Whole, whole
from catena.containers.rootfs.identity import RootRefused
from catena.containers.rootfs.layer import aci_tree, layer_tree
from catena.containers.rootfs.manifest import images_of
from catena.containers.rootfs.packing import MAX_PACKED, MAX_UNPACKED, Hashed, unpacked
from catena.containers.rootfs.refusals import UnfitDiffId
from catena.containers.rootfs.tree import Tree
from catena.formats import layertar
from catena.formats.layertar import Readable
from catena.ids import DiffId, ImageDigest, TreeDigest

_MEMORIES = 65536


class UnsafeFolder(RootRefused):
    """A folder for listings that others than root could write."""

    code = "catalog-folder"
    remedy = "Give the catalog a folder that belongs to the gate's user, mode 0700."


@dataclass(frozen=True, slots=True)
class Chain:
    """Layers on top of each other, bottom first, and the images that consist of them.

    ``outlines`` leaves out layers without files: storage drivers keep or drop them as they like.
    ``places`` are the numbers of the layers that are left.
    """

    diff_ids: tuple[DiffId, ...]
    outlines: tuple[TreeDigest, ...]
    places: tuple[int, ...]
    tree: TreeDigest
    core: TreeDigest
    images: frozenset[ImageDigest] = frozenset()


class Memory:
    """Answers that depend on nothing but their question, the latest of them."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Hashable, object] = OrderedDict()
        self._lock = threading.Lock()
        """Guards ``_answers`` for one look."""

    def recall(self, question: Hashable) -> object | None:
        """The answer, if there was one."""
        with self._lock:
            return self._answers.get(question)

    def keep(self, question: Hashable, answer: object) -> None:
        """Remember an answer in place of the oldest."""
        with self._lock:
            self._answers[question] = answer
            while len(self._answers) > _MEMORIES:
                self._answers.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._answers.clear()


class Catalog:
    """Known images by the files of their layers.

    Safe for threads: whoever looks sees what was known when it looked, and never waits for an
    image that is being added.
    """

    def __init__(self, blobs: Blobs, folder: Path | None = None) -> None:
        """``folder`` keeps listings across processes. Raises ``UnsafeFolder``."""
        self._blobs = blobs
        self._folder = folder
        self._listings: dict[DiffId, bytes] = {}
        self._chains: dict[tuple[DiffId, ...], Chain] = {}
        self._adding = threading.RLock()
        """Guards who replaces ``_listings`` and ``_chains``; held while an image's layers are read."""
        self.memory = Memory()
        """What fits what: true whatever else is known."""
        self.refused = Memory()
        """What fits nothing that is known: forgotten when more is."""
        if folder is not None:
            _check_owned(folder)

    def add(self, image: ImageDigest) -> None:
        """Learn an image's layers; for an index, those of its images that are here.

        Raises ``MissingBlob``, ``AlteredBlob``, ``UnfitImage``, ``UnfitDiffId``, ``AmbiguousLayer``,
        ``UnreadableLayer`` and ``FormatError``; the image is not known then.
        """
        with self._adding:
            images = images_of(self._blobs, image)
            for found in images:
                for blob, diff_id in zip(found.blobs, found.diff_ids, strict=True):
                    self._learn(blob, diff_id)
            for found in images:
                self._enter(found.diff_ids, image)

    def add_aci(self, stream: Readable) -> ImageDigest:
        """Learn an application container image, packed or not; its image ID (``sha512-…``).

        Whether its manifest asks for other images below it is for its verifier to refuse. Raises
        as ``add``.
        """
        with unpacked(Hashed(stream, limit=MAX_PACKED)) as inside:
            tar = Hashed(inside, "sha256", "sha512", limit=MAX_UNPACKED)
            tree = aci_tree(layertar.entries(tar))
        sha256, sha512 = tar.digests()
        image = ImageDigest(sha512.replace(":", "-"))
        with self._adding:
            self._keep(DiffId(sha256), tree)
            self._enter((DiffId(sha256),), image)
        return image

    def forget(self, image: ImageDigest) -> None:
        """Let an image go, and the layers that no other one has. An unknown one is none to lose."""
        with self._adding:
            left = {
                key: replace(chain, images=chain.images - {image})
                for key, chain in self._chains.items()
                if chain.images != {image}
            }
            used = {diff_id for diff_ids in left for diff_id in diff_ids}
            self._chains = left
            self._listings = {key: one for key, one in self._listings.items() if key in used}
            self.refused.clear()

    def layer(self, diff_id: DiffId) -> Tree:
        """The files of a known layer, with its marks."""
        return trees.decode(zlib.decompress(self._listings[diff_id]))

    def whole(self, chain: Chain) -> Whole:
        """The files of all its layers applied."""
        return whole([self.layer(one) for one in chain.diff_ids])

    def chains(self) -> tuple[Chain, ...]:
        """Everything known, in the order of DiffIDs."""
        return tuple(self._chains.values())

    def layers(self) -> tuple[DiffId, ...]:
        """Every known layer."""
        return tuple(self._listings)

    def _learn(self, blob: str, diff_id: DiffId) -> None:
        if diff_id in self._listings or self._restored(diff_id):
            return
        with self._blobs.open(blob) as stream:
            packed = Hashed(stream, "sha256", limit=MAX_PACKED)
            with unpacked(packed) as inside:
                tar = Hashed(inside, "sha256", limit=MAX_UNPACKED)
                tree = layer_tree(layertar.entries(tar))
            packed.drain()
        _check(packed, blob, AlteredBlob("a layer's blob does not have its digest", got=blob))
        _check(tar, diff_id, UnfitDiffId("a layer does not have its DiffID", got=diff_id))
        self._keep(diff_id, tree)

    def _keep(self, diff_id: DiffId, tree: Tree) -> None:
        data = zlib.compress(trees.encode(tree), 1)
        self._listings = {**self._listings, diff_id: data}
        if self._folder is not None:
            place = self._place(self._folder, diff_id)
            draft = place.with_suffix(".new")
            draft.write_bytes(data)
            draft.replace(place)

    def _restored(self, diff_id: DiffId) -> bool:
        """Whether an earlier process kept the layer's listing."""
        if self._folder is None:
            return False
        place = self._place(self._folder, diff_id)
        if not place.exists():
            return False
        _check_owned(self._folder)
        self._listings = {**self._listings, diff_id: place.read_bytes()}
        return True

    @staticmethod
    def _place(folder: Path, diff_id: DiffId) -> Path:
        return folder / f"{diff_id.removeprefix('sha256:')}.tree"

    def _enter(self, diff_ids: tuple[DiffId, ...], image: ImageDigest) -> None:
        chain = self._chains.get(diff_ids)
        if chain is None:
            chain = _chain(diff_ids, [self.layer(one) for one in diff_ids])
        if image not in chain.images:
            known = replace(chain, images=chain.images | {image})
            self._chains = dict(sorted({**self._chains, diff_ids: known}.items()))
            self.refused.clear()


def _chain(diff_ids: tuple[DiffId, ...], layers: list[Tree]) -> Chain:
    places = tuple(number for number, one in enumerate(layers) if len(one) > 1)
    files = whole(layers).tree
    return Chain(
        diff_ids=diff_ids,
        outlines=tuple(trees.outline(layers[one]) for one in places),
        places=places,
        tree=trees.digest(files),
        core=trees.core(files),
    )


def _check(stream: Hashed, wanted: str, error: Exception) -> None:
    if wanted not in stream.digests():
        raise error


def _check_owned(folder: Path) -> None:
    status = folder.lstat()
    if (
        not stat.S_ISDIR(status.st_mode)
        or status.st_uid != os.geteuid()
        or stat.S_IMODE(status.st_mode) & 0o077
    ):
        raise UnsafeFolder("others could write the listings of layers")


NOTHING = trees.outline({trees.ROOT: trees.IMPLIED})
"""The outline of a layer without files."""
