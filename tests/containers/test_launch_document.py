"""Launch policies as signed documents."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from launch_vectors import STRICT

from catena.containers.launch.document import (
    MAX_POLICY,
    default_policy,
    digest_of,
    open_launch_policy,
    read_launch_policy,
    seal_launch_policy,
)
from catena.containers.launch.generate import generate_default
from catena.containers.launch.refusals import UnusableLaunchPolicy, WrongImage
from catena.errors import FormatError
from catena.formats import dsse
from catena.formats.dsse import Statement, Subject
from catena.formats.launchpolicy import LAUNCH_POLICY_TYPE
from catena.ids import ImageDigest
from catena.keys.envelope import ForgedEnvelope, UntrustedSigner, WrongPayloadType, seal
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key
from changed import replace

IMAGE = ImageDigest("sha256:" + "ab" * 32)
OTHER = ImageDigest("sha256:" + "cd" * 32)
ACI = ImageDigest("sha512-" + "ef" * 64)


@pytest.fixture(scope="module", params=[KeyAlgorithm.ED25519, KeyAlgorithm.ECDSA_P256])
def signer(request):
    return PrivateKeySigner(generate_key(request.param))


def statement(signer, **changes) -> bytes:
    made = Statement(
        subject=(Subject(name=IMAGE, digest={"sha256": "ab" * 32}),),
        predicate_type=LAUNCH_POLICY_TYPE,
        predicate=msgspec.Raw(msgspec.json.encode(STRICT)),
    )
    return seal(signer, replace(made, **changes)).encode()


@pytest.mark.parametrize("image", [IMAGE, ACI])
def test_what_was_sealed_for_an_image_opens_for_it(signer, image):
    envelope = seal_launch_policy(signer, STRICT, [OTHER, image])
    policy, digest = open_launch_policy(envelope, [signer.public_key], image)
    assert policy == STRICT
    assert digest == hashlib.sha256(msgspec.json.encode(STRICT)).hexdigest() == digest_of(STRICT)


def test_a_policy_for_another_image_is_refused(signer):
    envelope = seal_launch_policy(signer, STRICT, [OTHER])
    with pytest.raises(WrongImage) as refused:
        open_launch_policy(envelope, [signer.public_key], IMAGE)
    assert refused.value.code == "launch-policy-wrong-image"


@pytest.mark.parametrize(
    "digest", [{}, {"sha1": "ab" * 20}, {"sha256": "AB" * 32}, {"sha256": "ab" * 32, "x": "y"}]
)
def test_a_subject_is_the_images_digest_and_nothing_else(signer, digest):
    envelope = statement(signer, subject=(Subject(name=IMAGE, digest=digest),))
    with pytest.raises(WrongImage):
        open_launch_policy(envelope, [signer.public_key], IMAGE)


def test_only_a_trusted_key_signs(signer):
    envelope = seal_launch_policy(signer, STRICT, [IMAGE])
    other = PrivateKeySigner(generate_key(KeyAlgorithm.ED25519))
    with pytest.raises(UntrustedSigner):
        open_launch_policy(envelope, [other.public_key], IMAGE)


def test_a_policy_that_was_changed_after_signing_is_refused(signer):
    envelope = dsse.parse(seal_launch_policy(signer, STRICT, [IMAGE]))
    changed = replace(envelope, payload=envelope.payload.replace(b"/bin/true", b"/bin/evil"))
    with pytest.raises(ForgedEnvelope):
        open_launch_policy(changed.encode(), [signer.public_key], IMAGE)


def test_another_document_of_the_same_signer_is_no_launch_policy(signer):
    envelope = statement(signer, predicate_type="urn:catena:container:policy:v1")
    with pytest.raises(WrongPayloadType):
        open_launch_policy(envelope, [signer.public_key], IMAGE)


@pytest.mark.parametrize(
    "predicate",
    [
        b"{}",
        b'{"name":"x","version":0,"argv":[]}',
        b'{"name":"x","version":1,"argv":[],"more":1}',
    ],
)
def test_a_predicate_that_is_no_policy_is_malformed(signer, predicate):
    envelope = statement(signer, predicate=msgspec.Raw(predicate))
    with pytest.raises(FormatError):
        open_launch_policy(envelope, [signer.public_key], IMAGE)


def test_a_policy_that_cannot_be_applied_is_neither_opened_nor_sealed(signer):
    broken = replace(STRICT, argv=(("re:(",),))
    envelope = statement(signer, predicate=msgspec.Raw(msgspec.json.encode(broken)))
    with pytest.raises(UnusableLaunchPolicy):
        open_launch_policy(envelope, [signer.public_key], IMAGE)
    with pytest.raises(UnusableLaunchPolicy):
        seal_launch_policy(signer, broken, [IMAGE])
    with pytest.raises(UnusableLaunchPolicy):
        seal_launch_policy(signer, STRICT, [ImageDigest("latest")])


def test_a_policy_for_too_many_images_is_refused(signer):
    subject = Subject(name=IMAGE, digest={"sha256": "ab" * 32})
    with pytest.raises(FormatError):
        open_launch_policy(statement(signer, subject=(subject,) * 65), [signer.public_key], IMAGE)


def test_a_written_policy_is_read_strictly():
    assert read_launch_policy(msgspec.json.encode(STRICT)) == STRICT
    with pytest.raises(FormatError):
        read_launch_policy(b" " * (MAX_POLICY + 1))
    with pytest.raises(UnusableLaunchPolicy):
        read_launch_policy(msgspec.json.encode(replace(STRICT, capabilities=("ALL",))))


def test_the_shipped_policy_is_the_one_that_the_code_describes():
    assert default_policy() == generate_default()
    shipped = default_policy()
    assert (shipped.hooks, shipped.devices, shipped.host_namespaces) == ((), (), ())
    assert (shipped.exec, shipped.restore, shipped.privileged) == ((), False, False)
