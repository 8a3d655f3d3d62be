"""Notation, simple signing and ACIs through the one verifier: whose, for which repository, how old."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from signing import Given

from catena.containers.images.source import (
    ACI_SIGNATURE,
    NOTATION_COSE,
    NOTATION_JWS,
    SIMPLE_SIGNING,
    SignatureArtifact,
)
from catena.containers.signature import notation, refusals
from catena.containers.signature.certificates import CertificateOutOfDate
from catena.containers.signature.notation import ExpiredSignature
from catena.containers.signature.openpgp import ForgedOpenPgpSignature
from catena.containers.signature.policy import compile_policy
from catena.containers.signature.verify import verify_image
from catena.formats import aci as aci_format
from catena.formats import openpgp
from catena.formats.containerpolicy import CertificateIdentity, ContainerPolicy, Publisher, Scope
from catena.formats.notation import Descriptor
from code_signing import IMAGE, NOW, TARGET, publisher
from small_signatures import aci

REPOSITORY = "registry.example/team/app"
ALICE, MALLORY = publisher(1), publisher(2)
KINDS = {NOTATION_JWS: notation.sign_jws, NOTATION_COSE: notation.sign_cose}
VERSIONED = Descriptor(TARGET.media_type, IMAGE, 349, {"version": "1.2.3"})


def now():
    return datetime.now(UTC)


def rules(keys, repository=REPOSITORY, **scope):
    who = Publisher(name="team", **keys)
    rule = Scope(repository=repository, publishers=("team",), **scope)
    return compile_policy(
        ContainerPolicy(name="test", version=1, publishers=(who,), scopes=(rule,))
    )


def by_certificate(who=ALICE, subject="CN=publisher 1,O=Example,ST=WA,C=US"):
    pem = who.root.public_bytes(Encoding.PEM).decode()
    return {"identities": (CertificateIdentity(roots=(pem,), subject=subject),)}


def by_openpgp(gpg, *names):
    keys = (openpgp.armor(gpg.public(name), openpgp.KEY_ARMOR) for name in names)
    return {"openpgp": tuple(keys)}


def verified(artifact, policy, image=IMAGE, repository=REPOSITORY, at=NOW):
    return verify_image(Given([artifact]), image, repository, policy, at)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def envelope(kind, who=ALICE, target=VERSIONED, **options):
    return SignatureArtifact(kind, KINDS[kind](who.signer, who.chain, target, NOW, **options))


def test_notation_proves_a_publisher(kind):
    found = verified(envelope(kind), rules(by_certificate(), min_version="1.2"))
    assert (found.publisher, found.claimed_repository, found.version) == ("team", "", "1.2.3")
    assert found.key == ALICE.signer.key_id
    assert found.identity == "subject CN=publisher 1,O=Example,ST=WA,C=US"
    assert found.signed_at == NOW


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        (by_certificate(MALLORY), refusals.OtherPublisher),
        (by_certificate(subject="CN=another"), refusals.OtherIdentity),
    ],
)
def test_notation_by_somebody_else_is_refused(kind, keys, error):
    with pytest.raises(error):
        verified(envelope(kind), rules(keys))


def test_notation_of_another_image_is_refused(kind):
    with pytest.raises(refusals.OtherImage):
        verified(envelope(kind), rules(by_certificate()), image="sha256:" + "cd" * 32)


def test_notation_that_has_expired_is_refused(kind):
    late = {"at": NOW + timedelta(days=2)}
    with pytest.raises(ExpiredSignature):
        verified(envelope(kind, expiry=NOW + timedelta(days=1)), rules(by_certificate()), **late)
    with pytest.raises(CertificateOutOfDate):
        verified(envelope(kind), rules(by_certificate()), at=NOW + timedelta(days=900))


def test_notation_of_an_old_version_is_refused(kind):
    with pytest.raises(refusals.OlderVersion):
        verified(envelope(kind), rules(by_certificate(), min_version="2"))


def test_a_publisher_with_two_scopes_needs_a_format_that_names_the_repository(kind):
    who = Publisher(name="team", **by_certificate())
    scopes = tuple(Scope(repository=f"registry.example/{one}", publishers=("team",)) for one in ("team/app", "other"))  # fmt: skip
    policy = compile_policy(
        ContainerPolicy(name="test", version=1, publishers=(who,), scopes=scopes)
    )
    with pytest.raises(refusals.RepositoryUnclaimed):
        verified(envelope(kind), policy)


def message(gpg, reference=f"{REPOSITORY}:1", image=IMAGE):
    critical = {
        "type": "atomic container signature",
        "image": {"docker-manifest-digest": image},
        "identity": {"docker-reference": reference},
    }
    signed = gpg.message("alice", json.dumps({"critical": critical, "optional": {}}).encode())
    return SignatureArtifact(SIMPLE_SIGNING, signed)


def test_simple_signing_proves_publisher_and_repository(gpg):
    found = verified(message(gpg), rules(by_openpgp(gpg, "bob", "alice")), at=now())
    assert (found.publisher, found.claimed_repository) == ("team", REPOSITORY)
    assert [found.key] == gpg.fingerprints("alice")


def test_simple_signing_for_elsewhere_is_refused(gpg):
    policy = rules(by_openpgp(gpg, "alice"))
    with pytest.raises(refusals.OtherRepository):
        verified(message(gpg, "registry.example/other:1"), policy, at=now())
    with pytest.raises(refusals.OtherTag):
        verified(message(gpg), policy, repository=f"{REPOSITORY}:2", at=now())
    with pytest.raises(refusals.OtherImage):
        verified(message(gpg, image="sha256:" + "cd" * 32), policy, at=now())
    with pytest.raises(refusals.OtherPublisher):
        verified(message(gpg), rules(by_openpgp(gpg, "bob")), at=now())


@pytest.mark.parametrize(
    ("claim", "reference", "accepted"),
    [
        ("vendor.example/*", "vendor.example/app:1", True),
        ("vendor.example/*", "registry.example/team/app:1", False),
        ("vendor.example/app", "vendor.example/app:9", True),
        ("vendor.example/app:1", "vendor.example/app:1", True),
        ("vendor.example/app:1", "vendor.example/app:2", False),
        ("vendor.example/app:1", "vendor.example/app", False),
    ],
)
def test_a_mirror_asks_for_the_name_at_the_vendor(gpg, claim, reference, accepted):
    policy = rules(by_openpgp(gpg, "alice"), "registry.example/team/*", claim=claim)
    if accepted:
        verified(message(gpg, reference), policy, at=now())
        return
    with pytest.raises((refusals.OtherRepository, refusals.OtherTag)):
        verified(message(gpg, reference), policy, at=now())


def signed_aci(gpg, data):
    return SignatureArtifact(ACI_SIGNATURE, gpg.detached("alice", data), detached=data)


def test_an_aci_proves_its_name_and_version(gpg):
    data = aci()
    image = aci_format.parse(data).image_id
    policy = rules(by_openpgp(gpg, "alice"), "example.com/app", min_version="1.0")
    found = verified(signed_aci(gpg, data), policy, image, "example.com/app", now())
    assert (found.image, found.claimed_repository, found.version) == (image, "example.com/app", "1.0.0")  # fmt: skip


def test_an_aci_of_another_name_image_or_publisher_is_refused(gpg):
    data = aci()
    image, artifact = aci_format.parse(data).image_id, signed_aci(gpg, data)
    policy = rules(by_openpgp(gpg, "alice"), "example.com/*")
    with pytest.raises(refusals.OtherRepository):
        verified(artifact, policy, image, "example.com/other", now())
    with pytest.raises(refusals.OtherImage):
        verified(artifact, policy, "sha512-" + "0" * 128, "example.com/app", now())
    with pytest.raises(refusals.OtherPublisher):
        verified(artifact, rules(by_openpgp(gpg, "bob"), "example.com/*"), image, "example.com/app", now())  # fmt: skip
    forged = SignatureArtifact(ACI_SIGNATURE, artifact.content, detached=data + b"\0" * 512)
    with pytest.raises(ForgedOpenPgpSignature):
        verified(forged, policy, image, "example.com/app", now())
