"""Images for tests: OCI layouts whose layers are written down as in ``small_tars``."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from catena.containers.images.blobs import AlteredBlob, MissingBlob
from small_tars import Layer, tar

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
REF_NAME = "org.opencontainers.image.ref.name"


def squeezed(data: bytes) -> bytes:
    """gzip, without a time."""
    return gzip.compress(data, 6, mtime=0)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Existing:
    """The blobs of a layout that is there (as ``Blobs``)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, digest: str) -> Path:
        """Where a blob lies."""
        return self.folder / "blobs/sha256" / digest.removeprefix("sha256:")

    def read(self, digest: str, limit: int) -> bytes:
        """The content of a blob."""
        with self.open(digest) as stream:
            data = stream.read(limit + 1)
        assert len(data) <= limit
        if digest_of(data) != digest:
            raise AlteredBlob("a blob of the test's layout was altered", got=digest)
        return data

    def open(self, digest: str):
        """The content of a blob as a stream."""
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError as error:
            raise MissingBlob("no such blob in the test's layout", got=digest) from error


class Store(Existing):
    """An OCI image layout folder that tests fill."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "blobs/sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self._index: list[dict[str, object]] = []

    def put(self, data: bytes) -> str:
        """Keep ``data``; its digest."""
        digest = digest_of(data)
        self.path(digest).write_bytes(data)
        return digest

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
