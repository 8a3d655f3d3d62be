"""A log ends and another goes on: whatever stops it, and whoever still writes to the old one."""

from __future__ import annotations

import json
import os
import re
import shutil
from datetime import UTC, datetime

import pytest

from catena.audit.entries import KeyChanged, LogContinues, LogEnded
from catena.audit.folder import LogExists, LogInUse
from catena.audit.storage import LogAtItsEnd
from catena.audit.verify import verify_folder
from catena.cli.main import run
from catena.errors import ExitCode
from catena.keys.signer import KeyAlgorithm, generate_key, key_id_of, load_signer, write_key
from catena.server import config as settings
from catena.server import rotation, tomlplace
from catena.server.checkup import check
from catena.server.folder import open_server
from catena.server.founding import Sources, init
from catena.server.rotation import (
    AnotherRotation,
    LogKeepsItsName,
    SettingsUnchangeable,
    Successor,
    rotate,
)
from catena.service.endorsements import TamperedEndorsement
from catena.service.journal import Journal
from catena.service.keys import note_keys
from catena.service.views import PcrPolicyRequest
from service.fixtures import listed, make_server, put_secret
from service.vendor import Authority, request
from softhsm import *  # noqa: F403 - fixtures
from softhsm import needs_softhsm

ORIGIN = "acme.example/log/2"


def now():
    return datetime.now(UTC)


def rotated(folder, origin=ORIGIN, log="log-2", key=None):
    key = settings.load(folder).log_key if key is None else str(key)
    return rotate(folder, Successor(origin, log, key), now=now, random=os.urandom)


def entries(folder, key):
    found = []
    verify_folder(folder, key, visit=found.append)
    return [one.entry for one in found]


@pytest.fixture
def stopped(server):
    """A server with some entries that does not run; its fixture closes it once more."""
    put_secret(server.service, "db", "web")
    server.opened.close()
    return server


@pytest.fixture
def old_key(keys):
    return load_signer(keys.path / "log.key").public_key


@pytest.fixture
def new_key(tmp_path):
    write_key(tmp_path / "log-2.key", generate_key(KeyAlgorithm.ED25519))
    return tmp_path / "log-2.key"


def test_the_old_log_ends_and_the_new_one_goes_on(stopped, old_key, new_key):
    done = rotated(stopped.folder, key=new_key)
    new = load_signer(new_key).public_key
    last = entries(stopped.folder / "log", old_key)[-1]
    assert isinstance(last, LogEnded)
    assert (last.origin, last.log_key_sha256) == (ORIGIN, key_id_of(new))
    (first,) = entries(stopped.folder / "log-2", new)
    assert isinstance(first, LogContinues)
    assert (first.origin, first.tree_size) == ("acme.example/log", done.ended.size)
    assert first.root_sha256 == done.ended.root.hex()
    assert first.log_key_sha256 == key_id_of(old_key)
    opened = open_server(stopped.folder, now=now, random=os.urandom)
    put_secret(opened.service, "db", "web")
    assert opened.log.origin == ORIGIN
    assert [one.version for one in listed(opened.service.secrets)] == [2]
    opened.close()


def test_what_the_server_signed_with_the_old_key_still_counts(server, old_key, tmp_path):
    root = Authority("Acme TPM Root CA")
    server.service.endorsements.accept(request(root.der), "alice")
    content = b'{"8": {"asciivalues": [{"prefix": "grub_cmd", "values": [{"value": "set .+"}]}]}}'
    policy = PcrPolicyRequest(name="flatcar", version="1", content=content)
    server.service.references.accept_policy(policy, "alice")
    for number in (2, 3):
        server.opened.close()
        write_key(tmp_path / f"log-{number}.key", generate_key(KeyAlgorithm.ED25519))
        rotated(
            server.folder,
            origin=f"acme.example/log/{number}",
            log=f"log-{number}",
            key=tmp_path / f"log-{number}.key",
        )
        assert not [one for one in check(server.folder, now()).findings if one.severity == "error"]
        server.reopen()
        assert [one.name for one in listed(server.service.endorsements)] == ["acme-tpm-root-ca"]
        assert [one.name for one in listed(server.service.references)] == ["flatcar"]
    assert len(server.opened.config.former_log_keys) == 2
    changes = {(one.action, one.key, one.key_sha256) for one in note_keys(server.service.setting)}
    assert ("added", "former-log", key_id_of(old_key)) in changes


