from __future__ import annotations

import shutil
import uuid
from datetime import UTC, datetime

import pytest

from catena.keys import hierarchy
from catena.keys.hierarchy import FIRMWARE_KEYS, KeyName, NoKeyFolder, WrongKeyKind
from catena.keys.signer import (
    ExposedKey,
    KeyExists,
    KeyUnwritable,
    UnusableKey,
    WrongPassphrase,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_folder_holds_every_key_of_its_table(keys):
    names = {path.name for path in keys.path.iterdir()}
    expected = {f"{name}.key" for name in KeyName} | {"owner.guid"}
    expected |= {f"{name}.crt" if name.has_certificate else f"{name}.pub" for name in KeyName}
    assert names == expected
    assert keys.path.stat().st_mode & 0o777 == 0o700
    for name in KeyName:
        signer = keys.signer(name)
        assert signer.algorithm is name.algorithm
        assert signer.public_key == keys.public_key(name)


def test_private_keys_are_closed_to_others(keys):
    modes = {path.stat().st_mode & 0o777 for path in keys.path.glob("*.key")}
    assert modes == {0o600}


def test_firmware_roots_are_self_signed_for_signing(keys):
    for name in FIRMWARE_KEYS:
        certificate = keys.certificate(name)
        certificate.verify_directly_issued_by(certificate)
        assert certificate.subject.rfc4514_string() == f"CN=Example {name},O=Example"


def test_owner_is_stable_and_can_be_given(keys, tmp_path):
    assert keys.owner == hierarchy.open_folder(keys.path).owner
    owner = uuid.UUID(int=7)
    assert hierarchy.init(tmp_path / "k", organisation="E", now=NOW, owner=owner).owner == owner


def test_existing_place_is_never_reused(keys, tmp_path):
    with pytest.raises(KeyExists):
        hierarchy.init(keys.path, organisation="E", now=NOW)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(KeyExists):
        hierarchy.init(tmp_path / "link", organisation="E", now=NOW)


def test_failed_init_leaves_nothing(tmp_path):
    with pytest.raises(WrongPassphrase):
        hierarchy.init(tmp_path / "keys", organisation="E", now=NOW, passphrase=b"")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyUnwritable):
        hierarchy.init(tmp_path / "no/keys", organisation="E", now=NOW)


def test_passphrase_locks_every_private_key(tmp_path):
    made = hierarchy.init(tmp_path / "keys", organisation="E", now=NOW, passphrase=b"secret")
    assert b"secret" not in repr(made).encode()
    locked = hierarchy.open_folder(made.path)
    for name in KeyName:
        made.signer(name)
        locked.public_key(name)
        with pytest.raises(WrongPassphrase):
            locked.signer(name)


def test_other_folders_are_not_key_folders(tmp_path):
    with pytest.raises(NoKeyFolder):
        hierarchy.open_folder(tmp_path)
    (tmp_path / "owner.guid").write_text("not a GUID")
    folder = hierarchy.open_folder(tmp_path)
    with pytest.raises(NoKeyFolder):
        _ = folder.owner
    with pytest.raises(NoKeyFolder):
        folder.certificate(KeyName.DB)
    (tmp_path / "db.crt").write_text("not a certificate")
    with pytest.raises(UnusableKey):
        folder.certificate(KeyName.DB)


def test_swapped_and_exposed_keys_are_refused(keys, tmp_path):
    copied = hierarchy.open_folder(shutil.copytree(keys.path, tmp_path / "copy"))
    (copied.path / "log.key").replace(copied.path / "db.key")
    with pytest.raises(WrongKeyKind):
        copied.signer(KeyName.DB)
    (copied.path / "ca.key").chmod(0o644)
    with pytest.raises(ExposedKey):
        copied.signer(KeyName.CA)
