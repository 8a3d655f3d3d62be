from __future__ import annotations

import os
import shutil
import stat

import pytest

from catena.audit.folder import LogInUse
from catena.audit.past import LogRewound
from catena.errors import LogInconsistent
from catena.keys import hierarchy
from catena.keys.signer import ExposedKey, MissingKey, UnusableKey, WrongPassphrase
from catena.server.config import BadConfig, Config, NoServerFolder, load, render, split_address
from catena.server.folder import BadRoot, UnrememberedLog, open_server
from catena.server.founding import FolderUnwritable, ServerExists, Sources, init
from catena.server.tls import BadServerName, parse_name
from catena.service.bearer import token_hash
from catena.store.errors import DatabaseMissing
from service.fixtures import START, make_server, put_secret


def reopen(server, **_):
    server.opened.close()
    return open_server(server.folder, now=server.clock, random=os.urandom)


def edit(server, old: str, new: str) -> None:
    path = server.folder / "server.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_everything_secret_is_for_its_owner_alone(server):
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
    for name in ("nonce.key", "storage.key", "tls.key", "catena.db"):
        assert stat.S_IMODE((server.folder / name).stat().st_mode) == 0o600, name


def test_the_admin_token_is_kept_only_as_a_hash_and_its_making_is_logged(server):
    for path in server.folder.rglob("*"):
        assert path.is_dir() or server.token.encode() not in path.read_bytes(), path
    (entry,) = server.entries()
    assert (entry.kind, entry.token_sha256) == ("admin-token", token_hash(server.token))


def test_an_existing_folder_is_never_made_over(server, keys):
    before = (server.folder / "nonce.key").read_bytes()
    with pytest.raises(ServerExists):
        make_server(server.folder, keys)
    assert (server.folder / "nonce.key").read_bytes() == before


def test_a_failed_init_leaves_nothing_behind(tmp_path, keys):
    with pytest.raises(BadRoot):
        make_server(tmp_path / "new", keys, ("software=/no/such/file",))
    with pytest.raises(FolderUnwritable):
        make_server(tmp_path / "no/such/parent", keys)
    assert list(tmp_path.iterdir()) == []


def test_encrypted_keys_need_their_passphrase_at_each_start(tmp_path):
    keys = hierarchy.init(
        tmp_path / "keys", organisation="Acme", now=START, passphrase=b"open sesame"
    )
    with pytest.raises(WrongPassphrase):
        make_server(tmp_path / "without", hierarchy.open_folder(keys.path))
    secret = tmp_path / "passphrase"
    secret.write_bytes(b"open sesame\n")
    secret.chmod(0o600)
    server = make_server(tmp_path / "with", keys, passphrase_file=str(secret))
    secret.chmod(0o644)
    with pytest.raises(ExposedKey):
        reopen(server)


def test_settings_survive_being_written_and_read(server):
    config = load(server.folder)
    assert config.trust_domain == "acme.example"
    assert config.mode == "approve"
    text = render(config)
    for name in Config.__struct_fields__:
        assert name in text, name


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('mode = "approve"', 'mode = "trust-everyone"'),
        ("interval = 30", "interval = 0"),
        ("container_indices = []", "container_indices = [15]"),
        ("container_indices = []", "container_indices = [0x01800f00, 0x01800f00]"),
        (
            "container_indices = []",
            f"container_indices = {[0x01800F00 + n for n in range(5)]}",
        ),
        ("interval = 30", "intervall = 30"),
        ("interval = 30", "interval = "),
        ('trust_domain = "acme.example"', 'trust_domain = "a/b"'),
    ],
)
def test_a_wrong_setting_is_refused(server, old, new):
    edit(server, old, new)
    with pytest.raises(BadConfig):
        reopen(server)


def test_a_folder_without_a_server_is_refused(tmp_path):
    with pytest.raises(NoServerFolder):
        open_server(tmp_path, now=lambda: START, random=os.urandom)


@pytest.mark.parametrize("name", ["nonce.key", "storage.key"])
def test_missing_exposed_and_damaged_keys_are_told_apart(server, name):
    path = server.folder / name
    path.chmod(0o640)
    with pytest.raises(ExposedKey):
        reopen(server)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(UnusableKey):
        reopen(server)
    path.unlink()
    with pytest.raises(MissingKey):
        reopen(server)


def test_a_missing_ca_key_stops_the_start(server):
    edit(server, "/ca.key", "/no.key")
    with pytest.raises(MissingKey):
        reopen(server)


def test_a_missing_database_is_not_made_anew(server):
    server.opened.close()
    (server.folder / "catena.db").unlink()
    with pytest.raises(DatabaseMissing):
        reopen(server)


def test_a_policy_beside_the_log_is_no_setting(server):
    """Policies are signed, versioned and logged: there is no file that would go around that."""
    settings = server.folder / "server.toml"
    settings.write_text('policy = "policy.cel"\n' + settings.read_text())
    with pytest.raises(BadConfig):
        reopen(server)


def test_a_log_rewound_to_an_older_checkpoint_stops_the_start(server, tmp_path):
    put_secret(server.service, "a", "web")
    shutil.copytree(server.folder / "log", tmp_path / "older")
    put_secret(server.service, "b", "web")
    server.opened.close()
    shutil.rmtree(server.folder / "log")
    shutil.copytree(tmp_path / "older", server.folder / "log")
    with pytest.raises(LogRewound):
        reopen(server)


def test_a_log_that_the_database_does_not_know_stops_the_start(server):
    edit(server, 'log_origin = "acme.example/log"', 'log_origin = "other.example/log"')
    with pytest.raises(UnrememberedLog):
        reopen(server)
    assert issubclass(UnrememberedLog, LogInconsistent)


def test_a_second_server_on_the_same_folder_is_refused(server):
    with pytest.raises(LogInUse):
        open_server(server.folder, now=server.clock, random=os.urandom)


@pytest.mark.parametrize("address", ["", "localhost", "localhost:", ":1", "localhost:x", "h:70000"])
def test_addresses_without_host_or_port_are_refused(address):
    with pytest.raises(BadConfig):
        split_address(address)


def test_addresses():
    assert split_address("127.0.0.1:0") == ("127.0.0.1", 0)
    assert split_address("[::1]:8440") == ("::1", 8440)


@pytest.mark.parametrize("name", ["", "a b", "UPPER", "-a", "a..b", "a\n", "a/b", "x" * 254])
def test_names_that_no_certificate_should_carry_are_refused(name):
    with pytest.raises(BadServerName):
        parse_name(name)


def test_sources_do_not_hold_the_token():
    assert "token" not in Sources.__dataclass_fields__
    assert init.__doc__