def test_a_former_key_that_is_taken_out_counts_no_more(server, new_key):
    server.service.endorsements.accept(request(Authority("Acme TPM Root CA").der), "alice")
    server.opened.close()
    rotated(server.folder, key=new_key)
    path = server.folder / "server.toml"
    (name,) = settings.load(server.folder).former_log_keys
    path.write_text(path.read_text().replace(f'"{name}"', ""))
    server.reopen()
    with pytest.raises(TamperedEndorsement):
        listed(server.service.endorsements)


@needs_softhsm
def test_a_log_goes_on_with_a_key_on_a_token_and_back(server, softhsm, new_key):
    server.opened.close()
    rotated(server.folder, key=softhsm.uri("ed25519"))
    rotated(server.folder, origin="acme.example/log/3", log="log-3", key=new_key)
    server.reopen()
    put_secret(server.service, "db", "web")
    assert len(server.opened.config.former_log_keys) == 2


def test_what_else_the_settings_say_stays(stopped):
    path = stopped.folder / "server.toml"
    text = "# by hand\n" + path.read_text().replace('log = "log"\n', "")
    path.write_text(text)
    rotated(stopped.folder)
    changed = path.read_text()
    assert changed.startswith("# by hand\n")
    lines = set(changed.splitlines()) - set(text.splitlines())
    assert lines == {'log = "log-2"', f'log_origin = "{ORIGIN}"'}


STEPS = {
    "before anything": (rotation._Rotation, "_say", 0),
    "once the database says it": (Journal, "record", 0),
    "once the old log has ended": (rotation._Rotation, "_made", 0),
    "once the new log is made": (Journal, "record", 1),
}


@pytest.mark.parametrize("step", STEPS)
def test_whatever_stops_it_the_same_call_finishes_it(stopped, old_key, monkeypatch, step):
    owner, name, after = STEPS[step]
    real = getattr(owner, name)
    calls = []

    def stop(*arguments):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(name)
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, stop)
        with pytest.raises(KeyboardInterrupt):
            rotated(stopped.folder)
    if step != "before anything":
        with pytest.raises(LogAtItsEnd):
            open_server(stopped.folder, now=now, random=os.urandom)
    rotated(stopped.folder)
    before, after = (entries(stopped.folder / name, old_key) for name in ("log", "log-2"))
    assert [one.kind for one in before].count("log-rotation") == 1
    assert before[-1].kind == "log-rotation"
    assert [one.kind for one in after] == ["log-continuation"]
    open_server(stopped.folder, now=now, random=os.urandom).close()


def test_stopped_before_the_settings_it_is_finished_later(stopped, monkeypatch, old_key):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rotation, "replace_file", stop)
        with pytest.raises(KeyboardInterrupt):
            rotated(stopped.folder)
    with pytest.raises(AnotherRotation, match=re.escape(ORIGIN)):
        rotated(stopped.folder, "acme.example/log/3", "log-3")
    assert not (stopped.folder / "log-3").exists()
    rotated(stopped.folder)
    assert [one.kind for one in entries(stopped.folder / "log-2", old_key)] == ["log-continuation"]


def test_a_running_server_keeps_its_log(server):
    with pytest.raises(LogInUse):
        rotated(server.folder)
    put_secret(server.service, "db", "web")


def test_an_ended_log_takes_no_server(stopped):
    text = (stopped.folder / "server.toml").read_text()
    rotated(stopped.folder)
    (stopped.folder / "server.toml").write_text(text)
    with pytest.raises(LogAtItsEnd) as caught:
        open_server(stopped.folder, now=now, random=os.urandom)
    assert ORIGIN in str(caught.value.got)
    assert "log-at-its-end" in {one.code for one in check(stopped.folder, now()).findings}


def test_a_new_log_needs_a_name_of_its_own(stopped):
    with pytest.raises(LogKeepsItsName):
        rotated(stopped.folder, "acme.example/log")
    open_server(stopped.folder, now=now, random=os.urandom).close()


@pytest.mark.parametrize("place", ["log", "other"])
def test_the_place_of_another_log_is_left_alone(stopped, tmp_path, keys, place):
    if place == "other":
        other = make_server(tmp_path / "another", keys)
        other.opened.close()
        shutil.copytree(tmp_path / "another/log", stopped.folder / "other")
    before = sorted(path.read_bytes() for path in (stopped.folder / place).rglob("checkpoint"))
    with pytest.raises(LogExists):
        rotated(stopped.folder, log=place)
    if place == "other":
        assert before == [(stopped.folder / "other/checkpoint").read_bytes()]
    rotated(stopped.folder)  # elsewhere it is finished


