"""Simple signing: one OpenPGP message, one statement, one image."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from catena.containers.signature.notation import SignedOtherImage
from catena.containers.signature.openpgp import ExpiredOpenPgpSignature, UnknownOpenPgpKey
from catena.containers.signature.simple import parse_simple_signing, verify
from catena.errors import FormatError
from code_signing import IMAGE

REFERENCE = "registry.example:5000/team/app:1.0"


def now():
    return datetime.now(UTC)


def statement(reference=REFERENCE, image=IMAGE, kind="atomic container signature", **more):
    critical = {
        "type": kind,
        "image": {"docker-manifest-digest": image},
        "identity": {"docker-reference": reference},
    }
    return {"critical": critical, "optional": {"creator": "test", "timestamp": 1}} | more


def encoded(**options):
    return json.dumps(statement(**options)).encode()


@pytest.fixture(scope="session")
def alice(gpg):
    return gpg.public("alice")


@pytest.fixture(scope="session")
def message(gpg):
    return gpg.message("alice", encoded())


def test_a_signature_is_verified(gpg, alice, message):
    proof = verify(message, IMAGE, [alice], now())
    assert (proof.image, proof.reference) == (IMAGE, REFERENCE)
    assert [proof.fingerprint] == gpg.fingerprints("alice")


def test_a_signature_of_another_image_is_refused(alice, message):
    with pytest.raises(SignedOtherImage):
        verify(message, "sha256:" + "cd" * 32, [alice], now())


def test_another_key_is_refused(gpg, message):
    with pytest.raises(UnknownOpenPgpKey):
        verify(message, IMAGE, [gpg.public("bob")], now())


def test_an_expired_signature_is_refused(gpg, alice):
    message = gpg.message("alice", encoded(), "--default-sig-expire", "2d")
    verify(message, IMAGE, [alice], now())
    with pytest.raises(ExpiredOpenPgpSignature):
        verify(message, IMAGE, [alice], now() + timedelta(days=3))


def test_the_statement_is_not_read_before_the_signature_holds(gpg):
    message = gpg.message("alice", b"no JSON")
    with pytest.raises(UnknownOpenPgpKey):
        verify(message, IMAGE, [gpg.public("bob")], now())
    with pytest.raises(FormatError):
        verify(message, IMAGE, [gpg.public("alice")], now())


@pytest.mark.parametrize(
    "reference", ["busybox.example/x", "testing/manifest:latest", "a.b/c/d_e--f:V1.0-x"]
)
def test_references_with_and_without_a_tag_are_read(reference):
    assert parse_simple_signing(encoded(reference=reference))[:2] == (reference, IMAGE)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        encoded(kind="cosign container image signature"),
        encoded(reference="UPPERCASEISINVALID"),
        encoded(reference="registry.example/UPPER"),
        encoded(reference="registry.example/app:1.0\n"),
        encoded(reference="registry.example/../app"),
        encoded(image="sha256:" + "AB" * 32),
        encoded(image="md5:" + "ab" * 16),
        encoded(more=1),
        encoded(optional=[]),
        json.dumps(statement() | {"critical": statement()["critical"] | {"unknown": 1}}).encode(),
        encoded().replace(b'"image"', b'"type":"atomic container signature","image"'),
    ],
)
def test_bad_statements_are_refused(payload):
    with pytest.raises(FormatError):
        parse_simple_signing(payload)


@pytest.fixture
def skopeo(gpg, tmp_path):
    if shutil.which("skopeo") is None:
        pytest.skip("needs skopeo")

    def run(*words):
        return subprocess.run(
            ["skopeo", *map(str, words)],
            env={**os.environ, "GNUPGHOME": str(gpg.home)},
            cwd=tmp_path,
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout

    return run


MANIFEST = b'{"schemaVersion":2,"config":{},"layers":[]}'


def digest_of(manifest):
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def test_what_skopeo_signs_is_verified_here(gpg, alice, skopeo, tmp_path):
    (tmp_path / "manifest").write_bytes(MANIFEST)
    skopeo("standalone-sign", "manifest", REFERENCE, *gpg.fingerprints("alice"), "-o", "signature")
    signature = (tmp_path / "signature").read_bytes()
    proof = verify(signature, digest_of(MANIFEST), [alice], now())
    assert proof.reference == REFERENCE


def test_skopeo_verifies_what_this_format_says(gpg, skopeo, tmp_path):
    payload = encoded(image=digest_of(MANIFEST))
    (tmp_path / "manifest").write_bytes(MANIFEST)
    (tmp_path / "signature").write_bytes(gpg.message("alice", payload))
    skopeo(
        "standalone-verify",
        "manifest",
        REFERENCE,
        gpg.fingerprints("alice")[0].upper(),
        "signature",
    )
