"""An image's configuration, by the digest of its manifest."""

from __future__ import annotations

from catena.containers.images.blobs import Blobs
from catena.formats import oci
from catena.formats.imageconfig import MAX_IMAGE_CONFIG
from catena.ids import ImageDigest


def image_config_of(blobs: Blobs, image: ImageDigest) -> bytes:
    """The configuration that an image's manifest names; both are read by digest.

    Raises ``MissingBlob``, ``AlteredBlob`` or ``FormatError``.
    """
    manifest = oci.parse_manifest(blobs.read(image, oci.MAX_MANIFEST))
    return blobs.read(manifest.config.digest, MAX_IMAGE_CONFIG)
