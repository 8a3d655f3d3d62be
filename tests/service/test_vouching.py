"""Tokens for third parties: only for a trusted node, only for whom the settings allow, logged first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import msgspec
import pytest

from catena.formats import jwt
from catena.keys import jose
from catena.keys.jose import UnknownSigner
from catena.keys.signer import (
    ForgedSignature,
    KeyAlgorithm,
    MissingKey,
    UnusableKey,
    generate_key,
    write_key,
)
from catena.server.bundle import trust_bundle
from catena.service.keys import note_keys
from service.fixtures import Server, make_server
from swtpm import needs_swtpm

VAULT, BANK = "vault", "https://bank.example/api?x=1"


@pytest.fixture
def jwt_key(tmp_path):
    path = tmp_path / "jwt.key"
    write_key(path, generate_key(KeyAlgorithm.ECDSA_P256))
    return path


@pytest.fixture
def vouching(tmp_path, keys, booted_tpm, boot, jwt_key) -> Iterator[Server]:
    roots = tuple(f"software={path}" for path in booted_tpm.root_ca_pem_paths)
    settings = {"jwt_key": str(jwt_key), "jwt_audiences": (VAULT, BANK)}
    server = make_server(tmp_path / "server", keys, roots, **settings)
    server.import_references(boot)
    yield server
    server.opened.close()


def payload(token: str) -> dict:
    return json.loads(jwt.parse(token).payload)


@needs_swtpm
@pytest.mark.tpm
def test_a_trusted_node_gets_tokens_for_whom_it_asks_and_may(vouching, machine):
    vouching.admit(machine)
    result = machine.attest(vouching.call, audiences=(BANK, "elsewhere", BANK))
    (token,) = result.tokens
    assert token.audience == BANK
    now = int(vouching.clock().timestamp())
    assert payload(token.jwt_svid) == {
        "sub": "spiffe://acme.example/node/n1",
        "aud": [BANK],
        "iat": now,
        "exp": now + 300,
    }
    found = payload(token.result)
    assert (found["ear_status"], found["iss"]) == ("affirming", "spiffe://acme.example")
    assert found["eat_profile"].startswith("tag:ietf.org,")
    verdict = next(one for one in reversed(vouching.entries()) if one.kind == "verdict")
    part = found["submods"]["node"]
    assert part["ear_appraisal_policy_id"] == f"sha256:{verdict.policy_sha256}"
    assert part["catena_evidence_sha256"] == verdict.evidence_sha256
    assert part["catena_release"] == verdict.release


@needs_swtpm
@pytest.mark.tpm
def test_anybody_verifies_them_with_the_bundle_alone(vouching, machine):
    vouching.admit(machine)
    (token,) = machine.attest(vouching.call, audiences=(VAULT,)).tokens
    keys = trust_bundle(vouching.service.setting).keys
    for_tokens = [msgspec.structs.replace(one, use=None) for one in keys if one.use == "jwt-svid"]
    for text, other in ((token.jwt_svid, token.result), (token.result, token.jwt_svid)):
        jose.verify(jwt.parse(text), for_tokens)
        mixed = jwt.parse(f"{text.rpartition('.')[0]}.{other.rpartition('.')[2]}")
        with pytest.raises(ForgedSignature):
            jose.verify(mixed, for_tokens)
    # The CA's keys sign certificates, and no tokens.
    others = [msgspec.structs.replace(one, use=None) for one in keys if one.use != "jwt-svid"]
    with pytest.raises(UnknownSigner):
        jose.verify(jwt.parse(token.jwt_svid), others)


@needs_swtpm
@pytest.mark.tpm
def test_the_log_knows_before_the_node_has_them(vouching, machine):
    vouching.admit(machine)
    tokens = machine.attest(vouching.call, audiences=(VAULT, BANK)).tokens
    entries = [one for one in vouching.entries() if one.kind == "identity-token"]
    assert [one.audience for one in entries] == [VAULT, BANK]
    assert [one.svid_sha256 for one in entries] == [
        hashlib.sha256(one.jwt_svid.encode()).hexdigest() for one in tokens
    ]
    assert entries[0].summary().startswith("tokens for vault until ")


@needs_swtpm
@pytest.mark.tpm
def test_no_node_that_is_not_admitted_gets_one(vouching, machine):
    machine.enrol(vouching.call)
    assert machine.attest(vouching.call, audiences=(VAULT,)).tokens is msgspec.UNSET
    assert "identity-token" not in vouching.kinds()


@needs_swtpm
@pytest.mark.tpm
def test_who_does_not_ask_gets_none_and_neither_does_who_asks_for_another(vouching, machine):
    vouching.admit(machine)
    assert machine.attest(vouching.call).tokens is msgspec.UNSET
    assert machine.attest(vouching.call, audiences=("elsewhere",)).tokens is msgspec.UNSET


@needs_swtpm
@pytest.mark.tpm
def test_a_server_without_a_key_for_them_gives_none(trusting, machine):
    trusting.admit(machine)
    assert machine.attest(trusting.call, audiences=(VAULT,)).tokens is msgspec.UNSET
    assert {one.use for one in trust_bundle(trusting.service.setting).keys} == {"x509-svid"}


def test_the_key_is_one_of_those_whose_change_is_logged(vouching):
    keys = {one.key: one.key_sha256 for one in note_keys(vouching.service.setting)}
    assert keys["jwt-svid"] == vouching.service.setting.vouching.jwk.kid


def test_a_key_that_cannot_sign_them_stops_the_server(tmp_path, keys):
    path = tmp_path / "ed.key"
    write_key(path, generate_key(KeyAlgorithm.ED25519))
    with pytest.raises(UnusableKey):
        make_server(tmp_path / "one", keys, jwt_key=str(path))
    with pytest.raises(MissingKey):
        make_server(tmp_path / "two", keys, jwt_key=str(tmp_path / "none"))


def test_tokens_never_outlive_a_verdict(tmp_path, keys, jwt_key):
    server = make_server(
        tmp_path / "server",
        keys,
        jwt_key=str(jwt_key),
        jwt_lifetime=3600,
        certificate_lifetime=120,
    )
    assert server.service.setting.vouching.lifetime.total_seconds() == 120
    server.opened.close()
