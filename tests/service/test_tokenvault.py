"""Storage keys on a PKCS #11 token, with SoftHSM as the token."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

from catena.errors import FormatError
from catena.keys.signer import UnusableKey
from catena.server.checkup import check
from catena.server.storagekeys import STORAGE_KEY, make_storage_key, name_storage_key
from catena.service.rekeying import UnknownKek
from catena.service.tokenvault import TokenVault
from catena.service.vault import KekUnusable, UnreadableSecret
from service.fixtures import PASSWORD, Server, listed, put_secret
from service.revocable import *  # noqa: F403 - fixtures
from service.test_rekeying import KILLED, filled, keks, read, rekey  # noqa: F401 - a fixture
from softhsm import *  # noqa: F403 - fixtures
from softhsm import PIN, needs_softhsm
from swtpm import needs_swtpm

pytestmark = needs_softhsm


def kek_of(path) -> str:
    return path.stem.removeprefix("storage-")


def to_token(server: Server, uri: str) -> str:
    kek = kek_of(name_storage_key(server.folder, uri))
    rekey(server, kek)
    return kek


@pytest.fixture
def vault(softhsm) -> TokenVault:
    return TokenVault(softhsm.uri("kek"))


@pytest.mark.parametrize("size", [0, 1, 70_000])
def test_a_locked_secret_unlocks_and_another_session_unlocks_it_too(softhsm, vault, size):
    value = os.urandom(size)
    nonce, ciphertext = vault.lock("db", 1, value, os.urandom)
    assert vault.unlock("db", 1, nonce, ciphertext) == value
    assert TokenVault(softhsm.uri("kek")).unlock("db", 1, nonce, ciphertext) == value


@pytest.mark.parametrize(("name", "version"), [("db2", 1), ("db", 2), ("db\n1", 1)])
def test_a_row_moved_to_another_name_or_version_does_not_unlock(vault, name, version):
    nonce, ciphertext = vault.lock("db", 1, PASSWORD, os.urandom)
    with pytest.raises(UnreadableSecret):
        vault.unlock(name, version, nonce, ciphertext)


def test_a_wrapped_key_under_another_value_does_not_unlock(vault):
    """Each layer is bound by itself: parts of two rows make none."""
    one, other = (vault.lock("db", version, PASSWORD, os.urandom) for version in (1, 2))
    for nonce, head, tail in ((one[0], other, one), (one[0], one, other), (other[0], one, one)):
        with pytest.raises(UnreadableSecret):
            vault.unlock("db", 1, nonce, head[1][:60] + tail[1][60:])


def test_a_damaged_row_does_not_unlock_and_the_token_goes_on(vault):
    nonce, ciphertext = vault.lock("db", 1, PASSWORD, os.urandom)
    for at in (0, 11, 12, 43, 44, 59, 60, len(ciphertext) - 1):
        for damaged in (
            ciphertext[:at],
            ciphertext[:at] + bytes([ciphertext[at] ^ 1]) + ciphertext[at + 1 :],
        ):
            with pytest.raises(UnreadableSecret):
                vault.unlock("db", 1, nonce, damaged)
    assert vault.unlock("db", 1, nonce, ciphertext) == PASSWORD


def test_another_key_of_the_token_does_not_unlock(softhsm, vault):
    nonce, ciphertext = vault.lock("db", 1, PASSWORD, os.urandom)
    other = TokenVault(softhsm.uri("kek2"))
    assert other.id != vault.id
    with pytest.raises(UnreadableSecret):
        other.unlock("db", 1, nonce, ciphertext)


def test_a_session_that_ended_is_opened_again(vault):
    nonce, ciphertext = vault.lock("db", 1, PASSWORD, os.urandom)
    vault._open[0].close()
    assert vault.unlock("db", 1, nonce, ciphertext) == PASSWORD


@pytest.mark.parametrize("name", ["kek128", "loose", "rsa", "another"])
def test_a_key_of_another_kind_or_one_that_can_be_taken_out_is_no_storage_key(softhsm, name):
    with pytest.raises(KekUnusable) as caught:
        _ = TokenVault(softhsm.uri(name)).digest
    assert caught.value.got == (
        "pkcs11-key-missing" if name in {"rsa", "another"} else UnusableKey.code
    )
    assert caught.value.code == "kek-unusable"


def test_neither_uri_nor_pin_is_shown(vault):
    assert vault.digest
    assert "pkcs11:" not in repr(vault)
    assert PIN not in repr(vault)


def test_from_file_to_token_to_another_and_back(filled, softhsm):  # noqa: F811 - the fixture
    for name in ("kek", "kek2"):
        kek = to_token(filled, softhsm.uri(name))
        assert keks(filled) == {kek}
        filled.reopen()
        assert read(filled, "s7") == PASSWORD + b"7"
        put_secret(filled.service, "s8", "web", PASSWORD + b"8")
    assert (filled.folder / f"storage-{kek}.key").stat().st_mode & 0o777 == 0o600
    back = kek_of(make_storage_key(filled.folder, os.urandom))
    assert rekey(filled, back).ended == (kek,)
    (filled.folder / STORAGE_KEY).unlink()
    for path in filled.folder.glob("storage-*.key"):
        if kek_of(path) != back:
            path.unlink()
    filled.reopen()
    assert read(filled, "s7") == PASSWORD + b"7"
    added = [one for one in filled.entries() if one.kind == "key-change" and one.action == "added"]
    assert [one.key_sha256[:16] for one in added][1:] == [kek, back]


@pytest.mark.parametrize("step", [*range(0, 24, 4)])
def test_killed_at_any_step_it_goes_on(filled, softhsm, step):  # noqa: F811 - the fixture
    kek = kek_of(name_storage_key(filled.folder, softhsm.uri("kek")))
    filled.opened.close()
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(filled.folder), kek, str(step)]
    done = subprocess.run([*command, filled.clock().isoformat()], timeout=120, check=False)
    assert done.returncode in (-signal.SIGKILL, 0)
    filled.reopen()
    rekey(filled, kek)
    assert keks(filled) == {kek}
    assert read(filled, "s3") == PASSWORD + b"3"


def test_a_token_that_is_not_there_is_found_by_the_check_and_by_whoever_needs_it(server, softhsm):
    put_secret(server.service, "db", "web")
    kek = to_token(server, softhsm.uri("kek"))
    file = server.folder / f"storage-{kek}.key"
    assert check(server.folder, server.clock()).exit_code == 0
    file.write_text(softhsm.uri("kek", token="another"))
    (finding,) = (
        one for one in check(server.folder, server.clock()).findings if one.severity == "error"
    )
    assert (finding.code, finding.got) == ("kek-unusable", "pkcs11-token-missing")
    server.reopen()
    with pytest.raises(KekUnusable):
        read(server, "db")
    with pytest.raises(KekUnusable):
        put_secret(server.service, "new", "web")
    file.write_text(softhsm.uri("kek"))
    server.reopen()
    assert read(server, "db") == PASSWORD


def test_another_key_under_the_name_of_the_first_is_refused(server, softhsm):
    put_secret(server.service, "db", "web")
    kek = to_token(server, softhsm.uri("kek"))
    (server.folder / f"storage-{kek}.key").write_text(softhsm.uri("kek2"))
    server.reopen()
    with pytest.raises(KekUnusable):
        read(server, "db")


def test_a_first_storage_key_may_be_on_a_token_and_may_be_away(server, softhsm):
    first = server.folder / STORAGE_KEY
    first.write_text(softhsm.uri("kek", token="another") + "\n")
    server.reopen()
    with pytest.raises(KekUnusable):
        put_secret(server.service, "db", "web")
    with pytest.raises(KekUnusable):  # it may be the one: who knows
        rekey(server, "0" * 16)
    first.write_text(softhsm.uri("kek") + "\n")
    put_secret(server.service, "db", "web")
    assert read(server, "db") == PASSWORD
    with pytest.raises(UnknownKek):
        rekey(server, "0" * 16)


def test_a_file_that_names_no_key_stops_the_server(server):
    (server.folder / STORAGE_KEY).write_text("pkcs11:token=t;object=k?pin-value=1234")
    with pytest.raises(FormatError):
        server.reopen()


GONE = """
    import os, sys
    from pathlib import Path
    from catena.service.tokenvault import TokenVault
    from catena.service.vault import KekUnusable

    vault = TokenVault(sys.argv[1])
    locked = vault.lock("db", 1, b"value", os.urandom)
    Path(sys.argv[2]).rename(sys.argv[2] + "-gone")
    for act in (lambda: vault.unlock("db", 1, *locked), lambda: vault.lock("db", 2, b"", os.urandom)):
        try:
            act()
        except KekUnusable as error:
            print(error.code)
