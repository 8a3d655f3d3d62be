"""The lab's container images: busybox and a few lines of shell, as an OCI image layout.

OCI Image Format 1.0: layers are tar archives packed with gzip, a configuration names them by the
digest of the *unpacked* archive (DiffID), a manifest names everything by the digest of what is
stored. Equal inputs give equal bytes: no dates, one owner, one order.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import stat
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from catena.ids import DiffId, ImageDigest
from catena.lab import tools

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
_REF_NAME = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME = "io.containerd.image.name"
"""What ``ctr images import`` calls an image."""

_APPLETS = ("cat", "echo", "sh", "sha256sum", "sleep")
_FOLDERS = ("app", "bin", "dev", "etc", "proc", "run", "run/secrets", "sys", "tmp")


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a layer: a folder, a file, or a link (``content`` is its target)."""

    path: PurePosixPath
    mode: int
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer's entries, in the order of the archive."""

    entries: tuple[Entry, ...]

    def archive(self) -> bytes:
        """The uncompressed tar stream (ustar)."""
        return _archive(self)

    @property
    def diff_id(self) -> DiffId:
        """The digest of the uncompressed stream."""
        return DiffId(_digest(self.archive()))

    def unpack(self, target: Path) -> None:
        """Write the entries below the new folder ``target``, as a snapshotter would keep them."""
        target.mkdir(parents=True)
        for entry in self.entries:
            place = target / entry.path
            if stat.S_ISDIR(entry.mode):
                place.mkdir()
            elif stat.S_ISLNK(entry.mode):
                place.symlink_to(entry.content.decode())
                continue
            else:
                place.write_bytes(entry.content)
            place.chmod(stat.S_IMODE(entry.mode))


@dataclass(frozen=True, slots=True)
class Image:
    """An image and the name it is offered under, ``registry/repository:tag``."""

    reference: str
    layers: tuple[Layer, ...]
    entrypoint: tuple[str, ...]

    @property
    def repository(self) -> str:
        """The reference without its tag."""
        return self.reference.rpartition(":")[0]

    def config(self) -> bytes:
        """The image configuration."""
        return _json(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Entrypoint": list(self.entrypoint), "Env": [f"PATH={PATH}"]},
                "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in self.layers]},
            }
        )

    def blobs(self) -> list[bytes]:
        """Everything that the manifest names: the configuration, then the layers."""
        return [self.config(), *(_packed(layer) for layer in self.layers)]

    def manifest(self) -> bytes:
        """The image manifest."""
        config, *layers = self.blobs()
        return _json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": _descriptor(_CONFIG_TYPE, config),
                "layers": [_descriptor(_LAYER_TYPE, layer) for layer in layers],
            }
        )

    @property
    def digest(self) -> ImageDigest:
        """The manifest's digest: what a publisher signs."""
        return ImageDigest(_digest(self.manifest()))


PATH = "/bin"


def busybox_layer() -> Layer:
    """The layer that all images share: one static program under several names, and folders."""
    program = tools.BUSYBOX.path().read_bytes()
    root = PurePosixPath("bin")
    return Layer(
        (
            *(Entry(PurePosixPath(name), stat.S_IFDIR | 0o755) for name in _FOLDERS),
            Entry(root / "busybox", stat.S_IFREG | 0o755, program),
            *(Entry(root / name, stat.S_IFLNK | 0o777, b"busybox") for name in _APPLETS),
        )
    )


def program_layer(path: str, script: bytes) -> Layer:
    """A layer with one shell script at the absolute ``path``, whose folder is in it."""
    place = PurePosixPath(path).relative_to("/")
    folders = [parent for parent in reversed(place.parents) if parent.name]
    return Layer(
        (
            *(Entry(folder, stat.S_IFDIR | 0o755) for folder in folders),
            Entry(place, stat.S_IFREG | 0o755, script),
        )
    )


def write_layout(folder: Path, images: Sequence[Image]) -> None:
    """Write a new OCI image layout (OCI Image Layout 1.0.0) that offers ``images`` by reference."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)
    for image in images:
        for blob in (image.manifest(), *image.blobs()):
            (blobs / _digest(blob).removeprefix("sha256:")).write_bytes(blob)
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                **_descriptor(MANIFEST_TYPE, image.manifest()),
                "annotations": {_REF_NAME: image.reference, _CONTAINERD_NAME: image.reference},
            }
            for image in images
        ],
    }
    (folder / "index.json").write_bytes(_json(index))
    (folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))


def offer_as(folder: Path, before: str, after: str) -> None:
    """Rename repository ``before`` of a layout to ``after``, with all that belongs to it.

    No digest and no signature changes: that is what copying to another repository does.
    """
    index = folder / "index.json"
    document = msgspec.json.decode(index.read_bytes())
    for manifest in document["manifests"]:
        names = manifest.get("annotations", {})
        repository, _, tag = names.get(_REF_NAME, "").rpartition(":")
        if repository == before:
            names[_REF_NAME] = f"{after}:{tag}"
    index.write_bytes(_json(document))


@functools.cache  # asked for by every image that has the layer
def _archive(layer: Layer) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for entry in layer.entries:
            archive.addfile(_member(entry), io.BytesIO(entry.content))
    return stream.getvalue()


def _member(entry: Entry) -> tarfile.TarInfo:
    member = tarfile.TarInfo(str(entry.path))
    member.mode = stat.S_IMODE(entry.mode)
    if stat.S_ISDIR(entry.mode):
        member.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(entry.mode):
        member.type, member.linkname = tarfile.SYMTYPE, entry.content.decode()
    else:
        member.size = len(entry.content)
    return member


@functools.cache
def _packed(layer: Layer) -> bytes:
    return gzip.compress(layer.archive(), mtime=0)


def _descriptor(media_type: str, content: bytes) -> dict[str, str | int]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(document: object) -> bytes:
    return msgspec.json.encode(document)
