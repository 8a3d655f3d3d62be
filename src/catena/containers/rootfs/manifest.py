"""Which layers an image consists of, from its documents (``formats.oci``, ``formats.imageconfig``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from catena.containers.images.blobs import Blobs, MissingBlob
from catena.containers.rootfs.refusals import UnfitImage
from catena.errors import FormatError
from catena.formats import imageconfig, oci
from catena.formats.oci import Manifest
from catena.ids import DiffId, ImageDigest

T = TypeVar("T")


class ImageLayers(msgspec.Struct, frozen=True):
    """An image's layers, bottom first: the blob of each, and the digest of the tar inside."""

    manifest: ImageDigest
    blobs: tuple[str, ...]
    diff_ids: tuple[DiffId, ...]


def images_of(blobs: Blobs, image: ImageDigest) -> tuple[ImageLayers, ...]:
    """The layers of an image; of an index, those of each of its images that ``blobs`` has.

    Raises ``UnfitImage``, ``MissingBlob`` and ``AlteredBlob``.
    """
    document = _read(oci.parse_document, blobs.read(image, oci.MAX_MANIFEST))
    if isinstance(document, Manifest):
        return (_layers(blobs, image, document),)
    found = tuple(_present(blobs, [one.digest for one in document.manifests]))
    if not found:
        raise MissingBlob("no image of the index is here", got=image)
    return found


def _present(blobs: Blobs, digests: Sequence[str]) -> list[ImageLayers]:
    """Attestations and images of other platforms are no images of layers, or not here."""
    found = []
    for digest in digests:
        try:
            manifest = _read(oci.parse_manifest, blobs.read(digest, oci.MAX_MANIFEST))
            found.append(_layers(blobs, ImageDigest(digest), manifest))
        except (MissingBlob, UnfitImage):
            continue
    return found


def _layers(blobs: Blobs, image: ImageDigest, manifest: Manifest) -> ImageLayers:
    written = blobs.read(manifest.config.digest, imageconfig.MAX_IMAGE_CONFIG)
    diff_ids = _read(imageconfig.parse, written).diff_ids
    if not diff_ids or len(diff_ids) != len(manifest.layers):
        raise UnfitImage("manifest and configuration do not name the same layers")
    return ImageLayers(
        manifest=image, blobs=tuple(one.digest for one in manifest.layers), diff_ids=diff_ids
    )


def _read(parse: Callable[[bytes], T], data: bytes) -> T:
    try:
        return parse(data)
    except FormatError as error:
        raise UnfitImage(f"not a document of an image: {error.message}"[:200]) from error
