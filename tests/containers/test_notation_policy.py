"""Notation's trust policies: one policy for each repository, and never one that verifies nothing."""

from __future__ import annotations

import json

import pytest

from catena.containers.signature.identities import MalformedIdentity
from catena.containers.signature.notation_policy import (
    NoTrustPolicy,
    UnsupportedTrustPolicy,
    read_trust_policy,
)
from code_signing import publisher

ALICE, BOB = publisher(1), publisher(2)
STORES = {
    "ca:alice": (ALICE.root,),
    "ca:bob": (BOB.root,),
    "signingAuthority:bob": (BOB.root,),
    "ca:leaf": (ALICE.chain[0],),
    "ca:empty": (),
}
EVERYTHING = {
    "name": "everything",
    "registryScopes": ["*"],
    "signatureVerification": {"level": "strict"},
    "trustStores": ["ca:alice"],
    "trustedIdentities": ["*"],
}
ONE = EVERYTHING | {
    "name": "one",
    "registryScopes": ["registry.example/app"],
    "trustStores": ["ca:bob", "signingAuthority:bob", "tsa:any"],
    "trustedIdentities": ["x509.subject: C=US, ST=WA, O=Example"],
}


def read(*policies):
    document = {"version": "1.0", "trustPolicies": policies}
    return read_trust_policy(json.dumps(document).encode(), STORES)


def test_a_repository_has_its_own_policy_or_the_one_for_everything():
    found = read(EVERYTHING, ONE)
    assert found.trust_for("registry.example/app").roots == (BOB.root,)
    assert found.trust_for("registry.example/app").authorities == (BOB.root,)
    assert found.trust_for("registry.example/app").identities == tuple(ONE["trustedIdentities"])
    for other in ("registry.example/app/more", "registry.example/ap", "elsewhere.example/x"):
        assert found.trust_for(other).roots == (ALICE.root,)
        assert found.trust_for(other).authorities == ()


def test_without_a_policy_nothing_is_trusted():
    with pytest.raises(NoTrustPolicy):
        read(ONE).trust_for("registry.example/other")


@pytest.mark.parametrize("level", ["strict", "permissive", "audit"])
def test_weaker_levels_are_verified_like_the_strictest(level):
    weak = EVERYTHING | {
        "signatureVerification": {"level": level, "override": {"revocation": "skip"}}
    }
    assert read(weak).trust == read(EVERYTHING).trust


@pytest.mark.parametrize(
    "changes",
    [
        {"signatureVerification": {"level": "skip"}},
        {"trustedIdentities": []},
        {"trustedIdentities": ["*", "x509.subject: C=US, ST=WA, O=Example"]},
        {"trustStores": []},
        {"trustStores": ["tsa:any"]},
        {"trustStores": ["ca:missing"]},
        {"trustStores": ["ca:empty"]},
        {"trustStores": ["ca:leaf"]},
        {"trustStores": ["ca:alice", "other:x"]},
        {"registryScopes": ["*", "registry.example/app"]},
        {"registryScopes": ["registry.example/app", "registry.example/app"]},
    ],
)
def test_a_policy_that_lets_too_much_through_is_refused(changes):
    with pytest.raises(UnsupportedTrustPolicy):
        read(EVERYTHING | changes)


def test_two_policies_for_one_repository_are_refused():
    with pytest.raises(UnsupportedTrustPolicy, match="two policies"):
        read(EVERYTHING, EVERYTHING | {"name": "again"})


def test_a_malformed_identity_is_found_before_it_is_needed():
    with pytest.raises(MalformedIdentity):
        read(EVERYTHING | {"trustedIdentities": ["x509.subject: CN=x"]})
