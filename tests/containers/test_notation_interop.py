"""The real notation verifies what is signed here, and what it signs is verified here."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from notation_tool import MANIFEST, Notation, plain_registry

from catena.containers.signature import notation
from catena.containers.signature.certificates import parse_certificates
from catena.containers.signature.notation import NotationTrust, SignedOtherImage
from catena.containers.signature.notation_policy import read_trust_policy
from catena.errors import FormatError
from catena.formats.notation import COSE_TYPE, JWS_TYPE, Descriptor
from code_signing import authority, issue, name, new_key
from debian_testing import program

pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("docker-registry", "skopeo")),
    reason="a registry needs docker-registry and skopeo",
)
KINDS = {"jws": (JWS_TYPE, notation.sign_jws), "cose": (COSE_TYPE, notation.sign_cose)}
IDENTITY = "x509.subject: C=US, ST=WA, O=Example"


def now():
    return datetime.now(UTC)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    program("notation")
    with plain_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def tool(tmp_path):
    return Notation(tmp_path)


@pytest.fixture
def image(registry, request):
    word = f"{abs(hash(request.node.name)):x}"
    return registry.push(f"team/{word}", word)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def chain_of(length):
    """A signer with its chain, valid now."""
    start = now() - timedelta(hours=1)
    if length == 1:
        alone = issue(name("alone"), key=new_key("p256", 50), start=start, days=2)
        return alone.signer, (alone.certificate,)
    root = issue(name("root"), key=new_key("p256", 51), start=start, extensions=authority())
    leaf = issue(name("leaf"), root, key=new_key("p256", 52), start=start, days=2)
    return leaf.signer, (leaf.certificate, root.certificate)


def sign_with_notation(tool, registry, image, kind, *options):
    tool("cert", "generate-test", "--default", "example")
    tool("sign", "--insecure-registry", "--signature-format", kind, *options, registry.reference(image))  # fmt: skip
    ((media_type, envelope),) = registry.envelopes(image)
    certificate = (tool.config / "truststore/x509/ca/example/example.crt").read_bytes()
    return media_type, envelope, certificate


def test_what_notation_signs_is_verified_here(tool, registry, image, kind):
    media_type, envelope, certificate = sign_with_notation(
        tool, registry, image, kind, "--user-metadata", "version=1.2.3", "--expiry", "24h"
    )
    assert media_type == KINDS[kind][0]
    roots = parse_certificates(certificate)
    policy = tool.trust("example", certificate, ["x509.subject: C=US, ST=WA, O=Notary"])
    trust = read_trust_policy(policy, {"ca:example": roots}).trust_for("any/repository")
    proof = notation.verify(media_type, envelope, image.digest, trust, now())
    assert proof.target == Descriptor(MANIFEST, image.digest, len(image.manifest), {"version": "1.2.3"})  # fmt: skip
    assert proof.identity == "x509.subject: C=US, ST=WA, O=Notary"
    assert proof.expires == proof.signed_at + timedelta(days=1)
    with pytest.raises(SignedOtherImage):
        notation.verify(media_type, envelope, "sha256:" + "0" * 64, trust, now())


@pytest.mark.parametrize("length", [1, 2])
def test_notation_verifies_what_is_signed_here(tool, registry, image, kind, length):
    signer, chain = chain_of(length)
    media_type, sign = KINDS[kind]
    target = Descriptor(MANIFEST, image.digest, len(image.manifest), {"version": "1.2.3"})
    envelope = sign(signer, chain, target, now(), now() + timedelta(hours=1))
    registry.attach(image, media_type, envelope, notation.thumbprints(chain))
    tool.trust("example", chain[-1].public_bytes(Encoding.PEM), [IDENTITY])
    verify = ("verify", "--insecure-registry")
    said = tool(*verify, "--user-metadata", "version=1.2.3", registry.reference(image))
    assert "Successfully verified" in said
    tool(*verify, "--user-metadata", "version=1.2.4", registry.reference(image), good=False)


def test_neither_verifies_what_was_changed_or_is_by_another(tool, registry, image, kind):
    signer, chain = chain_of(2)
    media_type, sign = KINDS[kind]
    target = Descriptor(MANIFEST, image.digest, len(image.manifest))
    other = Descriptor(MANIFEST, "sha256:" + "0" * 64, 3)
    for root, what in ((chain_of(1)[1][0], target), (chain[-1], other)):
        envelope = sign(signer, chain, what, now())
        registry.attach(image, media_type, envelope, notation.thumbprints(chain))
        tool.trust("example", root.public_bytes(Encoding.PEM))
        said = tool("verify", "--insecure-registry", registry.reference(image), good=False)
        assert "signature verification failed" in said
        with pytest.raises((notation.SignatureRefused, FormatError)):
            notation.verify(media_type, envelope, image.digest, NotationTrust((root,)), now())
