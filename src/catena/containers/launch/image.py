"""An image's configuration: by the digest of its manifest, or by name from a layout folder."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, BinaryIO, TypeVar

import msgspec

from catena.containers.images.blobs import AlteredBlob, Blobs, MissingBlob
from catena.containers.launch.refusals import shown
from catena.errors import FormatError, NotFound
from catena.formats.imageconfig import MAX_IMAGE_CONFIG
from catena.ids import ImageDigest

MAX_MANIFEST = 4 * 1024 * 1024
_REF_NAME = "org.opencontainers.image.ref.name"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


class NoSuchImage(NotFound):
    """A name that a layout does not have."""

    code = "no-such-image"
    remedy = "Give a name or digest that the layout's index.json lists."


class _Descriptor(msgspec.Struct, frozen=True):
    digest: Annotated[str, msgspec.Meta(pattern=_DIGEST.pattern)]
    annotations: dict[str, str] | None = None


class _Manifest(msgspec.Struct, frozen=True):
    config: _Descriptor


class _Index(msgspec.Struct, frozen=True):
    manifests: Annotated[tuple[_Descriptor, ...], msgspec.Meta(max_length=16384)]


T = TypeVar("T", bound=msgspec.Struct)


def image_config_of(blobs: Blobs, image: ImageDigest) -> bytes:
    """The configuration that an image's manifest names; both are read by digest.

    Raises ``MissingBlob``, ``AlteredBlob`` or ``FormatError``.
    """
    manifest = _decode(blobs.read(image, MAX_MANIFEST), _Manifest)
    return blobs.read(manifest.config.digest, MAX_IMAGE_CONFIG)


class LayoutFolder:
    """The content of an OCI image layout, for reading."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def resolve(self, reference: str) -> ImageDigest:
        """The manifest that ``reference`` names: a digest, or a name of the index.

        Raises ``NoSuchImage`` or ``FormatError``.
        """
        name = reference.rpartition("@")[2]
        if _DIGEST.match(name):
            return ImageDigest(name)
        try:
            data = (self._folder / "index.json").read_bytes()
        except FileNotFoundError as error:
            raise NoSuchImage("not an OCI image layout", got=str(self._folder)) from error
        for one in _decode(data, _Index).manifests:
            if (one.annotations or {}).get(_REF_NAME) == reference:
                return ImageDigest(one.digest)
        raise NoSuchImage("no image of this name", got=shown(reference))

    def read(self, digest: str, limit: int) -> bytes:
        """As ``Blobs`` has it."""
        with self.open(digest) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise FormatError("content is too large", expected=f"at most {limit} bytes")
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise AlteredBlob("content is not what its digest says", expected=digest)
        return data

    def open(self, digest: str) -> BinaryIO:
        """As ``Blobs`` has it."""
        if not _DIGEST.match(digest):
            raise FormatError("not a digest", got=shown(digest))
        try:
            return (self._folder / "blobs/sha256" / digest.removeprefix("sha256:")).open("rb")
        except FileNotFoundError as error:
            raise MissingBlob("content is missing", expected=digest) from error


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"not an image manifest or index: {error}") from error
