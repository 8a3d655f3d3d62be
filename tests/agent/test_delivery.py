from __future__ import annotations

import os
import pty
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from catena.agent.delivery import (
    AlteredSecret,
    Delivery,
    DeliveryFailed,
    RuntimeOnDisk,
    SealedElsewhere,
    UnsafeSecretName,
    WrongBootState,
    copy_sealed,
    is_memory_backed,
    open_sealed,
    safe_name,
)
from catena.agent.identity import Identity
from catena.errors import FormatError
from catena.formats.nodeapi import SealedSecret
from catena.formats.tpm2 import parse_public
from catena.ids import HashAlg
from catena.keys.protect import seal_to_tpm
from catena.tpm.device import Tpm, open_tpm
from swtpm import SoftwareTpm, needs_swtpm

IDENTITY = Identity(
    certificate=b"certificate", private_key=b"key", not_after=datetime.now(UTC) + timedelta(hours=1)
)
NEXT = Identity(certificate=b"next", private_key=b"next key", not_after=IDENTITY.not_after)
PCRS = (0, 7, 11)
FIXED_NAMES = ("current", "node.crt", "node.key", "secrets", "tokens")


@pytest.fixture
def delivery(memory_folder: Path) -> Delivery:
    delivery = Delivery(memory_folder)
    delivery.prepare()
    return delivery


def sealed_to(tpm: Tpm, payload: bytes = b"payload") -> SealedSecret:
    return seal_to_tpm(
        parse_public(tpm.ek_public()),
        payload,
        name="disk",
        version=3,
        bank=HashAlg.SHA256,
        pcr_values=dict(zip(PCRS, tpm.read_pcrs(HashAlg.SHA256, PCRS), strict=True)),
        random=os.urandom,
    )


def contents(folder: Path) -> dict[str, bytes]:
    current = folder / "current"
    return {
        str(path.relative_to(current)): path.read_bytes()
        for path in sorted(current.rglob("*"))
        if path.is_file()
    }


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_identity_and_secrets_appear_together(delivery: Delivery):
    delivery.deliver(IDENTITY, {"disk": b"secret"}, {"disk": 1})
    assert contents(delivery.folder) == {
        "node.crt": b"certificate",
        "node.key": b"key",
        "secrets/disk": b"secret",
    }


def test_paths_for_readers_stay_the_same(delivery: Delivery):
    for identity in (IDENTITY, NEXT):
        delivery.deliver(identity, {"disk": b"secret"}, {"disk": 1})
        assert (delivery.folder / "node.crt").read_bytes() == identity.certificate
        assert (delivery.folder / "node.key").read_bytes() == identity.private_key
        assert (delivery.folder / "secrets/disk").read_bytes() == b"secret"


def test_only_the_owner_may_look(delivery: Delivery):
    delivery.deliver(IDENTITY, {"disk": b"secret"}, {"disk": 1})
    paths = [delivery.folder, *(delivery.folder / "current").resolve().rglob("*")]
    paths.append((delivery.folder / "current").resolve())
    for path in paths:
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_next_identity_replaces_the_last_at_once(delivery: Delivery):
    delivery.deliver(IDENTITY, {}, {})
    before = (delivery.folder / "current").resolve()
    delivery.deliver(NEXT, {}, {})
    after = (delivery.folder / "current").resolve()
    assert before != after
    assert contents(delivery.folder) == {"node.crt": b"next", "node.key": b"next key"}
    assert names(delivery.folder) == {*FIXED_NAMES, after.name}


def test_secret_is_kept_without_being_opened_again_and_dropped_when_no_longer_named(
    delivery: Delivery,
):
    delivery.deliver(IDENTITY, {"disk": b"secret"}, {"disk": 1})
    delivery.deliver(NEXT, {}, {"disk": 1})
    assert contents(delivery.folder)["secrets/disk"] == b"secret"
    delivery.deliver(NEXT, {"disk": b"newer"}, {"disk": 2})
    assert contents(delivery.folder)["secrets/disk"] == b"newer"
    delivery.deliver(NEXT, {}, {})
    assert set(contents(delivery.folder)) == {"node.crt", "node.key"}


def test_withdrawal_leaves_nothing(delivery: Delivery):
    delivery.deliver(IDENTITY, {"disk": b"secret"}, {"disk": 1})
    assert delivery.withdraw()
    assert list(delivery.folder.iterdir()) == []
    assert delivery.held == {}
    assert not delivery.withdraw()


