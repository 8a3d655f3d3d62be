from __future__ import annotations

import copy

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from catena.keys import signer
from catena.keys.signer import (
    ExposedKey,
    ForgedSignature,
    KeyAlgorithm,
    KeyExists,
    KeyUnreadable,
    KeyUnwritable,
    MissingKey,
    PrivateKeySigner,
    UnusableKey,
    WrongPassphrase,
)

ALGORITHMS = list(KeyAlgorithm)


@pytest.fixture(scope="module", params=ALGORITHMS)
def private_key(request):
    return signer.generate_key(request.param)


def test_signatures_verify_and_forgeries_do_not(private_key):
    one = PrivateKeySigner(private_key)
    signature = one.sign(b"message")
    signer.verify_signature(one.public_key, signature, b"message")
    with pytest.raises(ForgedSignature):
        signer.verify_signature(one.public_key, signature, b"massage")
    with pytest.raises(ForgedSignature):
        signer.verify_signature(one.public_key, signature[:-1], b"message")
    other = PrivateKeySigner(signer.generate_key(one.algorithm))
    with pytest.raises(ForgedSignature):
        signer.verify_signature(other.public_key, signature, b"message")


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_written_keys_load_again(private_key, passphrase, tmp_path):
    path = tmp_path / "one.key"
    signer.write_key(path, private_key, passphrase)
    assert path.stat().st_mode & 0o777 == 0o600
    loaded = signer.load_signer(path, passphrase)
    assert loaded.public_key == private_key.public_key()
    assert loaded.algorithm in ALGORITHMS
    assert loaded.key_id == signer.key_id_of(private_key.public_key())


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "one.key"
    signer.write_key(path, signer.generate_key(KeyAlgorithm.ED25519))
    return path


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o660, 0o602])
def test_key_open_to_others_is_refused(key_file, mode):
    key_file.chmod(mode)
    with pytest.raises(ExposedKey) as refused:
        signer.load_signer(key_file)
    assert refused.value.got == f"{mode:04o}"


def test_wrong_passphrases_are_refused(tmp_path, key_file):
    locked = tmp_path / "locked.key"
    signer.write_key(locked, signer.generate_key(KeyAlgorithm.ED25519), b"right")
    for path, passphrase in ((locked, None), (locked, b"wrong"), (key_file, b"needless")):
        with pytest.raises(WrongPassphrase):
            signer.load_signer(path, passphrase)


def test_empty_passphrase_does_not_pass_for_encryption(tmp_path):
    with pytest.raises(WrongPassphrase):
        signer.write_key(tmp_path / "k", signer.generate_key(KeyAlgorithm.ED25519), b"")
    assert not (tmp_path / "k").exists()


def test_keys_are_never_overwritten(key_file):
    before = key_file.read_bytes()
    with pytest.raises(KeyExists):
        signer.write_key(key_file, signer.generate_key(KeyAlgorithm.ED25519))
    assert key_file.read_bytes() == before


def test_missing_and_unwritable_places_are_named(tmp_path):
    with pytest.raises(MissingKey):
        signer.load_signer(tmp_path / "none.key")
    with pytest.raises(MissingKey):
        signer.load_public_key(tmp_path / "none.pub")
    with pytest.raises(KeyUnwritable):
        signer.write_new(tmp_path / "no/where", b"", mode=0o600)
    with pytest.raises(KeyUnreadable):
        signer.load_public_key(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(KeyUnreadable):
        signer.load_signer(tmp_path / "loop")


def test_folder_in_place_of_a_key_is_refused(tmp_path):
    with pytest.raises(UnusableKey):
        signer.load_signer(tmp_path)


def pkcs8(private_key):
    return private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no key",
        pkcs8(ec.generate_private_key(ec.SECP384R1())),
        pkcs8(rsa.generate_private_key(65537, 1024)),
        pkcs8(signer.generate_key(KeyAlgorithm.ED25519))[:-40],
    ],
)
def test_files_without_a_usable_key_are_refused(content, tmp_path):
    path = tmp_path / "odd.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UnusableKey):
        signer.load_signer(path)


def test_public_keys_round_trip(private_key, tmp_path):
    path = tmp_path / "one.pub"
    path.write_bytes(signer.public_pem(private_key.public_key()))
    assert signer.load_public_key(path) == private_key.public_key()
    with pytest.raises(UnusableKey):
        signer.parse_public_key(b"-----BEGIN PUBLIC KEY-----\n")
    with pytest.raises(UnusableKey):
        signer.parse_public_key(
            signer.public_pem(ec.generate_private_key(ec.SECP384R1()).public_key())
        )


def test_adapter_signs_and_gives_nothing_else_away(private_key):
    one = PrivateKeySigner(private_key)
    adapter = signer.x509_key(one)
    assert adapter.public_key() == one.public_key
    for closed in (
        adapter.private_bytes,
        lambda: copy.copy(adapter),
        lambda: copy.deepcopy(adapter),
    ):
        with pytest.raises(UnusableKey):
            closed()


def test_private_half_does_not_show_in_representation(private_key):
    one = PrivateKeySigner(private_key)
    assert repr(one) == f"<PrivateKeySigner {one.algorithm} {one.key_id[:16]}>"
