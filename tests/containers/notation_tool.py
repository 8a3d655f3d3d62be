"""The real notation, and a real registry on loopback for it: Debian's, filled by ``skopeo``."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from catena.formats import notation as documents
from catena.lab.process import Child
from debian_testing import program

SECONDS = 60.0
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_EMPTY = b"{}"


def digest_of(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def descriptor(media_type, content, **more):
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), **more}


@dataclass(frozen=True)
class Pushed:
    """An image in a registry."""

    name: str
    manifest: bytes

    @property
    def digest(self):
        return digest_of(self.manifest)


@dataclass(frozen=True)
class PlainRegistry:
    """A running registry. It has no referrers API: signatures hang on a tag."""

    port: int
    folder: Path

    def reference(self, image):
        return f"127.0.0.1:{self.port}/{image.name}@{image.digest}"

    def push(self, name, text):
        """A tiny image, by ``skopeo``."""
        layout = self.folder / "pushed" / name.replace("/", "-")
        manifest = _layout(layout, text.encode())
        done = subprocess.run(
            ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:latest", f"docker://127.0.0.1:{self.port}/{name}:1"],
            capture_output=True,
            check=False,
            timeout=SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return Pushed(name, manifest)

    def envelopes(self, image):
        """Media type and content of every signature of the image."""
        index = json.loads(self._manifest(image, image.digest.replace(":", "-")))
        for entry in index["manifests"]:
            layer = json.loads(self._manifest(image, entry["digest"]))["layers"][0]
            yield layer["mediaType"], self._get(f"/v2/{image.name}/blobs/{layer['digest']}")

    def attach(self, image, media_type, envelope, thumbprints):
        """Push a signature as notation does, and name it in the image's tag."""
        for blob in (_EMPTY, envelope):
            self._put_blob(image, blob)
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": descriptor(documents.ARTIFACT_TYPE, _EMPTY),
                "layers": [descriptor(media_type, envelope)],
                "subject": descriptor(MANIFEST, image.manifest),
                "annotations": {"io.cncf.notary.x509chain.thumbprint#S256": thumbprints},
            }
        ).encode()
        self._put_manifest(image, digest_of(manifest), MANIFEST, manifest)
        entry = descriptor(MANIFEST, manifest, artifactType=documents.ARTIFACT_TYPE)
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
        tag = image.digest.replace(":", "-")
        self._put_manifest(image, tag, INDEX, json.dumps(index).encode())

    def _manifest(self, image, reference):
        return self._get(f"/v2/{image.name}/manifests/{reference}", {"Accept": f"{MANIFEST}, {INDEX}"})  # fmt: skip

    def _put_manifest(self, image, reference, media_type, content):
        path = f"/v2/{image.name}/manifests/{reference}"
        self._request("PUT", path, content, {"Content-Type": media_type}, 201)

    def _put_blob(self, image, content):
        _, headers = self._request("POST", f"/v2/{image.name}/blobs/uploads/", b"", {}, 202)
        place = headers["Location"].split(f":{self.port}", 1)[-1]
        place += f"{'&' if '?' in place else '?'}digest={digest_of(content)}"
        self._request("PUT", place, content, {"Content-Type": "application/octet-stream"}, 201)

    def _get(self, path, headers=None):
        return self._request("GET", path, None, headers or {}, 200)[0]

    def _request(self, method, path, body, headers, expected):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status == expected, content[:500]
            return content, answer.headers
        finally:
            connection.close()


@contextmanager
def plain_registry(folder: Path) -> Iterator[PlainRegistry]:
    """Debian's registry on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    config = folder / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/store}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
    )
    command = ("docker-registry", "serve", config)
    with Child("docker-registry", command, log=folder / "registry.log"):
        _await(port)
        yield PlainRegistry(port, folder)


def _await(port):
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("registry does not start")


def _layout(folder, content):
    """An OCI layout of an image with one layer; its manifest."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [digest_of(content)]}}).encode()  # fmt: skip
    packed = gzip.compress(content, mtime=0)
    layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip", packed)
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [layer],
        }
    ).encode()
    for blob in (config, packed, manifest):
        (blobs / digest_of(blob).removeprefix("sha256:")).write_bytes(blob)
    named = {"annotations": {"org.opencontainers.image.ref.name": "latest"}}
    index = {"schemaVersion": 2, "manifests": [descriptor(MANIFEST, manifest, **named)]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return manifest


@dataclass(frozen=True)
class Notation:
    """notation with a configuration of its own."""

    home: Path

    @property
    def config(self):
        return self.home / "notation"

    def __call__(self, *arguments, good=True):
        """What it printed; it must succeed, or fail."""
        done = subprocess.run(
            [program("notation"), *arguments],
            env={**os.environ, "XDG_CONFIG_HOME": str(self.home), "XDG_CACHE_HOME": str(self.home)},
            capture_output=True,
            check=False,
            text=True,
            timeout=SECONDS,
        )
        said = done.stdout + done.stderr
        assert (done.returncode == 0) == good, said
        return said

    def trust(self, store, certificate, identities=("*",)):
        """Trust a certificate (PEM) for everything. The policy."""
        folder = self.config / "truststore/x509/ca" / store
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{store}.crt").write_bytes(certificate)
        policy = {
            "version": "1.0",
            "trustPolicies": [
                {
                    "name": "everything",
                    "registryScopes": ["*"],
                    "signatureVerification": {"level": "strict"},
                    "trustStores": [f"ca:{store}"],
                    "trustedIdentities": list(identities),
                }
            ],
        }
        (self.config / "trustpolicy.json").write_text(json.dumps(policy))
        return json.dumps(policy).encode()