def test_failed_delivery_leaves_the_last_one_and_no_rest(delivery: Delivery):
    delivery.deliver(IDENTITY, {}, {})
    with pytest.raises(DeliveryFailed):
        delivery.deliver(NEXT, {}, {"never-opened": 1})
    assert contents(delivery.folder)["node.crt"] == b"certificate"
    assert len(names(delivery.folder)) == len(FIXED_NAMES) + 1


def test_start_removes_what_an_earlier_run_left(delivery: Delivery):
    delivery.deliver(IDENTITY, {"disk": b"secret"}, {"disk": 1})
    Delivery(delivery.folder).prepare()
    assert list(delivery.folder.iterdir()) == []


def test_directory_that_is_not_in_memory_is_refused(monkeypatch, tmp_path):
    on_disk = Path("/proc")
    assert not is_memory_backed(on_disk)
    with pytest.raises(RuntimeOnDisk):
        Delivery(on_disk).prepare()


def test_directory_on_a_disk_is_accepted_only_by_configuration(tmp_path):
    Delivery(tmp_path / "run", allow_disk=True).prepare()
    assert (tmp_path / "run").is_dir()


def test_directory_that_cannot_be_made_says_so():
    with pytest.raises(DeliveryFailed):
        Delivery(Path("/proc/nowhere/run")).prepare()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc", ".hidden", "a\n", "a\0b", "x" * 129, "ä"]
)
def test_name_that_is_no_plain_file_name_is_refused(name):
    with pytest.raises(UnsafeSecretName):
        safe_name(name)


@pytest.mark.parametrize("name", ["disk", "db-password", "A.b_c-1", "x" * 128])
def test_plain_names_are_accepted(name):
    assert safe_name(name) == name


@pytest.mark.tpm
@needs_swtpm
class TestOpenSealed:
    def test_secret_for_this_tpm_and_boot_opens(self, tpm: Tpm):
        payload = os.urandom(200_000)
        assert open_sealed(tpm, sealed_to(tpm, payload)) == payload

    def test_secret_of_another_tpm_does_not(self, tpm: Tpm, elsewhere: SoftwareTpm):
        sealed = sealed_to(tpm)
        with open_tpm(elsewhere.tcti) as other, pytest.raises(SealedElsewhere):
            open_sealed(other, sealed)

    def test_secret_of_another_boot_does_not(self, tpm: Tpm):
        sealed = sealed_to(tpm)
        tpm.extend(11, {HashAlg.SHA256: b"\1" * 32})
        with pytest.raises(WrongBootState):
            open_sealed(tpm, sealed)

    @pytest.mark.parametrize(
        "change",
        [{"name": "other"}, {"version": 2}, {"nonce": bytes(12)}, {"ciphertext": bytes(40)}],
        ids=str,
    )
    def test_secret_under_another_name_version_or_payload_does_not(self, tpm: Tpm, change):
        with pytest.raises(AlteredSecret):
            open_sealed(tpm, msgspec.structs.replace(sealed_to(tpm), **change))

    def test_unknown_bank_is_malformed(self, tpm: Tpm):
        with pytest.raises(FormatError):
            open_sealed(tpm, msgspec.structs.replace(sealed_to(tpm), bank="sm3"))

    def test_copy_of_the_sealed_secret_opens_later(self, tpm: Tpm, tmp_path):
        copy_sealed(tmp_path / "copy", sealed_to(tpm, b"one"))
        copy_sealed(tmp_path / "copy", sealed_to(tpm, b"two"))
        lines = (tmp_path / "copy").read_bytes().splitlines()
        copies = [msgspec.json.decode(line, type=SealedSecret) for line in lines]
        assert [open_sealed(tpm, copy) for copy in copies] == [b"one", b"two"]
        assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o600


SEALED = SealedSecret(
    name="n",
    version=1,
    bank="sha256",
    pcrs=(0,),
    public=b"p",
    duplicate=b"d",
    seed=b"s",
    nonce=bytes(12),
    ciphertext=b"c" * 100,
)


def test_sealed_copy_goes_to_a_character_device():
    ours, theirs = pty.openpty()
    try:
        copy_sealed(Path(os.ttyname(theirs)), SEALED)
        assert msgspec.json.decode(os.read(ours, 65536).rstrip(), type=SealedSecret) == SEALED
    finally:
        os.close(ours)
        os.close(theirs)


def test_sealed_copy_that_nobody_takes_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DeliveryFailed):
        copy_sealed(tmp_path / "pipe", SEALED)


def test_sealed_copy_to_a_full_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        huge = msgspec.structs.replace(SEALED, ciphertext=bytes(1_000_000))
        with pytest.raises(DeliveryFailed):
            copy_sealed(tmp_path / "pipe", huge)
    finally:
        os.close(reader)
