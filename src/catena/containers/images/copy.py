"""Copying an image into the image store, with everything that decides whether it may run.

Content first, what names it last: whoever reads the store meanwhile never finds an image without its
layers. Every piece is checked against its digest on the way. Of an index with several
platforms only this machine's images are copied, and the index as it is, because it is what was signed.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass

from catena.containers.images import attached
from catena.containers.images.layout import Layout
from catena.containers.images.source import LAUNCH_POLICY, SIGNATURES, Repository, UnknownImage
from catena.errors import FormatError
from catena.formats import oci
from catena.formats.oci import Descriptor, Manifest
from catena.ids import ImageDigest

MAX_PLATFORMS = 16

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
"""What Linux calls a processor, and what OCI does."""


@dataclass(frozen=True, slots=True)
class FetchedImage:
    """What is in the store now: ``images`` of this platform; ``copied`` bytes were not there before."""

    name: str
    image: ImageDigest
    images: tuple[ImageDigest, ...]
    signatures: int
    launch_policies: int
    copied: int


@dataclass(slots=True)
class _Copy:
    source: Repository
    store: Layout
    reference: str
    name: str
    signatures: int = 0
    launch_policies: int = 0
    copied: int = 0


def fetch(source: Repository, reference: str, store: Layout, name: str) -> FetchedImage:
    """Copy what ``reference`` means in ``source``, as ``name``, with signatures and launch policies.

    Raises what the source raises, ``AlteredBlob``, ``StoreUnusable``, or ``UnknownImage`` if an index
    lists nothing for this machine.
    """
    copy = _Copy(source, store, reference, name)
    image = source.resolve(reference)
    content = source.manifest(image)
    images = tuple(_images(image, content))
    for one in images:
        _copy_image(copy, one)
    for one in dict.fromkeys((*images, image)):
        _copy_attached(copy, one)
    kind = oci.IMAGE_INDEX if image not in images else oci.parse_manifest(content).media_type
    store.put_manifest(content, kind or oci.IMAGE_MANIFEST, name)
    return FetchedImage(name, image, images, copy.signatures, copy.launch_policies, copy.copied)


def _images(image: ImageDigest, content: bytes) -> Iterator[ImageDigest]:
    """The image itself, or those of an index that this machine can run."""
    try:
        listed = oci.parse_index(content).manifests
    except FormatError:
        yield image
        return
    fitting = [one for one in listed if _fits(one)][:MAX_PLATFORMS]
    if not fitting:
        raise UnknownImage("index lists no image for this machine", expected=_architecture())
    yield from (ImageDigest(one.digest) for one in fitting)


def _fits(entry: Descriptor) -> bool:
    wanted = entry.platform
    return entry.media_type in oci.MANIFESTS and (
        wanted is None or (wanted.os, wanted.architecture) == ("linux", _architecture())
    )


def _architecture() -> str:
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def _copy_image(copy: _Copy, image: ImageDigest) -> None:
    content = copy.source.manifest(image)
    manifest = oci.parse_manifest(content)
    for one in (manifest.config, *manifest.layers):
        _copy_content(copy, one)
    copy.store.add(content)


def _copy_content(copy: _Copy, one: Descriptor) -> None:
    if copy.store.blobs.has(one.digest):
        return
    copy.store.blobs.add_stream(copy.source.stream(one.digest), one.digest, one.size)
    copy.copied += one.size


def _copy_attached(copy: _Copy, image: ImageDigest) -> None:
    tag = attached.signature_tag(image)
    manifest = copy.source.tagged(copy.source.sibling(copy.reference, tag))
    if manifest is not None:
        parsed = oci.parse_manifest(manifest)
        _copy_layers(copy, parsed)
        copy.store.put_manifest(manifest, oci.IMAGE_MANIFEST, copy.store.sibling(copy.name, tag))
    for digest, parsed in copy.source.referring(image):
        if any(layer.media_type in SIGNATURES | {LAUNCH_POLICY} for layer in parsed.layers):
            _copy_layers(copy, parsed)
            copy.store.attach(copy.name, image, copy.source.manifest(digest), parsed.kind)


def _copy_layers(copy: _Copy, manifest: Manifest) -> None:
    for one in (manifest.config, *manifest.layers):
        _copy_content(copy, one)
    kinds = [layer.media_type for layer in manifest.layers]
    copy.signatures += sum(kind in SIGNATURES for kind in kinds)
    copy.launch_policies += kinds.count(LAUNCH_POLICY)