"""


def test_a_token_that_is_pulled_is_told(softhsm, tmp_path):
    """In a process of its own: SoftHSM never finds it again."""
    shutil.copytree(softhsm.folder / "tokens", tmp_path / "tokens")
    config = tmp_path / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {tmp_path / 'tokens'}\nobjectstore.backend = file\n")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(GONE), softhsm.uri("kek"), str(tmp_path / "tokens")],
        env={**os.environ, "SOFTHSM2_CONF": str(config)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["kek-unusable", "kek-unusable"]


@needs_swtpm
@pytest.mark.tpm
def test_without_the_token_nodes_without_secrets_attest_and_others_get_nothing(
    replicas, machine, softhsm
):
    first, _ = replicas
    kek = to_token(first, softhsm.uri("kek"))
    first.clock.pass_(1)
    (sealed,) = machine.attest(first.call).secrets
    assert machine.open(sealed) == PASSWORD
    (first.folder / f"storage-{kek}.key").write_text(softhsm.uri("kek", token="another"))
    first.reopen()
    first.clock.pass_(1)
    with pytest.raises(KekUnusable):
        machine.attest(first.call)
    for one in listed(first.service.secrets):
        first.service.secrets.remove(one.name, "alice")
    first.clock.pass_(1)
    given = machine.attest(first.call)
    assert given.certificate
    assert not given.secrets
