from __future__ import annotations

import os

import pytest

from catena.service.vault import KekMissing, KeyRing, UnreadableSecret, Vault, kek_digest, kek_id

VAULT = Vault(b"k" * 32)
VALUE = b"correct horse"


def test_a_locked_secret_unlocks():
    nonce, ciphertext = VAULT.lock("db", 1, VALUE, os.urandom)
    assert VAULT.unlock("db", 1, nonce, ciphertext) == VALUE
    assert VALUE not in ciphertext


@pytest.mark.parametrize(("name", "version"), [("db2", 1), ("db", 2), ("db\n1", 1)])
def test_a_row_moved_to_another_name_or_version_does_not_unlock(name, version):
    nonce, ciphertext = VAULT.lock("db", 1, VALUE, os.urandom)
    with pytest.raises(UnreadableSecret):
        VAULT.unlock(name, version, nonce, ciphertext)


def test_another_storage_key_does_not_unlock():
    nonce, ciphertext = VAULT.lock("db", 1, VALUE, os.urandom)
    with pytest.raises(UnreadableSecret):
        Vault(b"K" * 32).unlock("db", 1, nonce, ciphertext)


def test_a_damaged_row_does_not_unlock():
    nonce, ciphertext = VAULT.lock("db", 1, VALUE, os.urandom)
    for size in range(len(ciphertext)):
        with pytest.raises(UnreadableSecret):
            VAULT.unlock("db", 1, nonce, ciphertext[:size])
    with pytest.raises(UnreadableSecret):
        VAULT.unlock("db", 1, b"", ciphertext)


def test_neither_vault_nor_server_keys_show_their_key():
    from catena.service.setting import ServerKeys

    keys = ServerKeys(nonce=b"NONCEKEY", storage=KeyRing(lambda: (Vault(b"STORAGEKEY"),)))
    assert "KEY" not in repr(keys)
    assert "kkk" not in repr(VAULT)
    assert keys.ticket() != keys.nonce


def test_a_key_is_named_by_what_only_its_holder_can_derive():
    assert kek_digest(b"k" * 32).startswith(kek_id(b"k" * 32))
    assert kek_id(b"k" * 32) != kek_id(b"K" * 32)
    assert b"k" * 32 not in bytes.fromhex(kek_digest(b"k" * 32))


def test_a_ring_looks_again_for_a_key_that_it_does_not_know():
    keys = [Vault(b"a" * 32)]
    ring = KeyRing(lambda: tuple(keys))
    wanted = kek_id(b"b" * 32)
    with pytest.raises(KekMissing):
        ring.vault(wanted)
    keys.append(Vault(b"b" * 32))
    assert ring.vault(wanted) == Vault(b"b" * 32)
    assert ring.vault("") == ring.vault(ring.first) == Vault(b"a" * 32)
