"""Container policies: what does not mean what it says is refused before anything runs under it."""

import contextlib
import itertools
import json
from datetime import datetime
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from signing import OTHER, REPOSITORY, issue, pem, policy, signer

from catena.containers.signature.policy import (
    BadContainerPolicy,
    compile_policy,
    digest_of,
    notes_on,
)
from catena.containers.signature.policyfile import load_policy, seal_policy
from catena.containers.signature.version import parse_version
from catena.errors import FormatError
from catena.formats.containerpolicy import (
    CertificateIdentity,
    ContainerPolicy,
    Publisher,
    Scope,
)
from catena.keys.documents import open_document
from catena.keys.envelope import NoTrustedKeys, UntrustedSigner

KEY = pem(signer())
TEAM = Publisher(name="team", keys=(KEY,))
SCOPE = Scope(repository=REPOSITORY, publishers=("team",))


def document(publishers=(TEAM,), scopes=(SCOPE,)):
    return ContainerPolicy(
        name="test", version=1, publishers=tuple(publishers), scopes=tuple(scopes)
    )


def public_text(private):
    return (
        private.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def test_a_policy_is_named_by_the_digest_of_its_document():
    compiled = compile_policy(document())
    assert compiled.digest == digest_of(document())
    assert compiled.document == document()
    again = msgspec.json.decode(msgspec.json.encode(document()), type=ContainerPolicy)
    assert compile_policy(again).digest == compiled.digest


ROOT = issue("root", authority=True).pem
REFUSED = {
    "no such publisher": {"scopes": [Scope(repository=REPOSITORY, publishers=("nobody",))]},
    "two publishers of one name": {"publishers": [TEAM, TEAM]},
    "two scopes of one name": {"scopes": [SCOPE, SCOPE]},
    "a publisher without a key": {"publishers": [Publisher(name="team")]},
    "a key that is none": {"publishers": [Publisher(name="team", keys=("no key",))]},
    "one key for two publishers": {
        "publishers": [TEAM, Publisher(name="rival", keys=(KEY,))],
    },
    "one OpenPGP key for two publishers": {
        "publishers": [
            Publisher(name="team", openpgp=("key",)),
            Publisher(name="rival", openpgp=("key",)),
        ],
    },
    "an unknown format": {
        "scopes": [Scope(repository=REPOSITORY, publishers=("team",), formats=("pgp",))]
    },
    "a version that cannot be compared": {
        "scopes": [Scope(repository=REPOSITORY, publishers=("team",), min_version="latest")]
    },
    "a time without a zone": {
        "scopes": [
            Scope(
                repository=REPOSITORY,
                publishers=("team",),
                not_before=datetime(2026, 1, 1),  # noqa: DTZ001 - that is what is refused
            )
        ]
    },
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_policy_is_refused_with(what):
    with pytest.raises(BadContainerPolicy):
        compile_policy(document(**REFUSED[what]))


@pytest.mark.parametrize(
    "rule",
    [
        CertificateIdentity(roots=(ROOT,)),
        CertificateIdentity(roots=("no certificate",), subject="CN=a"),
        CertificateIdentity(roots=(ROOT,), subject="CN=a", logs=("no key",)),
    ],
)
def test_an_identity_that_accepts_everybody_or_cannot_be_read_is_refused(rule):
    with pytest.raises(BadContainerPolicy):
        compile_policy(document([Publisher(name="team", identities=(rule,))]))


def test_one_certificate_for_two_publishers_is_refused():
    rule = CertificateIdentity(roots=(ROOT,), subject="CN=a")
    logged = msgspec.structs.replace(rule, logs=(KEY,))
    publishers = [
        Publisher(name="team", identities=(rule,)),
        Publisher(name="rival", identities=(logged,)),
    ]
    with pytest.raises(BadContainerPolicy):
        compile_policy(document(publishers))


@pytest.mark.parametrize(
    "name",
    ["", "app", "team/app", "Registry.example.com/App", "registry.example.com", "a.example/b:1",
     "a.example/b@sha256:0", "a.example/*/b", "*/b", "a.example/b*", "**", "index.docker.io/x/y",
     "a.example//*", "a.example/b/"],
)  # fmt: skip
def test_a_scope_that_no_repository_can_match_is_refused(name):
    with pytest.raises(BadContainerPolicy):
        compile_policy(document(scopes=[Scope(repository=name, publishers=("team",))]))


@pytest.mark.parametrize(
    ("repository", "scope"),
    [
        ("a.example/b/c", "a.example/b/c"),
        ("a.example/b/c/d", "a.example/b/*"),
        ("a.example/b/d", "a.example/b/*"),
        ("a.example/b", "a.example/*"),
        ("a.example/bc", "a.example/*"),
        ("localhost:5000/x", "localhost:5000/*"),
        ("elsewhere.example/b", "*"),
    ],
)
def test_the_longest_scope_that_matches_applies(repository, scope):
    names = ("*", "a.example/*", "a.example/b/*", "a.example/b/c", "localhost:5000/*")
    rules = policy({"team": [KEY]}, [Scope(repository=one, publishers=("team",)) for one in names])
    assert rules.scope_of(repository).rule.repository == scope


def test_a_repository_without_a_scope_has_none():
    assert compile_policy(document()).scope_of(OTHER) is None


@pytest.mark.parametrize("key", [ec.SECP256R1(), ec.SECP384R1(), 2048, 3072])
def test_a_publisher_may_have_any_key_of_the_table(key):
    private = (
        rsa.generate_private_key(65537, key)
        if isinstance(key, int)
        else ec.generate_private_key(key)
    )
    publisher = Publisher(name="team", keys=(public_text(private),))
    assert compile_policy(document([publisher])).publishers["team"].keys


def test_a_weak_key_is_refused():
    weak = public_text(ec.generate_private_key(ec.SECP224R1()))
    with pytest.raises(BadContainerPolicy):
        compile_policy(document([Publisher(name="team", keys=(weak,))]))


def test_what_a_wide_scope_allows_is_said():
    scopes = [
        Scope(repository="a.example/*", publishers=("team",)),
        Scope(repository=REPOSITORY, publishers=("team",), formats=("cosign",)),
    ]
    notes = list(notes_on(compile_policy(document(scopes=scopes))))
    assert len(notes) == 1
    assert "a.example/*" in notes[0]
    assert not list(notes_on(compile_policy(document())))
    two = [SCOPE, Scope(repository=OTHER, publishers=("team",))]
    assert any(
        "more than this scope" in one for one in notes_on(compile_policy(document(scopes=two)))
    )


# Files -------------------------------------------------------------------------------------


def written(folder: Path, suffix: str) -> Path:
    (folder / "team.pub").write_text(KEY)
    file = folder / f"policy{suffix}"
    if suffix == ".toml":
        file.write_text(
            'name = "test"\nversion = 1\n'
            '[[publishers]]\nname = "team"\nkeys = ["file:team.pub"]\n'
            f'[[scopes]]\nrepository = "{REPOSITORY}"\npublishers = ["team"]\n'
        )
    else:
        file.write_bytes(
            msgspec.json.encode(document([Publisher(name="team", keys=("file:team.pub",))]))
        )
    return file


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_a_policy_file_takes_its_keys_from_beside_it(tmp_path, suffix):
    assert load_policy(written(tmp_path, suffix)).document == document()


def test_a_key_file_that_is_not_there_is_refused(tmp_path):
    file = written(tmp_path, ".toml")
    (tmp_path / "team.pub").unlink()
    with pytest.raises(BadContainerPolicy):
        load_policy(file)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"name": 1}', b"[" * 99999])
@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_what_is_no_policy_is_refused(tmp_path, content, suffix):
    file = tmp_path / f"policy{suffix}"
    file.write_bytes(content)
    with pytest.raises(BadContainerPolicy):
        load_policy(file)


def test_an_unknown_field_is_refused(tmp_path):
    file = tmp_path / "policy.json"
    file.write_text(json.dumps({**msgspec.to_builtins(document()), "else": 1}))
    with pytest.raises(BadContainerPolicy):
        load_policy(file)


def test_a_signed_policy_is_read_only_with_its_signer_s_key(tmp_path):
    release, compiled = signer(), compile_policy(document())
    file = tmp_path / "policy.dsse.json"
    file.write_bytes(seal_policy(compiled, release))
    assert load_policy(file, [release.public_key]).digest == compiled.digest
    assert open_document(file.read_bytes(), [release.public_key], ContainerPolicy) == document()
    with pytest.raises(UntrustedSigner):
        load_policy(file, [signer().public_key])
    with pytest.raises(NoTrustedKeys):
        load_policy(file)


def test_a_policy_that_nobody_signed_is_refused_where_a_key_is_given(tmp_path):
    with pytest.raises(FormatError):
        load_policy(written(tmp_path, ".json"), [signer().public_key])


# Versions ----------------------------------------------------------------------------------

ASCENDING = (
    "0", "0.0.1", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2",
    "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.2", "1.10", "v2", "2.0.0.1", "10.0.0",
)  # fmt: skip


def test_versions_are_in_the_order_of_their_specification():
    versions = [parse_version(one) for one in ASCENDING]
    assert sorted(versions) == versions
    assert all(one < two for one, two in itertools.pairwise(versions))
    assert parse_version("1.2.0+a") == parse_version("v1.2+b")


@pytest.mark.parametrize("text", ["", "v", "latest", "1.", "1..2", "1.2.3.4.5", "1-", "1+", "-1", "1.2\n", "１.2", "1" * 200])  # fmt: skip
def test_what_cannot_be_compared_is_no_version(text):
    with pytest.raises(FormatError):
        parse_version(text)


@given(st.text(max_size=40))
def test_any_text_is_a_version_or_refused(text):
    with contextlib.suppress(FormatError):
        assert str(parse_version(text)) == text
