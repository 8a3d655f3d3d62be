"""One verifier: what it accepts, and each reason for which it refuses."""

from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest
from signing import (
    BUNDLE,
    COSIGN,
    NAME,
    NOW,
    OTHER,
    REPOSITORY,
    Given,
    legacy_artifact,
    one_scope,
    pem,
    policy,
    signer,
    store,
)

from catena.containers.images.layout import Layout
from catena.containers.images.source import (
    COSIGN_PAYLOAD,
    NOTATION_JWS,
    SIGSTORE_BUNDLE,
    SignatureArtifact,
    TooManySignatures,
)
from catena.containers.signature import cosign, refusals, verify
from catena.containers.signature.result import SignatureFormat, SignatureRefused
from catena.containers.signature.sign import sign_image, target_of
from catena.errors import FormatError
from catena.formats import dsse, oci, sigstore, simplesigning
from catena.formats.containerpolicy import Scope
from catena.keys.signer import KeyAlgorithm
from container_images import tiny_layout

BOTH = pytest.mark.parametrize("kind", [COSIGN, BUNDLE])


@BOTH
def test_what_a_publisher_signed_for_its_repository_is_accepted(tmp_path, kind):
    shop, key = store(tmp_path), signer()
    shop.sign(key, kind, version="1.4.0")
    rules = one_scope(key)
    verified = shop.verify(rules, NAME)
    assert (verified.publisher, verified.image, verified.format) == ("team", shop.image, kind)
    assert (verified.repository, verified.claimed_repository) == (REPOSITORY, REPOSITORY)
    assert (verified.key, verified.identity) == (key.key_id, "")
    assert (verified.version, verified.signed_at) == ("1.4.0", NOW)
    assert (verified.scope, verified.policy, verified.index) == (REPOSITORY, rules.digest, "")


@BOTH
@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_every_kind_of_key_signs_both_formats(tmp_path, kind, algorithm):
    shop, key = store(tmp_path), signer(algorithm)
    shop.sign(key, kind)
    assert shop.verify(one_scope(key)).key == key.key_id


def test_an_unsigned_image_is_refused(tmp_path):
    with pytest.raises(refusals.Unsigned):
        store(tmp_path).verify(one_scope(signer()))


@BOTH
def test_an_image_of_another_publisher_is_refused_and_the_other_named(tmp_path, kind):
    shop, team, rival = store(tmp_path), signer(), signer()
    shop.sign(rival, kind)
    rules = policy(
        {"team": [pem(team)], "rival": [pem(rival)]},
        [
            Scope(repository=REPOSITORY, publishers=("team",)),
            Scope(repository=OTHER, publishers=("rival",)),
        ],
    )
    with pytest.raises(refusals.OtherPublisher) as refused:
        shop.verify(rules)
    assert (refused.value.expected, refused.value.got) == ("team", "rival")


@BOTH
def test_an_image_of_nobody_known_is_refused(tmp_path, kind):
    shop = store(tmp_path)
    shop.sign(signer(), kind)
    with pytest.raises(refusals.OtherPublisher) as refused:
        shop.verify(one_scope(signer()))
    assert refused.value.got == "nobody whom the policy knows"


@BOTH
def test_a_signature_moved_from_another_repository_is_refused(tmp_path, kind):
    shop, key = store(tmp_path), signer()
    shop.sign(key, kind, repository=OTHER)
    with pytest.raises(refusals.OtherRepository) as refused:
        shop.verify(one_scope(key))
    assert refused.value.got == OTHER


def test_a_signature_without_a_repository_counts_where_its_key_serves_one_scope(tmp_path):
    shop, key = store(tmp_path), signer()
    source = Given([unclaimed_bundle(key, shop.image)])
    verified = verify.verify_image(source, shop.image, REPOSITORY, one_scope(key), NOW)
    assert (verified.claimed_repository, verified.repository) == ("", REPOSITORY)


def test_a_signature_without_a_repository_is_refused_where_its_key_serves_two_scopes(tmp_path):
    key = signer()
    image = oci.digest_of(b"image")
    scopes = [Scope(repository=one, publishers=("team",)) for one in (REPOSITORY, OTHER)]
    source = Given([unclaimed_bundle(key, image)])
    with pytest.raises(refusals.RepositoryUnclaimed):
        verify.verify_image(source, image, REPOSITORY, policy({"team": [pem(key)]}, scopes), NOW)
    closed = [scopes[0], msgspec.structs.replace(scopes[1], formats=("cosign",))]
    rules = policy({"team": [pem(key)]}, closed)
    assert verify.verify_image(source, image, REPOSITORY, rules, NOW).publisher == "team"


