"""The real cosign verifies what is signed here, and its signatures are verified here."""

import secrets

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from signing import BUNDLE, COSIGN, NOW, issue, pem, policy, signer

from catena.containers.images.registry import Registry
from catena.containers.images.transport import Transport
from catena.containers.signature import refusals
from catena.containers.signature.sign import sign_image, target_of
from catena.containers.signature.verify import verify_image
from catena.formats.containerpolicy import CertificateIdentity, Scope
from catena.keys.signer import KeyAlgorithm, load_signer
from container_images import cosign, needs_registry
from debian_testing import program

pytestmark = needs_registry

VERIFY = ("verify", "--insecure-ignore-tlog", "--allow-http-registry", "--key", "key.pub")
OLDER = ("--use-signing-config=false", "--tlog-upload=false", "--new-bundle-format=false")
NEWER = ("--use-signing-config=false", "--tlog-upload=false")


@pytest.fixture(autouse=True)
def real_cosign():
    program("cosign")


@pytest.fixture
def image(local_registry):
    """A fresh image: what is signed for it, nobody else sees."""
    word = secrets.token_hex(4)
    return local_registry.push(f"interop/{word}", word)


def repository(image):
    return image.reference.rpartition(":")[0]


def rules(text, *names):
    return policy({"team": [text]}, [Scope(repository=one, publishers=("team",)) for one in names])


@pytest.fixture
def opened(local_registry, image):
    with Transport(local_registry.host, plain_http=True) as transport:
        yield Registry(transport, repository(image))


@pytest.mark.parametrize("kind", [COSIGN, BUNDLE])
@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_cosign_verifies_what_is_signed_here(tmp_path, image, opened, kind, algorithm):
    key = signer(algorithm)
    (tmp_path / "key.pub").write_text(pem(key))
    cosign(tmp_path, *VERIFY, image.reference, good=False)
    target = target_of(opened, image.reference, repository(image))
    sign_image(target, key, kind, annotations={"version": "1.4"}, now=NOW)
    said = cosign(tmp_path, *VERIFY, "-a", "version=1.4", image.reference)
    assert image.digest in said
    cosign(tmp_path, *VERIFY, "-a", "version=1.5", image.reference, good=False)
    (tmp_path / "key.pub").write_text(pem(signer(algorithm)))
    cosign(tmp_path, *VERIFY, image.reference, good=False)


@pytest.mark.parametrize("kind", [COSIGN, BUNDLE])
def test_cosign_verifies_both_of_two_publishers(tmp_path, image, opened, kind):
    keys = [signer(), signer()]
    for key in keys:
        target = target_of(opened, image.reference, repository(image))
        sign_image(target, key, kind, annotations={}, now=NOW)
    for key in keys:
        (tmp_path / "key.pub").write_text(pem(key))
        cosign(tmp_path, *VERIFY, image.reference)
        verified = verify_image(
            opened, image.digest, image.reference, rules(pem(key), repository(image)), NOW
        )
        assert verified.key == key.key_id


@pytest.fixture(scope="session")
def cosign_home(tmp_path_factory):
    """A folder with a key pair that cosign made."""
    folder = tmp_path_factory.mktemp("cosign")
    cosign(folder, "generate-key-pair")
    return folder


def signed_by_cosign(home, image, *words):
    named = f"{repository(image)}@{image.digest}"
    cosign(home, "sign", "--key", "cosign.key", "--allow-http-registry", "-y", *words, named)
    return (home / "cosign.pub").read_text()


def test_what_cosign_signed_in_its_older_format_is_verified_here(cosign_home, image, opened):
    text = signed_by_cosign(cosign_home, image, *OLDER, "-a", "version=2.1")
    verified = verify_image(
        opened, image.digest, image.reference, rules(text, repository(image)), NOW
    )
    assert (verified.format, verified.version) == (COSIGN, "2.1")
    assert verified.claimed_repository == repository(image)


