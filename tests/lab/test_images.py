"""The lab's images, as other programs read them."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess

import pytest

from catena.lab import datadisk, images, tools
from catena.osimage.tool import run

pytestmark = pytest.mark.skipif(tools.BUSYBOX.find() is None, reason="not installed: busybox")


@pytest.fixture(scope="module")
def web():
    return datadisk.web()


@pytest.fixture
def layout(web, tmp_path):
    images.write_layout(tmp_path / "layout", (web, datadisk.rogue("acme/other")))
    return tmp_path / "layout"


def named(layout):
    index = json.loads((layout / "index.json").read_bytes())
    key = "org.opencontainers.image.ref.name"
    return {one["annotations"][key]: one["digest"] for one in index["manifests"]}


def test_equal_inputs_give_equal_digests(web):
    assert datadisk.web().digest == web.digest
    assert datadisk.rogue("acme/one").digest != datadisk.rogue("acme/two").digest


def test_every_blob_is_where_its_digest_says(layout):
    blobs = list((layout / "blobs/sha256").iterdir())
    assert len(blobs) == 7  # two manifests, two configurations, one shared layer and two others
    for blob in blobs:
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


def test_layers_of_the_configuration_are_those_of_the_manifest(web):
    manifest, (config, *layers) = json.loads(web.manifest()), web.blobs()
    listed = json.loads(config)["rootfs"]["diff_ids"]
    unpacked = [hashlib.sha256(gzip.decompress(layer)).hexdigest() for layer in layers]
    assert listed == [f"sha256:{digest}" for digest in unpacked]
    assert [one["size"] for one in manifest["layers"]] == [len(layer) for layer in layers]


def test_unpacked_layer_is_what_tar_would_have_unpacked(web, tmp_path):
    for number, layer in enumerate(web.layers):
        layer.unpack(tmp_path / f"ours-{number}")
        (tmp_path / f"theirs-{number}").mkdir()
        run(
            tools.TAR,
            ["-C", str(tmp_path / f"theirs-{number}"), "-xpf", "-"],
            content=layer.archive(),
        )
        ours, theirs = tree(tmp_path / f"ours-{number}"), tree(tmp_path / f"theirs-{number}")
        assert ours == theirs
        assert len(ours) == len(layer.entries)


def tree(folder):
    return {
        path.relative_to(folder): (
            path.lstat().st_mode,
            path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes(),
        )
        for path in folder.rglob("*")
    }


def test_skopeo_reads_the_layout(layout, web):
    if shutil.which("skopeo") is None:
        pytest.skip("not installed: skopeo")
    done = subprocess.run(
        ["skopeo", "inspect", f"oci:{layout}:{web.reference}"],
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["Digest"] == web.digest


def test_an_image_offered_elsewhere_keeps_its_digest(layout, web):
    before = named(layout)
    images.offer_as(layout, web.repository, "elsewhere/production")
    after = named(layout)
    assert after["elsewhere/production:1"] == before[web.reference] == web.digest
    assert web.reference not in after
    assert len(after) == len(before) == 2
