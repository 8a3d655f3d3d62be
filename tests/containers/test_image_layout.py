"""Image layouts: what other tools wrote, what is written here, and what hostile folders try."""

import os
import threading

import pytest
from signing import BUNDLE, COSIGN, NAME, NOW, REPOSITORY, one_scope, signer, store

from catena.containers.images import attached, copy
from catena.containers.images.blobs import AlteredBlob, MissingBlob
from catena.containers.images.copy import fetch
from catena.containers.images.folder import BlobFolder, StoreUnusable
from catena.containers.images.layout import Layout
from catena.containers.images.source import MovedTag, UnknownImage
from catena.containers.signature.sign import attach_launch_policy, target_of
from catena.containers.signature.verify import verify_image
from catena.errors import FormatError
from catena.formats import oci
from catena.formats.launchpolicy import LaunchPolicy
from container_images import needs_registry, skopeo, tiny_layout

LAUNCH = LaunchPolicy(name="app", version=1, argv=(("/app", "..."),))


def test_an_image_is_found_by_name_by_digest_and_by_both(tmp_path):
    shop = store(tmp_path)
    layout = shop.layout
    assert layout.resolve(NAME) == shop.image
    assert layout.resolve(f"{REPOSITORY}@{shop.image}") == shop.image
    assert layout.resolve(f"{NAME}@{shop.image}") == shop.image
    assert layout.images() == (shop.image,)
    assert layout.repositories(shop.image) == (REPOSITORY,)


def test_an_image_that_is_not_there_is_unknown(tmp_path):
    layout = store(tmp_path).layout
    for name in ("", "other", f"{REPOSITORY}:2", f"{REPOSITORY}@{oci.digest_of(b'no')}"):
        with pytest.raises(UnknownImage):
            layout.resolve(name)


def test_a_tag_that_moved_away_from_the_digest_beside_it_is_refused(tmp_path):
    shop = store(tmp_path)
    moved = tiny_layout(tmp_path, NAME, "other")
    with pytest.raises(MovedTag) as refused:
        shop.layout.resolve(f"{NAME}@{shop.image}")
    assert refused.value.got == moved


def test_an_image_whose_tag_moved_is_still_known_by_its_digest(tmp_path):
    shop = store(tmp_path)
    moved = tiny_layout(tmp_path, NAME, "other")
    tiny_layout(tmp_path, NAME, "third")
    assert set(shop.layout.images()) > {shop.image, moved}
    assert shop.layout.repositories(shop.image) == (REPOSITORY,)


def test_one_name_for_two_images_is_an_error(tmp_path):
    shop = store(tmp_path)
    other = tiny_layout(tmp_path, f"{REPOSITORY}:2", "other")
    index = (tmp_path / "index.json").read_text()
    (tmp_path / "index.json").write_text(index.replace(f"{REPOSITORY}:2", NAME))
    assert other in index
    with pytest.raises(FormatError):
        shop.layout.resolve(NAME)


def test_a_folder_that_is_no_layout_is_unusable(tmp_path):
    with pytest.raises(StoreUnusable):
        Layout(tmp_path).resolve(NAME)
    (tmp_path / "index.json").write_text('{"schemaVersion":2,"manifests":[]}')
    with pytest.raises(StoreUnusable):
        Layout(tmp_path).resolve(NAME)
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}')
    with pytest.raises(FormatError):
        Layout(tmp_path).resolve(NAME)


def test_changed_content_is_refused_and_missing_content_missed(tmp_path):
    shop = store(tmp_path)
    path = tmp_path / "blobs/sha256" / shop.image.partition(":")[2]
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(AlteredBlob):
        shop.layout.manifest(shop.image)
    path.unlink()
    with pytest.raises(MissingBlob):
        shop.layout.manifest(shop.image)


def test_content_beyond_the_limit_is_refused_unread(tmp_path):
    blobs = BlobFolder(tmp_path)
    digest = blobs.add(b"0123456789")
    assert blobs.read(digest, 10) == b"0123456789"
    with pytest.raises(FormatError):
        blobs.read(digest, 9)


def test_links_and_pipes_are_no_content(tmp_path):
    (tmp_path / "sha256").mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    digest = oci.digest_of(b"secret")
    path = tmp_path / "sha256" / digest.partition(":")[2]
    blobs = BlobFolder(tmp_path)
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(MissingBlob):
        blobs.read(digest, 100)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(MissingBlob):
        blobs.read(digest, 100)


@pytest.mark.parametrize(
    "name", ["sha256:../../etc/passwd", "sha512:" + "0" * 128, "sha256:ABC", ""]
)
def test_a_name_that_is_no_digest_leads_nowhere(tmp_path, name):
    with pytest.raises(FormatError):
        BlobFolder(tmp_path).open(name)


def test_content_that_is_not_what_was_announced_is_not_stored(tmp_path):
    blobs = BlobFolder(tmp_path)
    digest = oci.digest_of(b"good")
    for chunks, size in (([b"bad!"], 4), ([b"good", b"more"], 4), ([b"go"], 4), ([b"good"], 5)):
        with pytest.raises(AlteredBlob):
            blobs.add_stream(chunks, digest, size)
    assert list((tmp_path / "sha256").iterdir()) == []


def test_the_first_folder_that_has_content_answers(tmp_path):
    one, two = BlobFolder(tmp_path / "one"), BlobFolder(tmp_path / "two")
    digest = two.add(b"content")
    assert BlobFolder(tmp_path / "one", tmp_path / "two").read(digest, 100) == b"content"
    assert not one.has(digest)