def test_what_cosign_signed_as_a_bundle_is_verified_here_for_one_scope(cosign_home, image, opened):
    text = signed_by_cosign(cosign_home, image, *NEWER, "-a", "version=2.1")
    name = repository(image)
    verified = verify_image(opened, image.digest, image.reference, rules(text, name), NOW)
    assert (verified.format, verified.version) == (BUNDLE, "2.1")
    assert verified.claimed_repository == ""
    with pytest.raises(refusals.RepositoryUnclaimed):
        verify_image(
            opened, image.digest, name, rules(text, name, "registry.example.com/other"), NOW
        )


def test_a_bundle_that_cosign_signed_with_our_annotation_names_its_repository(
    cosign_home, image, opened
):
    name = repository(image)
    claim = f"org.opencontainers.image.ref.name={name}"
    text = signed_by_cosign(cosign_home, image, *NEWER, "-a", claim)
    compiled = rules(text, name, "registry.example.com/other")
    assert verify_image(opened, image.digest, name, compiled, NOW).claimed_repository == name


def test_a_key_of_cosign_signs_here_what_cosign_verifies(cosign_home, image, opened, tmp_path):
    key = load_signer(cosign_home / "cosign.key")
    target = target_of(opened, image.reference, repository(image))
    sign_image(target, key, COSIGN, annotations={}, now=NOW)
    (tmp_path / "key.pub").write_text((cosign_home / "cosign.pub").read_text())
    cosign(tmp_path, *VERIFY, image.reference)


@pytest.mark.parametrize(("words", "kind"), [(OLDER, COSIGN), (NEWER, BUNDLE)])
def test_what_cosign_signed_with_a_certificate_is_verified_here(
    tmp_path, image, opened, words, kind
):
    root = issue("root", authority=True)
    middle = issue("middle", root, authority=True)
    leaf = issue("signer", middle, san="dev@example.com")
    der = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "leaf.key").write_bytes(der)
    (tmp_path / "leaf.pem").write_text(leaf.pem)
    (tmp_path / "chain.pem").write_text(middle.pem + root.pem)
    cosign(tmp_path, "import-key-pair", "--key", "leaf.key", "--output-key-prefix", "cosign")
    certified = ("--certificate", "leaf.pem", "--certificate-chain", "chain.pem")
    signed_by_cosign(tmp_path, image, *words, *certified)
    name = repository(image)
    # cosign 3 brings the leaf alone, so what stands above it has to be in the policy.
    rule = CertificateIdentity(roots=(middle.pem,), san="dev@example.com")
    scopes = [Scope(repository=name, publishers=("team",))]
    verified = verify_image(opened, image.digest, name, policy({}, scopes, team=rule), NOW)
    assert (verified.identity, verified.format) == ("san dev@example.com", kind)
    another = CertificateIdentity(roots=(middle.pem,), san="else@example.com")
    with pytest.raises(refusals.OtherIdentity):
        verify_image(opened, image.digest, name, policy({}, scopes, team=another), NOW)


@pytest.mark.parametrize("words", [OLDER, NEWER])
def test_a_signature_that_was_copied_to_another_repository_is_refused_here_and_not_by_cosign(
    cosign_home, image, local_registry, words
):
    from catena.containers.images import attached
    from container_images import skopeo

    claim = f"org.opencontainers.image.ref.name={repository(image)}"
    text = signed_by_cosign(cosign_home, image, *words, "-a", claim)
    moved = f"{repository(image)}-moved"
    with Transport(local_registry.host, plain_http=True) as transport:
        tag = Registry(transport, repository(image))
        kinds = {OLDER: attached.signature_tag, NEWER: attached.referrers_tag}
        name = kinds[words](image.digest)
        assert tag.tagged(f"{repository(image)}:{name}")
    for one in (image.reference.rpartition(":")[2], name):
        skopeo(
            "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false",
            f"docker://{repository(image)}:{one}", f"docker://{moved}:{one}",
        )  # fmt: skip
    (cosign_home / "key.pub").write_text(text)
    cosign(cosign_home, *VERIFY, f"{moved}:1")
    with Transport(local_registry.host, plain_http=True) as transport:
        there = Registry(transport, moved)
        with pytest.raises(refusals.OtherRepository):
            verify_image(there, image.digest, moved, rules(text, moved), NOW)
