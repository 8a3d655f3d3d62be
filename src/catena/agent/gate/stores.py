"""All image stores of a node as one source: OCI layouts, and blobs of containerd's content stores.

A folder with an ``index.json`` is a layout: it names images and what is attached to them. One without
is a content store (``…/io.containerd.content.v1.content``): it has content by digest, and no say in
what it is called.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from catena.containers.images.folder import BlobFolder
from catena.containers.images.layout import Layout
from catena.containers.images.source import (
    MAX_SIGNATURES,
    SignatureArtifact,
    TooManySignatures,
    UnknownImage,
)
from catena.ids import ImageDigest

Stamp = tuple[tuple[int, int, int, int] | None, ...]
_INDEX = "index.json"


class Stores:
    """An ``ImageSource`` over several folders. Safe for threads."""

    def __init__(self, folders: tuple[Path, ...]) -> None:
        self._folders = folders
        self._layouts = tuple(Layout(one) for one in folders)
        self.blobs = BlobFolder(*(one / "blobs" for one in folders))

    def stamp(self) -> Stamp:
        """Something else whenever a store's index is another one."""
        return tuple(_stamp(one / _INDEX) for one in self._folders)

    def images(self) -> tuple[ImageDigest, ...]:
        """Every image that a layout names."""
        return tuple(dict.fromkeys(chain.from_iterable(one.images() for one in self._indexed())))

    def resolve(self, reference: str) -> ImageDigest:
        """The digest in the first layout that knows the reference. Raises as ``ImageSource`` says."""
        for layout in self._indexed():
            try:
                return layout.resolve(reference)
            except UnknownImage:
                continue
        raise UnknownImage("no image store has this image", got=ascii(reference[:120]))

    def repositories(self, image: ImageDigest) -> tuple[str, ...]:
        """All names of the image, *untrusted*."""
        names = (one.repositories(image) for one in self._indexed())
        return tuple(dict.fromkeys(chain.from_iterable(names)))

    def indexes(self, image: ImageDigest) -> tuple[ImageDigest, ...]:
        """Indexes that may list the image."""
        found = (one.indexes(image) for one in self._indexed())
        return tuple(dict.fromkeys(chain.from_iterable(found)))

    def signature_manifests(self, image: ImageDigest) -> Iterator[SignatureArtifact]:
        """Everything that claims to be a signature. Raises ``TooManySignatures``."""
        found = chain.from_iterable(one.signature_manifests(image) for one in self._indexed())
        yield from islice(found, MAX_SIGNATURES)
        if next(found, None) is not None:
            raise TooManySignatures(
                "stores have too many signatures of one image", expected=f"{MAX_SIGNATURES}"
            )

    def launch_policies(self, image: ImageDigest) -> Iterator[bytes]:
        """Everything that claims to be a launch policy."""
        return chain.from_iterable(one.launch_policies(image) for one in self._indexed())

    def _indexed(self) -> Iterator[Layout]:
        for folder, layout in zip(self._folders, self._layouts, strict=True):
            if (folder / _INDEX).exists():
                yield layout


def _stamp(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