def test_a_signature_under_another_tag_is_refused(tmp_path):
    shop, key = store(tmp_path), signer()
    shop.sign(key, repository=f"{REPOSITORY}:stable")
    assert shop.verify(one_scope(key), f"{REPOSITORY}:stable").publisher == "team"
    with pytest.raises(refusals.OtherTag):
        shop.verify(one_scope(key), f"{REPOSITORY}:latest")


def test_a_signature_under_a_tag_counts_for_the_image_by_its_digest(tmp_path):
    shop, key = store(tmp_path), signer()
    shop.sign(key, repository=f"{REPOSITORY}:stable")
    assert shop.verify(one_scope(key), REPOSITORY).claimed_repository == REPOSITORY


@BOTH
def test_a_signature_of_another_image_is_refused(tmp_path, kind):
    shop, key = store(tmp_path / "one"), signer()
    shop.sign(key, kind)
    source = Given(list(shop.layout.signature_manifests(shop.image)))
    changed = oci.digest_of(b"changed")
    with pytest.raises(refusals.OtherImage) as refused:
        verify.verify_image(source, changed, REPOSITORY, one_scope(key), NOW)
    assert refused.value.got == shop.image


def test_a_moved_tag_makes_the_image_that_it_names_now_unsigned(tmp_path):
    shop, key = store(tmp_path), signer()
    shop.sign(key)
    moved = tiny_layout(tmp_path, NAME, "other content")
    assert shop.layout.resolve(NAME) == moved
    with pytest.raises(refusals.Unsigned):
        verify.verify_image(shop.layout, moved, NAME, one_scope(key), NOW)


@pytest.mark.parametrize(
    ("version", "refusal"),
    [
        ("1.3.9", refusals.OlderVersion),
        ("1.4.0-rc.1", refusals.OlderVersion),
        ("1.4.0", None),
        ("v1.10", None),
        ("latest", refusals.NoVersion),
        (None, refusals.NoVersion),
    ],
)
@BOTH
def test_a_version_below_the_scope_s_minimum_is_refused(tmp_path, kind, version, refusal):
    shop, key = store(tmp_path), signer()
    shop.sign(key, kind, **({"version": version} if version else {}))
    rules = one_scope(key, min_version="1.4.0")
    if refusal is None:
        assert shop.verify(rules).version == version
    else:
        with pytest.raises(refusal):
            shop.verify(rules)


@BOTH
def test_a_signature_from_before_the_scope_s_time_is_refused(tmp_path, kind):
    shop, key = store(tmp_path), signer()
    shop.sign(key, kind, now=NOW - timedelta(days=2))
    assert shop.verify(one_scope(key, not_before=NOW - timedelta(days=3))).signed_at
    with pytest.raises(refusals.OlderSignature):
        shop.verify(one_scope(key, not_before=NOW - timedelta(days=1)))


def test_a_signature_without_a_time_is_refused_where_the_scope_has_one():
    key, image = signer(), oci.digest_of(b"image")
    source = Given([unclaimed_bundle(key, image)])
    with pytest.raises(refusals.NoTime):
        verify.verify_image(source, image, REPOSITORY, one_scope(key, not_before=NOW), NOW)


@BOTH
def test_a_signature_from_the_future_is_refused(tmp_path, kind):
    shop, key = store(tmp_path), signer()
    shop.sign(key, kind, now=NOW + timedelta(hours=1))
    with pytest.raises(refusals.FutureSignature):
        shop.verify(one_scope(key))


@BOTH
def test_a_format_that_the_scope_does_not_list_is_refused(tmp_path, kind):
    shop, key = store(tmp_path), signer()
    shop.sign(key, kind)
    with pytest.raises(refusals.WrongFormat):
        shop.verify(one_scope(key, formats=("aci",)))


def test_a_media_type_that_nobody_knows_is_a_wrong_format():
    source = Given([SignatureArtifact("text/plain", b"anything")])
    with pytest.raises(refusals.WrongFormat):
        verify.verify_image(source, oci.digest_of(b""), REPOSITORY, one_scope(signer()), NOW)


@pytest.mark.parametrize(
    "artifact",
    [
        SignatureArtifact(SIGSTORE_BUNDLE, b"{}"),
        SignatureArtifact(COSIGN_PAYLOAD, b"{}"),
        SignatureArtifact(COSIGN_PAYLOAD, b"{}", {cosign.SIGNATURE: "!"}),
    ],
)
def test_what_cannot_be_read_is_refused_as_malformed(artifact):
    with pytest.raises(refusals.MalformedSignature):
        verify.verify_image(
            Given([artifact]), oci.digest_of(b""), REPOSITORY, one_scope(signer()), NOW
        )