def test_writers_wait_for_one_another(tmp_path):
    layout = store(tmp_path).layout
    names = [f"{REPOSITORY}:{number}" for number in range(8)]
    threads = [threading.Thread(target=tiny_layout, args=(tmp_path, name, name)) for name in names]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len({layout.resolve(name) for name in names}) == 8


def test_signatures_and_launch_policies_are_found_and_are_no_images(tmp_path):
    shop, key = store(tmp_path), signer()
    shop.sign(key, COSIGN)
    shop.sign(key, BUNDLE)
    attach_launch_policy(target_of(shop.layout, NAME, REPOSITORY), LAUNCH, key)
    assert len(list(shop.layout.signature_manifests(shop.image))) == 2
    assert len(list(shop.layout.launch_policies(shop.image))) == 1
    assert shop.layout.images() == (shop.image,)


def test_a_referrer_that_names_another_image_does_not_refer_to_this(tmp_path):
    shop, key = store(tmp_path), signer()
    other = store(tmp_path, f"{REPOSITORY}:2", "other")
    shop.sign(key, BUNDLE)
    listed = shop.layout.tagged(f"{REPOSITORY}:{attached.referrers_tag(shop.image)}")
    tag = f"{REPOSITORY}:{attached.referrers_tag(other.image)}"
    shop.layout.put_manifest(listed, oci.IMAGE_INDEX, tag)
    assert list(shop.layout.signature_manifests(other.image)) == []


def test_a_referrer_without_a_name_is_found_by_its_subject(tmp_path):
    """As other tools copy them into a layout."""
    shop, key = store(tmp_path), signer()
    shop.sign(key, BUNDLE)
    name = f"{REPOSITORY}:{attached.referrers_tag(shop.image)}"
    (referrer,) = oci.parse_index(shop.layout.tagged(name)).manifests
    index = oci.parse_index((tmp_path / "index.json").read_bytes())
    entries = tuple(one for one in index.manifests if one.notes.get(oci.REF_NAME) != name)
    again = oci.Index(schema_version=2, manifests=(*entries, referrer))
    (tmp_path / "index.json").write_bytes(again.encode())
    assert shop.verify(one_scope(key)).format is BUNDLE


def test_fetching_copies_an_image_with_all_that_decides_about_it(tmp_path):
    shop, key = store(tmp_path / "from"), signer()
    shop.sign(key, COSIGN)
    shop.sign(key, BUNDLE)
    attach_launch_policy(target_of(shop.layout, NAME, REPOSITORY), LAUNCH, key)
    there = Layout.create(tmp_path / "to")
    fetched = fetch(shop.layout, NAME, there, NAME)
    assert (fetched.signatures, fetched.launch_policies) == (2, 1)
    assert (fetched.image, fetched.images) == (shop.image, (shop.image,))
    assert fetched.copied > 0
    assert fetch(shop.layout, NAME, there, NAME).copied == 0
    for kind in (COSIGN, BUNDLE):
        rules = one_scope(key, formats=(kind,))
        assert verify_image(there, shop.image, NAME, rules, NOW).format is kind
    assert len(list(there.launch_policies(shop.image))) == 1


def test_fetching_an_image_with_a_changed_layer_stores_nothing_that_names_it(tmp_path):
    shop = store(tmp_path / "from")
    layer = oci.parse_manifest(shop.layout.manifest(shop.image)).layers[0]
    path = tmp_path / "from/blobs/sha256" / layer.digest.partition(":")[2]
    path.write_bytes(b"x" * layer.size)
    there = Layout.create(tmp_path / "to")
    with pytest.raises(AlteredBlob):
        fetch(shop.layout, NAME, there, NAME)
    assert there.images() == ()


def test_of_an_index_only_this_machine_s_images_are_fetched(tmp_path):
    shop = store(tmp_path / "from")
    entries = tuple(
        oci.Descriptor(
            media_type=oci.IMAGE_MANIFEST,
            digest=digest,
            size=1,
            platform=oci.Platform(architecture=architecture, os="linux"),
        )
        for digest, architecture in (
            (shop.image, copy._architecture()),
            (oci.digest_of(b"elsewhere"), "s390x"),
        )
    )
    many = f"{REPOSITORY}:many"
    index = oci.Index(schema_version=2, media_type=oci.IMAGE_INDEX, manifests=entries)
    digest = shop.layout.put_manifest(index.encode(), oci.IMAGE_INDEX, many)
    there = Layout.create(tmp_path / "to")
    fetched = fetch(shop.layout, many, there, many)
    assert (fetched.image, fetched.images) == (digest, (shop.image,))
    assert there.images() == (shop.image,)
    assert there.indexes(shop.image) == (digest,)
    assert there.repositories(shop.image) == (REPOSITORY,)
    only = oci.Index(schema_version=2, media_type=oci.IMAGE_INDEX, manifests=entries[1:])
    shop.layout.put_manifest(only.encode(), oci.IMAGE_INDEX, many)
    with pytest.raises(UnknownImage):
        fetch(shop.layout, many, there, many)


@needs_registry
def test_skopeo_reads_what_is_written_here_and_the_reverse(tmp_path):
    digest = tiny_layout(tmp_path / "ours", "latest")
    skopeo("copy", f"oci:{tmp_path}/ours:latest", f"oci:{tmp_path}/theirs:again")
    assert Layout(tmp_path / "theirs").resolve("again") == digest
    assert Layout(tmp_path / "theirs").images() == (digest,)
