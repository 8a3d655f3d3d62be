"""policy.json as a container policy: what it allows, and no word of it left out."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from catena.containers.signature.claims import expected_claim
from catena.containers.signature.images_policy import (
    UnsupportedImagesPolicy,
    read_policy_json,
)
from catena.containers.signature.openpgp import verify_detached
from catena.errors import FormatError
from catena.formats.containerpolicy import Scope
from catena.keys.signer import public_pem
from code_signing import new_key, publisher

PEM = public_pem(new_key().public_key())
ROOT = publisher(1).root.public_bytes(Encoding.PEM)
FILES = {"/keys/a.pub": PEM, "/keys/root.pem": ROOT, "/keys/rekor.pub": PEM, "/keys/a.gpg": b"\x98\x01x", "/keys/b.gpg": b"\x98\x01y", "/keys/none": b"", "/keys/signature": b"\x88\x01x"}  # fmt: skip
REJECT = [{"type": "reject"}]
GPG = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/keys/a.gpg"}
SIGSTORE = {"type": "sigstoreSigned", "keyPath": "/keys/a.pub"}
PKI = {"type": "sigstoreSigned", "pki": {"caRootsPath": "/keys/root.pem", "subjectEmail": "a@example.com"}}  # fmt: skip
FULCIO = {
    "type": "sigstoreSigned",
    "fulcio": {
        "caPath": "/keys/root.pem",
        "oidcIssuer": "https://issuer.example",
        "subjectEmail": "a@example.com",
    },
    "rekorPublicKeyPath": "/keys/rekor.pub",
}


def read(docker, default=REJECT, **transports):
    document = {"default": default, "transports": {"docker": docker, **transports}}
    return read_policy_json(json.dumps(document).encode(), FILES.__getitem__)


def identified(kind, **fields):
    return GPG | {"signedIdentity": {"type": kind, **fields}}


def refused(docker, words, **options):
    with pytest.raises(UnsupportedImagesPolicy, match=words):
        read(docker, **options)


def test_a_repository_covers_itself_and_what_is_below():
    policy = read({"registry.example/team": [SIGSTORE]})
    assert [scope.repository for scope in policy.scopes] == [
        "registry.example/team",
        "registry.example/team/*",
    ]
    assert {scope.formats for scope in policy.scopes} == {("cosign", "cosign-bundle")}
    assert policy.publishers[0].keys == (PEM.decode(),)
    assert {scope.publishers for scope in policy.scopes} == {(policy.publishers[0].name,)}


def test_a_registry_covers_what_is_below():
    policy = read({"registry.example:5000": [GPG]})
    assert [scope.repository for scope in policy.scopes] == ["registry.example:5000/*"]
    assert policy.scopes[0].formats == ("simple-signing",)


@pytest.mark.parametrize("docker", [{"": [GPG]}, {}])
def test_the_widest_scope_is_the_transports_or_the_default(docker):
    policy = read(docker, default=[GPG])
    assert [scope.repository for scope in policy.scopes] == ["*"]


def test_a_transport_that_rejects_overrides_the_default():
    policy = read({"": REJECT, "registry.example": [GPG]}, default=[GPG])
    assert [scope.repository for scope in policy.scopes] == ["registry.example/*"]


def test_one_key_is_one_publisher():
    policy = read({"a.example": [SIGSTORE], "b.example": [SIGSTORE], "c.example": [GPG]})
    assert len(policy.publishers) == 2
    assert policy.scopes[0].publishers == policy.scopes[1].publishers


def test_openpgp_keys_are_armored_and_still_verify(gpg):
    FILES["/keys/alice.gpg"] = gpg.public("alice")
    policy = read({"a.example": [GPG | {"keyPath": "/keys/alice.gpg"}]})
    keys = [key.encode() for key in policy.publishers[0].openpgp]
    assert verify_detached(b"x", gpg.detached("alice", b"x"), keys, datetime.now(UTC))


def test_several_keys_of_one_requirement_are_alternatives():
    several = {"type": "signedBy", "keyType": "GPGKeys", "keyPaths": ["/keys/a.gpg", "/keys/b.gpg"]}
    assert len(read({"a.example": [several]}).publishers[0].openpgp) == 2
    data = {"type": "sigstoreSigned", "keyDatas": [base64.b64encode(PEM).decode()] * 2}
    assert read({"a.example": [data]}).publishers[0].keys == (PEM.decode(),) * 2


def test_an_identity_under_private_roots():
    (identity,) = read({"a.example": [PKI]}).publishers[0].identities
    assert (identity.roots, identity.san, identity.issuer, identity.logs) == ((ROOT.decode(),), "a@example.com", "", ())  # fmt: skip


def test_an_identity_of_fulcio_needs_its_log():
    (identity,) = read({"a.example": [FULCIO]}).publishers[0].identities
    assert (identity.san, identity.issuer) == ("a@example.com", "https://issuer.example")
    assert identity.logs == (PEM.decode(),)


@pytest.mark.parametrize("kind", ["matchRepoDigestOrExact", "matchRepository"])
def test_identities_that_name_the_repository_need_no_claim(kind):
    policy = read({"a.example/x": [identified(kind)]})
    assert {scope.claim for scope in policy.scopes} == {""}


@pytest.mark.parametrize(
    ("identity", "claims"),
    [
        (identified("exactRepository", dockerRepository="b.example/y"), ["b.example/y"] * 2),
        (identified("exactReference", dockerReference="b.example/y:1"), ["b.example/y:1"] * 2),
        (identified("remapIdentity", prefix="a.example", signedPrefix="b.example"), ["b.example/x", "b.example/x/*"]),
        (identified("remapIdentity", prefix="a.example/x", signedPrefix="b.example/y"), ["b.example/y", "b.example/y/*"]),
    ],
)  # fmt: skip
def test_another_identity_becomes_the_scopes_claim(identity, claims):
    policy = read({"a.example/x": [identity]})
    assert [scope.claim for scope in policy.scopes] == claims


@pytest.mark.parametrize(
    ("repository", "claim", "run", "expected"),
    [
        ("a.example/x", "", "a.example/x", "a.example/x"),
        ("a.example/*", "", "a.example/x/y", "a.example/x/y"),
        ("a.example/*", "b.example/*", "a.example/x/y", "b.example/x/y"),
        ("a.example/x/*", "b.example/*", "a.example/x/y", "b.example/y"),
        ("a.example/x", "b.example/y", "a.example/x", "b.example/y"),
        ("*", "b.example/y:1", "a.example/x", "b.example/y:1"),
    ],
)
def test_a_claim_is_what_the_signature_has_to_name(repository, claim, run, expected):
    scope = Scope(repository=repository, publishers=("p",), claim=claim)
    assert expected_claim(scope, run) == expected


ACCEPT = [{"type": "insecureAcceptAnything"}]


@pytest.mark.parametrize(
    ("docker", "words"),
    [
        ({"a.example": ACCEPT}, "unsigned"),
        ({"": ACCEPT}, "unsigned"),
        ({"a.example": []}, "several"),
        ({"a.example": [GPG, SIGSTORE]}, "several"),
        ({"*.example": [GPG]}, "wildcard"),
        ({"a.example/x:tag": [GPG]}, "wildcard"),
        ({"a.example/X": [GPG]}, "wildcard"),
        ({"a.example": [GPG], "a.example/x": REJECT}, "rejects"),
        ({"": [GPG], "a.example": REJECT}, "rejects"),
        ({"a.example": [{"type": "signedBaseLayer"}]}, "base layer"),
        ({"a.example": [GPG | {"keyType": "X509Certificates"}]}, "another kind"),
        ({"a.example": [GPG | {"keyType": "signedByGPGKeys"}]}, "another kind"),
        ({"a.example": [{"type": "signedBy", "keyType": "GPGKeys"}]}, "another kind"),
        ({"a.example": [{"type": "sigstoreSigned"}]}, "exactly one"),
        ({"a.example": [SIGSTORE | {"pki": PKI["pki"]}]}, "exactly one"),
        ({"a.example": [SIGSTORE | {"rekorPublicKeyPath": "/keys/rekor.pub"}]}, "log entry"),
        ({"a.example": [PKI | {"rekorPublicKeyPath": "/keys/rekor.pub"}]}, "log entry"),
        ({"a.example": [{"type": "sigstoreSigned", "fulcio": FULCIO["fulcio"]}]}, "needs a log"),
        ({"a.example": [PKI | {"pki": {"caRootsPath": "/keys/root.pem"}}]}, "everybody"),
        ({"a.example": [PKI | {"pki": {"subjectEmail": "a@example.com"}}]}, "everybody"),
        ({"a.example": [PKI | {"pki": PKI["pki"] | {"subjectHostname": "x"}}]}, "two names"),
        ({"a.example": [identified("matchExact")]}, "identity"),
        ({"a.example": [identified("exactRepository")]}, "identity"),
        ({"a.example": [identified("exactReference")]}, "identity"),
        ({"a.example": [identified("remapIdentity", prefix="a.example")]}, "identity"),
        ({"a.example": [identified("unknown")]}, "identity"),
        ({"a.example": [identified("remapIdentity", prefix="a.example/x", signedPrefix="b")]}, "moves"),
        ({"a.example": [SIGSTORE | {"keyPath": "/keys/a.gpg"}]}, "no PEM"),
        ({"a.example": [GPG | {"keyPath": "/keys/none"}]}, "no OpenPGP key"),
        ({"a.example": [GPG | {"keyPath": "/keys/signature"}]}, "no OpenPGP key"),
        ({"a.example": REJECT}, "allows nothing"),
    ],
)  # fmt: skip
def test_what_catena_will_not_do_is_refused_by_name(docker, words):
    refused(docker, words)


def test_a_default_that_accepts_anything_is_refused():
    refused({"a.example": [GPG]}, "unsigned", default=ACCEPT)


def test_other_transports_concern_no_node():
    assert read({"a.example": [GPG]}, dir={"": ACCEPT}).scopes[0].repository == "a.example/*"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"default": []}',
        '{"default": [{"type": "reject"}], "more": 1}',
        '{"default": [{"type": "reject", "more": 1}]}',
        '{"default": [{"type": "unknown"}]}',
        '{"default": [{"type": "reject"}], "default": [{"type": "reject"}]}',
    ],
)
def test_a_malformed_policy_is_refused(text):
    with pytest.raises(FormatError):
        read_policy_json(text.encode(), FILES.__getitem__)