def test_settings_that_do_not_become_what_they_should_are_refused_before_anything(
    stopped, monkeypatch
):
    monkeypatch.setattr(tomlplace, "with_string", lambda text, *_: text)
    with pytest.raises(SettingsUnchangeable):
        rotated(stopped.folder)
    open_server(stopped.folder, now=now, random=os.urandom).close()


def test_servers_of_one_database_are_fenced_and_follow(tmp_path, keys, postgresql, old_key):
    model = make_server(tmp_path / "model", keys)
    model.opened.close()
    config = model.opened.config
    config = type(config)(
        **{name: getattr(config, name) for name in config.__struct_fields__}
        | {"database": postgresql.new_database(), "log": "database:", "release_keys": ()}
    )
    first, second = tmp_path / "first", tmp_path / "second"
    init(first, Sources(keys=keys, config=config, now=now, random=os.urandom))
    shutil.copytree(first, second)
    running = open_server(second, now=now, random=os.urandom)
    put_secret(running.service, "a", "web")
    rotated(first, log="database:")
    size = running.log.size
    with pytest.raises(LogAtItsEnd):
        put_secret(running.service, "a", "web")
    assert [one.version for one in listed(running.service.secrets)] == [1]
    running.close()
    rotated(second, log="database:")  # finds it done, and changes the settings
    servers = [open_server(folder, now=now, random=os.urandom) for folder in (first, second)]
    for server in servers:
        put_secret(server.service, "a", "web")
    assert servers[1].log.size == 3
    assert size
    for server in servers:
        server.close()


def test_keys_that_change_are_in_the_log(stopped, old_key, new_key):
    opened = open_server(stopped.folder, now=now, random=os.urandom)
    told = note_keys(opened.service.setting)
    assert {(one.key, one.action) for one in told} == {
        ("cluster-ca", "added"),
        ("log", "added"),
        ("release", "added"),
    }
    assert note_keys(opened.service.setting) == ()
    opened.close()
    rotated(stopped.folder, key=new_key)
    opened = open_server(stopped.folder, now=now, random=os.urandom)
    note_keys(opened.service.setting)
    new = load_signer(new_key).public_key
    changed = [one for one in entries(stopped.folder / "log-2", new) if type(one) is KeyChanged]
    found = {(one.key, one.action): one.key_sha256 for one in changed}
    assert found == {
        ("log", "removed"): key_id_of(old_key),
        ("former-log", "added"): key_id_of(old_key),
        ("log", "added"): key_id_of(new),
    }
    opened.close()


@pytest.fixture
def pems(stopped, keys, new_key, tmp_path):
    """A rotated server's logs with their public keys."""
    from catena.keys.signer import public_pem

    rotated(stopped.folder, key=new_key)
    path = tmp_path / "log-2.pub"
    path.write_bytes(public_pem(load_signer(new_key).public_key))
    return stopped.folder / "log", stopped.folder / "log-2", keys.path / "log.pub", path


def chain(*words):
    return run(["audit", "chain", *map(str, words)])


def test_a_chain_is_verified_as_one_history(pems, capsys):
    old, new, old_key, new_key = pems
    assert chain(old, new, "--key", old_key, "--key", new_key, "-o", "json") == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert [one["origin"] for one in told] == ["acme.example/log", ORIGIN]
    assert chain(new, "--key", new_key) == ExitCode.OK
    assert chain(old, new, "--key", old_key) == ExitCode.LOG_INCONSISTENT  # another's key
    assert chain(old, "--key", old_key, "--key", new_key) == ExitCode.USAGE


def test_logs_that_do_not_follow_each_other_are_refused(pems, tmp_path, keys, capsys):
    old, new, old_key, new_key = pems
    other = make_server(tmp_path / "other", keys)
    other.opened.close()
    for words in (
        (new, old, "--key", new_key, "--key", old_key),
        (other.folder / "log", new, "--key", old_key, "--key", new_key),
        (old, other.folder / "log", "--key", old_key),
        (old, old, "--key", old_key),
    ):
        assert chain(*words) == ExitCode.LOG_INCONSISTENT
        assert "log-unlinked" in capsys.readouterr().err


def test_the_command_says_what_became_of_it(stopped, capsys):
    words = ["server", "rotate-log", str(stopped.folder), "--origin", ORIGIN, "--log", "log-2"]
    assert run([*words, "-o", "json"]) == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert (told["ended_origin"], told["origin"]) == ("acme.example/log", ORIGIN)
    assert run(words) == ExitCode.USAGE
    assert "log-keeps-its-name" in capsys.readouterr().err
