"""Images for tests: OCI layouts made of layers that are written down as dictionaries.

A layer maps paths to what lies there::

    layer({"etc/": folder(), "etc/motd": file(b"hello"), "bin/sh": link("busybox")}, whiteouts...)

Everything is reproducible: no time, owners 0:0 unless they are given.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
REF_NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True)
class Member:
    """One entry of a layer's tar."""

    kind: bytes = tarfile.REGTYPE
    content: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)

    def info(self, path: str) -> tarfile.TarInfo:
        """The header of this entry, without a time."""
        info = tarfile.TarInfo(path)
        info.type, info.mode, info.uid, info.gid = self.kind, self.mode, self.uid, self.gid
        info.size, info.linkname = len(self.content), self.target
        info.devmajor, info.devminor = self.device
        info.pax_headers = {
            f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape")
            for name, value in self.xattrs.items()
        }
        return info


def file(content: bytes = b"", mode: int = 0o644, uid: int = 0, gid: int = 0, **xattrs) -> Member:
    return Member(content=content, mode=mode, uid=uid, gid=gid, **xattrs)


def folder(mode: int = 0o755, uid: int = 0, gid: int = 0) -> Member:
    return Member(tarfile.DIRTYPE, mode=mode, uid=uid, gid=gid)


def link(target: str) -> Member:
    return Member(tarfile.SYMTYPE, mode=0o777, target=target)


def hard_link(target: str, mode: int = 0o644) -> Member:
    return Member(tarfile.LNKTYPE, mode=mode, target=target)


def device(major: int, minor: int, mode: int = 0o600) -> Member:
    return Member(tarfile.CHRTYPE, mode=mode, device=(major, minor))


def fifo(mode: int = 0o644) -> Member:
    return Member(tarfile.FIFOTYPE, mode=mode)


def whiteout() -> Member:
    """What lies at ``folder/.wh.name``."""
    return Member(mode=0)


Layer = Mapping[str, Member]


def tar(members: Layer | Sequence[tuple[str, Member]], form: int = tarfile.PAX_FORMAT) -> bytes:
    """The tar stream of a layer, entries in the order given."""
    pairs = members.items() if isinstance(members, Mapping) else members
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for path, member in pairs:
            archive.addfile(member.info(path), io.BytesIO(member.content))
    return out.getvalue()


def squeezed(data: bytes) -> bytes:
    """gzip, without a time."""
    return gzip.compress(data, 6, mtime=0)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Store:
    """An OCI image layout folder that tests fill."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs/sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self._index: list[dict[str, object]] = []

    def put(self, data: bytes) -> str:
        """Keep ``data``; its digest."""
        digest = digest_of(data)
        self.path(digest).write_bytes(data)
        return digest

    def path(self, digest: str) -> Path:
        """Where a blob lies."""
        return self.folder / "blobs/sha256" / digest.removeprefix("sha256:")

    def descriptor(self, data: bytes, media_type: str) -> dict[str, object]:
        """Keep ``data``; what points to it."""
        return {"mediaType": media_type, "digest": self.put(data), "size": len(data)}

    def image(
        self,
        name: str,
        layers: Sequence[Layer | bytes],
        *,
        config: Mapping[str, object] | None = None,
        packed: bool = True,
    ) -> str:
        """Build an image, name it in the index, return its digest."""
        tars = [one if isinstance(one, bytes) else tar(one) for one in layers]
        document = {
            "architecture": "amd64",
            "os": "linux",
            "config": dict(config or {"Cmd": ["/bin/sh"]}),
            "rootfs": {"type": "layers", "diff_ids": [digest_of(one) for one in tars]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.descriptor(_json(document), OCI_CONFIG),
            "layers": [
                self.descriptor(squeezed(one), f"{LAYER}+gzip")
                if packed
                else self.descriptor(one, LAYER)
                for one in tars
            ],
        }
        return self.name(name, manifest, OCI_MANIFEST)

    def index(self, name: str, images: Sequence[str]) -> str:
        """An image index over images of this layout; its digest."""
        manifests = [
            {
                "mediaType": OCI_MANIFEST,
                "digest": one,
                "size": self.path(one).stat().st_size,
                "platform": {"architecture": "amd64", "os": "linux"},
            }
            for one in images
        ]
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
        return self.name(name, document, OCI_INDEX)

    def name(self, name: str, document: Mapping[str, object], media_type: str) -> str:
        """Keep a manifest and enter it in index.json under ``name``."""
        entry = self.descriptor(_json(document), media_type)
        self._index.append({**entry, "annotations": {REF_NAME: name}})
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self._index}
        (self.folder / "index.json").write_bytes(_json(index))
        return str(entry["digest"])


def _json(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
