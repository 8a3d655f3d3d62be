"""What of an OCI image is needed to find its layers (image-spec 1.1: manifest.md, config.md, image-index.md).

The specification lets these documents carry members of any kind: unknown ones are ignored, doubled
ones are refused, so that no two readers see different layers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec

from catena.containers.images.blobs import Blobs, MissingBlob
from catena.containers.rootfs.refusals import UnfitImage
from catena.ids import DiffId, ImageDigest

MAX_DOCUMENT = 8 * 1024 * 1024
MAX_LAYERS = 512
MAX_MANIFESTS = 1024
_Digest = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]


T = TypeVar("T", bound=msgspec.Struct)


class _Descriptor(msgspec.Struct, frozen=True):
    digest: _Digest


class _RootFs(msgspec.Struct, frozen=True):
    type: str
    diff_ids: Annotated[tuple[_Digest, ...], msgspec.Meta(min_length=1, max_length=MAX_LAYERS)]


class _Config(msgspec.Struct, frozen=True):
    rootfs: _RootFs


class _Manifest(msgspec.Struct, frozen=True, rename="camel"):
    schema_version: int
    config: _Descriptor | None = None
    layers: Annotated[tuple[_Descriptor, ...], msgspec.Meta(max_length=MAX_LAYERS)] = ()
    manifests: Annotated[tuple[_Descriptor, ...], msgspec.Meta(max_length=MAX_MANIFESTS)] = ()


class ImageLayers(msgspec.Struct, frozen=True):
    """An image's layers, bottom first: the blob of each, and the digest of the tar inside."""

    blobs: tuple[str, ...]
    diff_ids: tuple[DiffId, ...]


def images_of(blobs: Blobs, image: ImageDigest) -> tuple[ImageLayers, ...]:
    """The layers of an image; of an index, those of each of its images that ``blobs`` has.

    Raises ``UnfitImage``, ``MissingBlob`` and ``AlteredBlob``.
    """
    manifest = _decode(blobs.read(image, MAX_DOCUMENT), _Manifest)
    if not manifest.manifests:
        return (_layers(blobs, manifest),)
    found = tuple(_present(blobs, [one.digest for one in manifest.manifests]))
    if not found:
        raise MissingBlob("no image of the index is here", got=image)
    return found


def _present(blobs: Blobs, digests: Sequence[str]) -> list[ImageLayers]:
    """Attestations and images of other platforms are no images of layers, or not here."""
    found = []
    for digest in digests:
        try:
            found.append(_layers(blobs, _decode(blobs.read(digest, MAX_DOCUMENT), _Manifest)))
        except (MissingBlob, UnfitImage):
            continue
    return found


def _layers(blobs: Blobs, manifest: _Manifest) -> ImageLayers:
    if manifest.schema_version != 2 or manifest.config is None or manifest.manifests:
        raise UnfitImage("not a manifest of an image")
    config = _decode(blobs.read(manifest.config.digest, MAX_DOCUMENT), _Config)
    if config.rootfs.type != "layers" or len(config.rootfs.diff_ids) != len(manifest.layers):
        raise UnfitImage("manifest and configuration do not name the same layers")
    return ImageLayers(
        blobs=tuple(one.digest for one in manifest.layers),
        diff_ids=tuple(DiffId(one) for one in config.rootfs.diff_ids),
    )


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        json.loads(data, object_pairs_hook=_once)
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UnfitImage(f"not a document of an image: {error}"[:200]) from error


def _once(members: list[tuple[str, object]]) -> None:
    names = {name for name, _ in members}
    if len(names) != len(members):
        raise UnfitImage("a document of an image has a member twice")
