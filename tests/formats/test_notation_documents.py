"""Notation's payloads and trust policies: strict where they decide, open where OCI asks for it."""

from __future__ import annotations

import json

import pytest
from hostile import bit_flips, refuses_cleanly

from catena.errors import FormatError
from catena.formats import notation
from small_signatures import PAYLOAD, TRUST_POLICY


def policy(**changes):
    document = json.loads(json.dumps(TRUST_POLICY))
    document["trustPolicies"][0] |= changes
    return json.dumps(document).encode()


def target(**changes):
    return json.dumps({"targetArtifact": json.loads(PAYLOAD)["targetArtifact"] | changes}).encode()


def test_a_payload_survives_its_encoding():
    found = notation.parse_payload(PAYLOAD)
    assert notation.parse_payload(found.encode()) == found


def test_a_descriptor_may_carry_more_but_the_payload_may_not():
    assert notation.parse_payload(target(urls=["x"])).target_artifact.size == 349
    with pytest.raises(FormatError):
        notation.parse_payload(b'{"other":1,' + PAYLOAD[1:])


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "sha256:" + "AB" * 32},
        {"digest": "sha256:" + "ab" * 32 + "\n"},
        {"digest": "sha512:" + "ab" * 64},
        {"size": -1},
        {"size": 2**63},
        {"size": "1"},
        {"annotations": {"a": 1}},
    ],
)
def test_a_bad_descriptor_is_refused(change):
    with pytest.raises(FormatError):
        notation.parse_payload(target(**change))


def test_a_digest_that_stands_twice_is_refused():
    twice = PAYLOAD.replace(b'"size"', b'"digest":"sha256:' + b"cd" * 32 + b'","size"')
    with pytest.raises(FormatError, match="twice"):
        notation.parse_payload(twice)


def test_a_trust_policy_is_read():
    found = notation.parse_trust_policy(policy()).trust_policies[0]
    assert found.registry_scopes == ("*",)
    assert found.signature_verification.level == "strict"


@pytest.mark.parametrize(
    "change",
    [
        {"registryScopes": []},
        {"signatureVerification": {"level": "lenient"}},
        {"signatureVerification": {}},
        {"unknown": 1},
        {"trustStores": "ca:x"},
    ],
)
def test_a_bad_trust_policy_is_refused(change):
    with pytest.raises(FormatError):
        notation.parse_trust_policy(policy(**change))


def test_another_version_of_the_trust_policy_is_refused():
    with pytest.raises(FormatError):
        notation.parse_trust_policy(policy().replace(b'"1.0"', b'"2.0"'))


@pytest.mark.parametrize(
    ("parse", "wire"),
    [(notation.parse_payload, PAYLOAD), (notation.parse_trust_policy, policy())],
)
def test_cut_and_flipped_documents_are_refused_cleanly(parse, wire):
    for end in range(len(wire)):
        with pytest.raises(FormatError):
            parse(wire[:end])
    assert all(refuses_cleanly(parse, damaged) for damaged in bit_flips(wire, step=3))
