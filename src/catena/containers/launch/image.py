"""An image's configuration, by the digest of its manifest."""

from __future__ import annotations

from typing import Annotated

import msgspec

from catena.containers.images.blobs import Blobs
from catena.errors import FormatError
from catena.formats.imageconfig import MAX_IMAGE_CONFIG
from catena.ids import ImageDigest

MAX_MANIFEST = 4 * 1024 * 1024


class _Config(msgspec.Struct, frozen=True):
    digest: Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]


class _Manifest(msgspec.Struct, frozen=True):
    config: _Config


def image_config_of(blobs: Blobs, image: ImageDigest) -> bytes:
    """The configuration that an image's manifest names; both are read by digest.

    Raises ``MissingBlob``, ``AlteredBlob`` or ``FormatError``.
    """
    data = blobs.read(image, MAX_MANIFEST)
    try:
        manifest = msgspec.json.decode(data, type=_Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"not an image manifest: {error}") from error
    return blobs.read(manifest.config.digest, MAX_IMAGE_CONFIG)
