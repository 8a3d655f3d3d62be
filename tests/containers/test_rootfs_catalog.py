"""The catalog: an image's layers are known once their digests on both sides were checked."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from imagebuilder import LAYER, OCI_CONFIG, OCI_MANIFEST, Store, digest_of, squeezed

from catena.containers.images.blobs import AlteredBlob, MissingBlob
from catena.containers.rootfs import packing
from catena.containers.rootfs import tree as trees
from catena.containers.rootfs.catalog import Catalog, UnsafeFolder
from catena.containers.rootfs.layer import layer_tree
from catena.containers.rootfs.packing import Hashed, unpacked
from catena.containers.rootfs.refusals import (
    AmbiguousLayer,
    UnfitDiffId,
    UnfitImage,
    UnreadableLayer,
)
from catena.errors import FormatError
from catena.formats import layertar
from small_tars import file, folder, link, tar, whiteout

CORPUS = Path(__file__).resolve().parents[2].parent / "shared/corpus/containers"
LOWER = {"etc/": folder(), "etc/motd": file(b"hello"), "etc/gone": file(b"x")}
UPPER = {"etc/.wh.gone": whiteout(), "bin/sh": file(b"#!", 0o755)}
needs_zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "layout")


def through(data: bytes, **limits) -> bytes:
    out = b""
    with unpacked(Hashed(io.BytesIO(data), limit=limits.get("limit", 1 << 30))) as inside:
        while more := inside.read(1000):
            out += more
    return out


# Packing -----------------------------------------------------------------------------------

CONTENT = os.urandom(5000) + bytes(200_000)
PACKED = {
    "not packed": CONTENT,
    "gzip": gzip.compress(CONTENT),
    "gzip in members": b"".join(
        gzip.compress(CONTENT[at : at + 9999]) for at in range(0, len(CONTENT), 9999)
    ),
    "gzip with an empty member": gzip.compress(CONTENT) + gzip.compress(b""),
    "bzip2": bz2.compress(CONTENT),
    "xz": lzma.compress(CONTENT),
}


@pytest.mark.parametrize("data", PACKED.values(), ids=PACKED)
def test_every_way_of_packing_is_undone(data):
    assert through(data) == CONTENT


@needs_zstd
def test_zstd_is_undone_by_its_program():
    data = subprocess.run(["zstd", "-cq"], input=CONTENT, capture_output=True, check=True).stdout
    assert through(data) == CONTENT
    with pytest.raises(FormatError):
        through(data[:-9])


@needs_zstd
def test_a_reader_that_gives_up_leaves_no_program_behind():
    data = subprocess.run(
        ["zstd", "-cq"], input=bytes(50 << 20), capture_output=True, check=True
    ).stdout
    with unpacked(Hashed(io.BytesIO(data), limit=1 << 30)) as inside:
        assert inside.read(10) == bytes(10)
        process = inside._process
    assert process.returncode is not None


def test_zstd_without_its_program_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UnreadableLayer, match="zstd"):
        through(b"\x28\xb5\x2f\xfd" + bytes(20))


@pytest.mark.parametrize("data", [PACKED["gzip"], PACKED["bzip2"], PACKED["xz"]])
def test_a_packed_stream_cut_anywhere_or_followed_by_more_is_refused(data):
    for size in range(8, len(data), 1 + len(data) // 50):
        with pytest.raises(FormatError):
            through(data[:size])
    with pytest.raises(FormatError):
        through(data + b"more")


def test_a_stream_longer_than_its_bound_is_refused():
    with pytest.raises(FormatError, match="too long"):
        through(CONTENT, limit=100)


def test_too_many_members_are_refused(monkeypatch):
    monkeypatch.setattr(packing, "MAX_MEMBERS", 3)
    assert through(gzip.compress(b"x") * 3) == b"xxx"
    with pytest.raises(FormatError, match="members"):
        through(gzip.compress(b"x") * 4)


# Images ------------------------------------------------------------------------------------


def test_an_images_layers_are_listed(store):
    catalog = Catalog(store)
    catalog.add(store.image("example.org/app:1", [LOWER, UPPER]))
    (chain,) = catalog.chains()
    assert chain.diff_ids == (digest_of(tar(LOWER)), digest_of(tar(UPPER)))
    assert list(catalog.whole(chain).tree) == [b"", b"bin", b"bin/sh", b"etc", b"etc/motd"]
    assert catalog.layer(chain.diff_ids[0]) == layer_tree(layertar.parse(tar(LOWER)))


def test_layers_that_are_not_packed_are_read(store):
    catalog = Catalog(store)
    catalog.add(store.image("example.org/app:1", [LOWER], packed=False))
    assert len(catalog.chains()) == 1


def test_images_with_the_same_layers_are_one_chain(store):
    catalog = Catalog(store)
    first = store.image("example.org/app:1", [LOWER])
    second = store.image("example.org/app:2", [LOWER], config={"Cmd": ["/other"]})
    catalog.add(first)
    catalog.add(second)
    (chain,) = catalog.chains()
    assert chain.images == {first, second}


def test_an_image_is_forgotten_with_the_layers_that_no_other_one_has(store):
    catalog = Catalog(store)
    first = store.image("example.org/app:1", [LOWER])
    second = store.image("example.org/app:2", [LOWER, UPPER])
    for image in (first, second):
        catalog.add(image)
    catalog.forget(second)
    assert [chain.images for chain in catalog.chains()] == [{first}]
    assert catalog.layers() == (digest_of(tar(LOWER)),)
    catalog.forget(first)
    catalog.forget(first)
    assert (catalog.chains(), catalog.layers()) == ((), ())


def test_an_index_stands_for_those_of_its_images_that_are_here(store):
    here = store.image("example.org/app:amd64", [LOWER])
    absent = store.image("example.org/app:arm64", [UPPER])
    index = store.index("example.org/app:1", [here, absent])
    store.path(absent).unlink()
    catalog = Catalog(store)
    catalog.add(index)
    assert [chain.images for chain in catalog.chains()] == [{index, here}]
    store.path(here).unlink()
    with pytest.raises(MissingBlob):
        Catalog(store).add(index)


def blob_of(store, image):
    manifest = json.loads(store.path(image).read_bytes())
    return store.path(manifest["layers"][0]["digest"])


def test_a_blob_with_another_digest_is_refused(store):
    image = store.image("example.org/app:1", [LOWER])
    place = blob_of(store, image)
    place.write_bytes(gzip.compress(tar(LOWER), 1, mtime=0))  # the same tar, packed otherwise
    with pytest.raises(AlteredBlob):
        Catalog(store).add(image)


def test_a_blob_with_more_behind_its_end_is_refused(store):
    image = store.image("example.org/app:1", [LOWER])
    place = blob_of(store, image)
    place.write_bytes(place.read_bytes() + gzip.compress(b"", mtime=0))
    with pytest.raises(AlteredBlob):
        Catalog(store).add(image)


def named(store, manifest):
    return store.name("example.org/app:1", manifest, OCI_MANIFEST)


def manifest_of(store, diff_ids, layers, kind="layers"):
    config = {"architecture": "amd64", "os": "linux"}
    config["rootfs"] = {"type": kind, "diff_ids": diff_ids}
    return {
        "schemaVersion": 2,
        "config": store.descriptor(json.dumps(config).encode(), OCI_CONFIG),
        "layers": [store.descriptor(squeezed(one), f"{LAYER}+gzip") for one in layers],
    }


def test_a_layer_with_another_diff_id_is_refused(store):
    image = named(store, manifest_of(store, [digest_of(tar(UPPER))], [tar(LOWER)]))
    with pytest.raises(UnfitDiffId):
        Catalog(store).add(image)


def test_an_ambiguous_layer_keeps_its_image_unknown(store):
    catalog = Catalog(store)
    image = store.image("example.org/app:1", [tar([("a", file()), ("a", file(b"x"))])])
    with pytest.raises(AmbiguousLayer):
        catalog.add(image)
    assert catalog.chains() == ()


def test_an_image_that_cannot_be_known_does_not_keep_others_from_it(store):
    catalog = Catalog(store)
    through = [{"lib": link("usr/lib"), "usr/lib/": folder()}, {"lib/x": file(b"x")}]
    with pytest.raises(AmbiguousLayer, match="through"):
        catalog.add(store.image("example.org/bad:1", through))
    assert catalog.chains() == ()
    good = store.image("example.org/app:1", [LOWER])
    catalog.add(good)
    assert [one.images for one in catalog.chains()] == [{good}]


def test_documents_that_describe_no_layers_are_refused(store):
    layer, diff_id = tar(LOWER), digest_of(tar(LOWER))
    good = manifest_of(store, [diff_id], [layer])
    for manifest in (
        manifest_of(store, [diff_id, diff_id], [layer]),
        manifest_of(store, [diff_id], [layer], kind="other"),
        manifest_of(store, ["sha256:" + "g" * 64], [layer]),
        manifest_of(store, [], []),
        {**good, "schemaVersion": 1},
        {**good, "config": None},
        {"schemaVersion": 2},
    ):
        with pytest.raises(UnfitImage):
            Catalog(store).add(named(store, manifest))


@pytest.mark.parametrize("document", [b"", b"{}x", b"[" * 5000, b'{"layers":[],"layers":[]}'])
def test_malformed_documents_are_refused(store, document):
    with pytest.raises(UnfitImage):
        Catalog(store).add(store.put(document))


def test_a_missing_layer_is_reported(store):
    image = store.image("example.org/app:1", [LOWER])
    blob_of(store, image).unlink()
    with pytest.raises(MissingBlob):
        Catalog(store).add(image)


# Listings that outlive the process ---------------------------------------------------------


def test_listings_outlive_the_process(store, tmp_path):
    folder = tmp_path / "listings"
    folder.mkdir(mode=0o700)
    image = store.image("example.org/app:1", [LOWER, UPPER])
    first = Catalog(store, folder)
    first.add(image)
    blob_of(store, image).unlink()
    again = Catalog(store, folder)
    again.add(image)
    assert again.chains() == first.chains()


def test_a_listing_that_a_crash_cut_off_is_made_again(store, tmp_path):
    folder = tmp_path / "listings"
    folder.mkdir(mode=0o700)
    image = store.image("example.org/app:1", [LOWER])
    first = Catalog(store, folder)
    first.add(image)
    (place,) = folder.iterdir()
    whole = place.read_bytes()
    for size in range(0, len(whole), 7):
        place.write_bytes(whole[:size])
        again = Catalog(store, folder)
        again.add(image)
        assert again.chains() == first.chains()
        assert place.read_bytes() == whole


def test_a_folder_that_others_can_enter_is_refused(store, tmp_path):
    folder = tmp_path / "listings"
    folder.mkdir(mode=0o755)
    with pytest.raises(UnsafeFolder):
        Catalog(store, folder)


# ACIs --------------------------------------------------------------------------------------


@pytest.mark.skipif(not CORPUS.exists(), reason="the corpus is not here")
def test_acis_of_the_corpus_have_their_image_ids_packed_or_not():
    ids = json.loads((CORPUS / "generated-aci/image-ids.json").read_text())
    for name in ("good.aci", "good-gz.aci"):
        catalog = Catalog(None)
        with (CORPUS / "generated-aci" / name).open("rb") as stream:
            image = catalog.add_aci(stream)
        assert image in json.dumps(ids[name])
        (chain,) = catalog.chains()
        assert chain.images == {image}
        assert trees.ROOT in catalog.whole(chain).tree


def test_the_same_tar_as_an_aci_and_as_a_layer_means_two_things(store):
    data = tar({"manifest": file(b"{}"), "rootfs/": folder(), "rootfs/a": file(b"x")})
    catalog = Catalog(store)
    aci = catalog.add_aci(io.BytesIO(data))
    image = store.image("example.org/app:1", [data])
    catalog.add(image)
    found = {min(one.images): set(catalog.whole(one).tree) for one in catalog.chains()}
    assert found == {aci: {b"", b"a"}, image: {b"", b"manifest", b"rootfs", b"rootfs/a"}}
