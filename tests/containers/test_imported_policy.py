"""What other tools were told to trust, made a container policy that says the same, or refused."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from itertools import product

import msgspec
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import Encoding
from notation_tool import Notation, plain_registry
from signing import Given

from catena.cli.container_policy import noun
from catena.containers.images.source import (
    ACI_SIGNATURE,
    NOTATION_JWS,
    SIMPLE_SIGNING,
    SignatureArtifact,
)
from catena.containers.signature import aci as aci_signature
from catena.containers.signature import notation, refusals
from catena.containers.signature.aci_truststore import NoTrustStore, read_trust_store
from catena.containers.signature.images_policy import UnsupportedImagesPolicy
from catena.containers.signature.imported import MissingTrustFile, UnsupportedTrustStore
from catena.containers.signature.notation_policy import UnsupportedTrustPolicy
from catena.containers.signature.policyfile import load_policy
from catena.containers.signature.result import SignatureRefused
from catena.containers.signature.verify import verify_image
from catena.errors import CatenaError, ExitCode
from code_signing import IMAGE, NOW, TARGET, publisher
from debian_testing import program
from small_signatures import ACI_MANIFEST, aci

ALICE, BOB = publisher(1), publisher(2)
EXAMPLE = "x509.subject: C=US, ST=WA, O=Example"
HERE = "registry.example/team/app"


@pytest.fixture
def imported(tmp_path):
    """The command: its exit code and code, or its JSON and the policy it wrote."""

    def run(*words):
        target = tmp_path / "made.json"
        call = ["import", *map(str, words), "--to", str(target), "-o", "json"]
        result = CliRunner().invoke(noun, call, standalone_mode=False)
        if isinstance(result.exception, CatenaError):
            assert not target.exists()
            assert result.exception.remedy
            raise result.exception
        assert result.exception is None, result.exception
        return json.loads(result.stdout), load_policy(target)

    return run


def refused(error, exit_code=ExitCode.POLICY, match=None):
    """The error, whose exit code is that of a policy that cannot be."""
    assert error.exit_code is exit_code
    return pytest.raises(error, match=match)


# notation ---------------------------------------------------------------------------------------


@pytest.fixture
def trust_policy(tmp_path):
    """A trust policy document and its store, as notation has them."""

    def write(*policies, **stores):
        for name, certificates in stores.items():
            kind, _, store = name.partition("__")
            folder = tmp_path / "truststore/x509" / kind / store
            folder.mkdir(parents=True)
            for number, one in enumerate(certificates):
                (folder / f"{number}.pem").write_bytes(one.public_bytes(Encoding.PEM))
        path = tmp_path / "trustpolicy.json"
        path.write_text(json.dumps({"version": "1.0", "trustPolicies": policies}))
        return path

    return write


def rule(name, scopes, identities, store="ca:alice", level="strict"):
    return {
        "name": name,
        "registryScopes": scopes,
        "signatureVerification": {"level": level},
        "trustStores": [store],
        "trustedIdentities": identities,
    }


def signed_by(who):
    envelope = notation.sign_jws(who.signer, who.chain, TARGET, NOW)
    return Given([SignatureArtifact(NOTATION_JWS, envelope)])


def test_notation_policy_says_the_same_here(trust_policy, imported):
    path = trust_policy(
        rule("team", [HERE], [EXAMPLE]),
        rule("rest", ["*"], ["x509.subject: C=US, ST=WA, O=Other"], "ca:bob"),
        ca__alice=[ALICE.root],
        ca__bob=[BOB.root],
    )
    told, policy = imported("notation", path, "--name", "team", "--version", "4")
    assert [one["repository"] for one in told["scopes"]] == [HERE, "*"]
    assert (told["notes"]["name"], told["notes"]["version"]) == ("team", 4)
    found = verify_image(signed_by(ALICE), IMAGE, HERE, policy, NOW)
    assert (found.publisher, found.scope) == ("notation-1", HERE)
    with pytest.raises(refusals.OtherPublisher):
        verify_image(signed_by(BOB), IMAGE, HERE, policy, NOW)
    with pytest.raises(refusals.OtherIdentity):  # Bob's organisation is not Other
        verify_image(signed_by(BOB), IMAGE, "elsewhere.example/x", policy, NOW)


@pytest.mark.parametrize(
    ("identity", "holds"),
    [
        ("x509.subject: C=US, ST=WA, O=Example", True),
        ("x509.subject: O=Example,CN=publisher 1,ST=WA,C=US", True),
        ("x509.subject: C=US, ST=WA, O=Example, OU=Team", False),
        ("x509.subject: C=US, ST=WA, O=example", False),
        ("CN=publisher 1,O=Example,ST=WA,C=US", None),
    ],
)
def test_part_of_a_subject_counts_as_notation_counts_it(trust_policy, imported, identity, holds):
    path = trust_policy(rule("one", [HERE], [identity]), ca__alice=[ALICE.root])
    if holds is None:
        with pytest.raises(CatenaError, match="not a trusted identity"):
            imported("notation", path)
        return
    _, policy = imported("notation", path)
    if holds:
        assert verify_image(signed_by(ALICE), IMAGE, HERE, policy, NOW).identity
    else:
        with pytest.raises(refusals.OtherIdentity):
            verify_image(signed_by(ALICE), IMAGE, HERE, policy, NOW)


def test_one_identity_for_two_repositories_is_one_publisher_and_noted(trust_policy, imported):
    path = trust_policy(
        rule("a", [HERE], [EXAMPLE]),
        rule("b", ["registry.example/b"], [EXAMPLE]),
        ca__alice=[ALICE.root],
    )
    told, policy = imported("notation", path)
    assert [*policy.publishers] == ["notation-1"]
    assert "more than this scope" in told["notes"]["notes"][0]
    with pytest.raises(refusals.RepositoryUnclaimed):
        verify_image(signed_by(ALICE), IMAGE, HERE, policy, NOW)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"identities": ["*"]}, "everybody"),
        ({"level": "skip"}, "skips verification"),
        ({"store": "signingAuthority:alice"}, "signing authority"),
        ({"store": "ca:absent"}, "empty or missing"),
    ],
)
def test_notation_policy_that_would_become_wider_is_refused(trust_policy, imported, changes, words):
    given = {"name": "one", "scopes": [HERE], "identities": [EXAMPLE], **changes}
    path = trust_policy(rule(**given), ca__alice=[ALICE.root], signingAuthority__alice=[ALICE.root])
    with refused(UnsupportedTrustPolicy, match=words):
        imported("notation", path)


@pytest.mark.parametrize("spoil", ["link", "folder", "readme"])
def test_store_with_something_else_than_certificates_is_refused(
    trust_policy, imported, tmp_path, spoil
):
    path = trust_policy(rule("one", [HERE], [EXAMPLE]), ca__alice=[ALICE.root])
    stray = tmp_path / "truststore/x509/ca/alice"
    match spoil:
        case "link":
            (stray / "1.pem").symlink_to(stray / "0.pem")
        case "folder":
            (stray / "1.pem").mkdir()
        case "readme":
            (stray / "README").write_text("x")
    with refused(UnsupportedTrustPolicy, match="something else"):
        imported("notation", path)


@pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("docker-registry", "skopeo")),
    reason="a registry needs docker-registry and skopeo",
)
def test_what_notation_itself_trusts_is_trusted_after_import(tmp_path, imported):
    program("notation")
    tool = Notation(tmp_path)
    with plain_registry(tmp_path) as registry:
        image = registry.push("team/app", "app")
        tool("cert", "generate-test", "--default", "example")
        certificate = (tool.config / "truststore/x509/ca/example/example.crt").read_bytes()
        tool.trust("example", certificate, ["x509.subject: C=US, ST=WA, O=Notary"])
        tool("sign", "--insecure-registry", registry.reference(image))
        tool("verify", "--insecure-registry", registry.reference(image))
        ((media_type, envelope),) = registry.envelopes(image)
    _, policy = imported("notation", tool.config / "trustpolicy.json")
    artifact = SignatureArtifact(media_type, envelope)
    now = datetime.now(UTC)
    assert (
        verify_image(Given([artifact]), image.digest, HERE, policy, now).publisher == "notation-1"
    )


# policy.json ------------------------------------------------------------------------------------


def test_policy_json_with_a_key_beside_it(tmp_path, imported, gpg):
    (tmp_path / "team.gpg").write_bytes(gpg.public("alice"))
    requirement = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "team.gpg"}
    document = {
        "default": [{"type": "reject"}],
        "transports": {"docker": {"registry.example/team": [requirement]}},
    }
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(document))
    told, policy = imported("images-policy", path)
    assert {one["formats"][0] for one in told["scopes"]} == {"simple-signing"}
    now = datetime.now(UTC)
    for who, error in (("alice", None), ("bob", refusals.OtherPublisher)):
        words = {
            "critical": {
                "type": "atomic container signature",
                "image": {"docker-manifest-digest": IMAGE},
                "identity": {"docker-reference": f"{HERE}:1"},
            },
            "optional": {"creator": "test", "timestamp": int(now.timestamp())},
        }
        message = gpg.message(who, json.dumps(words).encode())
        given = Given([SignatureArtifact(SIMPLE_SIGNING, message)])
        if error:
            with pytest.raises(error):
                verify_image(given, IMAGE, HERE, policy, now)
        else:
            assert verify_image(given, IMAGE, HERE, policy, now).claimed_repository == HERE


def test_policy_json_that_lets_anything_run_is_refused(tmp_path, imported):
    path = tmp_path / "policy.json"
    path.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    with refused(UnsupportedImagesPolicy, match="unsigned"):
        imported("images-policy", path)


@pytest.mark.parametrize("kind", ["images-policy", "notation"])
def test_file_that_is_missing_is_named(tmp_path, imported, kind):
    with refused(MissingTrustFile, ExitCode.NOT_FOUND):
        imported(kind, tmp_path / "absent.json")


# rkt --------------------------------------------------------------------------------------------

NAMES = ("example.com/app", "example.com/tools/a", "example.com/tools", "other.org/app")


@pytest.fixture
def trust_store(tmp_path, gpg):
    """Folders of rkt's trust store: paths of key files, with whose key each holds, or nobody's."""

    def write(name, **files):
        top = tmp_path / name
        for who, places in files.items():
            user = who.removesuffix("_masked")
            for place in places:
                path = top / place / gpg.fingerprints(user)[0]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"" if who.endswith("_masked") else gpg.public(user))
        return top

    return write


def test_prefixes_and_masks_give_rkts_verdict_for_every_name(trust_store, imported, gpg):
    system = trust_store("system", alice=["root.d"], bob=["prefix.d/example.com"])
    admin = trust_store("admin", alice_masked=["prefix.d/example.com/tools"])
    told, policy = imported("rkt", system, admin)
    assert [one["repository"] for one in told["scopes"]] == [
        "*",
        "example.com/*",
        "example.com/tools",
        "example.com/tools/*",
    ]
    store = read_trust_store([system, admin])
    now = datetime.now(UTC)
    verdicts = set()
    for name, who in product(NAMES, ("alice", "bob")):
        data = aci(manifest=ACI_MANIFEST | {"name": name})
        detached = gpg.detached(who, data)
        image = aci_signature.prove(data, detached, (gpg.public(who),), now).image
        given = Given([SignatureArtifact(ACI_SIGNATURE, detached, detached=data)])
        outcome = []
        for judge in (
            lambda: aci_signature.verify(data, detached, name, store, now),  # noqa: B023
            lambda: verify_image(given, image, name, policy, now),  # noqa: B023
        ):
            try:
                judge()
                outcome.append(True)
            except SignatureRefused:
                outcome.append(False)
        assert outcome[0] == outcome[1], (name, who)
        verdicts.add((name, who, outcome[0]))
    assert ("example.com/tools/a", "alice", False) in verdicts
    assert ("example.com/app", "alice", True) in verdicts
    assert ("other.org/app", "bob", False) in verdicts


def test_a_prefix_without_any_key_left_is_refused(trust_store, imported):
    store = trust_store("one", alice=["root.d"], alice_masked=["prefix.d/example.com"])
    with refused(UnsupportedTrustStore, match="masked"):
        imported("rkt", store)


def test_a_store_without_a_key_or_without_folders_is_refused(trust_store, imported, tmp_path):
    with refused(UnsupportedTrustStore, match="no key"):
        imported("rkt", trust_store("one", alice_masked=["root.d"]))
    with refused(NoTrustStore, ExitCode.NOT_FOUND):
        imported("rkt", tmp_path / "absent")


def test_what_is_there_is_not_overwritten(tmp_path, trust_store):
    store = trust_store("one", alice=["root.d"])
    target = tmp_path / "taken.json"
    target.write_text("mine")
    call = ["import", "rkt", str(store), "--to", str(target)]
    result = CliRunner().invoke(noun, call, standalone_mode=False)
    assert isinstance(result.exception, CatenaError)
    assert target.read_text() == "mine"


def test_table_says_what_became_of_it(tmp_path, trust_store):
    target = tmp_path / "made.json"
    call = ["import", "rkt", str(trust_store("one", alice=["root.d"])), "--to", str(target)]
    result = CliRunner().invoke(noun, call, standalone_mode=False)
    assert result.exception is None
    assert "openpgp-" in result.stdout
    assert "1 publishers, 1 scopes" in result.stdout
    assert msgspec.json.decode(target.read_bytes())["name"] == "rkt"
