"""Signing images: what is written, and what is not signed."""

import json

import msgspec
import pytest
from signing import BUNDLE, COSIGN, NAME, NOW, REPOSITORY, one_scope, signer, store

from catena.containers.images import attached
from catena.containers.images.folder import StoreUnusable
from catena.containers.images.layout import Layout
from catena.containers.images.source import LAUNCH_POLICY
from catena.containers.launch.refusals import UnusableLaunchPolicy
from catena.containers.signature import sign
from catena.containers.signature.result import SignatureFormat
from catena.errors import FormatError
from catena.formats import oci, sigstore, simplesigning
from catena.formats.launchpolicy import LAUNCH_POLICY_TYPE, LaunchPolicy
from catena.keys.documents import open_document
from catena.keys.envelope import open_envelope

LAUNCH = LaunchPolicy(name="app", version=1, argv=(("/app",),))


def named(layout, image, tag):
    return layout.tagged(f"{REPOSITORY}:{tag(image)}")


def test_signatures_in_the_older_format_are_layers_of_one_manifest(tmp_path):
    shop = store(tmp_path)
    for _ in range(3):
        shop.sign(signer())
    manifest = oci.parse_manifest(named(shop.layout, shop.image, attached.signature_tag))
    assert len(manifest.layers) == 3
    config = json.loads(shop.layout.blobs.read(manifest.config.digest, 10_000))
    assert config["rootfs"]["diff_ids"] == [one.digest for one in manifest.layers]
    payload = simplesigning.parse(shop.layout.blobs.read(manifest.layers[0].digest, 10_000))
    assert (payload.image, payload.reference) == (shop.image, REPOSITORY)


def test_bundles_refer_to_their_image_and_are_listed_once(tmp_path):
    shop, key = store(tmp_path), signer()
    shop.sign(key, BUNDLE)
    shop.sign(key, BUNDLE)
    listed = oci.parse_index(named(shop.layout, shop.image, attached.referrers_tag)).manifests
    assert len(listed) == 2
    manifest = oci.parse_manifest(shop.layout.manifest(listed[0].digest))
    assert (manifest.subject.digest, manifest.kind) == (shop.image, sigstore.BUNDLE_TYPE)
    shop.layout.attach(NAME, shop.image, shop.layout.manifest(listed[0].digest), manifest.kind)
    again = oci.parse_index(named(shop.layout, shop.image, attached.referrers_tag)).manifests
    assert again == listed


def test_a_time_that_the_signer_gives_is_signed_instead_of_now(tmp_path):
    shop, key = store(tmp_path), signer()
    target = sign.target_of(shop.layout, NAME, REPOSITORY)
    created = {oci.CREATED: "2026-05-01T00:00:00Z"}
    signed = sign.sign_image(target, key, COSIGN, annotations=created, now=NOW)
    assert signed.annotations == created
    assert shop.verify(one_scope(key)).signed_at.isoformat() == "2026-05-01T00:00:00+00:00"


def test_a_launch_policy_is_a_signed_document_about_the_image(tmp_path):
    shop, key = store(tmp_path), signer()
    sign.attach_launch_policy(sign.target_of(shop.layout, NAME, REPOSITORY), LAUNCH, key)
    (envelope,) = shop.layout.launch_policies(shop.image)
    assert open_document(envelope, [key.public_key], LaunchPolicy) == LAUNCH
    statement = open_envelope(envelope, [key.public_key])
    assert statement.predicate_type == LAUNCH_POLICY_TYPE
    (subject,) = statement.subject
    assert subject.digest == {"sha256": shop.image.removeprefix("sha256:")}
    (listed,) = oci.parse_index(named(shop.layout, shop.image, attached.referrers_tag)).manifests
    assert listed.artifact_type == LAUNCH_POLICY


def test_a_launch_policy_that_cannot_be_applied_is_not_attached(tmp_path):
    shop = store(tmp_path)
    broken = msgspec.structs.replace(LAUNCH, argv=(("re:(",),))
    with pytest.raises(UnusableLaunchPolicy):
        sign.attach_launch_policy(sign.target_of(shop.layout, NAME, REPOSITORY), broken, signer())
    assert not list(shop.layout.launch_policies(shop.image))


@pytest.mark.parametrize("kind", [SignatureFormat.SIMPLE_SIGNING, SignatureFormat.ACI])
def test_a_format_that_nobody_signs_in_here_is_refused(tmp_path, kind):
    with pytest.raises(sign.UnsupportedFormat):
        store(tmp_path).sign(signer(), kind)


def test_more_annotations_than_a_signature_may_have_are_refused(tmp_path):
    many = {f"a{number}": "" for number in range(sign.MAX_ANNOTATIONS + 1)}
    with pytest.raises(sign.TooManyAnnotations):
        store(tmp_path).sign(signer(), COSIGN, **many)


def test_what_is_no_image_gets_no_bundle(tmp_path):
    shop = store(tmp_path)
    shop.layout.put_manifest(b'{"mediaType":"text/plain"}', "text/plain", f"{REPOSITORY}:2")
    with pytest.raises(sign.NoImage):
        shop.sign(signer(), BUNDLE, name=f"{REPOSITORY}:2")
    shop.layout.put_manifest(b"not JSON", "text/plain", f"{REPOSITORY}:3")
    with pytest.raises(FormatError):
        shop.sign(signer(), BUNDLE, name=f"{REPOSITORY}:3")


def test_an_index_is_signed_as_one(tmp_path):
    shop, key = store(tmp_path), signer()
    name = f"{REPOSITORY}:many"
    index = oci.Index(schema_version=2, manifests=())
    digest = shop.layout.put_manifest(index.encode(), oci.IMAGE_INDEX, name)
    shop.sign(key, BUNDLE, name=name)
    (listed,) = oci.parse_index(named(shop.layout, digest, attached.referrers_tag)).manifests
    subject = oci.parse_manifest(shop.layout.manifest(listed.digest)).subject
    assert (subject.digest, subject.media_type) == (digest, oci.IMAGE_INDEX)


def test_a_store_that_cannot_be_made_is_unusable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnusable):
        Layout.create(tmp_path / "file")
    with pytest.raises(StoreUnusable):
        Layout(tmp_path / "file" / "deeper").add(b"content")
