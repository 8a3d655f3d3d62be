"""Signed ACIs: keys for a name, masked keys, and what a good signature does not excuse."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from catena.containers.signature import aci as aci_signature
from catena.containers.signature.aci import (
    KeyForOtherPrefix,
    MaskedKey,
    NotAnAci,
    TrustedKey,
    TrustStore,
    WrongAciName,
    verify,
    verify_with,
)
from catena.containers.signature.aci_truststore import (
    BadTrustStore,
    NoTrustStore,
    read_trust_store,
)
from catena.containers.signature.openpgp import (
    ExpiredOpenPgpSignature,
    ForgedOpenPgpSignature,
    UnknownOpenPgpKey,
    UnusableOpenPgpKey,
)
from catena.errors import FormatError
from small_signatures import COMPRESSIONS, aci, tar_entry

NAME = "example.com/app"
IMAGE = aci()


def now():
    return datetime.now(UTC)


@pytest.fixture(scope="session")
def alice(gpg):
    return gpg.fingerprints("alice")[0], gpg.public("alice")


@pytest.fixture(scope="session")
def bob(gpg):
    return gpg.fingerprints("bob")[0], gpg.public("bob")


@pytest.fixture(scope="session")
def signature(gpg):
    return gpg.detached("alice", IMAGE, "--armor")


def store(*files):
    """A trust store of pairs of prefix and key."""
    return TrustStore(tuple(TrustedKey(prefix, *key) for prefix, key in files))


def masked(key):
    return key[0], b""


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_image_is_verified_and_named_by_the_archive_inside(gpg, alice, compression):
    data = COMPRESSIONS[compression](IMAGE)
    proof = verify(data, gpg.detached("alice", data), NAME, store((NAME, alice)), now())
    assert proof.image == "sha512-" + hashlib.sha512(IMAGE).hexdigest()
    assert (proof.name, proof.version, proof.fingerprint) == (NAME, "1.0.0", alice[0])
    assert abs(proof.signed_at - now()) < timedelta(minutes=5)


@pytest.mark.parametrize("prefix", ["", "example.com", "example.com/app"])
def test_a_key_for_a_prefix_signs_what_is_below(alice, signature, prefix):
    verify(IMAGE, signature, NAME, store((prefix, alice)), now())


@pytest.mark.parametrize(
    "prefix", ["example", "example.co", "example.com/ap", "example.com/app/x", "example.com/other", "acme.com"]
)  # fmt: skip
def test_a_key_for_another_prefix_is_refused(alice, bob, signature, prefix):
    with pytest.raises(KeyForOtherPrefix):
        verify(IMAGE, signature, NAME, store((prefix, alice), ("", bob)), now())


def test_another_key_is_refused(bob, signature):
    with pytest.raises(UnknownOpenPgpKey):
        verify(IMAGE, signature, NAME, store(("", bob)), now())


@pytest.mark.parametrize(("above", "below"), [*pairwise(["", "example.com", "example.com/app"])])
def test_a_masked_key_is_refused_from_its_folder_down(alice, signature, above, below):
    with pytest.raises(MaskedKey):
        verify(IMAGE, signature, NAME, store((above, alice), (below, masked(alice))), now())


def test_a_mask_holds_for_its_name_only(alice, signature):
    files = (("", alice), ("example.com/other", masked(alice)))
    verify(IMAGE, signature, NAME, store(*files), now())


def test_a_key_behind_its_mask_is_trusted_again(alice, signature):
    files = (("", alice), ("example.com", masked(alice)), ("example.com/app", alice))
    verify(IMAGE, signature, NAME, store(*files), now())


def test_a_tampered_image_is_refused(alice, signature):
    changed = IMAGE.replace(b"#!/bin/sh", b"#!/bin/ss")
    with pytest.raises(ForgedOpenPgpSignature):
        verify(changed, signature, NAME, store(("", alice)), now())


def test_an_image_of_another_name_is_refused(alice, signature):
    with pytest.raises(WrongAciName):
        verify(IMAGE, signature, "example.com/other", store(("", alice)), now())


@pytest.mark.parametrize("extra", ["evil", "rootfs/../evil"])
def test_a_well_signed_file_that_is_no_aci_is_refused(gpg, alice, extra):
    data = aci(tar_entry(extra, b"x"))
    with pytest.raises(NotAnAci):
        verify(data, gpg.detached("alice", data), NAME, store(("", alice)), now())


def test_nothing_is_unpacked_before_the_signature_holds(bob, signature, monkeypatch):
    monkeypatch.setattr(aci_signature.aci, "parse", lambda _: pytest.fail("unpacked"))
    for data in (IMAGE, IMAGE + b"x"):
        with pytest.raises(UnknownOpenPgpKey):
            verify(data, signature, NAME, store(("", bob)), now())


def test_a_signature_from_the_future_is_refused(alice, signature):
    with pytest.raises(ExpiredOpenPgpSignature):
        verify_with(IMAGE, signature, NAME, [alice[1]], now() - timedelta(days=1))


def test_what_is_signed_here_is_verified_here_and_by_gnupg(gpg, alice, tmp_path):
    secret = gpg("--export-secret-keys", "alice")
    signed = aci_signature.sign(IMAGE, secret)
    assert signed.startswith(b"-----BEGIN PGP SIGNATURE-----")
    verify_with(IMAGE, signed, NAME, [alice[1]], now())
    (tmp_path / "app.aci").write_bytes(IMAGE)
    (tmp_path / "app.aci.asc").write_bytes(signed)
    gpg("--verify", tmp_path / "app.aci.asc", tmp_path / "app.aci")


def test_only_an_aci_is_signed(gpg):
    with pytest.raises(FormatError):
        aci_signature.sign(b"no archive", gpg("--export-secret-keys", "alice"))


# On disk -----------------------------------------------------------------------------------


def write(folder, prefix, fingerprint, key):
    place = folder / "prefix.d" / prefix if prefix else folder / "root.d"
    place.mkdir(parents=True, exist_ok=True)
    (place / fingerprint).write_bytes(key)


def test_a_store_is_read_root_first_and_shorter_names_before_longer(tmp_path, alice, bob):
    write(tmp_path, "example.com/app", *alice)
    write(tmp_path, "example.com", *masked(alice))
    write(tmp_path, "", *bob)
    files = read_trust_store([tmp_path]).files
    assert [(file.prefix, file.fingerprint) for file in files] == [
        ("", bob[0]),
        ("example.com", alice[0]),
        ("example.com/app", alice[0]),
    ]


def test_the_administrators_store_overrides_the_systems(tmp_path, alice, signature):
    system, local = tmp_path / "system", tmp_path / "local"
    write(system, "example.com/app", *alice)
    verify(IMAGE, signature, NAME, read_trust_store([system, local]), now())
    write(local, "example.com", *masked(alice))
    with pytest.raises(MaskedKey):
        verify(IMAGE, signature, NAME, read_trust_store([system, local]), now())


def test_root_keys_of_both_stores_come_before_prefixes(tmp_path, alice, signature):
    system, local = tmp_path / "system", tmp_path / "local"
    write(system, "example.com", *masked(alice))
    write(local, "", *alice)
    with pytest.raises(MaskedKey):
        verify(IMAGE, signature, NAME, read_trust_store([system, local]), now())


def test_a_key_under_another_keys_name_is_refused(tmp_path, alice, bob):
    write(tmp_path, "", alice[0], bob[1])
    with pytest.raises(BadTrustStore):
        read_trust_store([tmp_path])


@pytest.mark.parametrize("name", ["README", "A" * 40, "a" * 39, "a" * 41])
def test_a_file_that_is_no_key_is_refused(tmp_path, name):
    write(tmp_path, "example.com", name, b"")
    with pytest.raises(BadTrustStore):
        read_trust_store([tmp_path])


def test_a_dangling_link_masks_nothing(tmp_path, alice):
    write(tmp_path, "", *alice)
    (tmp_path / "root.d" / ("b" * 40)).symlink_to("/nonexistent")
    with pytest.raises(BadTrustStore):
        read_trust_store([tmp_path])


def test_a_damaged_key_is_told(tmp_path):
    write(tmp_path, "", "a" * 40, b"nonsense")
    with pytest.raises((UnusableOpenPgpKey, FormatError)):
        read_trust_store([tmp_path])


def test_no_store_is_an_error(tmp_path):
    with pytest.raises(NoTrustStore):
        read_trust_store([tmp_path / "missing"])
