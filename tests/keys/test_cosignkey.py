"""Key files of cosign: opened with their passphrase, refused otherwise."""

from __future__ import annotations

import base64
import json

import pytest

from catena.errors import CatenaError
from catena.keys import cosignkey
from catena.keys.cosignkey import BadCosignKey
from catena.keys.signer import (
    ExposedKey,
    UnusableKey,
    WrongPassphrase,
    load_public_key,
    load_signer,
    verify_signature,
)

# Made by cosign 3.1.1 with the passphrase "correct horse".
PASSPHRASE = b"correct horse"
PRIVATE = b"""-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----
eyJrZGYiOnsibmFtZSI6InNjcnlwdCIsInBhcmFtcyI6eyJOIjo2NTUzNiwiciI6
OCwicCI6MX0sInNhbHQiOiI4U04yb2tDSElpekVORTRDWGl2ZVFXMHZmT2M5dHJZ
Rit2U1ZrWktjTFIwPSJ9LCJjaXBoZXIiOnsibmFtZSI6Im5hY2wvc2VjcmV0Ym94
Iiwibm9uY2UiOiJ5MlM2ZUoyVzQwQTFsZW03RU1yVHczNzgvWXVCZVBpZSJ9LCJj
aXBoZXJ0ZXh0IjoidDFRMkE1RXFPb1RXeG1ValpOWkkyMitLZEhjMXhzc1pnM01L
Y0dUdEtBKzBCNkJzWGdQemd6QklhQmk0bHBvRUhQQU9VNUJzR3dwMWZYNVZXWFh6
cFVhTHpRQVlEUHh3TmNmOCtjbnZJbmIzdm9lYlVBOHhqczNSQWN0eE93b2tWdDB3
YzI0TkdsN0t1RTlNQ2Urb1psQlFKakN6Mm1CcUdZL1p1OGVrL25CVFB1bFVkVGJh
VmZ4RTNlcVVVN3BkcFFGMERFdGVUK0pNNVE9PSJ9
-----END ENCRYPTED SIGSTORE PRIVATE KEY-----
"""
PUBLIC = b"""-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE0/4gCDeClmo5SY6vWnuOJOrG4Tvb
Orusw7SOdFfoiEie19lTDA2lhQ8dmkI5tyDnouo7jTkxQZWtmf5V3T7RjQ==
-----END PUBLIC KEY-----
"""


@pytest.fixture
def key_file(tmp_path):
    file = tmp_path / "cosign.key"
    file.write_bytes(PRIVATE)
    file.chmod(0o600)
    (tmp_path / "cosign.pub").write_bytes(PUBLIC)
    return file


def edited(**changes):
    lines = PRIVATE.split(b"\n")
    document = json.loads(base64.b64decode(b"".join(lines[1:-2])))
    for path, value in changes.items():
        *above, last = path.split("__")
        place = document
        for name in above:
            place = place[name]
        place[last] = value
    encoded = base64.b64encode(json.dumps(document).encode())
    return b"\n".join((lines[0], encoded, *lines[-2:]))


def test_a_key_of_cosign_signs_what_its_public_half_verifies(key_file):
    signer = load_signer(key_file, PASSPHRASE)
    public = load_public_key(key_file.with_suffix(".pub"))
    verify_signature(public, signer.sign(b"message"), b"message")


@pytest.mark.parametrize("passphrase", [None, b"", b"correct horse "])
def test_another_passphrase_opens_nothing(key_file, passphrase):
    with pytest.raises(WrongPassphrase):
        load_signer(key_file, passphrase)


def test_an_exposed_key_of_cosign_is_refused(key_file):
    key_file.chmod(0o640)
    with pytest.raises(ExposedKey):
        load_signer(key_file, PASSPHRASE)


@pytest.mark.parametrize(
    "changes",
    [
        {"kdf__name": "argon2"},
        {"cipher__name": "aes"},
        {"kdf__params__N": 2**30},
        {"kdf__params__N": 3},
        {"kdf__params__r": 8000},
        {"kdf__params__p": 2},
        {"kdf__salt": ""},
        {"cipher__nonce": "AAAA"},
        {"ciphertext": ""},
        {"ciphertext": base64.b64encode(bytes(20_000)).decode()},
        {"unknown": 1},
    ],
)
def test_other_algorithms_and_costs_are_refused_before_any_work(changes):
    with pytest.raises(BadCosignKey):
        cosignkey.decrypt(edited(**changes), PASSPHRASE)


def test_a_changed_byte_of_the_sealed_key_opens_nothing():
    lines = PRIVATE.split(b"\n")
    sealed = json.loads(base64.b64decode(b"".join(lines[1:-2])))["ciphertext"]
    content = bytearray(base64.b64decode(sealed))
    for at in (0, 16, len(content) - 1):
        changed = bytearray(content)
        changed[at] ^= 1
        bad = edited(ciphertext=base64.b64encode(changed).decode())
        assert cosignkey.decrypt(bad, PASSPHRASE) is None


@pytest.mark.parametrize("cut", [30, 60, 200, -3])
def test_a_cut_key_file_is_refused_without_showing_any_of_it(tmp_path, cut):
    file = tmp_path / "cosign.key"
    file.write_bytes(PRIVATE[:cut])
    file.chmod(0o600)
    with pytest.raises(CatenaError) as refused:
        load_signer(file, PASSPHRASE)
    assert isinstance(refused.value, BadCosignKey | UnusableKey | WrongPassphrase)
    assert "kdf" not in str(refused.value.as_dict())


def test_a_secretbox_is_opened_as_nacl_closes_it():
    # "Cryptography in NaCl", section 10: the worked example of crypto_secretbox.
    key = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
    nonce = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
    boxed = bytes.fromhex(
        "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186a"
        "c0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae"
        "90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74"
        "e355a5"
    )
    opened = cosignkey.open_secretbox(key, nonce, boxed)
    assert opened is not None
    assert opened.hex().startswith(
        "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffc"
    )
    assert opened.hex().endswith("5e0705")
