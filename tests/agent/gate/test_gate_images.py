"""What the gate remembers of images, and for how long."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from node import APP, OTHER, UNSIGNED, Node

from catena.agent.gate import images as module
from catena.agent.gate.images import Images, NoLaunchPolicy
from catena.agent.gate.stores import Stores
from catena.containers.images.source import UnknownImage
from catena.containers.rootfs.catalog import Catalog
from catena.containers.rootfs.identity import RootRefused
from catena.containers.signature.policy import compile_policy
from catena.containers.signature.result import SignatureFormat, SignatureRefused
from catena.containers.signature.sign import attach_launch_policy
from catena.formats.containerpolicy import ContainerPolicy
from catena.keys.documents import open_document
from changed import replace as changed


class Switched:
    """A TPM that nobody asks."""

    tcti = "swtpm:port=1"


@pytest.fixture
def node(room):
    return Node(room, Switched())


@pytest.fixture
def told():
    return []


@pytest.fixture
def images(node, told):
    stores = Stores((node.store, node.folder / "absent"))
    return Images(
        stores=stores,
        catalog=Catalog(stores.blobs),
        emit=lambda event, **fields: told.append((event, fields)),
        now=lambda: datetime.now(UTC),
        strict=False,
    )


def policy_of(node, **changes):
    keys = [node.keys["release"].public_key]
    document = open_document(node.policy.read_bytes(), keys, ContainerPolicy)
    return compile_policy(changed(document, **changes))


@pytest.fixture
def verified(monkeypatch):
    """Counts verifications; ``change`` is what their results are changed by."""
    seen, change = [], {}
    real = module.verify_image

    def counting(*arguments):
        seen.append(arguments[1:3])
        return replace(real(*arguments), **change)

    monkeypatch.setattr(module, "verify_image", counting)
    return seen, change


def test_signature_by_a_key_is_verified_once(node, images, verified):
    image, policy = node.target(APP).image, policy_of(node)
    first = images.runnable(image, APP, policy)
    assert images.runnable(image, APP, policy) is first
    assert len(verified[0]) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"identity": "CN=somebody"},
        {"format": SignatureFormat.SIMPLE_SIGNING},
        {"format": SignatureFormat.ACI},
        {"format": SignatureFormat.NOTATION_JWS},
    ],
)
def test_signature_that_ends_with_time_is_verified_at_every_start(node, images, verified, change):
    verified[1].update(change)
    for _ in range(3):
        images.runnable(node.target(APP).image, APP, policy_of(node))
    assert len(verified[0]) == 3


def test_other_policy_repository_or_store_is_another_question(node, images, verified):
    image, policy = node.target(APP).image, policy_of(node)
    images.runnable(image, APP, policy)
    with pytest.raises(SignatureRefused):
        images.runnable(image, OTHER, policy)
    images.runnable(image, APP, policy_of(node, version=2))
    node.sign(UNSIGNED, "acme")
    images.runnable(image, APP, policy)
    assert len(verified[0]) == 4


def test_refusals_are_not_remembered(node, images):
    image, policy = node.target(UNSIGNED).image, policy_of(node)
    with pytest.raises(SignatureRefused):
        images.runnable(image, UNSIGNED, policy)
    node.sign(UNSIGNED, "acme")
    assert images.runnable(image, UNSIGNED, policy).verified.publisher == "acme"


def test_scope_may_want_a_launch_policy(node, images):
    policy = policy_of(node)
    scopes = tuple(changed(scope, launch_required=True) for scope in policy.document.scopes)
    strict = policy_of(node, scopes=scopes)
    image = node.target(OTHER).image
    assert images.runnable(image, OTHER, policy).launch.document == node.launch
    with pytest.raises(NoLaunchPolicy) as refused:
        images.runnable(image, OTHER, strict)
    assert refused.value.code == "launch-policy-missing"
    attach_launch_policy(node.target(OTHER), node.launch, node.keys["umbrella"])
    assert images.runnable(image, OTHER, strict)


def test_launch_policy_of_somebody_else_is_ignored_and_told(node, images, told):
    attach_launch_policy(node.target(OTHER), changed(node.launch, version=9), node.keys["acme"])
    runnable = images.runnable(node.target(OTHER).image, OTHER, policy_of(node))
    assert runnable.launch.document.version == 1
    assert ("launch-policy-ignored", "untrusted-signer") in [
        (event, fields["code"]) for event, fields in told
    ]


def test_image_without_a_policy_anywhere_has_the_shipped_one(node, images):
    runnable = images.runnable(
        node.target(OTHER).image, OTHER, policy_of(node, default_launch=None)
    )
    assert runnable.launch.document.name == "default"


def test_image_that_cannot_be_read_hides_no_other(node, images, told):
    manifest = node.target(OTHER).image.removeprefix("sha256:")
    blob = node.store / "blobs/sha256" / manifest
    kept = blob.read_bytes()
    blob.write_bytes(kept + b" ")
    images.learn()
    assert [event for event, _ in told] == ["image-unreadable"]
    assert images.identify(node.bundle(APP) / "rootfs", ())
    blob.write_bytes(kept)
    node.sign(UNSIGNED, "acme")  # the store changes
    assert images.identify(node.bundle(OTHER, name="other") / "rootfs", ())


def test_image_that_left_the_store_is_forgotten(node, images):
    root = node.bundle(APP) / "rootfs"
    assert images.identify(root, ())
    (node.store / "index.json").write_text('{"schemaVersion":2,"manifests":[]}')
    images.learn()
    with pytest.raises(RootRefused):
        images.identify(root, ())


def test_stores_answer_as_one(node, room):
    aside = Node(_made(room / "second"), Switched())
    stores = Stores((node.store, aside.store, room / "content"))
    image = node.target(APP).image
    assert stores.resolve(f"{APP}:1") == image
    assert stores.repositories(image) == (APP,)
    assert stores.indexes(image) == ()
    assert len(list(stores.signature_manifests(image))) == 2
    assert set(stores.images()) == {node.target(name).image for name in (APP, OTHER, UNSIGNED)}
    with pytest.raises(UnknownImage):
        stores.resolve("registry.example/none:1")


def test_content_store_has_blobs_and_no_names(node, room):
    content = room / "content"
    (node.store / "blobs").rename(_made(content) / "blobs")
    (node.store / "blobs").symlink_to(room / "nowhere")
    stores = Stores((node.store, content))
    assert stores.blobs.read(node_digest(stores), 1 << 20)
    (content / "index.json").unlink(missing_ok=True)
    assert Stores((content,)).images() == ()


def node_digest(stores):
    (folder,) = {one for one in stores._folders if (one / "index.json").exists()}
    import json

    return json.loads((folder / "index.json").read_text())["manifests"][0]["digest"]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
