"""A real registry on loopback, real images in it, and the real cosign.

The registry is Debian's ``docker-registry``, images are pushed with ``skopeo``, cosign is Debian testing's,
unpacked beside the system. Everything ends with its context manager.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from catena.containers.images.layout import Layout
from catena.formats import oci
from catena.lab.process import Child
from debian_testing import program

SECONDS = 60.0
_STARTS = 5

needs_registry = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("docker-registry", "skopeo")),
    reason="a registry needs docker-registry and skopeo",
)


@dataclass(frozen=True)
class Image:
    """A tiny image: its manifest's digest, and where it is."""

    digest: str
    reference: str


def tiny_layout(folder: Path, name: str = "latest", text: str = "hello") -> str:
    """An OCI layout with one image of one file; the image's digest."""
    layout = Layout.create(folder)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as file:
        member = tarfile.TarInfo("hello.txt")
        member.size = len(text)
        file.addfile(member, io.BytesIO(text.encode()))
    layer = gzip.compress(tar.getvalue(), mtime=0)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/hello"]},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(tar.getvalue()).hexdigest()}"],
            },
        }
    ).encode()
    manifest = oci.Manifest(
        schema_version=2,
        media_type=oci.IMAGE_MANIFEST,
        config=oci.Descriptor(
            media_type=oci.IMAGE_CONFIG, digest=layout.add(config), size=len(config)
        ),
        layers=(
            oci.Descriptor(
                media_type="application/vnd.oci.image.layer.v1.tar+gzip",
                digest=layout.add(layer),
                size=len(layer),
            ),
        ),
    )
    return layout.put_manifest(manifest.encode(), oci.IMAGE_MANIFEST, name)


@dataclass(frozen=True)
class LocalRegistry:
    """A running registry at ``host`` (``127.0.0.1:port``)."""

    host: str
    folder: Path

    def push(self, name: str, text: str = "hello", tag: str = "1") -> Image:
        """Push a tiny image as ``name:tag`` with skopeo."""
        room = self.folder / "pushed" / hashlib.sha256(f"{name}{text}{tag}".encode()).hexdigest()
        digest = tiny_layout(room, "latest", text)
        reference = f"{self.host}/{name}:{tag}"
        skopeo("copy", "--dest-tls-verify=false", f"oci:{room}:latest", f"docker://{reference}")
        return Image(digest, reference)


@contextmanager
def registry(folder: Path) -> Iterator[LocalRegistry]:
    """Debian's registry on a free port, its files below ``folder``."""
    folder.mkdir(exist_ok=True)
    for _ in range(_STARTS):
        port = _free_port()
        config = folder / "registry.yml"
        config.write_text(
            "version: 0.1\n"
            f"storage: {{filesystem: {{rootdirectory: {folder}/store}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '127.0.0.1:{port}'}}\n"
            "log: {level: error, accesslog: {disabled: true}}\n"
        )
        with Child(
            "docker-registry", ("docker-registry", "serve", config), log=folder / "registry.log"
        ) as child:
            if _listens(child, port):
                yield LocalRegistry(f"127.0.0.1:{port}", folder)
                return
    pytest.fail(f"registry does not start: {(folder / 'registry.log').read_text()[-500:]}")


def cosign(folder: Path, *words: str | Path, good: bool = True) -> str:
    """What cosign prints; its home is ``folder``, where it asks nobody else."""
    environment = {
        **os.environ,
        "HOME": str(folder),
        "COSIGN_PASSWORD": "",
        "SIGSTORE_NO_CACHE": "true",
        "TUF_ROOT": str(folder / "tuf"),
    }
    done = subprocess.run(
        [program("cosign"), *map(str, words)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode == 0) is good, done.stdout + done.stderr
    return done.stdout + done.stderr


def skopeo(*words: str | Path) -> str:
    """What skopeo prints."""
    done = subprocess.run(
        ["skopeo", "--insecure-policy", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(child: Child, port: int) -> bool:
    deadline = time.monotonic() + 10
    while child.running and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False