@BOTH
def test_one_signature_that_holds_is_enough(tmp_path, kind):
    shop, key = store(tmp_path), signer()
    for other in (signer(), signer()):
        shop.sign(other, kind)
    shop.sign(key, kind)
    shop.sign(signer(), kind)
    assert shop.verify(one_scope(key)).key == key.key_id


def test_malformed_signatures_do_not_hide_a_good_one(tmp_path):
    shop, key = store(tmp_path), signer()
    shop.sign(key)
    good = list(shop.layout.signature_manifests(shop.image))
    bad = [SignatureArtifact(SIGSTORE_BUNDLE, b"{"), SignatureArtifact(NOTATION_JWS, b"")]
    found = verify.verify_image(Given([*bad, *good]), shop.image, REPOSITORY, one_scope(key), NOW)
    assert found.publisher == "team"


def test_the_refusal_that_came_furthest_is_reported(tmp_path):
    shop, key = store(tmp_path), signer()
    shop.sign(signer())
    shop.sign(key, version="1.0")
    shop.sign(signer())
    with pytest.raises(refusals.OlderVersion):
        shop.verify(one_scope(key, min_version="2"))


def test_a_repository_without_a_scope_is_refused(tmp_path):
    shop, key = store(tmp_path), signer()
    shop.sign(key)
    with pytest.raises(refusals.NoScope):
        shop.verify(one_scope(key), "registry.example.com/elsewhere")


def test_the_longest_scope_applies_alone(tmp_path):
    shop, team, everyone = store(tmp_path), signer(), signer()
    shop.sign(everyone)
    rules = policy(
        {"team": [pem(team)], "everyone": [pem(everyone)]},
        [
            Scope(repository="*", publishers=("everyone",)),
            Scope(repository="registry.example.com/*", publishers=("everyone",)),
            Scope(repository="registry.example.com/team/*", publishers=("team",)),
        ],
    )
    with pytest.raises(refusals.OtherPublisher):
        shop.verify(rules)
    shop.sign(team)
    assert shop.verify(rules).scope == "registry.example.com/team/*"


def test_an_attestation_by_the_publisher_is_no_permission_to_run():
    key, image = signer(), oci.digest_of(b"image")
    bundle = unclaimed_bundle(key, image, predicate="https://slsa.dev/provenance/v1")
    with pytest.raises(refusals.NotAnImageSignature):
        verify.verify_image(Given([bundle]), image, REPOSITORY, one_scope(key), NOW)


def test_a_bundle_around_another_payload_type_is_refused():
    key, image = signer(), oci.digest_of(b"image")
    bundle = unclaimed_bundle(key, image, payload_type="text/plain")
    with pytest.raises(refusals.NotAnImageSignature):
        verify.verify_image(Given([bundle]), image, REPOSITORY, one_scope(key), NOW)


def test_a_payload_of_another_type_is_refused():
    key, image = signer(), oci.digest_of(b"image")
    payload = simplesigning.encode(image, REPOSITORY, {}).replace(
        simplesigning.COSIGN_TYPE.encode(), simplesigning.ATOMIC_TYPE.encode()
    )
    artifact = legacy_artifact(key, payload)
    with pytest.raises(refusals.NotAnImageSignature):
        verify.verify_image(Given([artifact]), image, REPOSITORY, one_scope(key), NOW)


@pytest.mark.parametrize(
    "algorithm", [KeyAlgorithm.ECDSA_P256, KeyAlgorithm.RSA_2048, KeyAlgorithm.ED25519]
)
def test_a_bare_signature_of_the_manifest_counts_unless_it_cannot_be_told_from_its_digest(
    algorithm,
):
    key, manifest = signer(algorithm), b"the manifest"
    image = oci.digest_of(manifest)
    source = Given([message_bundle(key, manifest)])
    if algorithm is KeyAlgorithm.ED25519:
        with pytest.raises(refusals.OtherPublisher):
            verify.verify_image(source, image, REPOSITORY, one_scope(key), NOW)
    else:
        assert verify.verify_image(source, image, REPOSITORY, one_scope(key), NOW).key


def test_a_bare_signature_of_other_content_is_refused():
    key = signer()
    source = Given([message_bundle(key, b"other content")])
    with pytest.raises(refusals.OtherImage):
        verify.verify_image(source, oci.digest_of(b"this"), REPOSITORY, one_scope(key), NOW)


