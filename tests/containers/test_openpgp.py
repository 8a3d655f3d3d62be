"""OpenPGP signatures that the real GnuPG made: by whom, over what, and until when."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hostile import bit_flips
from pysequoia import ArmorKind as Kind
from pysequoia import Cert, Tsk, armor

from catena.containers.signature import openpgp
from catena.containers.signature.openpgp import (
    ExpiredOpenPgpSignature,
    ForgedOpenPgpSignature,
    OpenPgpKeyExpired,
    OpenPgpKeyRevoked,
    OpenPgpUnavailable,
    UnknownOpenPgpKey,
    UnusableOpenPgpKey,
    WeakOpenPgpSignature,
    prove_detached,
    verify_detached,
    verify_inline,
)
from catena.containers.signature.result import SignatureRefused
from catena.errors import FormatError
from small_signatures import packet

DATA = b"what is signed\r\n"
LONG_AGO = "20200101T000000"


def now():
    return datetime.now(UTC)


@pytest.fixture(scope="session")
def alice(gpg):
    return gpg.public("alice")


@pytest.fixture(scope="session")
def bob(gpg):
    return gpg.public("bob")


@pytest.fixture(scope="session")
def signature(gpg):
    return gpg.detached("alice", DATA)


@pytest.fixture(scope="session")
def message(gpg):
    return gpg.message("alice", DATA)


@pytest.mark.parametrize("options", [(), ("--armor",)])
def test_a_detached_signature_is_verified(gpg, alice, options):
    proof = prove_detached(DATA, gpg.detached("alice", DATA, *options), [alice], now())
    assert [proof.fingerprint] == gpg.fingerprints("alice") == [proof.signing_key]
    assert abs(proof.signed_at - now()) < timedelta(minutes=5)


@pytest.mark.parametrize(
    "options",
    [(), ("--armor",), ("-z", "0"), ("--compress-algo", "bzip2"), ("--compress-algo", "zlib")],
)
def test_a_signed_message_is_verified(gpg, alice, options):
    content, fingerprint = verify_inline(gpg.message("alice", DATA, *options), [alice], now())
    assert content == DATA
    assert [fingerprint] == gpg.fingerprints("alice")


def test_keys_may_be_armored_and_many(gpg, alice, bob, signature):
    armored = gpg.public("alice", "--armor")
    both = gpg("--export", "alice", "bob")
    for keys in ([armored], [bob, alice], [both]):
        assert [verify_detached(DATA, signature, keys, now())] == gpg.fingerprints("alice")


def test_a_signature_by_another_key_is_refused(bob, signature, message):
    with pytest.raises(UnknownOpenPgpKey):
        verify_detached(DATA, signature, [bob], now())
    with pytest.raises(UnknownOpenPgpKey):
        verify_inline(message, [bob], now())
    with pytest.raises(UnknownOpenPgpKey):
        verify_detached(DATA, signature, [], now())


def test_other_data_is_a_forgery(alice, signature):
    with pytest.raises(ForgedOpenPgpSignature):
        verify_detached(DATA + b"\n", signature, [alice], now())


def test_a_claimed_issuer_is_only_a_hint(gpg, alice, bob, signature):
    """Bob's key under Alice's signature: renaming the issuer does not make it his."""
    mine, other = (bytes.fromhex(gpg.fingerprints(name)[0]) for name in ("alice", "bob"))
    renamed = signature.replace(mine, other).replace(mine[-8:], other[-8:])
    assert renamed != signature
    for keys in ([bob], [alice, bob]):
        with pytest.raises(ForgedOpenPgpSignature):
            verify_detached(DATA, renamed, keys, now())


def test_one_good_signature_of_several_is_enough(gpg, alice, signature):
    both = gpg.detached("bob", DATA) + signature
    assert [verify_detached(DATA, both, [alice], now())] == gpg.fingerprints("alice")
    with pytest.raises(ForgedOpenPgpSignature):
        verify_detached(DATA + b"x", both, [alice], now())


def test_flipped_bits_in_a_signature_never_verify_anything_else(alice, signature, message):
    refused = 0
    for damaged in bit_flips(signature, step=3):
        try:
            proof = prove_detached(DATA, damaged, [alice], now())
        except (FormatError, SignatureRefused):
            refused += 1
        else:  # unsigned parts: the issuer's key ID, the left of the hash
            assert proof == prove_detached(DATA, signature, [alice], now())
    assert refused > 200
    for damaged in bit_flips(message, step=11):
        try:
            content, _ = verify_inline(damaged, [alice], now())
        except (FormatError, SignatureRefused):
            continue
        assert content == DATA


def test_a_signature_cut_at_any_byte_is_refused(alice, signature, message):
    for end in range(len(signature)):
        with pytest.raises((FormatError, SignatureRefused)):
            verify_detached(DATA, signature[:end], [alice], now())
    for end in range(len(message)):
        with pytest.raises((FormatError, SignatureRefused)):
            verify_inline(message[:end], [alice], now())


# Strength and time -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [("--digest-algo", "SHA1"), ("--digest-algo", "SHA224"), ("--textmode",)]
)
def test_a_weak_signature_is_refused(gpg, options):
    rsa = "weak"
    if not gpg("--list-keys", "--with-colons").count(b":weak:"):
        gpg.new_key(rsa, kind="rsa2048")
    with pytest.raises(WeakOpenPgpSignature):
        verify_detached(DATA, gpg.detached(rsa, DATA, *options), [gpg.public(rsa)], now())


def test_an_expired_signature_is_refused(gpg, alice):
    signature = gpg.detached("alice", DATA, "--default-sig-expire", "2d")
    verify_detached(DATA, signature, [alice], now())
    with pytest.raises(ExpiredOpenPgpSignature):
        verify_detached(DATA, signature, [alice], now() + timedelta(days=3))


def test_a_signature_from_the_future_is_refused(alice, signature, message):
    with pytest.raises(ExpiredOpenPgpSignature):
        verify_detached(DATA, signature, [alice], now() - timedelta(days=1))
    with pytest.raises(ExpiredOpenPgpSignature):
        verify_inline(message, [alice], now() - timedelta(days=1))


def test_an_expired_key_is_refused_though_it_signed_in_time(gpg):
    gpg.new_key("old", expires="1y", time=LONG_AGO)
    signature = gpg.detached("old", DATA, time="20200201T000000")
    with pytest.raises(OpenPgpKeyExpired):
        verify_detached(DATA, signature, [gpg.public("old")], now())


def test_a_key_that_expires_later_is_refused_then(gpg):
    gpg.new_key("short", expires="3d")
    signature, key = gpg.detached("short", DATA), gpg.public("short")
    verify_detached(DATA, signature, [key], now())
    with pytest.raises(OpenPgpKeyExpired):
        verify_detached(DATA, signature, [key], now() + timedelta(days=4))


# Subkeys and revocation --------------------------------------------------------------------


@pytest.fixture(scope="session")
def subkeyed(gpg):
    """A key that only certifies, with one signing subkey that expires in 30 days."""
    primary = gpg.new_key("carol", usage="cert")
    gpg("--quick-add-key", primary, "ed25519", "sign", "30d")
    return gpg.fingerprints("carol")


def test_a_subkey_signs_for_its_key(gpg, subkeyed):
    primary, subkey = subkeyed
    proof = prove_detached(DATA, gpg.detached("carol", DATA), [gpg.public("carol")], now())
    assert (proof.fingerprint, proof.signing_key) == (primary, subkey)


def test_an_expired_subkey_is_refused(gpg, subkeyed):
    signature, key = gpg.detached("carol", DATA), gpg.public("carol")
    with pytest.raises(OpenPgpKeyExpired, match=subkeyed[1]):
        verify_detached(DATA, signature, [key], now() + timedelta(days=31))


def test_a_revoked_subkey_is_refused_whatever_the_reason(gpg):
    primary = gpg.new_key("grace", usage="cert")
    gpg("--quick-add-key", primary, "ed25519", "sign", "never")
    signature = gpg.detached("grace", DATA)
    verify_detached(DATA, signature, [gpg.public("grace")], now())
    gpg("--command-fd", "0", "--edit-key", "grace", data=b"key 1\nrevkey\ny\n2\n\ny\nsave\n")
    with pytest.raises(OpenPgpKeyRevoked):
        verify_detached(DATA, signature, [gpg.public("grace")], now())


def test_a_subkey_that_another_key_adopts_is_not_its_own(gpg, alice, subkeyed):
    """Carol's subkey and its binding, behind Alice's key: the binding does not hold there."""
    from pysequoia.packet import PacketPile

    packets = list(PacketPile.from_bytes(gpg.public("carol")))
    start = next(at for at, one in enumerate(packets) if "PublicSubkey" in str(one.tag))
    adopted = alice + b"".join(map(bytes, packets[start:]))
    with pytest.raises((ForgedOpenPgpSignature, UnknownOpenPgpKey)):
        verify_detached(DATA, gpg.detached("carol", DATA), [adopted], now())


def test_a_subkey_that_may_not_sign_is_refused(gpg):
    """The usage of a subkey counts: what an encryption key signs is nothing."""
    primary = gpg.new_key("dave", usage="sign")
    gpg("--quick-add-key", primary, "rsa2048", "encr", "never")
    proof = prove_detached(DATA, gpg.detached("dave", DATA), [gpg.public("dave")], now())
    assert proof.signing_key == primary


def test_a_revoked_key_is_refused(gpg):
    secret = Tsk.generate("erin")
    signature = openpgp.sign_detached(DATA, bytes(secret))
    certificate = secret.extract_certificate()
    verify_detached(DATA, signature, [bytes(certificate)], now())
    revocation = certificate.revoke(secret.certifier())
    revoked = Cert.from_bytes(bytes(certificate) + bytes(revocation))
    with pytest.raises(OpenPgpKeyRevoked):
        verify_detached(DATA, signature, [bytes(revoked)], now())


# Shapes ------------------------------------------------------------------------------------


def test_what_is_no_detached_signature_is_refused(alice, signature, message):
    for wire in (b"", message, signature * 9, alice, signature + alice):
        with pytest.raises(FormatError):
            verify_detached(DATA, wire, [alice], now())


def test_a_message_needs_exactly_one_signature(gpg, alice, signature):
    two = gpg("-u", "alice", "-u", "bob", "--sign", data=DATA)
    unsigned = gpg("--store", data=DATA)
    clear = gpg("-u", "alice", "--clear-sign", data=DATA)
    encrypted = packet(18, b"\1" + bytes(40))
    for wire in (b"", two, unsigned, clear, encrypted, signature):
        with pytest.raises(FormatError):
            verify_inline(wire, [alice], now())


def test_a_secret_key_is_no_key_for_verifying(gpg, signature):
    secret = gpg("--export-secret-keys", "alice")
    with pytest.raises(UnusableOpenPgpKey):
        verify_detached(DATA, signature, [secret], now())


@pytest.mark.parametrize("key", [b"", b"nonsense", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n"])
def test_what_is_no_key_is_told(signature, key):
    with pytest.raises(FormatError):
        verify_detached(DATA, signature, [key], now())


def test_fingerprints_are_told_in_order(gpg, alice, bob):
    both = (gpg.fingerprints("alice")[0], gpg.fingerprints("bob")[0])
    assert openpgp.fingerprints([alice, bob]) == both


def test_errors_say_no_word_of_the_librarys_insides(alice, signature):
    with pytest.raises(ForgedOpenPgpSignature) as refused:
        verify_detached(b"", signature, [alice], now())
    assert "backtrace" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_gnupg_verifies_what_is_signed_here(gpg, tmp_path):
    secret = Tsk.generate("frank")
    gpg("--import", data=armor(bytes(secret.extract_certificate()), Kind.PublicKey).encode())
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "data.asc").write_bytes(openpgp.sign_detached(DATA, bytes(secret)))
    gpg("--verify", tmp_path / "data.asc", tmp_path / "data")


def test_a_key_that_cannot_sign_does_not(gpg):
    for key in (b"", b"nonsense", gpg.public("alice")):
        with pytest.raises(UnusableOpenPgpKey):
            openpgp.sign_detached(DATA, key)


def test_the_library_is_loaded_only_when_it_is_needed():
    program = "import sys, catena.containers.signature.aci, catena.containers.signature.simple; assert 'pysequoia' not in sys.modules"  # fmt: skip
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_without_the_library_nothing_is_verified(monkeypatch, alice, signature):
    monkeypatch.setitem(sys.modules, "pysequoia", None)
    monkeypatch.delitem(sys.modules, "catena.containers.signature.sequoia", raising=False)
    monkeypatch.delattr("catena.containers.signature.sequoia", raising=False)
    with pytest.raises(OpenPgpUnavailable):
        verify_detached(DATA, signature, [alice], now())
