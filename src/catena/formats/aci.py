"""App Container Images (appc specification 0.8.11, "App Container Image" and "Image Manifest").

An ACI is a tar archive, plain or compressed with gzip, bzip2 or xz, of exactly two things:
``manifest``, a JSON file, and ``rootfs``, a folder. Its **image ID** is ``sha512-`` and the SHA-512 of
the *uncompressed* archive, so that compressing it again changes nothing.

The archive is read once and never kept (``formats.tar``), and what it grows to is bounded. A name
that leaves ``rootfs``, by itself or through a hard link, is refused.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from catena.errors import FormatError
from catena.formats import ijson
from catena.formats.tar import FOLDER, HARD_LINK, OTHERS, REGULAR, Archive, Entry
from catena.ids import ImageDigest

MAX_UNCOMPRESSED = 8 * 1024**3
MAX_RATIO = 32
SMALL = 32 * 1024**2
"""An archive may grow to ``MAX_RATIO`` times the size of its file, or to ``SMALL`` bytes: files compress to
a fifth, bombs to a thousandth.
"""
MAX_MANIFEST = 512 * 1024
MAX_XZ_MEMORY = 128 * 1024 * 1024
_CHUNK = 1024 * 1024

AC_IDENTIFIER = r"^[a-z0-9]+([-._~/][a-z0-9]+)*\Z"
SEMVER = r"^[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?\Z"

Identifier = Annotated[str, msgspec.Meta(pattern=AC_IDENTIFIER, max_length=512)]


class UnexpectedEntry(FormatError):
    """An archive with something else than ``manifest`` and ``rootfs``."""

    code = "aci-unexpected-entry"
    remedy = "Do not run the image: its layout is not that of an ACI. Build it again."


class Label(msgspec.Struct, frozen=True):
    """One label; ``version``, ``os`` and ``arch`` are the well-known ones."""

    name: Identifier
    value: Annotated[str, msgspec.Meta(max_length=4096)]


class AciManifest(msgspec.Struct, frozen=True, rename="camel"):
    """The manifest's fields that say what the image is; the others are its program's business."""

    ac_kind: Literal["ImageManifest"]
    ac_version: Annotated[str, msgspec.Meta(pattern=SEMVER, max_length=128)]
    name: Identifier
    labels: Annotated[tuple[Label, ...], msgspec.Meta(max_length=256)] = ()
    annotations: Annotated[tuple[Label, ...], msgspec.Meta(max_length=256)] = ()

    def label(self, name: str) -> str:
        """The value of a label, or the empty string."""
        return next((one.value for one in self.labels if one.name == name), "")


@dataclass(frozen=True, slots=True)
class Aci:
    """What an archive is. All of it is *untrusted* until a signature over the file holds."""

    manifest: AciManifest
    image_id: ImageDigest
    size: int
    entries: int


def parse(data: bytes) -> Aci:
    """Read a whole ACI. Raises ``UnexpectedEntry``, or ``FormatError``."""
    digest = hashlib.sha512()
    limit = min(MAX_UNCOMPRESSED, max(SMALL, MAX_RATIO * len(data)))
    archive = Archive(_hashed(_plain(data), digest, limit))
    manifest: bytes | None = None
    has_root = False
    names: set[str] = set()
    count = 0
    for count, entry in enumerate(archive.entries(), 1):  # noqa: B007  counted to the end
        if entry.name in names:
            raise UnexpectedEntry("archive has an entry twice", got=ascii(entry.name[:120]))
        if entry.name == "manifest" and entry.kind in REGULAR:
            manifest = archive.content(MAX_MANIFEST)
        elif entry.name == "rootfs" and entry.kind == FOLDER:
            has_root = True
        else:
            _check_below_root(entry)
        if "/" not in entry.name:
            names.add(entry.name)
    if manifest is None or not has_root:
        raise UnexpectedEntry("archive lacks a manifest or a root file system", expected="manifest, rootfs/")  # fmt: skip
    return Aci(
        manifest=parse_manifest(manifest),
        image_id=ImageDigest(f"sha512-{digest.hexdigest()}"),
        size=archive.size,
        entries=count,
    )


def parse_manifest(data: bytes) -> AciManifest:
    """Read an image manifest. Raises ``FormatError``."""
    manifest = ijson.decode(data, AciManifest, what="image manifest")
    names = [one.name for one in manifest.labels]
    if len(set(names)) != len(names) or "name" in names:
        raise FormatError("image manifest has a label twice, or a label `name`")
    return manifest


def _check_below_root(entry: Entry) -> None:
    if not entry.name.startswith("rootfs/") or entry.kind not in {
        *REGULAR,
        HARD_LINK,
        FOLDER,
        *OTHERS,
    }:
        raise UnexpectedEntry(
            "archive has an entry that does not belong there",
            expected="manifest, and what is in rootfs/",
            got=ascii(entry.name[:120]),
        )
    if entry.kind == HARD_LINK and not entry.target.startswith("rootfs/"):
        raise UnexpectedEntry("hard link leaves the root file system", got=ascii(entry.target[:120]))  # fmt: skip


def _hashed(chunks: Iterator[bytes], digest: hashlib._Hash, limit: int) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise FormatError("ACI is too large", expected=f"at most {limit} bytes")
        digest.update(chunk)
        yield chunk


def _plain(data: bytes) -> Iterator[bytes]:
    """The uncompressed archive, in chunks, which raise ``FormatError`` where it is damaged."""
    if data.startswith(b"\x1f\x8b"):
        return _gunzipped(data)
    if data.startswith(b"BZh"):
        return _unpacked(bz2.BZ2Decompressor(), data)
    if data.startswith(b"\xfd7zXZ\0"):
        return _unpacked(lzma.LZMADecompressor(lzma.FORMAT_XZ, MAX_XZ_MEMORY), data)
    return (data[at : at + _CHUNK] for at in range(0, len(data), _CHUNK))


def _gunzipped(data: bytes) -> Iterator[bytes]:
    decompressor = zlib.decompressobj(zlib.MAX_WBITS | 16)
    for at in range(0, len(data), _CHUNK):
        left = data[at : at + _CHUNK]
        while left:
            try:
                chunk = decompressor.decompress(left, _CHUNK)
            except zlib.error as error:
                raise FormatError("ACI cannot be decompressed", offset=at) from error
            left = decompressor.unconsumed_tail
            if decompressor.unused_data or (decompressor.eof and at + _CHUNK < len(data)):
                raise FormatError("ACI has bytes behind its compressed archive", offset=at)
            yield chunk
    if not decompressor.eof:
        raise FormatError("ACI is truncated", offset=len(data))


def _unpacked(
    decompressor: bz2.BZ2Decompressor | lzma.LZMADecompressor, data: bytes
) -> Iterator[bytes]:
    left = data
    while not decompressor.eof:
        if not left and decompressor.needs_input:
            raise FormatError("ACI is truncated", offset=len(data))
        try:
            chunk = decompressor.decompress(left, _CHUNK)
        except (OSError, lzma.LZMAError, ValueError, MemoryError) as error:
            raise FormatError("ACI cannot be decompressed") from error
        left = b""
        yield chunk
    if decompressor.unused_data:
        raise FormatError("ACI has bytes behind its compressed archive")