def test_every_changed_byte_of_a_signed_payload_is_refused(tmp_path):
    shop, key = store(tmp_path), signer()
    shop.sign(key)
    (good,) = shop.layout.signature_manifests(shop.image)
    rules = one_scope(key)
    for at in range(0, len(good.content), 3):
        changed = bytearray(good.content)
        changed[at] ^= 1
        bad = replace(good, content=bytes(changed))
        with pytest.raises(refusals.OtherPublisher):
            verify.verify_image(Given([bad]), shop.image, REPOSITORY, rules, NOW)


def test_more_signatures_than_anybody_needs_are_refused(tmp_path):
    shop, key = store(tmp_path), signer()
    payload = simplesigning.encode(shop.image, REPOSITORY, {})
    layer = oci.Descriptor(
        media_type=COSIGN_PAYLOAD,
        digest=shop.layout.add(payload),
        size=len(payload),
        annotations={cosign.SIGNATURE: "AAAA"},
    )
    manifest = oci.Manifest(
        schema_version=2, media_type=oci.IMAGE_MANIFEST, config=layer, layers=(layer,) * 65
    )
    tag = f"{REPOSITORY}:{shop.image.replace(':', '-')}.sig"
    shop.layout.put_manifest(manifest.encode(), oci.IMAGE_MANIFEST, tag)
    with pytest.raises(TooManySignatures):
        shop.verify(one_scope(key))


def test_an_image_of_an_index_that_was_signed_is_accepted_and_the_index_named(tmp_path):
    shop, key = store(tmp_path), signer()
    name = f"{REPOSITORY}:many"
    index = platforms(shop.layout, name, shop.image)
    sign_image(target_of(shop.layout, name, REPOSITORY), key, COSIGN, annotations={}, now=NOW)
    verified = shop.verify(one_scope(key), name)
    assert (verified.image, verified.index) == (shop.image, index)


def test_an_index_that_does_not_list_the_image_says_nothing_about_it(tmp_path):
    shop, key = store(tmp_path), signer()
    name = f"{REPOSITORY}:many"
    index = platforms(shop.layout, name, oci.digest_of(b"another image"))
    sign_image(target_of(shop.layout, name, REPOSITORY), key, COSIGN, annotations={}, now=NOW)

    class Lying(Layout):
        def indexes(self, image):
            return (index,)

    with pytest.raises(refusals.Unsigned):
        verify.verify_image(Lying(tmp_path), shop.image, name, one_scope(key), NOW)


def test_a_name_that_is_no_reference_is_an_error(tmp_path):
    with pytest.raises(FormatError):
        store(tmp_path).verify(one_scope(signer()), "no reference")


def test_every_refusal_has_a_code_and_a_remedy_of_its_own():
    kinds = [
        one
        for one in vars(refusals).values()
        if isinstance(one, type) and issubclass(one, SignatureRefused)
    ]
    own = [one for one in kinds if one is not SignatureRefused]
    assert len({one.code for one in kinds}) == len(kinds)
    assert all(one.remedy != SignatureRefused.remedy for one in own)


def test_every_media_type_of_the_table_has_a_format_and_a_verifier():
    for media_type, entry in verify.FORMATS.items():
        assert "/" in media_type
        assert entry.name in set(SignatureFormat)
        assert callable(entry.verify)


# What tests are made of --------------------------------------------------------------------


def unclaimed_bundle(key, image, predicate=sigstore.SIGN_PREDICATE, payload_type=dsse.IN_TOTO):
    """As cosign writes it: no repository anywhere."""
    statement = sigstore.statement(image.removeprefix("sha256:"), {}).replace(
        sigstore.SIGN_PREDICATE.encode(), predicate.encode()
    )
    signature = key.sign(dsse.pae(payload_type, statement))
    content = sigstore.encode(statement, signature, "").replace(
        dsse.IN_TOTO.encode(), payload_type.encode()
    )
    return SignatureArtifact(SIGSTORE_BUNDLE, content)


def message_bundle(key, content):
    digest = bytes.fromhex(oci.digest_of(content).removeprefix("sha256:"))
    return SignatureArtifact(
        SIGSTORE_BUNDLE,
        msgspec.json.encode(
            {
                "mediaType": sigstore.BUNDLE_TYPE,
                "verificationMaterial": {"publicKey": {"hint": ""}},
                "messageSignature": {
                    "messageDigest": {"algorithm": "SHA2_256", "digest": digest},
                    "signature": key.sign(content),
                },
            }
        ),
    )


def platforms(layout, name, image):
    entry = oci.Descriptor(
        media_type=oci.IMAGE_MANIFEST,
        digest=image,
        size=1,
        platform=oci.Platform(architecture="amd64", os="linux"),
    )
    index = oci.Index(schema_version=2, media_type=oci.IMAGE_INDEX, manifests=(entry,))
    return layout.put_manifest(index.encode(), oci.IMAGE_INDEX, name)
