"""An ACI in a file, with its detached OpenPGP signature beside it, as an image source.

``app.aci`` has its signature in ``app.aci.asc`` (armored or binary). Its image ID is the SHA-512 of the
uncompressed archive, its name the one in its manifest (App Container Specification 0.8.11, "Image
Discovery" and "Image Archives").
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from catena.containers.images.folder import BlobFolder
from catena.containers.images.source import (
    ACI_SIGNATURE,
    MAX_SIGNATURE,
    SignatureArtifact,
    UnknownImage,
)
from catena.errors import FormatError
from catena.formats import aci
from catena.ids import ImageDigest

MAX_ACI = 1024 * 1024 * 1024
SIGNATURE_SUFFIX = ".asc"


class AciFile:
    """One ACI. Raises ``UnknownImage`` or ``FormatError`` if there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.content = _read(path, MAX_ACI)
        self._aci = aci.parse(self.content)

    @property
    def blobs(self) -> BlobFolder:
        """An ACI has no content of other digests."""
        return BlobFolder()

    @property
    def name(self) -> str:
        """The name that the manifest gives; *untrusted* until the signature holds."""
        return self._aci.manifest.name

    @property
    def image(self) -> ImageDigest:
        """The image ID."""
        return self._aci.image_id

    def resolve(self, reference: str) -> ImageDigest:
        """The file's image, whatever it is called."""
        del reference
        return self.image

    def repositories(self, image: ImageDigest) -> tuple[str, ...]:
        """The manifest's name."""
        return (self.name,) if image == self.image else ()

    def indexes(self, image: ImageDigest) -> tuple[ImageDigest, ...]:
        """ACIs know no indexes."""
        del image
        return ()

    def signature_manifests(self, image: ImageDigest) -> Iterator[SignatureArtifact]:
        """The signature beside the file, if there is one."""
        place = signature_of(self._path)
        if image == self.image and place.exists():
            signature = _read(place, MAX_SIGNATURE)
            yield SignatureArtifact(
                ACI_SIGNATURE, signature, detached=self.content, found=place.name
            )

    def launch_policies(self, image: ImageDigest) -> Iterator[bytes]:
        """None: an ACI carries its program in its manifest."""
        del image
        return iter(())


def signature_of(path: Path) -> Path:
    """Where the signature of an ACI lies."""
    return path.with_name(path.name + SIGNATURE_SUFFIX)


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise UnknownImage(f"cannot read {path.name}: {error.strerror}", got=str(path)) from error
    if len(content) > limit:
        raise FormatError(f"{path.name} is too large", expected=f"at most {limit} bytes")
    return content
